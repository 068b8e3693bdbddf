//! Tens of thousands of messages that are not acknowledged, in both directions, and acknowledgements in every order.

use std::collections::VecDeque;

use mqtt_proto::{AckKind, Decoded, MAX_PACKET, Packet, PacketId, QoS, ReasonCode, Version};
use mqtt_session::{Acknowledge, Config, Token};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};

const MANY: u16 = if cfg!(miri) { 300 } else { 8_000 };

/// Settings with the largest window and no limit of outgoing bytes.
fn config() -> Config {
    let mut config = Config::default();
    (config.window, config.window_qos2) = (u16::MAX, u16::MAX);
    config.outgoing_limit = 64 << 20;
    config
}

fn connected(config: Config) -> TestedMachine {
    let opening = Opening::persistent(Version::V311);
    TestedMachine::connected(Role::Client, opening, config)
}

/// An order in which `count` messages end.
fn order(count: usize, which: usize) -> Vec<usize> {
    // A step that has no common divisor with the count reaches each index once.
    let step = [1, count - 1, 7_919, count / 2 + 1][which];
    let mut seen = vec![false; count];
    let mut all: Vec<usize> = (0..count).map(|n| n * step % count).collect();
    all.retain(|n| !std::mem::replace(&mut seen[*n], true));
    all.extend((0..count).filter(|n| !seen[*n]));
    all
}

fn end(solo: &mut TestedMachine, qos: QoS, token: Token) {
    let id = token.packet_id().expect("not QoS 0").get();
    if qos == QoS::AtLeastOnce {
        solo.feed_ack(AckKind::PubAck, id);
    } else {
        solo.feed_ack(AckKind::PubRec, id);
        solo.feed_ack(AckKind::PubComp, id);
    }
    let reason = ReasonCode::Success;
    assert_eq!(solo.learned(), [OwnedEvent::Acknowledged { token, reason }]);
}

#[test]
fn each_acknowledgement_ends_its_own_message_in_any_order() {
    for which in 0..4 {
        let mut solo = connected(config());
        let tokens: Vec<(QoS, Token)> = (0..MANY)
            .map(|n| {
                let qos = [QoS::AtLeastOnce, QoS::ExactlyOnce][usize::from(n % 2)];
                (qos, solo.must_publish(qos, "x"))
            })
            .collect();
        solo.sent();
        for (n, index) in order(tokens.len(), which).into_iter().enumerate() {
            let (qos, token) = tokens[index];
            end(&mut solo, qos, token);
            // New ones come in between, and end.
            if n % 1_000 == 0 {
                let token = solo.must_publish(QoS::AtLeastOnce, "y");
                end(&mut solo, QoS::AtLeastOnce, token);
            }
        }
        assert_eq!(solo.machine.pending(), 0);
    }
}

/// 3.1.1 [MQTT-4.6.0-1], 5 [MQTT-4.6.0-1]: after acknowledgements in any order, the rest is sent again in its first order.
#[test]
fn messages_that_are_left_are_sent_again_in_order() {
    let mut solo = connected(config());
    let tokens: Vec<Token> = (0..MANY)
        .map(|_| solo.must_publish(QoS::AtLeastOnce, "x"))
        .collect();
    solo.sent();
    let mut left: Vec<u16> = Vec::new();
    let order = order(tokens.len(), 2);
    for (n, index) in order.into_iter().enumerate() {
        if n % 5 == 0 {
            left.push(tokens[index].packet_id().unwrap().get());
        } else {
            end(&mut solo, QoS::AtLeastOnce, tokens[index]);
        }
    }
    left.sort_unstable();
    solo.connect(true);
    assert_eq!(identifiers(&solo.sent()), left);
}

/// The identifiers of the PUBLISH packets or acknowledgements in `bytes`.
fn identifiers(mut bytes: &[u8]) -> Vec<u16> {
    let mut ids = Vec::new();
    while let Ok(Decoded::Packet { packet, consumed }) =
        Packet::decode(bytes, Version::V311, MAX_PACKET)
    {
        bytes = &bytes[consumed..];
        let id = match (&packet, packet.as_ack()) {
            (Packet::Publish(publish), _) => publish.delivery.packet_id(),
            (_, Some((_, ack))) => Some(ack.packet_id),
            _ => None,
        };
        ids.extend(id.map(PacketId::get));
    }
    assert_eq!(bytes, []);
    ids
}

/// An identifier that is not acknowledged stays in use after the numbers wrap around, even if many slots follow it.
#[test]
fn identifiers_in_use_are_skipped_after_the_wrap() {
    let mut solo = connected(config());
    let stuck = solo.must_publish(QoS::AtLeastOnce, "stuck");
    let mut open = VecDeque::new();
    for _ in 0..if cfg!(miri) { 400 } else { 140_000_u32 } {
        let token = solo.must_publish(QoS::AtLeastOnce, "x");
        assert_ne!(token.packet_id(), stuck.packet_id());
        open.push_back(token);
        solo.sent();
        if open.len() > 100 {
            end(&mut solo, QoS::AtLeastOnce, open.pop_front().unwrap());
        }
    }
    end(&mut solo, QoS::AtLeastOnce, stuck);
}

#[test]
fn receipts_in_any_order_acknowledge_in_the_order_of_the_messages() {
    for which in 0..4 {
        let mut config = config();
        config.acknowledge = Acknowledge::ByHand;
        let mut solo = connected(config);
        for id in 1..=MANY {
            solo.feed_publish(QoS::AtLeastOnce, id, false, "x");
        }
        let receipts: Vec<_> = solo
            .learned()
            .into_iter()
            .map(|event| match event {
                OwnedEvent::Message { receipt, .. } => receipt.unwrap(),
                other => panic!("{other:?}"),
            })
            .collect();
        let now = solo.now;
        for index in order(receipts.len(), which) {
            let done = solo
                .machine
                .acknowledge(receipts[index], ReasonCode::Success, now);
            done.unwrap();
        }
        let all: Vec<u16> = (1..=MANY).collect();
        assert_eq!(identifiers(&solo.sent()), all);
    }
}

/// QoS 2 messages are found by their identifiers, whether the peer uses ascending identifiers or not.
#[test]
fn identifiers_of_a_peer_may_come_in_any_order() {
    for which in 0..4 {
        let mut solo = connected(config());
        let ids: Vec<u16> = order(usize::from(MANY), which)
            .into_iter()
            .map(|n| u16::try_from(n + 1).unwrap())
            .collect();
        for id in &ids {
            solo.feed_publish(QoS::ExactlyOnce, *id, false, "x");
        }
        assert_eq!(solo.messages().len(), ids.len());
        for id in ids.iter().step_by(97) {
            solo.feed_publish(QoS::ExactlyOnce, *id, true, "x");
        }
        assert_eq!(solo.messages().len(), 0, "each was known");
        solo.sent();
        for id in ids.iter().rev() {
            solo.feed_ack(AckKind::PubRel, *id);
        }
        let expected: Vec<u16> = ids.iter().rev().copied().collect();
        assert_eq!(identifiers(&solo.sent()), expected);
        // They are free again.
        solo.feed_publish(QoS::ExactlyOnce, ids[0], false, "new");
        assert_eq!(solo.messages(), ["new"]);
    }
}
