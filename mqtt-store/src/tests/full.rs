//! Checks a full disk and a reached limit: both are reported at once, deletions still succeed, and the store recovers by itself.

use std::io::ErrorKind;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use super::disk::{Disk, Fault};
use super::{Change, Model, apply, commit, config, journal, open, open_with, read};
use crate::engine::Engine;
use crate::error::Failure;
use crate::store::Store;
use crate::writer::{Condition, Writer};

/// A writer, its expected content, and a channel that gets a message for each change.
struct Host {
    writer: Writer,
    changed: Receiver<()>,
    appended: u64,
    model: Model,
}

impl Host {
    fn new(disk: &Disk, limit: Option<u64>, retry: Duration) -> Self {
        let mut config = config();
        (config.limit, config.retry) = (limit, retry);
        let (notify, changed) = channel();
        let store = Store::with_engine(Box::new(open_with(disk, &config).unwrap()), config);
        let writer = store.start(move || notify.send(()).unwrap_or(())).unwrap();
        Self {
            writer,
            changed,
            appended: 0,
            model: Model::new(),
        }
    }

    fn append(&mut self, changes: &[Change]) -> Result<(), Failure> {
        let journal = journal(changes);
        self.appended += u64::try_from(journal.len()).unwrap();
        apply(&mut self.model, changes);
        self.writer.append(&journal);
        self.wait()
    }

    fn wait(&self) -> Result<(), Failure> {
        self.writer.wait(self.appended)
    }

    /// Waits until `wanted` accepts the condition.
    fn until(&self, wanted: impl Fn(&Condition) -> bool) {
        while !wanted(&self.writer.progress().condition) {
            self.changed.recv_timeout(Duration::from_secs(60)).unwrap();
        }
    }

    /// Appends large messages until there is no room. Returns how many were stored.
    fn fill(&mut self) -> (u32, Failure) {
        for number in 0.. {
            if let Err(failure) = self.append(&[put(number)]) {
                return (number, failure);
            }
        }
        unreachable!()
    }
}

const NEVER: Duration = Duration::from_secs(1_000_000);

fn key(number: u32) -> Vec<u8> {
    number.to_be_bytes().to_vec()
}

fn put(number: u32) -> Change {
    (key(number), Some(vec![7; 6000]))
}

fn delete(number: u32) -> Change {
    (key(number), None)
}

fn stored(disk: &Disk) -> Model {
    read(&mut open(disk).unwrap()).unwrap()
}

/// Makes a disk with an empty store and `blocks` free blocks.
fn disk(blocks: u64) -> Disk {
    let disk = Disk::default();
    drop(open(&disk).unwrap());
    disk.set_capacity(Some(disk.used() + blocks));
    disk
}

#[test]
fn on_a_full_disk_deletes_are_stored_and_make_room() {
    let disk = disk(400);
    let mut host = Host::new(&disk, None, NEVER);
    let (number, failure) = host.fill();
    assert_eq!(failure, Failure::DiskFull);
    assert!(number > 50, "{number}");
    assert!(!disk.has_reserve());
    // Another message waits while the others are deleted.
    assert_eq!(host.append(&[put(number + 1)]), Err(Failure::DiskFull));
    let deletes: Vec<_> = (0..60).map(delete).collect();
    host.append(&deletes).unwrap();
    assert_eq!(host.writer.progress().condition, Condition::Good);
    let model = host.model.clone();
    host.writer.close().unwrap();
    assert_eq!(stored(&disk), model);
}

#[test]
fn deletes_are_stored_although_what_came_before_waits() {
    let disk = disk(400);
    let mut host = Host::new(&disk, None, NEVER);
    let small: Vec<_> = (200..210).map(|n| (key(n), Some(vec![1]))).collect();
    host.append(&small).unwrap();
    let (number, _) = host.fill();
    let before = host.writer.progress().stored;
    // These records free no room for the waiting message.
    for n in 200..205 {
        host.append(&[delete(n)]).unwrap_err();
    }
    assert_eq!(host.writer.progress().stored, before);
    assert_eq!(host.writer.close(), Err(Failure::DiskFull));
    let want: Vec<_> = (0..number).chain(205..210).map(key).collect();
    assert!(stored(&disk).keys().eq(&want));
}

#[test]
fn a_disk_that_is_full_at_the_start_lets_flows_end() {
    let disk = disk(400);
    let mut host = Host::new(&disk, None, NEVER);
    let (number, _) = host.fill();
    host.writer.close().unwrap_err();
    let mut host = Host::new(&disk, None, NEVER);
    assert_eq!(host.append(&[put(number)]), Err(Failure::DiskFull));
    let deletes: Vec<_> = (0..60).map(delete).collect();
    host.append(&deletes).unwrap();
    host.writer.close().unwrap();
    assert_eq!(
        stored(&disk).len(),
        usize::try_from(number + 1 - 60).unwrap()
    );
}

