//! Tests the log: cut and changed bytes, missing files, transfers, and a disk that is full for the table only.

use std::collections::BTreeMap;

use mqtt_journal::{Kind, Record};
use proptest::prelude::*;

use super::disk::{Disk, LOG, TABLE};
use super::{Change, Model, Numbers, apply, commit, config, open, open_with, read};
use crate::engine::Engine;
use crate::error::Failure;

fn put(number: u8, len: usize) -> Change {
    (vec![number], Some(vec![number; len]))
}

/// Makes a store with this many transactions. Returns the disk and the content after each transaction.
fn lived(seed: u64, transactions: usize) -> (Disk, Vec<Model>) {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let (mut numbers, mut states) = (Numbers(seed), vec![Model::new()]);
    for _ in 0..transactions {
        let changes = numbers.changes();
        let mut state = states.last().unwrap().clone();
        apply(&mut state, &changes);
        states.push(state);
        commit(&mut engine, &changes).unwrap();
    }
    drop(engine);
    (disk, states)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// A changed byte of the log is found, or has no meaning.
    #[test]
    fn a_changed_byte_of_the_log_is_found(seed: u64, transactions in 1..12_usize, at in 0..16_usize, byte in 0..4096_usize) {
        let (disk, states) = lived(seed, transactions);
        // Most bytes of a block matter at its front.
        for byte in [byte, byte % 40] {
            let copy = disk.copy();
            copy.flip(LOG, at * 4096 + byte);
            match open(&copy).and_then(|mut engine| read(&mut engine)) {
                Ok(found) => prop_assert!(found == *states.last().unwrap()),
                Err(Failure::DamagedAt { .. }) => {}
                Err(failure) => prop_assert!(false, "{failure}"),
            }
        }
    }

    /// From any byte on, the log has other bytes: the content is that after a transaction.
    #[test]
    fn a_torn_end_of_the_log_is_its_end(seed: u64, transactions in 1..12_usize, last in any::<bool>()) {
        let (disk, states) = lived(seed, transactions);
        let mut engine = open(&disk).unwrap();
        prop_assert!(read(&mut engine).unwrap() == *states.last().unwrap());
        let now = disk.content(LOG);
        let change = Numbers(seed ^ 1).changes();
        let mut after = states.last().unwrap().clone();
        apply(&mut after, &change);
        commit(&mut engine, &change).unwrap();
        let written = disk.content(LOG);
        let from = now.iter().zip(&written).position(|(a, b)| a != b);
        let differ = |end: usize| now.iter().zip(&written).take(end).rposition(|(a, b)| a != b);
        let Some((from, end)) = from.zip(differ(written.len())) else { return Ok(()) };
        // The empty block behind the one with the change is written when that is flushed.
        let end = end / 4096 * 4096;
        let to = differ(end).unwrap();
        drop(engine);
        for cut in (from..=to).step_by(509).chain([to]) {
            let copy = disk.copy();
            let mut content = written.clone();
            // Only the front of the write arrived, or only its end.
            if last {
                content[from..cut].copy_from_slice(&now[from..cut]);
            } else {
                content[cut..=to].copy_from_slice(&now[cut..=to]);
            }
            copy.replace(LOG, content.clone());
            let is_whole = content[..end] == written[..end];
            let opened = open(&copy);
            let is_damage = matches!(opened, Err(Failure::DamagedAt { .. }));
            prop_assert!(is_whole || is_damage, "{opened:?}");
            // Without the empty block, the write was interrupted.
            content[end..].copy_from_slice(&now[end..]);
            copy.replace(LOG, content.clone());
            let mut opened = open(&copy).unwrap();
            let found = read(&mut opened).unwrap();
            prop_assert!(found == after || found == *states.last().unwrap());
            // The head names the bytes of the block.
            let has_head = content[from..from + 36] == written[from..from + 36] && written[from..].starts_with(b"MQL1");
            prop_assert!(opened.dropped > 0 || found == after || !has_head);
            // Changes may have no effect, so that the content is the same without them.
            prop_assert!(opened.dropped == 0 || found != after || after == *states.last().unwrap());
        }
    }
}

