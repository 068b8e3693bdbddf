//! Checks the bytes of each record against `docs/JOURNAL.md`, and that invalid records are rejected.

use mqtt_journal::proto::{PacketId, Version};
use mqtt_journal::{
    Asked, Entry, Fault, Format, Kind, MAX_NOTE, Machine, Note, Outgoing, Received, Record,
    Records, Session, Subscribed, VERSION,
};

/// A journal of version 1. Do not change it: it must be readable as long as version 1 is.
const VERSION_1: &[u8] = b"\x04\x00\x00\x01\x01\
    \x18\x01\x00\x00\x00\x00\x00\x01pump-7/corridor-1\
    \x1b\x02\x08\x00\x00\x00\x00\x00\x00\x00\x09\x00\x00\x00\x00\x01\x00\x02\x04\x34\x07\x00\x01a\x00\x02hi\
    \x11\x02\x08\x00\x00\x00\x00\x00\x00\x00\x09\x01\x00\x00\x00\x01\x00\x02\
    \x0a\x42\x08\x00\x00\x00\x00\x00\x00\x00\x09\
    \x09\x03\x02\xff\xff\x00\x00\x00\x00\x01\
    \x15\x03\x02\xff\xff\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x05note\
    \x04\x43\x02\xff\xff";

const RECEIVED: Received<'_> = Received {
    serial: 1,
    released: false,
    note: None,
};

fn version_1() -> Vec<Entry<'static>> {
    let order = 9;
    let (serial, id) = (1, PacketId::new(2).unwrap());
    let last = PacketId::new(0xFFFF).unwrap();
    let message = Outgoing::Message {
        serial,
        id: Some(id),
        version: Version::V311,
        packet: b"\x34\x07\0\x01a\0\x02hi",
    };
    let note = Note {
        order: 5,
        bytes: b"note",
    };
    let noted = Received {
        released: true,
        note: Some(note),
        ..RECEIVED
    };
    let session = Session {
        serial,
        clean: false,
        client_id: "pump-7/corridor-1",
    };
    vec![
        Entry::Format(Format::new(Machine::Client)),
        Entry::Session(session),
        Entry::Outgoing(order, Some(message)),
        Entry::Outgoing(order, Some(Outgoing::Released { serial, id })),
        Entry::Outgoing(order, None),
        Entry::Received(last, Some(RECEIVED)),
        Entry::Received(last, Some(noted)),
        Entry::Received(last, None),
    ]
}

#[test]
fn version_1_is_read() {
    let read: Vec<_> = Records::new(VERSION_1)
        .map(|record| Entry::read(&record.unwrap()).unwrap().unwrap())
        .collect();
    assert_eq!(read, version_1());
}

#[test]
fn version_1_is_written() {
    assert_eq!(VERSION, 1);
    let mut journal = Vec::new();
    for entry in version_1() {
        let mut record = vec![0; entry.encoded_len().unwrap()];
        assert_eq!(entry.write(&mut record), Some(record.len()));
        journal.append(&mut record);
    }
    assert_eq!(journal, VERSION_1);
}

/// The records that only an agent writes, in version 1. Do not change them.
const VERSION_1_OF_AN_AGENT: &[u8] = b"\x0b\x04\x03a/#\x01\x19\x00\x00\x00\x07\x05\x44\x03a/#";

#[test]
fn version_1_of_an_agent_is_read_and_written() {
    let state = Asked {
        standing: 1,
        options: 0x19,
        identifier: 7,
    };
    let mut journal = Vec::new();
    let mut records = Records::new(VERSION_1_OF_AN_AGENT);
    for state in [Some(state), None] {
        let filter = "a/#";
        let subscribed = Subscribed { filter, state };
        let record = records.next().unwrap().unwrap();
        assert_eq!(Subscribed::read(&record), Ok(Some(subscribed)));
        assert_eq!(Entry::read(&record), Err(Fault::UnknownKind(4)));
        let len = subscribed.encoded_len().unwrap();
        let mut bytes = vec![0; len];
        assert_eq!(subscribed.write(&mut bytes[1..]), None);
        assert_eq!(subscribed.write(&mut bytes), Some(len));
        journal.append(&mut bytes);
    }
    assert_eq!(journal, VERSION_1_OF_AN_AGENT);
}

#[test]
fn a_wrong_subscription_is_refused() {
    let read = |key, value| {
        let kind = Kind::new(4);
        let value = Some(value);
        Subscribed::read(&Record { kind, key, value })
    };
    assert!(read(b"a", b"\x02\x12\0\0\0\x01").is_ok());
    for value in [
        &b"\x03\x12\0\0\0\x01"[..],
        b"\x02\x03\0\0\0\x01",
        b"\x02\x30\0\0\0\x01",
        b"\x02\x12\x10\0\0\0",
        b"\x02\x12\0\0\0",
        b"\x02\x12\0\0\0\x01\0",
    ] {
        assert_eq!(read(b"a", value), Err(Fault::Value), "{value:?}");
    }
    assert_eq!(read(b"\xff", b"\x02\x12\0\0\0\x01"), Err(Fault::Key));
}

#[test]
fn nothing_is_written_without_room() {
    for entry in version_1() {
        let len = entry.encoded_len().unwrap();
        for room in 0..len {
            assert_eq!(entry.write(&mut vec![0; room]), None);
        }
    }
}

