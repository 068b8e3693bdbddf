//! Memory: no message needs an allocation, an idle session is small, and lent buffers are enough without a heap.

use mqtt_proto::{Connect, Decoded, MAX_PACKET, Packet, Publish, QoS, TopicName, Version};
use mqtt_session::{
    Client, Config, Event, Heap, Instant, Lent, Outgoing, ReceiveSlot, Server, ServerEvent, Slot,
    Step,
};

const NOW: Instant = Instant::from_millis(0);

/// Moves bytes both ways until none are left. Returns how many messages the server received, and how many of the client's ended.
fn exchange(client: &mut Client<'_>, server: &mut Server<'_>) -> (usize, usize) {
    let (mut heard, mut acknowledged) = (0, 0);
    loop {
        let up = client.outgoing().len();
        let mut at = 0;
        while at < up {
            match server.receive(&client.outgoing()[at..], NOW).unwrap() {
                Step::Packet { consumed, event } => {
                    at += consumed;
                    match event {
                        Some(ServerEvent::Connect(_)) => {
                            server.accept(&mqtt_proto::ConnAck::default(), NOW).unwrap()
                        }
                        Some(ServerEvent::Message(_)) => heard += 1,
                        _ => {}
                    }
                }
                other => panic!("{other:?}"),
            }
        }
        client.sent(up);
        let down = server.outgoing().len();
        let mut at = 0;
        while at < down {
            match client.receive(&server.outgoing()[at..], NOW).unwrap() {
                Step::Packet { consumed, event } => {
                    at += consumed;
                    acknowledged += usize::from(matches!(event, Some(Event::Acknowledged { .. })));
                }
                other => panic!("{other:?}"),
            }
        }
        server.sent(down);
        if up == 0 && down == 0 {
            return (heard, acknowledged);
        }
    }
}

fn connect(client: &mut Client<'_>, server: &mut Server<'_>, version: Version) {
    client
        .connect(&Connect::new(version, "pump-7"), NOW)
        .unwrap();
    server.opened(NOW);
    exchange(client, server);
    assert!(client.is_connected() && server.is_connected());
}

fn message(qos: QoS) -> Outgoing<'static> {
    Outgoing::new(
        TopicName::from_static("factory/line/7"),
        qos,
        b"twenty-one and a half",
    )
}

#[test]
fn the_steady_state_allocates_nothing() {
    for version in [Version::V311, Version::V5] {
        let (mut client, mut server) = (
            Client::new(Config::default(), Heap),
            Server::new(Config::default(), Heap),
        );
        connect(&mut client, &mut server, version);
        let mut round = |count: usize| {
            for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                for _ in 0..count {
                    client.publish(&message(qos), NOW).unwrap();
                    let ends = usize::from(qos > QoS::AtMostOnce);
                    assert_eq!(exchange(&mut client, &mut server), (1, ends));
                }
            }
        };
        round(3);
        let allocations = allocation_counter::measure(|| round(1_000));
        assert_eq!(allocations.count_total, 0);
    }
}

#[test]
fn an_idle_session_takes_at_most_256_bytes_without_a_journal() {
    // With the feature, a pointer to the journal, and the place of a buffer that a device lends for it.
    let journal = if cfg!(feature = "journal") {
        3 * size_of::<usize>()
    } else {
        0
    };
    let sizes = [size_of::<Client<'static>>(), size_of::<Server<'static>>()];
    assert!(sizes.iter().all(|size| *size <= 256 + journal), "{sizes:?}");
    let made = allocation_counter::measure(|| {
        let session = (
            Client::new(Config::default(), Heap),
            Server::new(Config::default(), Heap),
        );
        assert!(!session.0.is_connected());
    });
    assert_eq!(made.count_total, 0, "its tables are made on first use");
}

/// Two machines with lent buffers of a few hundred bytes exchange messages at every QoS without an allocation.
#[test]
fn lent_buffers_serve_a_full_exchange_without_a_heap() {
    for version in [Version::V311, Version::V5] {
        let mut memory = (
            [0_u8; 256],
            [0_u8; 256],
            [Slot::default(); 4],
            [ReceiveSlot::default(); 4],
        );
        let mut other = (
            [0_u8; 256],
            [0_u8; 256],
            [Slot::default(); 4],
            [ReceiveSlot::default(); 4],
        );
        let allocations = allocation_counter::measure(|| {
            let lent = Lent {
                outgoing: &mut memory.0,
                kept: &mut memory.1,
                slots: &mut memory.2,
                received: &mut memory.3,
                ..Lent::default()
            };
            let far = Lent {
                outgoing: &mut other.0,
                kept: &mut other.1,
                slots: &mut other.2,
                received: &mut other.3,
                ..Lent::default()
            };
            let (mut client, mut server) = (
                Client::new(Config::default(), lent),
                Server::new(Config::default(), far),
            );
            connect(&mut client, &mut server, version);
            for _ in 0..100 {
                for qos in [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce] {
                    client.publish(&message(qos), NOW).unwrap();
                    assert_eq!(
                        exchange(&mut client, &mut server),
                        (1, usize::from(qos > QoS::AtMostOnce))
                    );
                    server.publish(&message(qos)).unwrap();
                    exchange(&mut client, &mut server);
                }
            }
            // Full is an answer here as well; what was accepted before goes on.
            let mut accepted = 0;
            while client.publish(&message(QoS::ExactlyOnce), NOW).is_ok() {
                accepted += 1;
            }
            assert!((2..=4).contains(&accepted), "{accepted}");
            assert_eq!(exchange(&mut client, &mut server), (accepted, accepted));
        });
        assert_eq!(allocations.count_total, 0);
    }
}

/// A message in lent buffers stays after the connection and is sent again with DUP.
#[test]
fn lent_buffers_keep_what_is_unacknowledged() {
    let mut memory = (
        [0_u8; 256],
        [0_u8; 128],
        [Slot::default(); 2],
        [ReceiveSlot::default(); 2],
    );
    let (outgoing, kept, slots, received) = &mut memory;
    let lent = Lent {
        outgoing,
        kept,
        slots,
        received,
        ..Lent::default()
    };
    let mut client = Client::new(Config::default(), lent);
    let mut server = Server::new(Config::default(), Heap);
    let options = Connect {
        clean_start: false,
        ..Connect::new(Version::V311, "pump-7")
    };
    client.connect(&options, NOW).unwrap();
    server.opened(NOW);
    exchange(&mut client, &mut server);
    client.publish(&message(QoS::ExactlyOnce), NOW).unwrap();
    client.disconnected();
    server.disconnected();
    client.connect(&options, NOW).unwrap();
    client.sent(client.outgoing().len());
    let present = [0x20, 2, 1, 0];
    assert!(matches!(
        client.receive(&present, NOW),
        Ok(Step::Packet {
            event: Some(Event::Connected { .. }),
            ..
        })
    ));
    let decoded = Packet::decode(client.outgoing(), Version::V311, MAX_PACKET);
    assert!(matches!(
        decoded,
        Ok(Decoded::Packet {
            packet: Packet::Publish(Publish { dup: true, .. }),
            ..
        })
    ));
}
