//! Reads the journals of each version that this crate reads, from the files in `mqtt-testing/formats`. The tests of the machines and of the
//! stores restore the same files. `MQTT_WRITE_FORMATS=1 cargo test --test formats` writes those of a new version.

use std::path::PathBuf;

use mqtt_journal::broker::{
    self, Away, Delivery, DueWill, Flow, Identifiers, Message, NEVER, Retained, Subscription,
    Target, Targets, Will,
};
use mqtt_journal::proto::{PacketId, QoS, Version};
use mqtt_journal::{
    Asked, Entry, Format, Machine, Note, Outgoing, Owner, Received, Record, Records, Session,
    Subscribed, VERSION,
};

fn path(version: u8, name: &str) -> PathBuf {
    let formats = concat!(env!("CARGO_MANIFEST_DIR"), "/../mqtt-testing/formats");
    PathBuf::from(formats).join(format!("{version}/{name}.journal"))
}

/// Compares what is written today with the file of the present version.
fn is_as_kept(name: &str, written: &[u8]) {
    let path = path(VERSION, name);
    if std::env::var_os("MQTT_WRITE_FORMATS").is_some() {
        std::fs::write(&path, written).unwrap();
    }
    assert_eq!(std::fs::read(path).unwrap(), written);
}

fn records(journal: &[u8]) -> Vec<Record<'_>> {
    Records::new(journal).map(Result::unwrap).collect()
}

/// Every version that is read has its files.
#[test]
fn each_version_that_is_read_has_its_files() {
    let is_read = |version: &u8| {
        let record = Record {
            kind: Format::KIND,
            key: b"",
            value: Some(&[*version, 1]),
        };
        Format::read(&record).is_ok()
    };
    let versions: Vec<u8> = (0..=u8::MAX).filter(is_read).collect();
    assert_eq!(versions.last(), Some(&VERSION));
    for version in versions {
        for (name, machine) in [
            ("client", Machine::Client),
            ("agent", Machine::Agent),
            ("broker", Machine::Broker),
        ] {
            let journal = std::fs::read(path(version, name)).unwrap();
            let format = Format::read(&records(&journal)[0]).unwrap();
            assert_eq!(format, Format { version, machine });
        }
    }
}

/// The records of a client: four messages to the server, of which one is released and one is acknowledged, and two from it.
fn client_entries(machine: Machine) -> Vec<Entry<'static>> {
    let id = |id| PacketId::new(id).unwrap();
    let message = |id, packet| Outgoing::Message {
        serial: 3,
        id,
        version: Version::V5,
        packet,
    };
    let received = |note| Received {
        serial: 3,
        released: false,
        note,
    };
    let note = Note {
        order: 8,
        bytes: b"row 41",
    };
    let session = |clean| Session {
        serial: 3,
        clean,
        client_id: "pump",
    };
    vec![
        Entry::Format(Format::new(machine)),
        Entry::Session(session(true)),
        Entry::Session(session(false)),
        Entry::Outgoing(4, Some(message(Some(id(4)), b"\x32\x08\0\x01a\0\x04\0hi"))),
        Entry::Outgoing(5, Some(message(Some(id(5)), b"\x34\x07\0\x01b\0\x05\0x"))),
        Entry::Outgoing(6, Some(message(Some(id(6)), b"\x34\x07\0\x01c\0\x06\0y"))),
        Entry::Outgoing(7, Some(message(Some(id(7)), b"\x32\x07\0\x01d\0\x07\0z"))),
        Entry::Outgoing(
            5,
            Some(Outgoing::Released {
                serial: 3,
                id: id(5),
            }),
        ),
        Entry::Outgoing(4, None),
        Entry::Received(id(9), Some(received(None))),
        Entry::Received(id(7), Some(received(Some(note)))),
        Entry::Received(id(10), Some(received(None))),
        Entry::Received(id(10), None),
    ]
}

