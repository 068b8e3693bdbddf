//! Tests the thread: group commit, order, and its end.

use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_journal::{Kind, Record};

use super::disk::Disk;
use super::{Change, Model, Numbers, apply, journal, open, read};
use crate::changes::Changes;
use crate::config::Config;
use crate::engine::Engine;
use crate::error::Failure;
use crate::store::Store;
use crate::writer::{Condition, Writer};

/// An engine whose results the test sets, and which lists its transactions.
struct Scripted {
    started: Sender<()>,
    results: Receiver<Result<i64, Failure>>,
    commits: Arc<Mutex<Vec<usize>>>,
}

impl Engine for Scripted {
    fn read(&mut self, _: &mut dyn FnMut(&Record<'_>)) -> Result<(), Failure> {
        Ok(())
    }

    fn commit(&mut self, changes: &Changes<'_>, _: u64) -> Result<i64, Failure> {
        self.commits.lock().unwrap().push(changes.iter().count());
        self.started.send(()).unwrap();
        self.results.recv().expect("the engine panics")
    }

    fn reopen(&mut self, _: bool) -> Result<(), Failure> {
        Ok(())
    }

    fn renew_reserve(&mut self) -> bool {
        true
    }

    fn close(&mut self) -> Result<(), Failure> {
        Ok(())
    }
}

struct Script {
    writer: Writer,
    started: Receiver<()>,
    results: Sender<Result<i64, Failure>>,
    commits: Arc<Mutex<Vec<usize>>>,
    /// Gets a value when the progress has changed.
    notified: Receiver<()>,
}

fn script() -> Script {
    let (started, has_started) = channel();
    let (result, results) = channel();
    let (notify, notified) = channel();
    let commits = Arc::default();
    let engine = Scripted {
        started,
        results,
        commits: Arc::clone(&commits),
    };
    let mut config = Config::new("");
    config.retry = Duration::from_secs(1_000_000);
    let store = Store::with_engine(Box::new(engine), config);
    Script {
        writer: store.start(move || _ = notify.send(())).unwrap(),
        started: has_started,
        results: result,
        commits,
        notified,
    }
}

fn put(number: u8) -> Change {
    (vec![number], Some(vec![number]))
}

fn len(changes: &[Change]) -> u64 {
    u64::try_from(journal(changes).len()).unwrap()
}

#[test]
fn what_comes_during_a_commit_goes_into_the_next_one() {
    let script = script();
    script.writer.append(&journal(&[put(0)]));
    script.started.recv().unwrap();
    for number in 1..6 {
        script.writer.append(&journal(&[put(number)]));
    }
    assert_eq!(script.writer.progress().stored, 0);
    script.results.send(Ok(2)).unwrap();
    script.started.recv().unwrap();
    assert_eq!(script.writer.progress().stored, len(&[put(0)]));
    script.results.send(Ok(2)).unwrap();
    script.writer.wait(6 * len(&[put(0)])).unwrap();
    assert_eq!(*script.commits.lock().unwrap(), [1, 5]);
}

#[test]
fn what_came_and_went_meanwhile_is_one_change() {
    let script = script();
    script.writer.append(&journal(&[put(0)]));
    script.started.recv().unwrap();
    let changes = [put(1), (vec![1], None), put(2), put(2)];
    script.writer.append(&journal(&changes));
    script.results.send(Ok(2)).unwrap();
    script.results.send(Ok(2)).unwrap();
    script.writer.wait(len(&[put(0)]) + len(&changes)).unwrap();
    assert_eq!(*script.commits.lock().unwrap(), [1, 2]);
}

/// A record of a key that is put once.
fn message(value: Option<&[u8]>) -> Vec<u8> {
    let record = Record {
        kind: Kind::new(21),
        key: b"12345678",
        value,
    };
    let mut bytes = vec![0; record.encoded_len().unwrap()];
    record.write(&mut bytes).unwrap();
    bytes
}

#[test]
fn a_message_that_came_and_went_meanwhile_is_not_written() {
    let script = script();
    script.writer.append(&journal(&[put(0)]));
    script.started.recv().unwrap();
    let both = [message(Some(b"1")), message(None)].concat();
    script.writer.append(&both);
    script.results.send(Ok(2)).unwrap();
    let len = len(&[put(0)]) + u64::try_from(both.len()).unwrap();
    script.writer.wait(len).unwrap();
    assert_eq!(*script.commits.lock().unwrap(), [1]);
}

/// The put may have been stored although its transaction failed, so the deletion is stored.
#[test]
fn a_message_of_a_failed_transaction_is_deleted() {
    let script = script();
    let first = message(Some(b"1"));
    script.writer.append(&first);
    // The second one follows when the engine is open again.
    for _ in 0..2 {
        script.results.send(Err(Failure::DiskFull)).unwrap();
        script.started.recv().unwrap();
    }
    let len = u64::try_from(first.len()).unwrap();
    assert_eq!(script.writer.wait(len), Err(Failure::DiskFull));
    let second = message(None);
    script.writer.append(&second);
    script.writer.retry();
    for _ in 0..2 {
        script.results.send(Ok(0)).unwrap();
    }
    let len = len + u64::try_from(second.len()).unwrap();
    while script.writer.wait(len).is_err() {
        script.writer.retry();
    }
    // The deletion goes first, and then in its order.
    assert_eq!(*script.commits.lock().unwrap(), [1, 1, 1, 1]);
}

#[test]
fn a_broken_engine_ends_the_writer() {
    let script = script();
    let broken = Failure::Broken("a flush failed".to_owned());
    script.results.send(Err(broken.clone())).unwrap();
    script.writer.append(&journal(&[put(0)]));
    assert_eq!(script.writer.wait(1), Err(broken.clone()));
    // The writer drops later records, and no call waits for them.
    script.writer.append(&journal(&[put(1)]));
    assert_eq!(script.writer.wait(1), Err(broken.clone()));
    assert_eq!(script.writer.close(), Err(broken));
}

#[test]
fn a_panic_of_the_engine_ends_the_writer() {
    let script = script();
    drop(script.results);
    script.writer.append(&journal(&[put(0)]));
    let failure = script.writer.wait(1).unwrap_err();
    assert_eq!(failure, Failure::Broken("the engine panicked".to_owned()));
    // Futures do not wait in a thread, so they are told of the end too. The sender is dropped with the thread.
    script.notified.recv().unwrap();
}

#[test]
fn bytes_that_are_no_records_end_the_writer() {
    let script = script();
    script.writer.append(b"\x05\x09\x01k");
    let failure = script.writer.wait(1).unwrap_err();
    assert_eq!(
        failure.to_string(),
        "the store does not work any more: the machine wrote no records: byte 0: the last record is cut off"
    );
    assert!(matches!(
        script.writer.progress().condition,
        Condition::Ended(_)
    ));
}

#[test]
fn closing_stores_what_was_appended() {
    let disk = Disk::default();
    let store = Store::with_engine(Box::new(open(&disk).unwrap()), Config::new(""));
    let writer = store.start(|| {}).unwrap();
    let (mut model, mut numbers) = (Model::new(), Numbers(1));
    for _ in 0..50 {
        let changes = numbers.changes();
        apply(&mut model, &changes);
        writer.append(&journal(&changes));
    }
    writer.close().unwrap();
    assert_eq!(read(&mut open(&disk).unwrap()).unwrap(), model);
}

#[test]
fn restoring_gives_records_and_names_the_one_that_is_refused() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    super::commit(&mut engine, &[put(2), put(4), put(0xAA)]).unwrap();
    let mut store = Store::with_engine(Box::new(engine), Config::new("/store"));
    let mut keys = Vec::new();
    store
        .restore(|record| {
            assert_eq!(record.kind, super::kind(record.key));
            assert_eq!(record.value, Some(record.key));
            keys.push(record.key.to_vec());
            Ok::<_, String>(())
        })
        .unwrap();
    assert_eq!(keys, [[2], [4], [0xAA]]);
    let refused = store.restore(|record| {
        let wrong = record.key == [0xAA];
        if wrong { Err("it is odd") } else { Ok(()) }
    });
    assert_eq!(
        refused.unwrap_err().to_string(),
        "the store /store is damaged at the record of kind 9 with the key aa: it is odd"
    );
}
