//! What messages cost the flash: bytes written and pages erased. `cargo test -p sansio-mqtt-embedded --all-features --test connection
//! wear -- --nocapture` prints the table.

use mqtt_embedded::Buffers;
use mqtt_embedded::blocking::{Connection, Flash};
use mqtt_embedded::proto::{Connect, QoS, Version};
use mqtt_embedded::session::{Config, Durable, Event};

use crate::far::{Far, Time, message};
use crate::nor::Nor;

/// 16 pages of 4 KiB.
const PAGES: usize = 16;
const PAGE: usize = 4_096;
const MESSAGES: usize = 1_500;
/// So many messages are not counted: until all pages are written once, none is erased.
const FIRST: usize = 800;

/// Publishes messages of 40 bytes one after the other. Returns the bytes that were written, and the pages that were erased.
fn wear(qos: QoS, durable: Durable) -> (usize, usize) {
    let time = Time::default();
    let (far, nor) = (Far::new(&time, 1_000), Nor::<PAGE>::new(PAGES));
    let mut flash = Flash::<_, 128, 11>::new(nor.clone(), 0..nor.pages()).unwrap();
    let mut buffers = Buffers::<64, 192, 192, 4, 280>::with_journal();
    let (mut client, input) = buffers.client(Config::default());
    flash.restore(&mut client).unwrap();
    client.set_durable(durable);
    let connect = Connect::new(Version::V311, "device");
    let connection = Connection::new(far, &mut client, input, time, &connect).unwrap();
    let mut connection = connection.with_flash(&mut flash);
    let (mut done, mut before) = (0, (0, 0));
    while done < FIRST + MESSAGES {
        let now = connection.now();
        let (event, client) = connection.next().unwrap();
        match event {
            Some(Event::Connected { .. }) => {}
            Some(Event::Acknowledged { .. }) => done += 1,
            _ => continue,
        }
        if done == FIRST {
            before = nor.wear();
        }
        client.publish(&message(qos, &[b'x'; 40]), now).unwrap();
    }
    connection.flush().unwrap();
    let (bytes, erases) = nor.wear();
    (bytes - before.0, erases - before.1)
}

/// Limits in bytes for a message and pages for 1,000 MESSAGES, a little above what was measured.
#[test]
fn wear_of_a_message_is_within_its_limit() {
    let soon = Durable::WhenOffline(1_000);
    for (qos, durable, most_bytes, most_erases) in [
        (QoS::AtLeastOnce, Durable::Always, 105, 26),
        (QoS::ExactlyOnce, Durable::Always, 135, 33),
        (QoS::AtLeastOnce, soon, 0, 0),
        (QoS::ExactlyOnce, soon, 135, 33),
    ] {
        let (bytes, erases) = wear(qos, durable);
        println!(
            "{qos:?}, {durable:?}: {} bytes, {} page erases for 1,000 messages",
            bytes / MESSAGES,
            erases * 1_000 / MESSAGES
        );
        assert!(bytes <= most_bytes * MESSAGES, "{bytes} bytes");
        assert!(erases * 1_000 <= most_erases * MESSAGES, "{erases} erases");
    }
}