#[test]
fn entries_that_come_and_go_do_not_reach_the_table() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    for round in 0..200 {
        commit(&mut engine, &[put(round % 7, 900)]).unwrap();
        commit(&mut engine, &[(vec![round % 7], None)]).unwrap();
    }
    assert!(disk.len(TABLE) < 100_000);
    assert_eq!(read(&mut engine).unwrap(), Model::new());
    drop(engine);
    assert_eq!(read(&mut open(&disk).unwrap()).unwrap(), Model::new());
}

/// No deletions of such entries are left for the table.
#[test]
fn brief_entries_leave_nothing_behind() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let kept = vec![9, 1];
    commit(&mut engine, &[(kept.clone(), Some(vec![1; 9]))]).unwrap();
    engine.close().unwrap();
    let mut engine = open(&disk).unwrap();
    // The store reads the table before it writes.
    assert_eq!(read(&mut engine).unwrap().len(), 1);
    let table = disk.content(TABLE);
    for number in 0..2_000_u16 {
        let key = vec![number.to_be_bytes()[0], number.to_be_bytes()[1], 1];
        commit(&mut engine, &[(key.clone(), Some(vec![2; 20]))]).unwrap();
        commit(&mut engine, &[(key, None)]).unwrap();
    }
    assert!(disk.content(TABLE) == table);
    // One that the table has is deleted there.
    commit(&mut engine, &[(kept, None)]).unwrap();
    engine.close().unwrap();
    assert_eq!(read(&mut open(&disk).unwrap()).unwrap(), Model::new());
}

/// The few changes of a full log move into its other half.
#[test]
fn a_full_log_begins_anew_without_the_table() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let (table, mut model) = (disk.content(TABLE), Model::new());
    // A half has eight blocks.
    for round in 0..40 {
        let change = [put(round % 3, usize::from(round))];
        apply(&mut model, &change);
        commit(&mut engine, &change).unwrap();
    }
    assert!(disk.content(TABLE) == table);
    assert!(read(&mut engine).unwrap() == model);
    drop(engine);
    assert!(read(&mut open(&disk).unwrap()).unwrap() == model);
}

#[test]
fn changes_that_are_longer_than_the_log_go_into_the_table() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let changes = [put(1, 10), put(2, 100_000), put(3, 10)];
    for change in &changes {
        commit(&mut engine, std::slice::from_ref(change)).unwrap();
    }
    let mut model = Model::new();
    apply(&mut model, &changes);
    drop(engine);
    assert!(read(&mut open(&disk).unwrap()).unwrap() == model);
}

#[test]
fn a_missing_or_short_log_is_damage() {
    let (disk, _) = lived(1, 5);
    let short = disk.copy();
    let mut content = short.content(LOG);
    content.truncate(4096);
    short.replace(LOG, content);
    let text = |disk: &Disk| open(disk).unwrap_err().to_string();
    assert_eq!(
        text(&short),
        "the store is damaged at journal.log: the file has 4096 bytes"
    );
    disk.delete(LOG);
    assert_eq!(
        text(&disk),
        "the store is damaged at journal.log: the file is missing"
    );
}

#[test]
fn damage_in_the_log_is_told_with_its_place() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    for number in 0..5 {
        commit(&mut engine, &[put(number, 10)]).unwrap();
    }
    drop(engine);
    let copy = disk.copy();
    copy.flip(LOG, 2 * 4096 + 40);
    let text = open(&copy).unwrap_err().to_string();
    let wanted = "damaged at journal.log, byte 8192: here is no complete block, but a later one is at byte 20480";
    assert!(text.contains(wanted), "{text}");
}

