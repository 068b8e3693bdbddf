//! Checks that after any failure and any power cut the store has the result of the first transactions, including all that were
//! reported as stored.

use std::io::ErrorKind;

use super::disk::{Disk, Fault, TABLE};
use super::{Model, Numbers, apply, commit, open, read};
use crate::engine::Engine;
use crate::error::Failure;

const TRANSACTIONS: usize = 10;

/// The result of one run of the store.
struct Life {
    /// The expected content after each transaction; the first one is the content before all of them.
    states: Vec<Model>,
    /// How many transactions were reported as stored.
    stored: usize,
    /// The failure that ended the run.
    end: Option<Failure>,
}

/// Opens the store and commits until a call fails.
fn live(disk: &Disk, numbers: &mut Numbers) -> Life {
    let mut life = Life {
        states: vec![Model::new()],
        stored: 0,
        end: None,
    };
    let mut engine = match open(disk) {
        Ok(engine) => engine,
        Err(failure) => {
            life.end = Some(failure);
            return life;
        }
    };
    life.states = vec![match read(&mut engine) {
        Ok(model) => model,
        Err(failure) => {
            life.end = Some(failure);
            return life;
        }
    }];
    for _ in 0..TRANSACTIONS {
        let changes = numbers.changes();
        let mut state = life.states.last().unwrap().clone();
        apply(&mut state, &changes);
        life.states.push(state);
        match commit(&mut engine, &changes) {
            Ok(_) => life.stored += 1,
            Err(failure) => {
                // After the failure, no transaction is stored.
                assert!(failure.is_full() || commit(&mut engine, &changes).is_err());
                life.end = Some(failure);
                return life;
            }
        }
        if let Err(failure) = engine.has_room(numbers.below(4) == 0) {
            life.end = Some(failure);
            return life;
        }
    }
    if let Err(failure) = engine.close() {
        life.end = Some(failure);
    }
    life
}

fn check(life: &Life, found: &Model, context: &str) {
    let possible = life.states.get(life.stored..).unwrap();
    assert!(
        possible.contains(found),
        "{context}: {} of {} transactions were stored; {} entries found",
        life.stored,
        life.states.len() - 1,
        found.len(),
    );
}

/// Returns the number of calls of a run without a fault.
fn calls() -> u64 {
    let disk = Disk::default();
    disk.set_fault(None);
    let life = live(&disk, &mut Numbers(1));
    assert_eq!((life.stored, life.end), (TRANSACTIONS, None));
    disk.calls()
}

#[test]
fn the_power_ends_at_each_call() {
    for at in 0..calls() {
        for seed in 0..3 {
            let disk = Disk::default();
            disk.set_fault(Some(Fault {
                at,
                for_good: true,
                kind: ErrorKind::Other,
            }));
            let life = live(&disk, &mut Numbers(1));
            disk.set_fault(None);
            disk.cut_power(&mut Numbers(at * 3 + seed));
            let mut engine = open(&disk).unwrap_or_else(|error| panic!("call {at}: {error}"));
            let found = read(&mut engine).unwrap();
            check(&life, &found, &format!("the power ended at call {at}"));
        }
    }
}

/// The process is killed at each call, so the next one reads what was not flushed. Soon after it has started, the power ends.
#[test]
fn the_process_is_killed_and_the_power_ends_later() {
    let fault = |at| Fault {
        at,
        for_good: true,
        kind: ErrorKind::Other,
    };
    let mut cuts = 0;
    for killed_at in 0..calls() {
        for cut_at in (0..60).step_by(3) {
            let disk = Disk::default();
            disk.set_fault(Some(fault(killed_at)));
            let first = live(&disk, &mut Numbers(1));
            let cut_at = cut_at + killed_at % 3;
            disk.set_fault(Some(fault(cut_at)));
            let second = live(&disk, &mut Numbers(2));
            disk.set_fault(None);
            disk.cut_power(&mut Numbers(killed_at * 60 + cut_at));
            let context = format!("killed at call {killed_at}, the power ended at call {cut_at}");
            let mut engine = open(&disk).unwrap_or_else(|error| panic!("{context}: {error}"));
            let found = read(&mut engine).unwrap();
            // Without a transaction of its own, the second process may have ended before it knew the content.
            if second.states.len() > 1 {
                check(&second, &found, &context);
                cuts += 1;
            } else {
                check(&first, &found, &context);
            }
        }
    }
    assert!(cuts > 100, "{cuts}");
}

