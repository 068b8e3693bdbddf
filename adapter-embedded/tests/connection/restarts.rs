//! A device that is reset between two packets, and what its flash has then.

use mqtt_embedded::blocking::{Connection, Flash};
use mqtt_embedded::proto::{Connect, QoS, Version};
use mqtt_embedded::session::{
    Acknowledge, Client, Config, Event, Instant, Outgoing, Refused, Step,
};
use mqtt_embedded::{Buffers, Error, FlashError};

use crate::far::{Far, TOPIC, Time, connect, message};
use crate::nor::Nor;

const VERSIONS: [Version; 2] = [Version::V311, Version::V5];
const NOW: Instant = Instant::from_millis(0);

type Memory = Buffers<64, 192, 192, 4, 280>;

type Records = Flash<Nor, 128, 11>;

fn flash(nor: &Nor) -> Records {
    Flash::new(nor.clone(), 0..nor.pages()).unwrap()
}

/// Starts a device, which asks for a clean start if its flash has no session that goes on. The power is cut before CONNACK, or when
/// the device is connected.
fn start(
    nor: &Nor,
    far: &Far,
    time: &Time,
    answers: bool,
) -> Result<bool, Error<embedded_io::ErrorKind>> {
    far.reopen();
    far.0.borrow_mut().deaf = !answers;
    let (mut flash, mut buffers) = (flash(nor), Memory::with_journal());
    let (mut client, input) = buffers.client(Config::default());
    let has_session = flash.restore(&mut client)?;
    let connect = Connect {
        clean_start: !has_session,
        ..connect(Version::V5)
    };
    let connection = Connection::new(far.clone(), &mut client, input, time.clone(), &connect)?;
    let mut connection = connection.with_flash(&mut flash);
    connection.flush()?;
    if answers {
        let (event, _) = connection.next()?;
        assert!(matches!(event, Some(Event::Connected { .. })), "{event:?}");
        connection.flush()?;
    }
    Ok(has_session)
}

/// A clean start that was not answered is asked for again.
#[test]
fn a_device_that_was_reset_before_connack_connects() {
    let (time, nor) = (Time::default(), Nor::new(3));
    let far = Far::new(&time, 100);
    for _ in 0..3 {
        assert_eq!(start(&nor, &far, &time, false), Ok(false));
    }
    assert_eq!(start(&nor, &far, &time, true), Ok(false));
    assert_eq!(start(&nor, &far, &time, true), Ok(true));
    assert_eq!(start(&nor, &far, &time, false), Ok(true));
    assert_eq!(start(&nor, &far, &time, true), Ok(true));
}

/// Sends what is outgoing, after its records are stored.
fn send(client: &mut Client<'_>, flash: &mut Records) {
    flash.store(client).unwrap();
    while !client.outgoing().is_empty() {
        let sent = client.outgoing().len();
        client.sent(sent);
    }
}

/// Publishes messages of all lengths to a flash for records of `RECORD` bytes, and reads them back. Returns the length of the longest
/// packet that was accepted.
fn longest<const RECORD: usize, const PAGE: usize, const WORD: usize>() -> usize {
    let mut longest = 0;
    for len in 0..300 {
        let nor = Nor::<PAGE, WORD>::new(6);
        let payload = vec![b'x'; len];
        let mut refused = None;
        for is_first in [true, false] {
            let mut flash = Flash::<_, RECORD, 19>::new(nor.clone(), 0..nor.pages()).unwrap();
            let mut buffers = Buffers::<256, 400, 512, 8, 512>::with_journal();
            let (mut client, _) = buffers.client(Config::default());
            flash.restore(&mut client).unwrap();
            if is_first {
                let published = client.publish(&message(QoS::AtLeastOnce, &payload), NOW);
                refused = published.err();
            } else {
                assert_eq!(client.pending(), usize::from(refused.is_none()));
            }
            flash.store(&mut client).unwrap();
        }
        let packet = len + TOPIC.as_str().len() + if len < 121 { 6 } else { 7 };
        match refused {
            None => longest = packet,
            Some(Refused::TooLarge { len, max }) => assert_eq!((len, max), (packet, longest)),
            Some(other) => panic!("{other}"),
        }
    }
    longest
}

