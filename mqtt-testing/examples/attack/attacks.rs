//! Implements the attacks. Each runs until the measurement ends or the broker closes its connection.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use mqtt_proto::{Delivery, Packet, PacketId, Publish, TopicName, Version, Will};
use mqtt_testing::packets::encode;

use crate::client::{Client, publish, subscribe};

pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// How many attackers run at the same time.
    pub(crate) attackers: usize,
    pub(crate) run: fn(SocketAddr, &AtomicBool),
}

const fn one(name: &'static str, run: fn(SocketAddr, &AtomicBool)) -> Attack {
    Attack {
        name,
        attackers: 1,
        run,
    }
}

pub(crate) const ATTACKS: &[Attack] = &[
    Attack {
        name: "none",
        attackers: 0,
        run: |_, _| {},
    },
    one("5,000 times # over 1,000 retained messages", retained),
    one(
        "8,000 filters of 64 levels, and publishes below them",
        filters,
    ),
    one("a bad packet, then a flood", bad_packet),
    one("publishes of 64 levels", deep),
    one("searches that find nothing", nothing),
    one("a subscriber that never reads", never_reads),
    one("retained messages set and cleared", set_and_cleared),
    one(
        "2,048 subscription identifiers for one message",
        identifiers,
    ),
    one("5,000 shared subscriptions of one client", shared),
    one("1,000 QoS 2 messages that are never released", unreleased),
    one("QoS 0 that nobody hears", unheard),
    Attack {
        name: "the same from four clients",
        attackers: 4,
        run: unheard,
    },
    one("a trickle of small writes", trickle),
    one("SUBSCRIBE with 40,000 filters", large_subscribe),
    one("200 wills at once, again and again", wills),
];

fn attacker(address: SocketAddr) -> Option<Client> {
    Client::connect(address, "", None)
}

fn retained(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    for n in 0..1_000 {
        let topic = format!("attack/{n}");
        let message = Publish {
            retain: true,
            ..Publish::new(TopicName::new(&topic).expect("a topic"), b"x")
        };
        client.say(&encode(&Packet::Publish(message), Version::V5));
    }
    client.say(&subscribe((0..5_000).map(|_| "#"), None));
    client.read_all(over);
}

/// Returns one level for each bit of a number: `+/` for 0, `a/` for 1.
fn levels(number: u32, count: u32) -> String {
    let level = |bit| {
        if number >> bit & 1 == 0 { "+/" } else { "a/" }
    };
    (0..count).map(level).collect()
}

fn filters(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    for start in (0..8_000_u32).step_by(500) {
        let texts: Vec<_> = (start..start + 500)
            .map(|n| levels(n, 13) + &"a/".repeat(50) + "b")
            .collect();
        client.say(&subscribe(texts.iter().map(String::as_str), None));
    }
    client.flood(&publish(&("a/".repeat(63) + "c"), b"x"), over);
}

fn bad_packet(address: SocketAddr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let Some(mut client) = attacker(address) else {
            return;
        };
        client.say(&[0xF0, 0xFF, 0xFF, 0xFF, 0xFF]);
        client.flood(&[0; 64 << 10], over);
    }
}

fn deep(address: SocketAddr, over: &AtomicBool) {
    if let Some(mut client) = attacker(address) {
        let packet = publish(&("a/".repeat(63) + "a"), b"x");
        client.flood(&packet.repeat(500), over);
    }
}

fn nothing(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    for start in (0..4_096_u32).step_by(512) {
        let texts: Vec<_> = (start..start + 512).map(|n| levels(n, 12) + "b").collect();
        client.say(&subscribe(texts.iter().map(String::as_str), None));
    }
    client.flood(&publish(&("a/".repeat(12) + "c"), b"x").repeat(100), over);
}

fn never_reads(address: SocketAddr, over: &AtomicBool) {
    let (Some(mut silent), Some(mut client)) = (attacker(address), attacker(address)) else {
        return;
    };
    silent.say(&subscribe(["attack"].into_iter(), None));
    client.flood(&publish("attack", &[b'x'; 1_000]).repeat(60), over);
}

fn set_and_cleared(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    let mut packets = Vec::new();
    for payload in [&b"x"[..], b""] {
        for n in 0..500 {
            let topic = format!("attack/{n}/b/c/d");
            let message = Publish {
                retain: true,
                ..Publish::new(TopicName::new(&topic).expect("a topic"), payload)
            };
            packets.extend(encode(&Packet::Publish(message), Version::V5));
        }
    }
    client.flood(&packets, over);
}

fn identifiers(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    for n in 0..2_048 {
        client.say(&subscribe(
            [levels(n, 11).as_str()].into_iter(),
            Some(n + 1),
        ));
    }
    client.flood(&publish(&"a/".repeat(11), b"x"), over);
}

fn shared(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    let texts: Vec<_> = (0..5_000).map(|n| format!("$share/{n}/attack")).collect();
    client.say(&subscribe(texts.iter().map(String::as_str), None));
    client.flood(&publish("attack", b"x"), over);
}

fn unreleased(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    let packets: Vec<u8> = (1..=1_000)
        .filter_map(PacketId::new)
        .flat_map(|id| {
            let message = Publish {
                delivery: Delivery::ExactlyOnce(id),
                ..Publish::new(TopicName::from_static("attack"), b"x")
            };
            encode(&Packet::Publish(message), Version::V5)
        })
        .collect();
    client.flood(&packets, over);
}

fn unheard(address: SocketAddr, over: &AtomicBool) {
    if let Some(mut client) = attacker(address) {
        client.flood(&publish("attack", b"x").repeat(4_000), over);
    }
}

fn trickle(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    let packet = publish("attack", b"x");
    while !over.load(Ordering::Relaxed) && packet.chunks(4).all(|piece| client.say(piece)) {
        std::thread::sleep(Duration::from_micros(50));
    }
}

fn large_subscribe(address: SocketAddr, over: &AtomicBool) {
    let Some(mut client) = attacker(address) else {
        return;
    };
    let texts: Vec<_> = (0..40_000).map(|n| format!("a/{n}")).collect();
    client.flood(&subscribe(texts.iter().map(String::as_str), None), over);
}

fn wills(address: SocketAddr, over: &AtomicBool) {
    while !over.load(Ordering::Relaxed) {
        let clients: Vec<_> = (0..200)
            .map_while(|n| {
                let topic = format!("attack/{n}");
                let topic = TopicName::new(&topic).expect("a topic");
                Client::connect(address, "", Some(Will::new(topic, b"x")))
            })
            .collect();
        if clients.is_empty() {
            return;
        }
    }
}
