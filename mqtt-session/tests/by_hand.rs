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

/// A client that acknowledges by hand, and what it must acknowledge.
struct Trial {
    solo: TestedMachine,
    open: VecDeque<Open>,
    id: PacketId,
}

impl Trial {
    fn new() -> Self {
        let mut config = Config::default();
        config.acknowledge = Acknowledge::ByHand;
        let opening = Opening::persistent(Version::V311);
        Self {
            solo: TestedMachine::connected(Role::Client, opening, config),
            open: VecDeque::new(),
            id: PacketId::FIRST,
        }
    }

    fn receive(&mut self, qos: QoS) {
        while self.open.iter().any(|open| open.id == self.id.get()) {
            self.id = self.id.next();
        }
        let id = self.id.get();
        self.solo.feed_publish(qos, id, false, "x");
        let [
            OwnedEvent::Message {
                receipt: Some(receipt),
                ..
            },
        ] = self.solo.learned()[..]
        else {
            panic!("no message with a receipt")
        };
        self.open.push_back(Open {
            qos,
            id,
            acknowledged: false,
            receipt,
        });
        self.id = self.id.next();
    }

    fn acknowledge(&mut self, index: usize) {
        let (open, now) = (&mut self.open[index], self.solo.now);
        let machine = &mut self.solo.machine;
        let done = machine.acknowledge(open.receipt, ReasonCode::Success, now);
        assert_eq!(done.is_ok(), !open.acknowledged);
        open.acknowledged = true;
    }

    /// What of QoS 1 is open ends with the connection; QoS 2 waits until it is sent again.
    fn reconnect(&mut self) {
        self.solo.connect(true);
        self.solo.sent();
        self.solo.learned();
        self.open.retain(|open| open.qos == QoS::ExactlyOnce);
        for open in &self.open {
            self.solo.feed_publish(QoS::ExactlyOnce, open.id, true, "x");
        }
        assert_eq!(self.solo.learned(), []);
    }

    /// Returns the acknowledgements that may go out: those with no unacknowledged message before them.
    fn due(&self, qos: QoS) -> Vec<u16> {
        let of_it = self.open.iter().filter(|open| open.qos == qos);
        of_it
            .take_while(|open| open.acknowledged)
            .map(|open| open.id)
            .collect()
    }

    /// Checks that those went out, and releases the messages at QoS 2.
    fn check_sent(&mut self) {
        let went = acknowledged(&self.solo.sent());
        for qos in [QoS::AtLeastOnce, QoS::ExactlyOnce] {
            let of_it = went.iter().filter(|(other, _)| *other == qos);
            let ids: Vec<u16> = of_it.map(|(_, id)| *id).collect();
            assert_eq!(ids, self.due(qos), "{qos:?}");
            self.open
                .retain(|open| open.qos != qos || !ids.contains(&open.id));
            for id in ids.iter().filter(|_| qos == QoS::ExactlyOnce) {
                self.solo.feed_ack(AckKind::PubRel, *id);
                self.solo.sent();
            }
        }
    }
}

fn acknowledge_in_any_order(choices: &[(u8, u8)]) {
    let mut trial = Trial::new();
    for (choice, which) in choices {
        let which = usize::from(*which);
        match choice % 8 {
            0..=3 => trial.receive([QoS::AtLeastOnce, QoS::ExactlyOnce][which % 2]),
            4..=6 if !trial.open.is_empty() => trial.acknowledge(which % trial.open.len()),
            7 if which % 8 == 0 => trial.reconnect(),
            _ => {}
        }
        trial.check_sent();
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

/// Receipts have serial numbers of 16 bits, so one of 65,536 later messages has the number of a message that the program holds.
#[test]
fn a_message_that_is_held_for_long_does_not_stop_others() {
    use QoS::{AtLeastOnce, ExactlyOnce};
    for (held, others) in [(ExactlyOnce, AtLeastOnce), (AtLeastOnce, ExactlyOnce)] {
        let mut trial = Trial::new();
        trial.receive(held);
        for _ in 0..66_000 {
            trial.receive(others);
            // Three are on their way.
            if trial.open.len() > 3 {
                trial.acknowledge(1);
                trial.check_sent();
            }
        }
        for index in (0..trial.open.len()).rev() {
            trial.acknowledge(index);
        }
        trial.check_sent();
        assert!(trial.open.is_empty());
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
