//! A process: takes over, reads and commits what the model tells it to.

use std::sync::mpsc::{Receiver, Sender};

use mqtt_engine_nats::store::journal::{Kind, Record};
use mqtt_engine_nats::store::{Changes, Failure};
use mqtt_engine_nats::{Answer, Each, Ends, Limits, Name, Owner, Stream};

use crate::Entries;

/// A call of a process.
#[derive(Debug)]
pub(crate) enum Call {
    Append(u64, Vec<u8>),
    Get(u64),
    Ends,
    Read(u64),
    Purge(u64),
    Pause,
    /// The process has read these entries.
    Restored(Entries),
    /// The process wants to know what to commit.
    Next,
    /// The commit is acknowledged, or there was no room.
    Committed(bool),
    /// The process has ended.
    Ended(Failure),
}

/// The result of a call.
#[derive(Debug)]
pub(crate) enum Reply {
    Answer(Answer),
    Message(Option<Vec<u8>>),
    Ends(Ends),
    Messages(Vec<(u64, Vec<u8>)>),
    Commit(Vec<Change>),
    Done,
}

/// A put or a deletion by kind and key.
pub(crate) type Change = (u8, Vec<u8>, Option<Vec<u8>>);

/// The calls of a process to the model. Without a reply, the process has crashed.
pub(crate) struct Caller {
    pub(crate) life: usize,
    pub(crate) calls: Sender<(usize, Call)>,
    pub(crate) replies: Receiver<Reply>,
}

fn crashed() -> Failure {
    Failure::Broken("crash".to_owned())
}

impl Caller {
    fn call(&self, call: Call) -> Result<Reply, Failure> {
        self.calls.send((self.life, call)).map_err(|_| crashed())?;
        self.replies.recv().map_err(|_| crashed())
    }
}

impl Stream for Caller {
    fn append(&mut self, expected: u64, message: &[u8]) -> Result<Answer, Failure> {
        match self.call(Call::Append(expected, message.to_vec()))? {
            Reply::Answer(answer) => Ok(answer),
            other => panic!("{other:?}"),
        }
    }

    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, Failure> {
        match self.call(Call::Get(sequence))? {
            Reply::Message(message) => Ok(message),
            other => panic!("{other:?}"),
        }
    }

    fn ends(&mut self) -> Result<Ends, Failure> {
        match self.call(Call::Ends)? {
            Reply::Ends(ends) => Ok(ends),
            other => panic!("{other:?}"),
        }
    }

    fn read(&mut self, through: u64, each: &mut Each<'_>) -> Result<(), Failure> {
        match self.call(Call::Read(through))? {
            Reply::Messages(messages) => messages
                .iter()
                .try_for_each(|(sequence, message)| each(*sequence, message)),
            other => panic!("{other:?}"),
        }
    }

    fn purge(&mut self, sequence: u64) -> Result<(), Failure> {
        self.call(Call::Purge(sequence)).map(drop)
    }

    fn pause(&mut self, _: u32) -> Result<(), Failure> {
        self.call(Call::Pause).map(drop)
    }
}

/// Blocks hold few bytes, so that most commits need more than one.
const LIMITS: Limits = Limits {
    message: 100,
    compact_from: 3000,
    compact_at: 3,
};

fn record((kind, key, value): &Change) -> Record<'_> {
    Record {
        kind: Kind::from_byte(*kind).unwrap(),
        key,
        value: value.as_deref(),
    }
}

/// Lives until a failure.
pub(crate) fn live(mut caller: Caller, instance: usize) {
    let Err(failure) = try_to_live(&mut caller, instance);
    // The model may have ended.
    let _ = caller.calls.send((caller.life, Call::Ended(failure)));
}

fn try_to_live(caller: &mut Caller, instance: usize) -> Result<std::convert::Infallible, Failure> {
    let name = Name {
        shard: "0".to_owned(),
        // All have the same name, as after a mistake in their settings.
        node: "node".to_owned(),
        instance: instance.try_into().unwrap(),
    };
    let mut owner = Owner::take_over(caller, name, LIMITS)?;
    let mut entries = Entries::new();
    owner.read(caller, &mut |record| {
        let key = (record.kind.byte(), record.key.to_vec());
        entries.insert(key, record.value.unwrap().to_vec());
    })?;
    caller.call(Call::Restored(entries))?;
    loop {
        let changes = match caller.call(Call::Next)? {
            Reply::Commit(changes) => changes,
            other => panic!("{other:?}"),
        };
        let records: Vec<_> = changes.iter().map(record).collect();
        let stored = match owner.commit(caller, &Changes::of(&records), u64::MAX) {
            Ok(_) => true,
            Err(Failure::DiskFull) => false,
            Err(failure) => return Err(failure),
        };
        caller.call(Call::Committed(stored))?;
    }
}
