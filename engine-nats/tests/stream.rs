//! An owner on a stream that always answers: damage, compaction, long records and limits.

use mqtt_engine_nats::block::Block;
use mqtt_engine_nats::store::journal::{Kind, Record};
use mqtt_engine_nats::store::{Changes, Failure};
use mqtt_engine_nats::{Answer, Each, Ends, Limits, Name, Owner, Stream};
use proptest::prelude::*;

/// Messages with their sequences.
#[derive(Clone, Debug, Default)]
struct Messages {
    all: Vec<(u64, Vec<u8>)>,
    last: u64,
    /// How many more messages have room.
    room: Option<usize>,
}

impl Stream for Messages {
    fn append(&mut self, expected: u64, message: &[u8]) -> Result<Answer, Failure> {
        if expected != self.last {
            return Ok(Answer::Refused);
        }
        match &mut self.room {
            Some(0) => return Ok(Answer::Full),
            Some(room) => *room -= 1,
            None => {}
        }
        self.last += 1;
        self.all.push((self.last, message.to_vec()));
        Ok(Answer::Stored(self.last))
    }

    fn get(&mut self, sequence: u64) -> Result<Option<Vec<u8>>, Failure> {
        let found = self.all.iter().find(|(at, _)| *at == sequence);
        Ok(found.map(|(_, message)| message.clone()))
    }

    fn ends(&mut self) -> Result<Ends, Failure> {
        let first = self.all.first().map_or(self.last + 1, |(at, _)| *at);
        Ok(Ends {
            first,
            last: self.last,
        })
    }

    fn read(&mut self, through: u64, each: &mut Each<'_>) -> Result<(), Failure> {
        let wanted = self.all.iter().filter(|(at, _)| *at <= through);
        wanted
            .into_iter()
            .try_for_each(|(at, message)| each(*at, message))
    }

    fn purge(&mut self, sequence: u64) -> Result<(), Failure> {
        self.all.retain(|(at, _)| *at >= sequence);
        Ok(())
    }

    fn pause(&mut self, _: u32) -> Result<(), Failure> {
        Ok(())
    }
}

const LIMITS: Limits = Limits {
    message: 200,
    compact_from: 1500,
    compact_at: 2,
};

fn name() -> Name {
    Name {
        shard: "factory".to_owned(),
        node: "one".to_owned(),
        instance: 1,
    }
}

/// Keys and values.
type Entries = Vec<(Vec<u8>, Vec<u8>)>;

/// Takes over and reads.
fn open(stream: &mut Messages) -> Result<(Owner, Entries), Failure> {
    let mut owner = Owner::take_over(stream, name(), LIMITS)?;
    let mut entries = Vec::new();
    owner.read(stream, &mut |record| {
        entries.push((record.key.to_vec(), record.value.unwrap().to_vec()));
    })?;
    Ok((owner, entries))
}

fn put<'a>(key: &'a [u8], value: &'a [u8]) -> Record<'a> {
    Record {
        kind: Kind::new(3),
        key,
        value: Some(value),
    }
}

/// A journal of two owners: each has made some commits of one to three blocks.
fn journal() -> Messages {
    let mut stream = Messages::default();
    for _ in 0..2 {
        let (mut owner, _) = open(&mut stream).unwrap();
        for n in 0..3 {
            let value = vec![n; usize::from(n) * 130];
            let key = [n];
            let changes = [put(&key, &value)];
            owner
                .commit(&mut stream, &Changes::of(&changes), u64::MAX)
                .unwrap();
        }
    }
    stream
}

/// Opens a journal that must be refused, and returns why.
fn refused(mut stream: Messages) -> String {
    match open(&mut stream) {
        Err(Failure::Damaged(why)) => why,
        other => panic!("{other:?}"),
    }
}

proptest! {
    /// A changed byte, a missing message and a message that is there twice are reported with a sequence; no earlier state is
    /// served.
    #[test]
    fn damage_is_reported(at in any::<prop::sample::Index>(), byte in any::<prop::sample::Index>(), bits in 1..=255_u8) {
        let stream = journal();
        let at = at.index(stream.all.len());
        let mut changed = stream.clone();
        let (sequence, message) = &mut changed.all[at];
        let (byte, sequence) = (byte.index(message.len()), *sequence);
        message[byte] ^= bits;
        let why = refused(changed);
        prop_assert!(why.contains(&format!("sequence {} ", sequence)), "{}", why);
        if at + 1 < stream.all.len() {
            let mut missing = stream.clone();
            missing.all.remove(at);
            let why = refused(missing);
            prop_assert!(why.contains(&format!("sequence {} ", sequence + 1)), "{}", why);
        }
        let mut twice = stream.clone();
        let again = twice.all[at].1.clone();
        twice.last += 1;
        twice.all.push((twice.last, again));
        let why = refused(twice);
        prop_assert!(why.contains(&format!("sequence {}", stream.last + 1)), "{}", why);
    }

    /// Any messages are refused or read, and what is read can be continued.
    #[test]
    fn any_messages_are_refused_or_read(messages in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..6)) {
        let mut stream = Messages::default();
        for message in messages {
            let _ = Block::read(&message);
            stream.append(stream.last, &message).unwrap();
        }
        prop_assert!(matches!(open(&mut stream), Err(Failure::Damaged(_))));
    }

    /// What was written is read, for any fields.
    #[test]
    fn a_block_is_read_as_written(epoch: u64, number: u64, shard in ".{0,20}", body: Vec<u8>, cut in any::<prop::sample::Index>()) {
        let block = Block {
            block_type: mqtt_engine_nats::block::BlockType::Changes,
            is_first: number % 2 == 0,
            continues: epoch % 2 == 0,
            epoch,
            number,
            before: 0x0102_0304,
            shard: &shard,
            body: &body,
        };
        let bytes = block.write().unwrap();
        prop_assert_eq!(Block::read(&bytes).unwrap().0, block);
        prop_assert!(Block::read(&bytes[..cut.index(bytes.len())]).is_err());
    }
}

