//! Restores a session from the flash of version 1, in the file `mqtt-testing/formats/1/flash.bin`. Its records are those of a client of
//! `mqtt-journal`, and the map around them is that of `sequential-storage`. With `MQTT_WRITE_FORMATS=1` the test writes the file.

use std::path::Path;

use mqtt_embedded::Buffers;
use mqtt_embedded::blocking::Flash;
use mqtt_embedded::proto::{Connect, QoS, Version};
use mqtt_embedded::session::{Acknowledge, Client, Config, Event, Instant, Step};

use crate::far::message;
use crate::nor::Nor;

const NOW: Instant = Instant::from_millis(0);

const FILE: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/../mqtt-testing/formats/1/flash.bin"
);

type Memory = Buffers<64, 192, 192, 4, 280>;

fn config() -> Config {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    config
}

fn flash(nor: &Nor) -> Flash<Nor, 128, 11> {
    Flash::new(nor.clone(), 0..nor.pages()).unwrap()
}

/// Publishes at QoS 1 and 2, and takes a QoS 2 message with a note.
fn make() -> Vec<u8> {
    let nor = Nor::new(3);
    let (mut flash, mut buffers) = (flash(&nor), Memory::with_journal());
    let (mut client, _) = buffers.client(config());
    flash.restore(&mut client).unwrap();
    let send = |client: &mut Client<'_>, flash: &mut Flash<Nor, 128, 11>| {
        flash.store(client).unwrap();
        let sent = client.outgoing().len();
        client.sent(sent);
    };
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V311, "device")
    };
    client.connect(&connect, NOW).unwrap();
    send(&mut client, &mut flash);
    client.receive(b"\x20\x02\0\0", NOW).unwrap();
    for (qos, payload) in [(QoS::AtLeastOnce, b"one"), (QoS::ExactlyOnce, b"two")] {
        client.publish(&message(qos, payload), NOW).unwrap();
    }
    send(&mut client, &mut flash);
    let input = b"\x34\x06\0\x01t\0\x09x";
    let Ok(Step::Packet {
        event: Some(Event::Message(received)),
        ..
    }) = client.receive(input, NOW)
    else {
        panic!("no message");
    };
    let receipt = received.receipt.unwrap();
    client.acknowledge_with(receipt, b"note", NOW).unwrap();
    send(&mut client, &mut flash);
    nor.bytes()
}

#[test]
fn a_device_continues_from_version_1() {
    if std::env::var_os("MQTT_WRITE_FORMATS").is_some() {
        std::fs::write(FILE, make()).unwrap();
    }
    let nor = Nor::with(std::fs::read(Path::new(FILE)).unwrap());
    let (mut flash, mut buffers) = (flash(&nor), Memory::with_journal());
    let (mut client, _) = buffers.client(config());
    assert!(flash.restore(&mut client).unwrap());
    assert_eq!(client.note(), Some(&b"note"[..]));
    let kept: Vec<_> = client
        .unacknowledged_all()
        .map(|(token, publish)| (token.packet_id().unwrap().get(), publish.payload.to_vec()))
        .collect();
    assert_eq!(kept, [(1, b"one".to_vec()), (2, b"two".to_vec())]);
    // The QoS 2 message is known: a repetition is answered, and is no event.
    let connect = Connect {
        clean_start: false,
        ..Connect::new(Version::V311, "device")
    };
    client.connect(&connect, NOW).unwrap();
    flash.store(&mut client).unwrap();
    let sent = client.outgoing().len();
    client.sent(sent);
    client.receive(b"\x20\x02\x01\0", NOW).unwrap();
    let repeated = client.receive(b"\x3c\x06\0\x01t\0\x09x", NOW).unwrap();
    assert!(
        matches!(repeated, Step::Packet { event: None, .. }),
        "{repeated:?}"
    );
    flash.store(&mut client).unwrap();
    assert!(client.outgoing().ends_with(b"\x50\x02\0\x09"));
}
