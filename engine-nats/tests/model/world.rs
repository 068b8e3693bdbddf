//! The model of the stream, and what must hold.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};

use mqtt_engine_nats::block::{Block, BlockType};
use mqtt_engine_nats::store::Failure;
use mqtt_engine_nats::{Answer, Ends};

use crate::process::{Call, Caller, Reply, live};
use crate::{Entries, Numbers};

/// How often things happened in all seeds.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    pub(crate) commits: u64,
    pub(crate) acknowledged: u64,
    pub(crate) lost_answers: u64,
    pub(crate) late: u64,
    pub(crate) superseded: u64,
    pub(crate) crashes: u64,
    pub(crate) purges: u64,
    pub(crate) full: u64,
    /// Groups that their owner did not complete.
    pub(crate) cut_groups: u64,
    /// Repeated messages that were stored already.
    pub(crate) found: u64,
}

/// A commit has two entries of its own with its number as key, and one that it shares with others.
#[derive(Debug)]
struct Commit {
    shared: u8,
    deletes: Option<usize>,
    acknowledged: bool,
    /// The sequence of its last block that is stored.
    at: u64,
}

/// A process.
struct Life {
    replies: Option<Sender<Reply>>,
    thread: Option<JoinHandle<()>>,
    /// The commit that it works on.
    commit: Option<usize>,
    /// The sequence of its first block, and the commits that were acknowledged before.
    begin: Option<(u64, BTreeSet<usize>)>,
}

struct Message {
    bytes: Vec<u8>,
    life: usize,
    commit: Option<usize>,
}

pub(crate) struct World {
    seed: u64,
    numbers: Numbers,
    calls: Receiver<(usize, Call)>,
    sender: Sender<(usize, Call)>,
    lives: Vec<Life>,
    /// The call of each running process.
    waiting: BTreeMap<usize, Call>,
    running: usize,
    /// All messages that were ever stored; the first one has the sequence 1.
    log: Vec<Message>,
    first: u64,
    /// Messages that may be stored later, with the expected sequence.
    late: Vec<(u64, Message)>,
    commits: Vec<Commit>,
    /// Whether nothing goes wrong any more.
    calm: bool,
}

