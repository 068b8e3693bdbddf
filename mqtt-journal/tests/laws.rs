//! Checks that any bytes decode to records or a fault, and that a decoded record encodes to the same bytes.

use mqtt_journal::{Entry, Record, Records, broker};
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_give_records_or_a_fault(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
        let mut written = Vec::new();
        let mut records = Records::new(&bytes);
        for record in records.by_ref().map_while(Result::ok) {
            let mut again = vec![0; record.encoded_len().unwrap()];
            prop_assert_eq!(record.write(&mut again), Some(again.len()));
            if let Ok(Some(entry)) = Entry::read(&record) {
                let mut as_entry = vec![0; again.len()];
                prop_assert_eq!(entry.write(&mut as_entry), Some(as_entry.len()));
                prop_assert_eq!(&as_entry, &again);
            }
            written.append(&mut again);
        }
        prop_assert_eq!(&written, &bytes[..records.consumed()]);
    }

    #[test]
    fn any_value_of_a_known_kind_is_read_or_refused(
        kind in 0_u8..4,
        key in proptest::collection::vec(0_u8..3, 0..9),
        value in proptest::option::of(proptest::collection::vec(0_u8..6, 0..24)),
    ) {
        let record = Record {
            kind: mqtt_journal::Kind::new(kind),
            key: &key,
            value: value.as_deref(),
        };
        if let Ok(Some(entry)) = Entry::read(&record) {
            let mut bytes = vec![0; entry.encoded_len().unwrap()];
            prop_assert_eq!(entry.write(&mut bytes), Some(bytes.len()));
            prop_assert_eq!(Record::read(&bytes), Ok(Some((record, bytes.len()))));
        }
    }

    #[test]
    fn any_value_of_a_kind_of_the_broker_is_read_or_refused(
        kind in 15_u8..24,
        key in proptest::collection::vec(0_u8..3, 0..18),
        value in proptest::option::of(proptest::collection::vec(0_u8..6, 0..60)),
    ) {
        let record = Record {
            kind: mqtt_journal::Kind::new(kind),
            key: &key,
            value: value.as_deref(),
        };
        if let Ok(Some(entry)) = broker::Entry::read(&record) {
            let mut bytes = vec![0; entry.encoded_len().unwrap()];
            prop_assert_eq!(entry.write(&mut bytes), Some(bytes.len()));
            prop_assert_eq!(Record::read(&bytes), Ok(Some((record, bytes.len()))));
        }
    }
}
