//! Implements attacks that make the broker work: one client must not slow the others.

use std::time::Duration;

use mqtt_proto::Delivery;

use super::Target;
use crate::client::{numbered, publish, read_all, retained, subscribe};

pub(super) fn retained_messages(target: &Target) -> Option<()> {
    read_retained(target, 1_000)
}

pub(super) fn many_retained_messages(target: &Target) -> Option<()> {
    read_retained(target, 100_000)
}

/// Retains `count` messages, and asks for all of them 5,000 times with one packet.
fn read_retained(target: &Target, count: u32) -> Option<()> {
    let mut client = target.attacker()?;
    let packets = (0..count).flat_map(|n| retained(&format!("attack/{n}"), b"x", &[]));
    client.pour(&packets.collect::<Vec<_>>(), &target.over);
    client.say(&subscribe((0..5_000).map(|_| "#"), None));
    read_all(&mut [client], &target.over);
    Some(())
}

/// Returns one level for each bit of a number: `+/` for 0, `a/` for 1.
pub(super) fn levels(number: u32, count: u32) -> String {
    let level = |bit| {
        if number >> bit & 1 == 0 { "+/" } else { "a/" }
    };
    (0..count).map(level).collect()
}

pub(super) fn filters(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    for start in (0..8_000_u32).step_by(500) {
        let texts: Vec<_> = (start..start + 500)
            .map(|n| levels(n, 13) + &"a/".repeat(50) + "b")
            .collect();
        client.say(&subscribe(texts.iter().map(String::as_str), None));
    }
    client.flood(&publish(&("a/".repeat(63) + "c"), b"x"), &target.over);
    Some(())
}

pub(super) fn bad_packet(target: &Target) -> Option<()> {
    while target.goes_on() {
        let mut client = target.attacker()?;
        client.say(&[0xF0, 0xFF, 0xFF, 0xFF, 0xFF]);
        client.flood(&[0; 64 << 10], &target.over);
    }
    Some(())
}

/// Two clients have share groups, and a third one subscribes to groups and goes.
pub(super) fn group_names(target: &Target) -> Option<()> {
    let mut holders = target.crowd(2);
    let mut number = 0;
    for holder in &mut holders {
        for _ in 0..10 {
            let texts: Vec<_> = (number..number + 500)
                .map(|n| format!("$share/{n}/attack"))
                .collect();
            number += 500;
            holder.say(&subscribe(texts.iter().map(String::as_str), None));
        }
    }
    while target.goes_on() {
        let mut client = target.attacker()?;
        let texts: Vec<_> = (0..100).map(|n| format!("$share/{n}/attack")).collect();
        let packet = subscribe(texts.iter().map(String::as_str), None);
        client.pour(&packet, &target.over);
    }
    Some(())
}

/// Publishes and subscribes beside many rules that do not match.
pub(super) fn rules(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    let filters = (0..100).map(|n| format!("rule/{n}/attack/+"));
    let filters: Vec<_> = filters.collect();
    let mut packets = subscribe(filters.iter().map(String::as_str), None);
    for n in 0..200 {
        packets.extend(publish(&format!("rule/{n}/attack/x"), b"x"));
    }
    client.flood(&packets, &target.over);
    Some(())
}

pub(super) fn deep(target: &Target) -> Option<()> {
    let packet = publish(&("a/".repeat(63) + "a"), b"x");
    target.attacker()?.flood(&packet.repeat(500), &target.over);
    Some(())
}

pub(super) fn nothing(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    let shared = "a/".repeat(48);
    for start in (0..4_096_u32).step_by(512) {
        let texts: Vec<_> = (start..start + 512)
            .map(|n| format!("{shared}{}b", levels(n, 12)))
            .collect();
        client.say(&subscribe(texts.iter().map(String::as_str), None));
    }
    let packet = publish(&format!("{shared}{}c", "a/".repeat(12)), b"x");
    client.flood(&packet.repeat(100), &target.over);
    Some(())
}

pub(super) fn never_reads(target: &Target) -> Option<()> {
    let (mut silent, mut client) = (target.attacker()?, target.attacker()?);
    silent.say(&subscribe(["attack"].into_iter(), None));
    let packet = publish("attack", &[b'x'; 1_000]);
    client.flood(&packet.repeat(60), &target.over);
    Some(())
}

pub(super) fn set_and_cleared(target: &Target) -> Option<()> {
    let mut packets = Vec::new();
    for payload in [&b"x"[..], b""] {
        for n in 0..500 {
            packets.extend(retained(&format!("attack/{n}/b/c/d"), payload, &[]));
        }
    }
    target.attacker()?.flood(&packets, &target.over);
    Some(())
}

pub(super) fn identifiers(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    for n in 0..2_048 {
        let filter = levels(n, 11);
        client.say(&subscribe([filter.as_str()].into_iter(), Some(n + 1)));
    }
    client.flood(&publish(&"a/".repeat(11), b"x"), &target.over);
    Some(())
}

pub(super) fn overlapping(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    for start in (0..8_000_u32).step_by(500) {
        let texts: Vec<_> = (start..start + 500).map(|n| levels(n, 13)).collect();
        client.say(&subscribe(texts.iter().map(String::as_str), None));
    }
    client.flood(&publish(&"a/".repeat(13), b"x"), &target.over);
    Some(())
}

pub(super) fn shared(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    let texts: Vec<_> = (0..5_000).map(|n| format!("$share/{n}/attack")).collect();
    client.say(&subscribe(texts.iter().map(String::as_str), None));
    client.flood(&publish("attack", b"x"), &target.over);
    Some(())
}

pub(super) fn unreleased(target: &Target) -> Option<()> {
    let packets = numbered(60_000, Delivery::ExactlyOnce, "attack", b"x");
    target.attacker()?.flood(&packets, &target.over);
    Some(())
}

/// Retains, publishes and subscribes with names of as many levels as fit into them.
pub(super) fn deepest(target: &Target) -> Option<()> {
    let name = "/".repeat(65_000);
    let packets = [
        retained(&name, b"x", &[]),
        subscribe([name.as_str(), "#"].into_iter(), None),
        publish(&name, b"x"),
    ];
    while target.goes_on() {
        let mut client = target.attacker()?;
        client.pour(&packets.concat(), &target.over);
        client.drain(&target.over);
    }
    Some(())
}

pub(super) fn unheard(target: &Target) -> Option<()> {
    let packets = publish("attack", b"x").repeat(4_000);
    target.attacker()?.flood(&packets, &target.over);
    Some(())
}

pub(super) fn trickle(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    let packet = publish("attack", b"x");
    while target.goes_on() && packet.chunks(4).all(|piece| client.say(piece)) {
        std::thread::sleep(Duration::from_micros(50));
    }
    Some(())
}

pub(super) fn large_subscribe(target: &Target) -> Option<()> {
    let texts: Vec<_> = (0..40_000).map(|n| format!("a/{n}")).collect();
    let packet = subscribe(texts.iter().map(String::as_str), None);
    target.attacker()?.flood(&packet, &target.over);
    Some(())
}