/// What cannot be stored and read again is refused: the record of a message takes whole words of the buffer and of a page.
#[test]
fn messages_that_the_flash_cannot_store_are_refused() {
    assert_eq!(longest::<256, 4096, 4>(), 233);
    assert_eq!(longest::<288, 4096, 4>(), 265);
    assert_eq!(longest::<141, 4096, 16>(), 105);
    assert_eq!(longest::<141, 4096, 32>(), 105);
    // A page has two words beside its items, and an item has a header.
    assert_eq!(longest::<288, 256, 4>(), 256 - 8 - 8 - 1 - 22);
}

/// The same holds for the other records: those of the session and of notes.
#[test]
fn identifiers_and_notes_that_the_flash_cannot_store_are_refused() {
    let nor: Nor = Nor::new(3);
    let mut flash = Flash::<_, 64, 11>::new(nor.clone(), 0..nor.pages()).unwrap();
    let mut buffers = Buffers::<64, 192, 192, 4, 640>::with_journal();
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    let (mut client, _) = buffers.client(config);
    flash.restore(&mut client).unwrap();
    let id = "x".repeat(42);
    let max = 41;
    let refused = client.connect(&Connect::new(Version::V311, &id), NOW);
    assert_eq!(refused, Err(Refused::TooLarge { len: 42, max }));
    let accepted = client.connect(&Connect::new(Version::V311, &id[1..]), NOW);
    assert_eq!(accepted, Ok(()));
    flash.store(&mut client).unwrap();
    client.sent(client.outgoing().len());
    client.receive(b"\x20\x02\0\0", NOW).unwrap();
    let Ok(Step::Packet {
        event: Some(Event::Message(received)),
        ..
    }) = client.receive(b"\x34\x06\0\x01t\0\x09x", NOW)
    else {
        panic!("no message");
    };
    let (receipt, note) = (received.receipt.unwrap(), [7; 42]);
    let refused = client.acknowledge_with(receipt, &note, NOW);
    assert_eq!(refused, Err(Refused::TooLarge { len: 42, max }));
    assert_eq!(client.acknowledge_with(receipt, &note[1..], NOW), Ok(()));
    flash.store(&mut client).unwrap();
    client.store_note(mqtt_embedded::proto::PacketId::FIRST, &note);
    flash.store(&mut client).unwrap();
    assert_eq!(client.note(), Some(&note[1..]));
}

/// Half received messages of sessions that the server lost take no entries of the flash for ever.
#[test]
fn lost_sessions_do_not_use_up_the_entries() {
    for version in VERSIONS {
        let nor = Nor::new(3);
        let (mut flash, mut buffers) = (flash(&nor), Memory::with_journal());
        let (mut client, _) = buffers.client(Config::default());
        flash.restore(&mut client).unwrap();
        for round in 1..=5 {
            let connect = connect(version);
            client.connect(&connect, NOW).unwrap();
            send(&mut client, &mut flash);
            let connack: &[u8] = if version == Version::V5 {
                b"\x20\x03\0\0\0"
            } else {
                b"\x20\x02\0\0"
            };
            client.receive(connack, NOW).unwrap();
            send(&mut client, &mut flash);
            for id in 0..4 {
                let id = round * 10 + id;
                let publish = if version == Version::V5 {
                    vec![0x34, 7, 0, 1, b't', 0, id, 0, b'x']
                } else {
                    vec![0x34, 6, 0, 1, b't', 0, id, b'x']
                };
                client.receive(&publish, NOW).unwrap();
                client
                    .publish(&Outgoing::new(TOPIC, QoS::AtLeastOnce, b"x"), NOW)
                    .ok();
                send(&mut client, &mut flash);
            }
            client.disconnected();
        }
        assert_eq!(flash.store(&mut client), Ok::<_, FlashError>(()));
    }
}