/// The last blocks were flushed: damage of them is not taken for an interrupted write.
#[test]
fn damage_of_the_last_blocks_is_found() {
    for (blocks, damaged) in [(5, 1), (5, 2), (5, 4), (1, 1), (7, 1), (7, 3)] {
        let disk = Disk::default();
        let mut engine = open(&disk).unwrap();
        for number in 0..blocks {
            commit(&mut engine, &[put(number, 10)]).unwrap();
        }
        drop(engine);
        for byte in [5, 21, 33, 40] {
            let copy = disk.copy();
            for block in blocks - damaged..blocks {
                copy.flip(LOG, usize::from(block) * 4096 + byte);
            }
            let failure = open(&copy).err();
            let text = failure
                .map(|failure| failure.to_string())
                .unwrap_or_default();
            let first = usize::from(blocks - damaged) * 4096;
            assert!(
                text.contains(&format!("journal.log, byte {first}: ")),
                "{text}"
            );
        }
    }
}

/// Checks that a changed byte of the table is found, or has no meaning.
fn is_found_in_the_table(disk: &Disk, model: &Model) {
    let mut refused = 0;
    // More bytes matter at the front, where the transactions are named.
    for byte in (0..512)
        .step_by(3)
        .chain((512..disk.len(TABLE)).step_by(1031))
    {
        let copy = disk.copy();
        copy.flip(TABLE, byte);
        match open(&copy).and_then(|mut engine| read(&mut engine)) {
            Ok(found) => assert!(found == *model, "byte {byte}: {} entries", found.len()),
            Err(failure) => {
                assert!(failure.to_string().contains("is damaged"), "{failure}");
                refused += 1;
            }
        }
    }
    assert!(refused > 0);
}

/// redb returns to the transaction before the last one if that is damaged. The log tells that it lacks changes then.
#[test]
fn a_table_without_its_last_transaction_is_damage() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let (table, mut model) = (disk.content(TABLE), Model::new());
    let mut number = 0;
    while disk.content(TABLE) == table || number % 8 < 7 {
        let change = [put(number, 3000)];
        apply(&mut model, &change);
        commit(&mut engine, &change).unwrap();
        number += 1;
    }
    is_found_in_the_table(&disk, &model);
    // Such a transaction is the last one of the table, without the log.
    let long = [put(200, 100_000)];
    apply(&mut model, &long);
    commit(&mut engine, &long).unwrap();
    is_found_in_the_table(&disk, &model);
    let closed = disk.copy();
    open(&closed).unwrap().close().unwrap();
    is_found_in_the_table(&closed, &model);
    drop(engine);
    // A table that lost all of its transactions does not name its log.
    let mut none = config();
    none.log = 0;
    let new = Disk::default();
    drop(open_with(&new, &none).unwrap());
    disk.replace(TABLE, new.content(TABLE));
    assert_eq!(
        open(&disk).unwrap_err().to_string(),
        "the store is damaged at journal.log: it has changes, but journal.redb does not name it; put back the journal.redb that \
         belongs to it, or move journal.log away, which gives up the changes"
    );
}

#[test]
fn the_log_of_another_store_is_damage() {
    let ((disk, _), (other, _)) = (lived(1, 20), lived(1, 20));
    disk.replace(LOG, other.content(LOG));
    let failure = open(&disk).unwrap_err().to_string();
    assert!(failure.contains("of this store"), "{failure}");
}

#[test]
fn a_store_without_a_log_opens_and_gets_one() {
    let disk = Disk::default();
    let mut none = config();
    none.log = 0;
    let mut engine = open_with(&disk, &none).unwrap();
    commit(&mut engine, &[put(1, 10)]).unwrap();
    drop(engine);
    assert_eq!(disk.len(LOG), 0);
    let mut engine = open(&disk).unwrap();
    commit(&mut engine, &[put(2, 10)]).unwrap();
    assert!(disk.len(LOG) > 0);
    drop(engine);
    // The setting is for new logs.
    let mut engine = open_with(&disk, &none).unwrap();
    let mut model = Model::new();
    apply(&mut model, &[put(1, 10), put(2, 10)]);
    assert!(read(&mut engine).unwrap() == model);
}

