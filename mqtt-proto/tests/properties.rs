//! The getters return the same for properties in a slice to be sent and in a received packet.
#![allow(clippy::unwrap_used, reason = "a test")]

use mqtt_proto::{
    ConnAck, Decoded, Encode, MAX_PACKET, Packet, Properties, Property, PropertyId, Version,
};

const LIST: [Property<'static>; 7] = [
    Property::SessionExpiryInterval(60),
    Property::ReceiveMaximum(4),
    Property::MaximumQoS(true),
    Property::AssignedClientIdentifier("pump-7"),
    Property::AuthenticationMethod("m"),
    Property::AuthenticationData(b"\x00\xFF"),
    Property::UserProperty("a", "b"),
];

/// Calls every getter of `properties`.
fn check(properties: &Properties<'_>) {
    assert_eq!(properties.receive_maximum(), Some(4));
    assert_eq!(properties.maximum_qos(), Some(true));
    assert_eq!(properties.session_expiry_interval(), Some(60));
    assert_eq!(properties.server_keep_alive(), None);
    assert_eq!(properties.assigned_client_identifier(), Some("pump-7"));
    assert_eq!(properties.authentication_data(), Some(&b"\x00\xFF"[..]));
    assert_eq!(properties.user_properties().next(), Some(("a", "b")));
    let mut numbers = vec![];
    properties.each_number(&mut |id, number| numbers.push((id, number)));
    let expected = [
        (PropertyId::SessionExpiryInterval, 60),
        (PropertyId::ReceiveMaximum, 4),
        (PropertyId::MaximumQoS, 1),
    ];
    assert_eq!(numbers, expected);
    for id in PropertyId::ALL {
        let bytes = match id {
            PropertyId::AssignedClientIdentifier => Some(&b"pump-7"[..]),
            PropertyId::AuthenticationMethod => Some(&b"m"[..]),
            PropertyId::AuthenticationData => Some(&b"\x00\xFF"[..]),
            _ => None,
        };
        assert_eq!(properties.bytes(*id), bytes, "{id}");
        let there = LIST.iter().any(|property| property.id() == *id);
        assert_eq!(properties.has(*id), there, "{id}");
    }
}

#[test]
fn sent_and_received_properties_are_equal() {
    let properties = Properties::from(&LIST);
    check(&properties);
    let connack = ConnAck {
        properties,
        ..ConnAck::default()
    };
    let mut bytes = [0; 128];
    let len = connack.encode(Version::V5, &mut bytes).unwrap();
    let Ok(Decoded::Packet {
        packet: Packet::ConnAck(received),
        ..
    }) = Packet::decode(&bytes[..len], Version::V5, MAX_PACKET)
    else {
        panic!("no CONNACK");
    };
    check(&received.properties);
}
