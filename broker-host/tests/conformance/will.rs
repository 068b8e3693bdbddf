//! Scenarios of wills: sections 3.1.2.5 to 3.1.2.7 and 3.1.3.2 to 3.1.3.4.

use mqtt_proto::{
    Connect, Disconnect, Packet, Properties, Property, QoS, ReasonCode, Version, Will,
};
use mqtt_testing::packets::encode;

use crate::connect::{by_hand, is_connected, is_not_connected};
use crate::net::{Broker, Client, replaced, topic};
use crate::publish::a_second_passes;

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(crate) fn with_will<'a>(version: Version, id: &'a str, qos: QoS, retain: bool) -> Connect<'a> {
    Connect {
        will: Some(Will {
            qos,
            retain,
            ..Will::new(topic("wills/pump"), b"gone")
        }),
        ..Connect::new(version, id)
    }
}

pub(crate) fn a_will_is_published(version: Version) {
    for qos in QOS {
        for retain in [false, true] {
            let broker = Broker::start();
            let mut watcher = Client::new(&broker, version, "watcher");
            watcher.subscribe("wills/#", QoS::ExactlyOnce);
            let (client, _) = Client::with(&broker, &with_will(version, "pump", qos, retain));
            client.vanish();
            let will = watcher.hears("gone");
            assert_eq!(
                (will.topic.as_str(), will.qos, will.retain),
                ("wills/pump", qos, false)
            );
            // A retained will comes again with the RETAIN flag.
            watcher.subscribe("wills/pump", QoS::ExactlyOnce);
            if retain {
                let will = watcher.hears("gone");
                assert_eq!((will.qos, will.retain), (qos, true));
            }
            watcher.nothing();
        }
    }
}

pub(crate) fn a_will_is_published_when_the_broker_closes(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let connect = with_will(version, "pump", QoS::AtMostOnce, false);
    // The connection ends by a protocol violation.
    let (mut client, _) = Client::with(&broker, &connect);
    client.bytes(&[0xFF; 8]);
    client.closed();
    watcher.hears("gone");
    // The connection ends by a take-over.
    let (client, _) = Client::with(&broker, &connect);
    let _second = Client::new(&broker, version, "pump");
    client.closed();
    watcher.hears("gone");
}

pub(crate) fn a_will_is_published_once(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let (client, _) = Client::with(
        &broker,
        &Connect {
            clean_start: false,
            ..with_will(version, "pump", QoS::AtMostOnce, false)
        },
    );
    client.vanish();
    watcher.hears("gone");
    // The session continues without a will.
    let (client, _) = Client::staying(&broker, version, "pump");
    client.vanish();
    let (client, _) = Client::staying(&broker, version, "pump");
    client.goodbye();
    watcher.nothing();
}

pub(crate) fn disconnect_takes_the_will_back(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let connect = with_will(version, "pump", QoS::AtMostOnce, true);
    let (client, _) = Client::with(&broker, &connect);
    client.goodbye();
    watcher.nothing();
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    watcher.nothing();
    if version.is_v5() {
        let (mut client, _) = Client::with(&broker, &connect);
        client.send(&Packet::Disconnect(Disconnect {
            reason: ReasonCode::DisconnectWithWill,
            ..Disconnect::default()
        }));
        watcher.hears("gone");
    }
}

pub(crate) fn no_will_without_its_flag(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("#", QoS::AtMostOnce);
    let client = Client::new(&broker, version, "pump");
    client.vanish();
    // The broker has handled the end of the connection.
    let (client, _) = Client::with(
        &broker,
        &with_will(version, "other", QoS::AtMostOnce, false),
    );
    client.vanish();
    watcher.hears("gone");
    watcher.nothing();
}

pub(crate) fn will_fields_are_there_with_its_flag_only(version: Version) {
    let will = |fields: &[&[u8]]| {
        let mut bytes = by_hand(version, 0x06, &[b"pump"]);
        if version.is_v5() {
            // There are no properties.
            bytes.push(0);
        }
        for field in fields {
            bytes.extend([0, u8::try_from(field.len()).unwrap()]);
            bytes.extend(*field);
        }
        bytes[1] = u8::try_from(bytes.len() - 2).unwrap();
        bytes
    };
    is_connected(version, &will(&[b"wills", b"gone"]));
    is_not_connected(version, &will(&[]));
    is_not_connected(version, &will(&[b"wills"]));
    is_not_connected(
        version,
        &by_hand(version, 0x02, &[b"pump", b"wills", b"gone"]),
    );
}

pub(crate) fn will_qos_is_0_without_its_flag(version: Version) {
    is_not_connected(version, &by_hand(version, 0x0A, &[b"pump"]));
    is_not_connected(version, &by_hand(version, 0x12, &[b"pump"]));
}

pub(crate) fn will_retain_is_0_without_its_flag(version: Version) {
    is_not_connected(version, &by_hand(version, 0x22, &[b"pump"]));
}

pub(crate) fn will_qos_is_not_3(version: Version) {
    let connect = Packet::Connect(with_will(version, "pump", QoS::ExactlyOnce, false));
    let mut bytes = encode(&connect, version);
    assert_eq!(bytes[9], 0x16, "the connect flags");
    bytes[9] = 0x1E;
    is_not_connected(version, &bytes);
}

pub(crate) fn will_topic_is_text(version: Version) {
    let connect = Packet::Connect(with_will(version, "pump", QoS::AtMostOnce, false));
    is_not_connected(version, &replaced(&connect, version, b"wills", b"will\xFF"));
    is_not_connected(version, &replaced(&connect, version, b"wills", b"will\0"));
}

pub(crate) fn a_delayed_will_is_forgotten_by_who_is_back(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let delay = [Property::WillDelayInterval(1)];
    let stays = [Property::SessionExpiryInterval(100)];
    let connect = Connect {
        clean_start: false,
        will: Some(Will {
            properties: Properties::from(&delay),
            ..Will::new(topic("wills/pump"), b"gone")
        }),
        properties: Properties::from(&stays),
        ..Connect::new(version, "pump")
    };
    let (client, _) = Client::with(&broker, &connect);
    client.vanish();
    let (client, _) = Client::with(&broker, &connect);
    a_second_passes(&broker);
    watcher.nothing();
    client.vanish();
    watcher.hears("gone");
}

pub(crate) fn a_delayed_will_goes_out_with_its_session(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let delay = [Property::WillDelayInterval(1_000)];
    let (client, _) = Client::with(
        &broker,
        &Connect {
            will: Some(Will {
                properties: Properties::from(&delay),
                ..Will::new(topic("wills/pump"), b"gone")
            }),
            properties: Properties::from(&[Property::SessionExpiryInterval(1)]),
            ..Connect::new(version, "pump")
        },
    );
    client.vanish();
    watcher.hears("gone");
}

pub(crate) fn will_user_properties_keep_their_order(version: Version) {
    let broker = Broker::start();
    let mut watcher = Client::new(&broker, version, "watcher");
    watcher.subscribe("wills/#", QoS::AtMostOnce);
    let properties = [
        Property::UserProperty("b", "1"),
        Property::UserProperty("a", "2"),
        Property::UserProperty("b", "0"),
    ];
    let (client, _) = Client::with(
        &broker,
        &Connect {
            will: Some(Will {
                properties: Properties::from(&properties),
                ..Will::new(topic("wills/pump"), b"gone")
            }),
            ..Connect::new(version, "pump")
        },
    );
    client.vanish();
    let user = watcher.hears("gone").user;
    let user: Vec<_> = user
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    assert_eq!(user, [("b", "1"), ("a", "2"), ("b", "0")]);
}