/// How many processes run at the same time.
const PROCESSES: usize = 3;
/// How many calls are answered before all goes well.
const CALLS: usize = 300;

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let (sender, calls) = channel();
        Self {
            seed,
            numbers: Numbers(seed),
            calls,
            sender,
            lives: Vec::new(),
            waiting: BTreeMap::new(),
            running: 0,
            log: Vec::new(),
            first: 1,
            late: Vec::new(),
            commits: Vec::new(),
            calm: false,
        }
    }

    pub(crate) fn run(mut self, counts: &mut Counts) {
        for _ in 0..CALLS {
            while self.running < PROCESSES {
                self.start();
            }
            self.step(counts);
        }
        while self.running > 0 {
            let life = *self.waiting.keys().next().unwrap();
            if !self.has_ended(life, counts) {
                self.crash(life, counts);
            }
        }
        self.calm = true;
        self.start();
        let before = self.commits.len();
        while self.commits.len() < before + 10 {
            self.step(counts);
        }
        let last = self.lives.len() - 1;
        self.crash(last, counts);
        self.check_log(counts);
    }

    fn start(&mut self) {
        let life = self.lives.len();
        let (replies, receiver) = channel();
        let caller = Caller {
            life,
            calls: self.sender.clone(),
            replies: receiver,
        };
        let thread = thread::spawn(move || live(caller, life));
        self.lives.push(Life {
            replies: Some(replies),
            thread: Some(thread),
            commit: None,
            begin: None,
        });
        self.running += 1;
        self.receive();
    }

    /// Waits until each running process waits for a reply.
    fn receive(&mut self) {
        while self.waiting.len() < self.running {
            let (life, call) = self.calls.recv().unwrap();
            self.waiting.insert(life, call);
        }
    }

    fn crash(&mut self, life: usize, counts: &mut Counts) {
        counts.crashes += 1;
        self.waiting.remove(&life);
        self.lives[life].replies = None;
        self.receive();
        self.ended(life);
    }

    fn ended(&mut self, life: usize) -> Failure {
        let call = self.waiting.remove(&life);
        self.running -= 1;
        let thread = self.lives[life].thread.take();
        thread.unwrap().join().unwrap();
        match call {
            Some(Call::Ended(failure)) => failure,
            call => panic!("seed {}: {call:?}", self.seed),
        }
    }

    /// Checks why a process has ended, if it has.
    fn has_ended(&mut self, life: usize, counts: &mut Counts) -> bool {
        let has_ended = matches!(self.waiting[&life], Call::Ended(_));
        if has_ended {
            let failure = self.ended(life);
            self.check_end(life, &failure);
            counts.superseded += 1;
        }
        has_ended
    }

    fn step(&mut self, counts: &mut Counts) {
        if !self.late.is_empty() && self.numbers.one_in(4) {
            let at = self.numbers.below(self.late.len());
            let (expected, message) = self.late.swap_remove(at);
            counts.late += u64::from(self.store(expected, message));
        }
        let lives: Vec<_> = self.waiting.keys().copied().collect();
        let life = lives[self.numbers.below(lives.len())];
        if self.has_ended(life, counts) {
            return;
        }
        if !self.calm && self.numbers.one_in(50) {
            return self.crash(life, counts);
        }
        let call = self.waiting.remove(&life).unwrap();
        let reply = self.reply(life, call, counts);
        self.lives[life]
            .replies
            .as_ref()
            .unwrap()
            .send(reply)
            .unwrap();
        self.receive();
    }

    fn reply(&mut self, life: usize, call: Call, counts: &mut Counts) -> Reply {
        match call {
            Call::Append(expected, bytes) => {
                let commit = self.lives[life].commit;
                let message = Message {
                    bytes,
                    life,
                    commit,
                };
                Reply::Answer(self.append(expected, message, counts))
            }
            Call::Get(sequence) => {
                let is_behind = !self.calm && self.numbers.one_in(10);
                let message = self.message(sequence).filter(|_| !is_behind);
                let message = message.map(|message| message.bytes.clone());
                counts.found += u64::from(message.is_some());
                Reply::Message(message)
            }
            Call::Ends => Reply::Ends(self.ends()),
            Call::Read(through) => {
                let sequences = self.first..=through;
                let bytes = |n| Some((n, self.message(n)?.bytes.clone()));
                Reply::Messages(sequences.filter_map(bytes).collect())
            }
            Call::Purge(sequence) => {
                counts.purges += u64::from(sequence > self.first);
                self.first = self.first.max(sequence);
                Reply::Done
            }
            Call::Pause | Call::Ended(_) => Reply::Done,
            Call::Restored(entries) => {
                self.check(life, &entries);
                Reply::Done
            }
            Call::Next => {
                counts.commits += 1;
                Reply::Commit(self.next_commit(life))
            }
            Call::Committed(stored) => {
                counts.acknowledged += u64::from(stored);
                let commit = self.lives[life].commit.take().unwrap();
                self.commits[commit].acknowledged = stored;
                Reply::Done
            }
        }
    }

    fn last(&self) -> u64 {
        self.log.len().try_into().unwrap()
    }

    fn message(&self, sequence: u64) -> Option<&Message> {
        let at = usize::try_from(sequence.checked_sub(1)?).unwrap();
        self.log.get(at).filter(|_| sequence >= self.first)
    }

    /// Returns the ends, or older ones.
    fn ends(&mut self) -> Ends {
        let Self { first, .. } = *self;
        let mut last = self.last();
        if !self.calm && last > first && self.numbers.one_in(10) {
            last = first + self.numbers.next() % (last - first);
        }
        Ends { first, last }
    }

    fn append(&mut self, expected: u64, message: Message, counts: &mut Counts) -> Answer {
        let copy = Message {
            bytes: message.bytes.clone(),
            ..message
        };
        let chance = if self.calm {
            99
        } else {
            self.numbers.below(100)
        };
        match chance {
            0..10 => {
                self.late.push((expected, message));
                Answer::Unknown
            }
            10..18 => Answer::Unknown,
            18..26 => {
                counts.lost_answers += u64::from(self.store(expected, message));
                Answer::Unknown
            }
            26..29 => {
                counts.full += 1;
                Answer::Full
            }
            chance => {
                if chance < 40 {
                    self.late.push((expected, copy));
                }
                if self.store(expected, message) {
                    Answer::Stored(self.last())
                } else {
                    Answer::Refused
                }
            }
        }
    }

    /// Stores a message if the last sequence is the expected one.
    fn store(&mut self, expected: u64, message: Message) -> bool {
        if expected != self.last() {
            return false;
        }
        let sequence = expected + 1;
        let (block, _) = Block::read(&message.bytes).unwrap();
        if block.block_type == BlockType::Owner && self.lives[message.life].begin.is_none() {
            let acknowledged = |commit: &(usize, &Commit)| commit.1.acknowledged;
            let before = self.commits.iter().enumerate().filter(acknowledged);
            let before = before.map(|(number, _)| number).collect();
            self.lives[message.life].begin = Some((sequence, before));
        }
        if let (Some(commit), BlockType::Changes) = (message.commit, block.block_type) {
            self.commits[commit].at = sequence;
        }
        self.log.push(message);
        true
    }

    /// Chooses the changes of a commit.
    fn next_commit(&mut self, life: usize) -> Vec<crate::process::Change> {
        let number = self.commits.len();
        let target = self.numbers.below(number + 1);
        let deletes = self
            .commits
            .get(target)
            .filter(|commit| commit.acknowledged);
        let deletes = deletes.map(|_| target);
        let shared = u8::try_from(self.numbers.below(4)).unwrap();
        let value = vec![7; self.numbers.below(150)];
        let mut changes = vec![
            (4, vec![shared], Some(number.to_be_bytes().to_vec())),
            (3, key(number, 0), Some(value)),
            (3, key(number, 1), Some(Vec::new())),
        ];
        if let Some(target) = deletes {
            changes.extend([0, 1].map(|n| (3, key(target, n), None)));
        }
        self.commits.push(Commit {
            shared,
            deletes,
            acknowledged: false,
            at: 0,
        });
        self.lives[life].commit = Some(number);
        changes
    }

    /// Checks the entries that a process has read.
    fn check(&self, life: usize, entries: &Entries) {
        let seed = self.seed;
        let (_, before) = self.lives[life].begin.as_ref().unwrap();
        let has = |number: usize, n| entries.contains_key(&(3, key(number, n)));
        for (number, commit) in self.commits.iter().enumerate() {
            assert_eq!(
                has(number, 0),
                has(number, 1),
                "seed {seed}: half of {number}"
            );
            let deleters = || {
                self.commits
                    .iter()
                    .enumerate()
                    .filter(|(_, by)| by.deletes == Some(number))
            };
            if before.contains(&number) && deleters().count() == 0 {
                assert!(has(number, 0), "seed {seed}: {number} is lost");
            }
            for (by, _) in deleters() {
                let deleted = before.contains(&by) || has(by, 0);
                assert!(
                    !(deleted && has(number, 0)),
                    "seed {seed}: {number} is back"
                );
            }
            if !before.contains(&number) {
                continue;
            }
            let shared = entries.get(&(4, vec![commit.shared]));
            let by = usize::from_be_bytes(shared.unwrap().as_slice().try_into().unwrap());
            let at = self.commits[by].at;
            assert!(
                at >= commit.at,
                "seed {seed}: {by} is not newer than {number}"
            );
        }
    }

    /// Checks why a process has ended.
    fn check_end(&self, life: usize, failure: &Failure) {
        let seed = self.seed;
        if *failure == Failure::DiskFull && self.lives[life].begin.is_none() {
            return;
        }
        assert!(
            matches!(failure, Failure::Superseded(_)),
            "seed {seed}: {failure}"
        );
        let begin = self.lives[life].begin.as_ref();
        let begin = begin.map_or(0, |(sequence, _)| usize::try_from(*sequence).unwrap());
        let others = self.log[begin..].iter().any(|message| message.life != life);
        assert!(others, "seed {seed}: {failure}, but it is the owner");
    }

    /// Checks that each epoch has the blocks of one process.
    fn check_log(&self, counts: &mut Counts) {
        let mut epochs = BTreeMap::new();
        let mut is_open = false;
        for message in &self.log {
            let (block, _) = Block::read(&message.bytes).unwrap();
            let by = *epochs.entry(block.epoch).or_insert(message.life);
            assert_eq!(
                by, message.life,
                "seed {}: epoch {}",
                self.seed, block.epoch
            );
            counts.cut_groups += u64::from(is_open && block.is_first);
            is_open = block.continues;
        }
    }
}

/// Returns the key of the entries of a commit.
fn key(number: usize, n: u8) -> Vec<u8> {
    [&number.to_be_bytes()[..], &[n]].concat()
}