#[test]
fn when_others_make_room_service_resumes_by_itself() {
    let disk = disk(400);
    let mut host = Host::new(&disk, None, Duration::from_millis(1));
    let (_, failure) = host.fill();
    assert_eq!(failure, Failure::DiskFull);
    disk.set_capacity(None);
    host.until(|condition| *condition == Condition::Good);
    host.wait().unwrap();
    while !disk.has_reserve() {
        host.changed.recv_timeout(Duration::from_secs(60)).unwrap();
    }
    let model = host.model.clone();
    host.writer.close().unwrap();
    assert_eq!(stored(&disk), model);
}

#[test]
fn full_disks_come_and_go() {
    let disk = disk(400);
    let mut host = Host::new(&disk, None, NEVER);
    for _ in 0..4 {
        let (number, failure) = host.fill();
        assert_eq!(failure, Failure::DiskFull);
        let deletes: Vec<_> = (0..=number).map(delete).collect();
        host.append(&deletes).unwrap();
        assert!(host.model.is_empty());
    }
    host.writer.close().unwrap();
    assert_eq!(stored(&disk), Model::new());
}

/// A change that is too long for the log goes into the table, and a second transaction confirms it. The disk is full at each call.
#[test]
fn what_the_table_has_is_counted_although_the_disk_is_full_afterwards() {
    let long = [(key(1), Some(vec![7; 100_000])), put(2)];
    let grown = |at: Option<u64>| {
        let disk = Disk::default();
        let mut config = config();
        config.limit = Some(u64::MAX / 4);
        let mut engine = open_with(&disk, &config).unwrap();
        disk.set_fault(at.map(|at| Fault {
            at,
            for_good: false,
            kind: ErrorKind::StorageFull,
        }));
        let first = commit(&mut engine, &long);
        let calls = disk.calls();
        disk.set_fault(None);
        let growth = match first {
            Err(failure) if failure.is_full() => {
                assert!(engine.has_room(true).unwrap());
                commit(&mut engine, &long).map(|growth| (growth, true))
            }
            first => first.map(|growth| (growth, false)),
        };
        (growth, calls)
    };
    let (growth, calls) = grown(None);
    let (growth, _) = growth.unwrap();
    let mut retries = 0;
    for at in 0..calls {
        // Other calls than writes do not report a full disk, and end the store.
        if let (Ok((found, is_retry)), _) = grown(Some(at)) {
            assert_eq!(found, growth, "call {at} of {calls}");
            retries += u32::from(is_retry);
        }
    }
    assert!(retries > 10, "{retries}");
}

/// Each record of [`put`] takes about 6,000 bytes.
const LIMIT: u64 = 60_000;

#[test]
fn a_limit_is_told_and_what_was_accepted_is_stored_all_the_same() {
    let disk = Disk::default();
    let mut host = Host::new(&disk, Some(LIMIT), NEVER);
    let full = Condition::Full(Failure::Limit);
    let puts: Vec<_> = (0..9).map(put).collect();
    host.append(&puts).unwrap();
    assert_eq!(host.writer.progress().condition, Condition::Good);
    host.append(&[put(9)]).unwrap();
    assert_eq!(host.writer.progress().condition, full);
    // A larger record of a flow is stored, and then the deletion that follows it.
    host.append(&[put(10)]).unwrap();
    assert_eq!(host.writer.progress().condition, full);
    // An eighth of the limit must be free.
    host.append(&[delete(1), delete(2)]).unwrap();
    assert_eq!(host.writer.progress().condition, full);
    host.append(&[delete(3)]).unwrap();
    assert_eq!(host.writer.progress().condition, Condition::Good);
    let model = host.model.clone();
    host.writer.close().unwrap();
    assert_eq!(stored(&disk), model);
}

#[test]
fn a_limit_counts_what_was_stored_before() {
    let disk = Disk::default();
    let mut host = Host::new(&disk, None, NEVER);
    let puts: Vec<_> = (0..10).map(put).collect();
    host.append(&puts).unwrap();
    host.writer.close().unwrap();
    let mut host = Host::new(&disk, Some(LIMIT), NEVER);
    host.until(|condition| *condition == Condition::Full(Failure::Limit));
    host.append(&[delete(0), delete(1)]).unwrap();
    assert_eq!(host.writer.progress().condition, Condition::Good);
    host.writer.close().unwrap();
}