#[test]
fn a_cut_journal_gives_its_whole_records_and_says_where_it_is_cut() {
    let whole: Vec<_> = Records::new(VERSION_1).map(Result::unwrap).collect();
    for len in 0..VERSION_1.len() {
        let mut records = Records::new(&VERSION_1[..len]);
        let (mut read, mut cut) = (Vec::new(), None);
        for record in records.by_ref() {
            match record {
                Ok(record) => read.push(record),
                Err(damaged) => cut = Some(damaged),
            }
        }
        assert_eq!(read, whole[..read.len()]);
        let at = records.consumed();
        let cut = cut.map(|damaged| (damaged.at, damaged.fault));
        assert_eq!(cut, (at < len).then_some((at, Fault::CutOff)));
    }
}

#[test]
fn a_wrong_frame_is_refused() {
    for (bytes, fault) in [
        (&b"\x00"[..], Fault::Length),
        (b"\x80\x00", Fault::Length),
        (b"\xff\xff\xff\xff\x01", Fault::Length),
        (b"\x01\x03", Fault::KeyLength),
        (b"\x02\x03\x80", Fault::KeyLength),
        (b"\x04\x03\x03\x00\x07", Fault::KeyLength),
        (b"\x05\x43\x02\x00\x07x", Fault::ValueOfDelete),
    ] {
        assert_eq!(Record::read(bytes), Err(fault), "{bytes:02x?}");
    }
}

/// Kind, key and value of a record, and its expected fault.
type Case<'a> = (Kind, &'a [u8], Option<&'a [u8]>, Fault);

#[test]
fn a_wrong_key_or_value_is_refused() {
    let session = Kind::new(1);
    let outgoing = Kind::new(2);
    let received = Kind::new(3);
    let order = [0; 8];
    let long_note = [0; 5 + 8 + MAX_NOTE + 1];
    let cases: [Case<'_>; 19] = [
        (Format::KIND, b"", None, Fault::NoFormat),
        (Format::KIND, b"x", Some(b"\x01\x01"), Fault::NoFormat),
        (Format::KIND, b"", Some(b"\x01\x04"), Fault::Machine),
        (Format::KIND, b"", Some(b"\x01"), Fault::Value),
        (Format::KIND, b"", Some(b"\x01\x01\0"), Fault::Value),
        (session, b"", None, Fault::Value),
        (session, b"", Some(b"\x02\0\0\0\x01"), Fault::Value),
        (session, b"", Some(b"\0\0\0\0"), Fault::Value),
        (session, b"", Some(b"\0\0\0\0\x01\xff"), Fault::Value),
        (session, b"k", Some(b"\0\0\0\0\x01"), Fault::Key),
        (outgoing, &order[1..], None, Fault::Key),
        (outgoing, &order, Some(b"\0\0\0\0\x01\0\x02"), Fault::Value),
        (
            outgoing,
            &order,
            Some(b"\0\0\0\0\x01\0\x02\x06"),
            Fault::Value,
        ),
        (outgoing, &order, Some(b"\x01\0\0\0\x01\0\0"), Fault::Value),
        (
            outgoing,
            &order,
            Some(b"\x01\0\0\0\x01\0\x02\0"),
            Fault::Value,
        ),
        (received, b"\0\0", None, Fault::Key),
        (received, b"\0\x01\x01", None, Fault::Key),
        (received, b"\0\x01", Some(b"\0\0\0\0\x01\0"), Fault::Value),
        (received, b"\0\x01", Some(&long_note), Fault::Value),
    ];
    for (kind, key, value, fault) in cases {
        let record = Record { kind, key, value };
        assert_eq!(Entry::read(&record), Err(fault), "{record:02x?}");
    }
}

#[test]
fn an_unknown_kind_is_left_out_only_if_it_says_so() {
    let mut record = Record {
        kind: Kind::new(63),
        key: b"",
        value: None,
    };
    assert_eq!(Entry::read(&record), Err(Fault::UnknownKind(63)));
    record.kind = record.kind.optional();
    assert_eq!(Entry::read(&record), Ok(None));
}

#[test]
fn another_version_and_another_machine_are_refused_by_name() {
    let record = |value| Record {
        kind: Format::KIND,
        key: b"",
        value: Some(value),
    };
    let later = Format::read(&record(b"\x02more")).unwrap_err();
    assert_eq!(
        later.to_string(),
        "the format has version 2; this program reads 1 to 1"
    );
    let broker = Format::new(Machine::Broker).value();
    let broker = record(&broker[..]);
    assert_eq!(
        Format::read_of(Machine::Client, &broker),
        Err(Fault::Machine)
    );
    assert!(Format::read_of(Machine::Broker, &broker).is_ok());
}

#[test]
fn a_note_that_is_too_long_is_not_written() {
    let note = |len| {
        let order = 1;
        let bytes = &[7; 65][..len];
        let note = Some(Note { order, bytes });
        Entry::Received(PacketId::FIRST, Some(Received { note, ..RECEIVED }))
    };
    assert!(note(MAX_NOTE).encoded_len().is_some());
    assert_eq!(note(MAX_NOTE + 1).encoded_len(), None);
    assert_eq!(note(MAX_NOTE + 1).write(&mut [0; 128]), None);
}
