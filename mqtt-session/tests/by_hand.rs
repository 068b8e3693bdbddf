//! Acknowledging by hand in any order, with both qualities of service mixed, outgoing buffers that are full, and cuts.

use std::collections::VecDeque;

use mqtt_proto::{AckKind, Decoded, MAX_PACKET, Packet, PacketId, QoS, ReasonCode, Version};
use mqtt_session::{Acknowledge, Config, Receipt};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use proptest::prelude::*;

/// A message that came and whose PUBACK or PUBREC did not go out.
#[derive(Clone, Copy, Debug)]
struct Open {
    qos: QoS,
    id: u16,
    acknowledged: bool,
    receipt: Receipt,
}

/// The identifiers in the PUBACK and PUBREC packets of `bytes`.
fn acknowledged(mut bytes: &[u8]) -> Vec<(QoS, u16)> {
    let mut found = Vec::new();
    while let Ok(Decoded::Packet { packet, consumed }) =
        Packet::decode(bytes, Version::V311, MAX_PACKET)
    {
        bytes = &bytes[consumed..];
        match packet.as_ack() {
            Some((AckKind::PubAck, ack)) => found.push((QoS::AtLeastOnce, ack.packet_id.get())),
            Some((AckKind::PubRec, ack)) => found.push((QoS::ExactlyOnce, ack.packet_id.get())),
            Some((AckKind::PubComp, _)) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(bytes, []);
    found
}

/// The acknowledgements that may go out at this quality of service: those with no unacknowledged message before them.
fn due(open: &VecDeque<Open>, qos: QoS) -> Vec<u16> {
    let of_it = open.iter().filter(|open| open.qos == qos);
    of_it
        .take_while(|open| open.acknowledged)
        .map(|open| open.id)
        .collect()
}

fn acknowledge_in_any_order(choices: &[(u8, u8)]) {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    let mut solo =
        TestedMachine::connected(Role::Client, Opening::persistent(Version::V311), config);
    let mut open: VecDeque<Open> = VecDeque::new();
    let mut id = PacketId::FIRST;
    let now = solo.now;
    for (choice, which) in choices {
        match choice % 8 {
            0..=3 => {
                let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(which % 2)];
                solo.feed_publish(qos, id.get(), false, "x");
                let [
                    OwnedEvent::Message {
                        receipt: Some(receipt),
                        ..
                    },
                ] = solo.learned()[..]
                else {
                    panic!("no message with a receipt")
                };
                open.push_back(Open {
                    qos,
                    id: id.get(),
                    acknowledged: false,
                    receipt,
                });
                id = id.next();
            }
            4..=6 if !open.is_empty() => {
                let index = usize::from(*which) % open.len();
                let one = &mut open[index];
                let done = solo
                    .machine
                    .acknowledge(one.receipt, ReasonCode::Success, now);
                assert_eq!(done.is_ok(), !one.acknowledged);
                one.acknowledged = true;
            }
            7 if which % 8 == 0 => {
                // What of QoS 1 is open ends with the connection; QoS 2 waits until it is sent again.
                solo.connect(true);
                solo.sent();
                solo.learned();
                open.retain(|open| open.qos == QoS::ExactlyOnce);
                for open in &open {
                    solo.feed_publish(QoS::ExactlyOnce, open.id, true, "x");
                }
                assert_eq!(solo.learned(), []);
            }
            _ => {}
        }
        let went = acknowledged(&solo.sent());
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let of_it = went.iter().filter(|(other, _)| *other == qos);
            let ids: Vec<u16> = of_it.map(|(_, id)| *id).collect();
            assert_eq!(ids, due(&open, qos), "{qos:?}");
            open.retain(|open| open.qos != qos || !ids.contains(&open.id));
            for id in ids.iter().filter(|_| qos == QoS::ExactlyOnce) {
                solo.feed_ack(AckKind::PubRel, *id);
                solo.sent();
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// 3.1.1 [MQTT-4.6.0-2] and [MQTT-4.6.0-3]: acknowledgements go out in the order of the messages, as soon as that allows.
    #[test]
    fn acknowledgements_go_out_in_the_order_of_the_messages(choices in proptest::collection::vec(any::<(u8, u8)>(), 0..200)) {
        acknowledge_in_any_order(&choices);
    }
}

/// An acknowledgement without room goes out when there is room, without another call of the application.
#[test]
fn acknowledgements_without_room_are_sent_later() {
    let mut config = Config::default();
    config.acknowledge = Acknowledge::ByHand;
    let mut outgoing = [0; 64];
    let mut received = [mqtt_session::ReceiveSlot::default(); 40];
    let lent = mqtt_session::Lent {
        outgoing: &mut outgoing,
        received: &mut received,
        ..mqtt_session::Lent::default()
    };
    let mut client = mqtt_session::Client::new(config, lent);
    let now = mqtt_session::Instant::default();
    let connect = mqtt_proto::Connect::new(Version::V311, "x");
    client.connect(&connect, now).unwrap();
    client.sent(usize::MAX);
    client.receive(&[0x20, 2, 0, 0], now).unwrap();
    let mut receipts = Vec::new();
    for id in 1..=40 {
        let publish = [0x32, 5, 0, 1, b'a', 0, id];
        let step = client.receive(&publish, now).unwrap();
        let mqtt_session::Step::Packet {
            event: Some(mqtt_session::Event::Message(message)),
            ..
        } = step
        else {
            panic!("{step:?}")
        };
        receipts.push(message.receipt.unwrap());
    }
    for receipt in receipts {
        client
            .acknowledge(receipt, ReasonCode::Success, now)
            .unwrap();
    }
    let mut sent = Vec::new();
    while !client.outgoing().is_empty() {
        sent.extend_from_slice(client.outgoing());
        client.sent(client.outgoing().len());
    }
    let expected: Vec<_> = (1..=40).map(|id| (QoS::AtLeastOnce, id)).collect();
    assert_eq!(acknowledged(&sent), expected);
}
