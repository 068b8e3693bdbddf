//! Compares a file whose written pages are in memory with a model.

use std::fs::{self, File};

use proptest::prelude::*;
use redb::StorageBackend;

use crate::read_only::Overlay;

/// A call for the file.
#[derive(Clone, Debug)]
enum Call {
    Write(u64, Vec<u8>),
    SetLen(u64),
}

fn calls() -> impl Strategy<Value = Vec<Call>> {
    let bytes = proptest::collection::vec(any::<u8>(), 0..9_000);
    let write = (0..20_000_u64, bytes).prop_map(|(at, bytes)| Call::Write(at, bytes));
    let len = (0..20_000_u64).prop_map(Call::SetLen);
    proptest::collection::vec(prop_oneof![2 => write, 1 => len], 0..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn writes_are_read_again_and_leave_the_file(len in 0..15_000_usize, calls in calls()) {
        let mut model: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        let path = std::env::temp_dir().join(format!("mqtt-store-overlay-{}", std::process::id()));
        fs::write(&path, &model).unwrap();
        let overlay = Overlay::new(File::open(&path).unwrap()).unwrap();
        for call in calls {
            match call {
                Call::SetLen(len) => {
                    model.resize(usize::try_from(len).unwrap(), 0);
                    overlay.set_len(len).unwrap();
                }
                Call::Write(at, bytes) => {
                    let at_model = usize::try_from(at).unwrap();
                    let written = overlay.write(at, &bytes);
                    match model.get_mut(at_model..at_model + bytes.len()) {
                        Some(part) => {
                            part.copy_from_slice(&bytes);
                            written.unwrap();
                        }
                        None => prop_assert!(written.is_err()),
                    }
                }
            }
            prop_assert_eq!(overlay.len().unwrap(), u64::try_from(model.len()).unwrap());
            let mut all = vec![1; model.len()];
            overlay.read(0, &mut all).unwrap();
            prop_assert!(all == model);
            let behind = u64::try_from(model.len()).unwrap();
            prop_assert!(overlay.read(behind, &mut [0]).is_err());
        }
        let file: Vec<u8> = (0..len).map(|n| (n % 251) as u8).collect();
        prop_assert!(fs::read(&path).unwrap() == file);
        fs::remove_file(&path).unwrap();
    }
}