#[test]
fn each_call_fails_once_and_the_power_ends_later() {
    for at in 0..calls() {
        let disk = Disk::default();
        let kind = ErrorKind::Other;
        disk.set_fault(Some(Fault {
            at,
            for_good: false,
            kind,
        }));
        let life = live(&disk, &mut Numbers(1));
        disk.set_fault(None);
        disk.cut_power(&mut Numbers(at));
        let mut engine = open(&disk).unwrap_or_else(|error| panic!("call {at}: {error}"));
        let found = read(&mut engine).unwrap();
        check(&life, &found, &format!("call {at} failed"));
    }
}

#[test]
fn a_failed_flush_is_final_also_on_a_full_disk() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let changes = Numbers(3).changes();
    commit(&mut engine, &changes).unwrap();
    disk.fail_next_flush();
    let failure = commit(&mut engine, &changes).unwrap_err();
    assert!(
        matches!(&failure, Failure::Broken(why) if why.starts_with("a flush failed")),
        "{failure}"
    );
    assert!(commit(&mut engine, &changes).is_err());
}

#[test]
fn lives_follow_one_another() {
    lives(&Disk::default(), 60);
}

/// The table has no room for all that the transactions put.
#[test]
fn lives_follow_one_another_on_a_full_disk() {
    for blocks in [4, 8, 12, 16] {
        let disk = Disk::default();
        drop(open(&disk).unwrap());
        disk.set_capacity(Some(disk.used() + blocks));
        assert!(lives(&disk, 40) > 5, "{blocks}");
    }
}

/// Runs a store again and again until the power ends. Returns how many runs had a full disk.
fn lives(disk: &Disk, count: usize) -> usize {
    let mut numbers = Numbers(7);
    let mut known = Model::new();
    let mut full = 0;
    for life in 0..count {
        let at = u64::try_from(numbers.below(150)).unwrap();
        disk.set_fault(Some(Fault {
            at,
            for_good: true,
            kind: ErrorKind::Other,
        }));
        let lived = live(disk, &mut numbers);
        full += usize::from(!disk.has_reserve());
        disk.set_fault(None);
        disk.cut_power(&mut numbers);
        let found = read(&mut open(disk).unwrap()).unwrap();
        assert!(lived.states.len() == 1 || lived.states[0] == known);
        if lived.states.len() == 1 {
            assert_eq!(found, known, "life {life} ended before it wrote anything");
        } else {
            check(&lived, &found, &format!("life {life}"));
        }
        known = found;
    }
    full
}

#[test]
fn written_needs_no_flush_and_survives_the_process() {
    let disk = Disk::default();
    let mut config = crate::Config::new("");
    config.durability = crate::Durability::Written;
    let mut engine = crate::logged::Logged::open(Box::new(disk.clone()), &config).unwrap();
    let mut model = Model::new();
    let mut numbers = Numbers(5);
    for _ in 0..TRANSACTIONS {
        let changes = numbers.changes();
        apply(&mut model, &changes);
        commit(&mut engine, &changes).unwrap();
    }
    assert_eq!(disk.flushes(), 0);
    // The process ends without closing the store: the written changes are there.
    let found = read(&mut open(&disk.copy()).unwrap()).unwrap();
    assert_eq!(found, model);
}

#[test]
fn a_changed_byte_is_found_or_means_nothing() {
    let disk = Disk::default();
    let mut engine = open(&disk).unwrap();
    let mut model = Model::new();
    let mut numbers = Numbers(11);
    for _ in 0..TRANSACTIONS {
        let changes = numbers.changes();
        apply(&mut model, &changes);
        commit(&mut engine, &changes).unwrap();
    }
    engine.close().unwrap();
    let (mut found, mut damaged) = (0, 0);
    for at in (0..disk.len(TABLE)).step_by(97) {
        let copy = disk.copy();
        copy.flip(TABLE, at);
        match open(&copy).and_then(|mut engine| read(&mut engine)) {
            Ok(read) => {
                assert_eq!(read, model, "byte {at}");
                found += 1;
            }
            Err(Failure::Damaged(_)) => damaged += 1,
            Err(failure) => panic!("byte {at}: {failure}"),
        }
    }
    assert!(found > 0 && damaged > 0, "{found} {damaged}");
}
