//! Plays processes that want to own one journal against a model of the stream. The model stores messages late, loses answers,
//! stores a message again, answers with what was true before, and ends processes at any call. Each process is a thread that
//! waits at each call until the model chooses it, so a seed always plays the same.

mod process;
mod world;

use std::collections::BTreeMap;

use world::{Counts, World};

const SEEDS: u64 = 1000;

/// Nothing acknowledged is lost, a commit is stored whole or not at all, an epoch has the blocks of one process, and the chain is
/// unbroken.
#[test]
fn what_is_acknowledged_survives_every_order_of_events() {
    let mut counts = Counts::default();
    for seed in 0..SEEDS {
        World::new(seed).run(&mut counts);
    }
    eprintln!("{counts:?}");
    // The seeds contain what they are for.
    let happened = [
        (counts.commits, counts.acknowledged),
        (counts.lost_answers, counts.late),
        (counts.superseded, counts.crashes),
        (counts.purges, counts.full),
        (counts.cut_groups, counts.found),
    ];
    let least = happened.iter().map(|(one, other)| one.min(other)).min();
    assert!(least.is_some_and(|least| *least > SEEDS / 20), "{counts:?}");
}

/// The numbers of a seed: SplitMix64.
#[derive(Debug)]
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end).unwrap()).unwrap()
    }

    /// Returns `true` in one of `of` cases.
    fn one_in(&mut self, of: usize) -> bool {
        self.below(of) == 0
    }
}

/// The entries of a process by kind and key.
type Entries = BTreeMap<(u8, Vec<u8>), Vec<u8>>;
