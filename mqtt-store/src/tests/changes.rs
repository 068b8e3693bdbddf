//! Tests how records are combined into the changes of one transaction.

use std::collections::BTreeMap;

use mqtt_journal::{Kind, Record};

use super::Numbers;
use crate::changes::Changes;

/// A kind whose keys are put only once.
const ONCE: Kind = Kind::new(21);

type Entries = BTreeMap<(Kind, Vec<u8>), Vec<u8>>;

fn apply<'a>(
    entries: &mut Entries,
    changes: impl Iterator<Item = (Kind, &'a [u8], Option<&'a [u8]>)>,
) {
    for (kind, key, value) in changes {
        let key = (kind, key.to_vec());
        match value {
            Some(value) => entries.insert(key, value.to_vec()),
            None => entries.remove(&key),
        };
    }
}

/// Keys of different lengths, of which some are the front of others.
fn key(numbers: &mut Numbers) -> Vec<u8> {
    let len = [0, 1, 8, 15, 16, 20][numbers.below(6)];
    let mut key = vec![0; len];
    if let Some(last) = key.last_mut() {
        *last = u8::try_from(numbers.below(3)).unwrap();
    }
    key
}

#[test]
fn changes_have_the_result_of_the_records_and_their_order() {
    let mut numbers = Numbers(1);
    let (mut entries, mut expected, mut next) = (Entries::new(), Entries::new(), 0_u64);
    for _ in 0..300 {
        // Keys of the other kind are put in ascending order, and each is deleted later or never.
        let mut list: Vec<(Kind, Vec<u8>, Option<Vec<u8>>)> = Vec::new();
        for _ in 0..numbers.below(30) {
            let value = Some(next.to_be_bytes().to_vec());
            match numbers.below(4) {
                0 => list.push((Kind::new(2), key(&mut numbers), value)),
                1 => list.push((Kind::new(2), key(&mut numbers), None)),
                2 => {
                    list.push((ONCE, next.to_be_bytes().to_vec(), value));
                    next += 1;
                }
                _ => {
                    let old = u64::try_from(numbers.below(8)).unwrap();
                    let old = next.saturating_sub(1 + old);
                    list.push((ONCE, old.to_be_bytes().to_vec(), None));
                }
            }
        }
        let records: Vec<_> = list
            .iter()
            .map(|(kind, key, value)| Record {
                kind: *kind,
                key,
                value: value.as_deref(),
            })
            .collect();
        apply(
            &mut expected,
            records
                .iter()
                .map(|record| (record.kind, record.key, record.value)),
        );
        let changes = Changes::of(&records);
        let keys: Vec<_> = changes.iter().map(|(kind, key, _)| (kind, key)).collect();
        assert!(keys.is_sorted_by(|a, b| a < b), "{keys:?}");
        apply(&mut entries, changes.iter());
        assert_eq!(entries, expected);
    }
    assert!(expected.len() > 20);
}

#[test]
fn only_a_key_that_is_put_once_and_in_the_same_transaction_needs_no_change() {
    let record = |kind, value| Record {
        kind,
        key: b"12345678",
        value,
    };
    let count = |records: &[Record<'_>]| Changes::of(records).iter().count();
    let (put, delete) = (record(ONCE, Some(b"1")), record(ONCE, None));
    assert_eq!(count(&[put, delete]), 0);
    assert_eq!(count(&[delete]), 1);
    let other = Kind::new(20);
    assert_eq!(count(&[record(other, Some(b"1")), record(other, None)]), 1);
    // The transaction with the put may have been stored although it failed.
    assert_eq!(Changes::of_repeated(&[put, delete]).iter().count(), 1);
}