/// A store that is full says so, and stores what the machine wrote before it was told, and what ends messages.
#[test]
fn small_records_are_stored_behind_messages_on_a_full_disk() {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    disk.set_capacity(Some(disk.used() + 120));
    let mut engine = open(&disk).unwrap();
    let mut model = Model::new();
    let mut number = 0;
    while engine.has_room(false).unwrap() {
        let change = [put(number, 6000)];
        commit(&mut engine, &change).unwrap();
        apply(&mut model, &change);
        number += 1;
    }
    assert!(number > 10, "{number}");
    // More transactions than the log has blocks.
    for round in 0..40 {
        let change = [(vec![200, round % 3], Some(vec![round; 20]))];
        commit(&mut engine, &change).unwrap();
        apply(&mut model, &change);
        assert!(!engine.has_room(round % 8 == 0).unwrap());
    }
    drop(engine);
    let mut engine = open(&disk).unwrap();
    assert!(read(&mut engine).unwrap() == model);
    for number in 0..number {
        let change = [(vec![number], None)];
        commit(&mut engine, &change).unwrap();
        apply(&mut model, &change);
    }
    assert!(engine.has_room(true).unwrap());
    drop(engine);
    assert!(read(&mut open(&disk).unwrap()).unwrap() == model);
}

/// The growth that transactions report sums up to the size of the content.
#[test]
fn the_size_of_the_content_is_known_when_the_table_has_it() {
    for limit in [None, Some(1 << 30)] {
        let disk = Disk::default();
        let mut config = config();
        config.limit = limit;
        let mut engine = open_with(&disk, &config).unwrap();
        let (mut numbers, mut model, mut used) = (Numbers(4), Model::new(), 0);
        for _ in 0..50 {
            let changes = numbers.changes();
            apply(&mut model, &changes);
            used += commit(&mut engine, &changes).unwrap();
            let size: usize = model.iter().map(|(k, v)| 1 + k.len() + v.len()).sum();
            let size = i64::try_from(size).unwrap();
            if limit.is_some() {
                assert_eq!(used, size);
            } else {
                assert!(used >= size);
            }
        }
    }
}

/// Messages and wills are numbered, each by itself.
#[test]
fn numbered_entries_of_two_kinds_are_told_apart() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let (mut random, mut model) = (Numbers(7), BTreeMap::new());
    for number in 0..1_500_u64 {
        let mut changes = Vec::new();
        for kind in [21, 23] {
            let value = vec![kind; random.below(60)];
            changes.push((kind, number, Some(value)));
        }
        for _ in 0..random.below(4) {
            let nth = random.below(model.len().max(1));
            if let Some((kind, number)) = model.keys().nth(nth).copied() {
                model.remove(&(kind, number));
                changes.push((kind, number, None));
            }
        }
        let mut bytes = Vec::new();
        for (kind, number, value) in changes {
            let record = Record {
                kind: Kind::new(kind),
                key: &number.to_be_bytes(),
                value: value.as_deref(),
            };
            let start = bytes.len();
            bytes.resize(start + record.encoded_len().unwrap(), 0);
            record.write(&mut bytes[start..]).unwrap();
            if let Some(value) = value {
                model.insert((kind, number), value);
            }
        }
        engine.append(&bytes, u64::MAX).unwrap();
        if random.below(40) == 0 {
            // A crash.
            engine = open(&disk.copy()).unwrap();
            let mut found = BTreeMap::new();
            let each = &mut |record: &Record<'_>| {
                let number = u64::from_be_bytes(record.key.try_into().unwrap());
                let value = record.value.unwrap().to_vec();
                found.insert((record.kind.byte(), number), value);
            };
            engine.read(each).unwrap();
            assert!(found == model, "{number}");
            engine = open(&disk).unwrap();
        }
    }
    assert!(model.len() > 100);
}
