//! A model of the stream of one journal, and the owners of the processes that have it one after the other.

use std::collections::HashMap;

use mqtt_engine_nats::store::journal::Records;
use mqtt_engine_nats::store::{Changes, Failure};
use mqtt_engine_nats::{Answer, Each, Ends, Limits, Name, Owner, Stream};
use mqtt_testing::simulation::{CommitError, Engine};

/// Blocks are short, so that a commit needs several, and the stream is compacted often.
const LIMITS: Limits = Limits {
    message: 700,
    compact_from: 20_000,
    compact_at: 3,
};

/// An engine with all its processes.
#[derive(Debug)]
pub(crate) struct Model {
    stream: ModelStream,
    owners: HashMap<u32, Owner>,
}

/// A stream that stores messages late, loses answers, stores a message again, and answers with what was true before.
#[derive(Debug)]
struct ModelStream {
    numbers: u64,
    /// All messages that were ever stored; the first one has the sequence 1.
    messages: Vec<Vec<u8>>,
    first: u64,
    /// Messages that may be stored later, with the expected sequence.
    late: Vec<(u64, Vec<u8>)>,
    /// How many calls the process makes before it ends.
    calls: Option<usize>,
    is_calm: bool,
}

impl Model {
    pub(crate) fn new(numbers: u64) -> Self {
        let stream = ModelStream {
            numbers,
            messages: Vec::new(),
            first: 1,
            late: Vec::new(),
            calls: None,
            is_calm: false,
        };
        Self {
            stream,
            owners: HashMap::new(),
        }
    }

    /// Returns why a call of a process failed.
    fn why(&self, failure: Failure) -> CommitError {
        match failure {
            Failure::Superseded(_) => CommitError::Superseded,
            Failure::Broken(_) if self.stream.calls == Some(0) => CommitError::Ended,
            failure => CommitError::Failed(failure.to_string()),
        }
    }
}

impl Engine for Model {
    fn take_over(&mut self, process: u32, calls: Option<usize>) -> Result<Vec<u8>, CommitError> {
        self.stream.calls = calls;
        let name = Name {
            shard: "0".to_owned(),
            node: "node".to_owned(),
            instance: process.into(),
        };
        let mut entries = Vec::new();
        let owner = Owner::take_over(&mut self.stream, name, LIMITS).and_then(|mut owner| {
            owner.read(&mut self.stream, &mut |record| {
                let start = entries.len();
                entries.resize(start + record.encoded_len().expect("it was one"), 0);
                record.write(&mut entries[start..]).expect("room");
            })?;
            Ok(owner)
        });
        let owner = owner.map_err(|failure| self.why(failure))?;
        self.owners.insert(process, owner);
        Ok(entries)
    }

    fn commit(
        &mut self,
        process: u32,
        records: &[u8],
        calls: Option<usize>,
    ) -> Result<(), CommitError> {
        self.stream.calls = calls;
        let records: Result<Vec<_>, _> = Records::new(records).collect();
        let records = records.expect("whole records");
        let owner = self.owners.get_mut(&process).expect("it took over");
        let committed = owner.commit(&mut self.stream, &Changes::of(&records), u64::MAX);
        committed.map(drop).map_err(|failure| self.why(failure))
    }

    fn be_calm(&mut self) {
        self.stream.is_calm = true;
    }
}

impl ModelStream {
    /// The numbers of a seed: SplitMix64.
    fn below(&mut self, end: u64) -> u64 {
        self.numbers = self.numbers.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.numbers;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % end
    }

    /// Counts a call, and stores a message that is late, some time.
    fn call(&mut self) -> Result<(), Failure> {
        match &mut self.calls {
            Some(0) => return Err(Failure::Broken("the process ends".to_owned())),
            Some(calls) => *calls -= 1,
            None => {}
        }
        if !self.late.is_empty() && self.below(4) == 0 {
            let at = self.below(self.late.len().try_into().expect("few"));
            let late = self.late.swap_remove(at.try_into().expect("few"));
            self.store(late.0, late.1);
        }
        Ok(())
    }

    fn last(&self) -> u64 {
        self.messages.len().try_into().expect("few")
    }

    /// Stores a message if the last sequence is the expected one.
    fn store(&mut self, expected: u64, message: Vec<u8>) -> bool {
        let is_next = expected == self.last();
        if is_next {
            self.messages.push(message);
        }
        is_next
    }

    fn message(&self, sequence: u64) -> Option<&Vec<u8>> {
        let at = usize::try_from(sequence.checked_sub(1)?).expect("few");
        self.messages.get(at).filter(|_| sequence >= self.first)
    }

    fn is_behind(&mut self) -> bool {
        !self.is_calm && self.below(10) == 0
    }
}

impl Stream for ModelStream {
    fn append(&mut self, expected: u64, message: &[u8]) -> Result<Answer, Failure> {
        self.call()?;
        let message = message.to_vec();
        let chance = if self.is_calm { 99 } else { self.below(100) };
        if chance < 10 {
            self.late.push((expected, message));
            return Ok(Answer::Unknown);
        }
        if chance < 18 {
            return Ok(Answer::Unknown);
        }
        if chance < 36 {
            self.late.push((expected, message.clone()));
        }
        let is_stored = self.store(expected, message);
        Ok(match chance {
            18..26 => Answer::Unknown,
            _ if is_stored => Answer::Stored(self.last()),
            _ => Answer::Refused,
        })
    }

    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, Failure> {
        self.call()?;
        let is_behind = self.is_behind();
        Ok(self.message(sequence).filter(|_| !is_behind).cloned())
    }

    fn ends(&mut self) -> Result<Ends, Failure> {
        self.call()?;
        let first = self.first;
        let mut last = self.last();
        if last > first && self.is_behind() {
            last = first + self.below(last - first);
        }
        Ok(Ends { first, last })
    }

    fn read(&mut self, through: u64, each: &mut Each<'_>) -> Result<(), Failure> {
        self.call()?;
        for sequence in self.first..=through {
            if let Some(message) = self.message(sequence) {
                each(sequence, message)?;
            }
        }
        Ok(())
    }

    fn purge(&mut self, sequence: u64) -> Result<(), Failure> {
        self.call()?;
        self.first = self.first.max(sequence);
        Ok(())
    }

    fn pause(&mut self, _: u32) -> Result<(), Failure> {
        self.call()
    }
}