fn written(entries: &[Entry<'_>]) -> Vec<u8> {
    let mut journal = Vec::new();
    for entry in entries {
        let mut record = vec![0; entry.encoded_len().unwrap()];
        assert_eq!(entry.write(&mut record), Some(record.len()));
        journal.append(&mut record);
    }
    journal
}

#[test]
fn the_journal_of_a_client_is_read_and_written() {
    let entries = client_entries(Machine::Client);
    is_as_kept("client", &written(&entries));
    let kept = std::fs::read(path(1, "client")).unwrap();
    let read = records(&kept).into_iter();
    let read: Vec<_> = read
        .map(|record| Entry::read(&record).unwrap().unwrap())
        .collect();
    assert_eq!(read, entries);
}

#[test]
fn the_journal_of_an_agent_is_read_and_written() {
    let entries = client_entries(Machine::Agent);
    let mut journal = written(&entries[..1]);
    let owner = Owner { client_id: "pump" };
    let mut bytes = vec![0; owner.record().encoded_len().unwrap()];
    owner.record().write(&mut bytes).unwrap();
    journal.append(&mut bytes);
    journal.append(&mut written(&entries[1..]));
    let asked = |standing| {
        Some(Asked {
            standing,
            options: 2,
            identifier: 0,
        })
    };
    let subscriptions = [
        ("a/#", asked(1)),
        ("a/#", asked(2)),
        ("left", asked(0)),
        ("over", asked(2)),
        ("over", None),
    ]
    .map(|(filter, state)| Subscribed { filter, state });
    for subscribed in &subscriptions {
        let mut bytes = vec![0; subscribed.encoded_len().unwrap()];
        subscribed.write(&mut bytes).unwrap();
        journal.append(&mut bytes);
    }
    is_as_kept("agent", &journal);
    let kept = std::fs::read(path(1, "agent")).unwrap();
    let kept = records(&kept);
    assert_eq!(Owner::read(&kept[1]), Ok(Some(owner)));
    let behind = kept.len() - subscriptions.len();
    for (record, subscribed) in kept[behind..].iter().zip(subscriptions) {
        assert_eq!(Subscribed::read(record), Ok(Some(subscribed)));
    }
    for (record, entry) in kept[2..behind].iter().zip(&entries[1..]) {
        assert_eq!(Entry::read(record), Ok(Some(*entry)));
    }
}

const NO_IDENTIFIERS: Identifiers<'static> = Identifiers::Numbers(&[]);

const DELIVERY: Delivery<'static> = Delivery {
    qos: QoS::AtLeastOnce,
    retain: false,
    identifiers: NO_IDENTIFIERS,
    share: None,
    sent: None,
};

/// The session of a target, and how the message is delivered.
type To = (u64, Delivery<'static>);

/// The number of targets, and the targets as in a record.
fn targets(targets: &[To]) -> (u32, Vec<u8>) {
    let mut bytes = Vec::new();
    for (session, delivery) in targets {
        let target = Target {
            session: session << 16,
            delivery: *delivery,
        };
        target.write(&mut |piece| bytes.extend_from_slice(piece));
    }
    (targets.len().try_into().unwrap(), bytes)
}

/// The deliveries of the messages 5 to 9, in their order.
fn deliveries() -> [Vec<To>; 5] {
    let exactly = QoS::ExactlyOnce;
    let full = Delivery {
        qos: exactly,
        retain: true,
        identifiers: Identifiers::Numbers(&[7, 268_435_455]),
        share: None,
        sent: Some(0x0001_0001),
    };
    let shared = Delivery {
        share: Some("$share/g/s"),
        ..DELIVERY
    };
    let again = Delivery {
        qos: exactly,
        ..DELIVERY
    };
    [
        vec![(1, full), (2, DELIVERY)],
        vec![(1, again)],
        vec![(1, shared)],
        vec![(2, DELIVERY)],
        vec![(2, DELIVERY)],
    ]
}

/// Records of all kinds that a broker has, with and without each optional field: two sessions that stay, and one that ends.
fn broker_entries<'a>(deliveries: &'a [(u32, Vec<u8>)]) -> Vec<broker::Entry<'a>> {
    use broker::Entry;
    let mut entries = vec![Entry::Format(Format::new(Machine::Broker))];
    entries.extend(sessions());
    entries.extend(subscriptions());
    let id = |id| PacketId::new(id).unwrap();
    let received = |number, message| Entry::Received {
        session: 2,
        id: id(number),
        message,
    };
    // The identifier is valid together with the message behind it.
    entries.extend([
        received(10, Some(0)),
        received(11, Some(0)),
        received(11, None),
        received(12, Some(5)),
    ]);
    let packets: [&[u8]; 5] = [
        b"\x30\x05\0\x01t\0A",
        b"\x30\x05\0\x01t\0B",
        b"\x30\x05\0\x01s\0C",
        b"\x30\x07\0\x01t\x02\x01\x01D",
        b"\x30\x05\0\x01t\0E",
    ];
    let expires = [NEVER, NEVER, NEVER, 4_102_444_800_000, NEVER];
    for (((number, packet), expires), (count, bytes)) in
        (5..).zip(packets).zip(expires).zip(deliveries)
    {
        let targets = Targets::new(*count, bytes);
        let message = Message {
            expires,
            qos: QoS::ExactlyOnce,
            targets,
            packet,
        };
        entries.push(Entry::Message(number, Some(message)));
    }
    entries.extend(flows());
    entries.extend(kept());
    entries
}