#[test]
fn a_shard_reads_no_blocks_of_another_one() {
    let mut stream = journal();
    let other = Name {
        shard: "office".to_owned(),
        ..name()
    };
    let mut owner = Owner::take_over(&mut stream, other, LIMITS).unwrap();
    let read = owner.read(&mut stream, &mut |_| ());
    let Err(Failure::Damaged(why)) = read else {
        panic!("{read:?}")
    };
    assert_eq!(why, "sequence 1 of the stream: it is of another shard");
}

#[test]
fn a_compacted_stream_has_the_same_entries_and_fewer_bytes() {
    let mut stream = Messages::default();
    let (mut owner, _) = open(&mut stream).unwrap();
    for n in 0..100_u8 {
        let value = [n; 50];
        let key = [n % 5];
        let changes = [put(&key, &value)];
        owner
            .commit(&mut stream, &Changes::of(&changes), u64::MAX)
            .unwrap();
        let bytes: usize = stream.all.iter().map(|(_, message)| message.len()).sum();
        // The limit, one snapshot of five entries and one commit.
        assert!(bytes < 1500 + 450 + 100, "{bytes} bytes");
    }
    let (_, entries) = open(&mut stream).unwrap();
    let expected: Vec<_> = (95..100).map(|n| (vec![n % 5], vec![n; 50])).collect();
    assert_eq!(entries, expected);
}

/// The process ends between the end of the snapshot and the purge: the next owner deletes the blocks before it.
#[test]
fn the_next_owner_completes_a_compaction() {
    let mut stream = Messages::default();
    let (mut owner, _) = open(&mut stream).unwrap();
    let (mut before, mut first) = (stream.clone(), 1);
    while first == 1 {
        before = stream.clone();
        let changes = [put(b"key", &[1; 100])];
        owner
            .commit(&mut stream, &Changes::of(&changes), u64::MAX)
            .unwrap();
        first = stream.all[0].0;
    }
    // What the purge has deleted is there again.
    let mut kept = before.all.clone();
    kept.retain(|(at, _)| *at < first);
    stream.all.splice(0..0, kept);
    let (_, entries) = open(&mut stream).unwrap();
    assert_eq!(stream.all[0].0, first);
    assert_eq!(entries, [(b"key".to_vec(), vec![1; 100])]);
    // The snapshot itself has lost its first block.
    stream.all.remove(0);
    let why = refused(stream);
    assert!(why.contains("blocks before it are missing"), "{why}");
}

#[test]
fn a_record_longer_than_a_message_is_stored() {
    let mut stream = Messages::default();
    let (mut owner, _) = open(&mut stream).unwrap();
    let value: Vec<_> = (0..10_000_u32).map(|n| n.to_le_bytes()[0]).collect();
    let changes = [put(b"a", &value), put(b"b", b"short")];
    let growth = owner.commit(&mut stream, &Changes::of(&changes), u64::MAX);
    assert_eq!(growth, Ok(10_002 + 7));
    assert!(stream.all.iter().all(|(_, message)| message.len() <= 200));
    let (_, entries) = open(&mut stream).unwrap();
    let expected = [(b"a".to_vec(), value), (b"b".to_vec(), b"short".to_vec())];
    assert_eq!(entries, expected);
}

#[test]
fn a_commit_without_room_changes_nothing_and_may_be_repeated() {
    let mut stream = Messages::default();
    let (mut owner, _) = open(&mut stream).unwrap();
    let value = [1; 500];
    let changes = [put(b"a", &value)];
    let changes = Changes::of(&changes);
    let limited = owner.commit(&mut stream, &changes, 501);
    assert_eq!(limited, Err(Failure::Limit));
    for room in [0, 1, 2] {
        stream.room = Some(room);
        let full = owner.commit(&mut stream, &changes, u64::MAX);
        assert_eq!(full, Err(Failure::DiskFull), "{room} messages");
        let (_, entries) = open(&mut stream.clone().with_room()).unwrap();
        assert_eq!(entries, []);
    }
    stream.room = None;
    assert_eq!(owner.commit(&mut stream, &changes, 502), Ok(502));
    let (_, entries) = open(&mut stream).unwrap();
    assert_eq!(entries, [(b"a".to_vec(), value.to_vec())]);
}

impl Messages {
    fn with_room(mut self) -> Self {
        self.room = None;
        self
    }
}

#[test]
fn an_owner_that_is_superseded_stores_nothing_any_more() {
    let mut stream = Messages::default();
    let (mut old, _) = open(&mut stream).unwrap();
    let (_new, _) = open(&mut stream).unwrap();
    let changes = [put(b"a", b"b")];
    for _ in 0..2 {
        let result = old.commit(&mut stream, &Changes::of(&changes), u64::MAX);
        let by = "one, since sequence 2".to_owned();
        assert_eq!(result, Err(Failure::Superseded(by)));
    }
    assert_eq!(stream.last, 2);
}

#[test]
fn a_stream_without_its_messages_is_not_an_empty_journal() {
    let mut stream = journal();
    stream.all.clear();
    assert_eq!(refused(stream), "sequence 10 of the stream is missing");
}
