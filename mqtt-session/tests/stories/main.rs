//! Named sequences of packets in which published libraries fail, for client and server, in 3.1.1 and 5. The test is the peer.

mod aliases;
mod connections;
mod delivery;
mod keep_alive;
mod requests;
mod sessions;
mod windows;

use mqtt_proto::{
    AckKind, Auth, ConnAck, Connect, Decoded, Disconnect, EncodeError, MAX_PACKET, Packet,
    PacketId, PacketType, Properties, Property, Publish, QoS, ReasonCode, Rule, SubAck,
    Subscription, TopicAlias, TopicFilter, TopicName, Version, Will,
};
use mqtt_session::{
    Acknowledge, Client, Config, Ended, Event, Heap, Instant, Offline, Outgoing, Refused,
    SessionLost, Step, Violation, WillDue,
};
use mqtt_testing::machines::{Opening, OwnedEvent, Role, TestedMachine};
use mqtt_testing::packets::vectors::hex;
use mqtt_testing::packets::{ack, ack_with, encode, publish};

use PacketType as P;

fn default(role: Role, version: Version) -> TestedMachine {
    TestedMachine::connected(role, Opening::persistent(version), Config::default())
}

fn with(
    role: Role,
    version: Version,
    set: impl FnOnce(&mut Config, &mut Opening),
) -> TestedMachine {
    let (mut config, mut opening) = (Config::default(), Opening::persistent(version));
    set(&mut config, &mut opening);
    TestedMachine::connected(role, opening, config)
}

/// Adds a property of MQTT 5 that the peer of `role` announces.
fn peer_announces(role: Role, opening: &mut Opening, property: Property<'static>) {
    match role {
        Role::Client => opening.connack.push(property),
        Role::Server => opening.connect.push(property),
    }
}

/// Adds a property of MQTT 5 that the machine of `role` announces.
fn announces(role: Role, opening: &mut Opening, property: Property<'static>) {
    match role {
        Role::Client => opening.connect.push(property),
        Role::Server => opening.connack.push(property),
    }
}

/// DUP, QoS, identifier and payload of a PUBLISH.
type Seen = (bool, QoS, u16, String);

/// The PUBLISH packets in `bytes`, and the types of all others.
fn publishes(mut bytes: &[u8], version: Version) -> (Vec<Seen>, Vec<P>) {
    let (mut found, mut others) = (Vec::new(), Vec::new());
    while let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(bytes, version, MAX_PACKET)
    {
        match packet {
            Packet::Publish(p) => {
                let id = p.delivery.packet_id().map_or(0, PacketId::get);
                found.push((
                    p.dup,
                    p.qos(),
                    id,
                    String::from_utf8(p.payload.to_vec()).unwrap(),
                ));
            }
            other => others.push(other.packet_type()),
        }
        bytes = &bytes[consumed..];
    }
    (found, others)
}

fn closed(solo: &mut TestedMachine) -> Option<Violation> {
    solo.learned().into_iter().find_map(|h| {
        if let OwnedEvent::Closed(why) = h {
            Some(why)
        } else {
            None
        }
    })
}