/// MQTT 5 and away, 3.1.1 with a will and connected, one that has ended.
fn sessions() -> Vec<broker::Entry<'static>> {
    let away = broker::Session {
        version: Version::V5,
        expiry: 7_200,
        away: Some(Away {
            ends: 4_102_444_800_000,
            will: NEVER,
        }),
        client_id: "away",
        user_name: Some("ann"),
        will: None,
    };
    let will = Will {
        delay: 0,
        qos: QoS::AtLeastOnce,
        packet: b"\x31\x08\0\x04will\0!",
    };
    let here = broker::Session {
        version: Version::V311,
        expiry: u32::MAX,
        away: None,
        client_id: "here",
        user_name: None,
        will: Some(will),
    };
    let over = broker::Session {
        client_id: "over",
        ..here
    };
    vec![
        broker::Entry::Session(1, Some(away)),
        broker::Entry::Session(2, Some(here)),
        broker::Entry::Session(3, Some(over)),
        broker::Entry::Session(3, None),
    ]
}

fn subscriptions() -> Vec<broker::Entry<'static>> {
    let options = Subscription {
        qos: QoS::ExactlyOnce,
        no_local: false,
        retain_as_published: true,
        identifier: Some(7),
    };
    let plain = Subscription {
        qos: QoS::AtLeastOnce,
        no_local: true,
        retain_as_published: false,
        identifier: None,
    };
    let shared = Subscription {
        no_local: false,
        ..plain
    };
    let subscription = |session, filter, options| broker::Entry::Subscription {
        session,
        filter,
        options,
    };
    let wish = |wanted| broker::Entry::Wish {
        session: 1,
        filter: "kept/#",
        wanted,
    };
    vec![
        subscription(1, "t", Some(options)),
        subscription(1, "kept/#", Some(plain)),
        subscription(1, "$share/g/s", Some(shared)),
        subscription(2, "t", Some(plain)),
        subscription(2, "will", Some(shared)),
        subscription(2, "old", Some(plain)),
        subscription(2, "old", None),
        wish(true),
        wish(false),
        wish(true),
    ]
}

/// One message is sent, one released, one done for one of its targets, one has a target more, one is gone.
fn flows() -> Vec<broker::Entry<'static>> {
    let flow = |message, session: u64, flow| broker::Entry::Flow {
        message,
        session: session << 16,
        flow,
    };
    vec![
        flow(5, 2, Some(Flow::Sent(0x0001_0001))),
        flow(6, 1, Some(Flow::Sent(0x0002_0002))),
        flow(6, 1, Some(Flow::Released(0x0002_0002))),
        flow(8, 1, Some(Flow::Target(DELIVERY))),
        flow(8, 2, Some(Flow::Done)),
        flow(9, 2, Some(Flow::Done)),
        broker::Entry::Message(9, None),
        flow(9, 2, None),
    ]
}

/// Retained messages, with and without all that is known of their publishers, and a will that is being published.
fn kept() -> Vec<broker::Entry<'static>> {
    let all = Retained {
        expires: 4_102_444_800_000,
        qos: QoS::ExactlyOnce,
        publisher: "meter",
        user_name: Some("bob"),
        version: Some(Version::V5),
        packet: b"\x31\x0c\0\x08kept/all\x001",
    };
    let little = Retained {
        expires: NEVER,
        qos: QoS::AtMostOnce,
        publisher: "",
        user_name: None,
        version: None,
        packet: b"\x31\x0f\0\x0bkept/little\x002",
    };
    let will = DueWill {
        qos: QoS::AtLeastOnce,
        packet: b"\x30\x05\0\x01t\0F",
    };
    vec![
        broker::Entry::Retained("kept/all", Some(all)),
        broker::Entry::Retained("kept/little", Some(little)),
        broker::Entry::Retained("gone", Some(little)),
        broker::Entry::Retained("gone", None),
        broker::Entry::DueWill(10, Some(will)),
        broker::Entry::DueWill(11, Some(will)),
        broker::Entry::DueWill(11, None),
    ]
}

#[test]
fn the_journal_of_a_broker_is_read_and_written() {
    let deliveries = deliveries().map(|to| targets(&to));
    let entries = broker_entries(&deliveries);
    let mut journal = Vec::new();
    for entry in &entries {
        let mut record = vec![0; entry.encoded_len().unwrap()];
        assert_eq!(entry.write(&mut record), Some(record.len()));
        journal.append(&mut record);
    }
    is_as_kept("broker", &journal);
    let kept = std::fs::read(path(1, "broker")).unwrap();
    let read = records(&kept).into_iter();
    let read: Vec<_> = read
        .map(|record| broker::Entry::read(&record).unwrap().unwrap())
        .collect();
    assert_eq!(read, entries);
    let kinds: std::collections::BTreeSet<u8> = records(&kept)
        .iter()
        .map(|record| record.kind.byte())
        .collect();
    assert_eq!(kinds, [0].into_iter().chain(16..=23).collect());
}
