//! Scenarios of SUBSCRIBE, UNSUBSCRIBE, retained messages and topics: sections 3.3.1, 3.8 to 3.11 and 4.7.

use mqtt_proto::{
    List, Packet, Properties, Property, QoS, ReasonCode, RetainHandling, Subscribe, Subscription,
    Unsubscribe, Version,
};
use mqtt_testing::packets::encode;

use crate::format::closes;
use crate::net::{Broker, Client, comes, filter, id, replaced};

const QOS: [QoS; 3] = [QoS::AtMostOnce, QoS::AtLeastOnce, QoS::ExactlyOnce];

pub(crate) fn filters_are_text(version: Version) {
    let list = [Subscription::new(filter("abc"), QoS::AtMostOnce)];
    let packet = Packet::Subscribe(Subscribe::new(id(1), &list[..]));
    closes(version, &replaced(&packet, version, b"abc", b"a\xFFc"));
}

pub(crate) fn filters_to_leave_are_text(version: Version) {
    let list = [filter("abc"), filter("def")];
    let packet = Packet::Unsubscribe(Unsubscribe::new(id(1), &list[..]));
    closes(version, &replaced(&packet, version, b"abc", b"a\xFFc"));
    closes(version, &replaced(&packet, version, b"def", b"d\xFFf"));
}

/// Checks the answer to a SUBSCRIBE or UNSUBSCRIBE with this first byte that has no filters.
fn closes_without_filters(version: Version, first: u8) {
    let empty: &[u8] = if version.is_v5() {
        &[first, 3, 0, 1, 0]
    } else {
        &[first, 2, 0, 1]
    };
    let reason = closes(version, empty);
    assert_eq!(reason, version.is_v5().then_some(ReasonCode::ProtocolError));
}

pub(crate) fn a_subscribe_without_filters_closes(version: Version) {
    closes_without_filters(version, 0x82);
}

pub(crate) fn an_unsubscribe_without_filters_closes(version: Version) {
    closes_without_filters(version, 0xA2);
}

pub(crate) fn reserved_subscription_options_close(version: Version) {
    let list = [Subscription::new(filter("abc"), QoS::AtMostOnce)];
    let packet = Packet::Subscribe(Subscribe::new(id(1), &list[..]));
    for options in [0x40, 0x80, 0xC0] {
        let bytes = replaced(&packet, version, b"abc\0", &[b'a', b'b', b'c', options]);
        assert_eq!(closes(version, &bytes), Some(ReasonCode::MalformedPacket));
    }
    let bytes = replaced(&packet, version, b"abc\0", b"abc\x03");
    closes(version, &bytes);
}

pub(crate) fn each_filter_gets_its_code_in_order(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let list = [
        Subscription::new(filter("a"), QoS::ExactlyOnce),
        Subscription::new(filter("forbidden/b"), QoS::AtMostOnce),
        Subscription::new(filter("c"), QoS::AtMostOnce),
        Subscription::new(filter("d/#"), QoS::AtLeastOnce),
    ];
    let denied = if version.is_v5() {
        ReasonCode::NotAuthorized
    } else {
        ReasonCode::UnspecifiedError
    };
    let codes = client.subscribe_with(&list, &[]);
    assert_eq!(
        codes,
        [
            ReasonCode::GrantedQoS2,
            denied,
            ReasonCode::Success,
            ReasonCode::GrantedQoS1
        ]
    );
    // Each filter works as if it was subscribed alone.
    for (name, granted) in [
        ("a", true),
        ("forbidden/b", false),
        ("c", true),
        ("d", true),
    ] {
        let mut other = Client::new(&broker, version, "other");
        other.publish(name, name, QoS::AtMostOnce);
        if granted {
            client.hears(name);
        }
        client.nothing();
    }
}

pub(crate) fn a_subscription_is_replaced(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let mut other = Client::new(&broker, version, "other");
    other.retain("a/b", "kept", QoS::AtLeastOnce);
    for qos in QOS {
        client.subscribe("a/+", qos);
        // Retained messages are sent again.
        assert_eq!(client.hears("kept").qos, qos.min(QoS::AtLeastOnce));
        other.publish("a/c", "new", QoS::ExactlyOnce);
        assert_eq!(client.hears("new").qos, qos);
        client.nothing();
    }
    // There is only one subscription.
    client.unsubscribe(&["a/+"]);
    other.publish("a/c", "late", QoS::ExactlyOnce);
    client.nothing();
}

pub(crate) fn the_lower_qos_counts(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let mut other = Client::new(&broker, version, "other");
    for granted in QOS {
        let code = client.subscribe("a", granted);
        assert_eq!(code, ReasonCode::granted(granted));
        for published in QOS {
            other.publish("a", "x", published);
            assert_eq!(client.hears("x").qos, granted.min(published));
        }
    }
}

pub(crate) fn no_local_hides_own_messages(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let mut other = Client::new(&broker, version, "other");
    let mut subscription = Subscription::new(filter("a"), QoS::AtMostOnce);
    subscription.no_local = true;
    client.subscribe_with(&[subscription], &[]);
    client.publish("a", "mine", QoS::AtMostOnce);
    other.publish("a", "theirs", QoS::AtMostOnce);
    client.hears("theirs");
    client.nothing();
}

pub(crate) fn no_local_is_not_for_shared_subscriptions(version: Version) {
    let mut subscription = Subscription::new(filter("$share/g/abc"), QoS::AtMostOnce);
    subscription.no_local = false;
    let list = [subscription];
    let packet = Packet::Subscribe(Subscribe::new(id(1), &list[..]));
    let bytes = replaced(&packet, version, b"abc\0", b"abc\x04");
    assert_eq!(closes(version, &bytes), Some(ReasonCode::ProtocolError));
}

pub(crate) fn filters_to_leave_are_compared_as_written(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a/+", QoS::AtMostOnce);
    let codes = client.unsubscribe(&["a/#", "a/b", "A/+", "a/+/", "#"]);
    assert!(
        codes
            .iter()
            .all(|code| *code == ReasonCode::NoSubscriptionExisted),
        "{codes:?}"
    );
    client.say("a/b", "still", QoS::AtMostOnce);
    client.hears("still");
    let codes = client.unsubscribe(&["a/+"]);
    assert_eq!(
        codes,
        vec![ReasonCode::Success; usize::from(version.is_v5())]
    );
    client.publish("a/b", "late", QoS::AtMostOnce);
    client.nothing();
}

pub(crate) fn several_filters_are_left_at_once(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for text in ["a", "b", "c"] {
        client.subscribe(text, QoS::AtMostOnce);
    }
    let codes = client.unsubscribe(&["a", "x", "c", "a"]);
    let (gone, none) = (ReasonCode::Success, ReasonCode::NoSubscriptionExisted);
    let expected = if version.is_v5() {
        vec![gone, none, gone, none]
    } else {
        vec![]
    };
    assert_eq!(codes, expected);
    for text in ["a", "b", "c"] {
        client.say(text, text, QoS::AtMostOnce);
    }
    client.hears("b");
    client.nothing();
}

pub(crate) fn what_began_is_delivered_after_unsubscribe(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::ExactlyOnce);
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "one", QoS::AtLeastOnce);
    other.publish("a", "two", QoS::ExactlyOnce);
    let (one, two) = (client.message(), client.message());
    client.unsubscribe(&["a"]);
    other.publish("a", "three", QoS::ExactlyOnce);
    client.send(&Packet::PubAck(mqtt_proto::Ack::new(id(one.id))));
    client.send(&Packet::PubRec(mqtt_proto::Ack::new(id(two.id))));
    comes!(client, Packet::PubRel(ack) if ack.packet_id == id(two.id));
    client.send(&Packet::PubComp(mqtt_proto::Ack::new(id(two.id))));
    client.nothing();
}

pub(crate) fn a_retained_message_is_kept_with_its_qos(version: Version) {
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    for qos in QOS {
        other.retain("a/b", &format!("{qos:?}"), qos);
        let mut client = Client::new(&broker, version, "pump");
        client.subscribe("a/#", QoS::ExactlyOnce);
        let message = client.hears(&format!("{qos:?}"));
        assert_eq!((message.qos, message.retain), (qos, true));
        client.nothing();
    }
}

pub(crate) fn retain_is_0_for_established_subscriptions(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    let mut other = Client::new(&broker, version, "other");
    other.retain("a", "x", QoS::AtMostOnce);
    assert!(!client.hears("x").retain);
}

pub(crate) fn retain_is_as_published_where_asked(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    let mut subscription = Subscription::new(filter("a"), QoS::AtMostOnce);
    subscription.retain_as_published = true;
    client.subscribe_with(&[subscription], &[]);
    let mut other = Client::new(&broker, version, "other");
    other.retain("a", "x", QoS::AtMostOnce);
    assert!(client.hears("x").retain);
    other.publish("a", "y", QoS::AtMostOnce);
    assert!(!client.hears("y").retain);
}

pub(crate) fn an_empty_message_clears_what_is_retained(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    let mut other = Client::new(&broker, version, "other");
    other.retain("a", "x", QoS::AtMostOnce);
    client.hears("x");
    other.retain("a", "", QoS::AtMostOnce);
    // The empty message is delivered, but not retained.
    assert!(!client.hears("").retain);
    client.subscribe("a", QoS::AtMostOnce);
    client.nothing();
    let mut late = Client::new(&broker, version, "late");
    late.subscribe("#", QoS::AtMostOnce);
    late.nothing();
}

pub(crate) fn what_is_not_retained_changes_nothing(version: Version) {
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "x", QoS::AtLeastOnce);
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a", QoS::AtMostOnce);
    client.nothing();
    other.retain("b", "kept", QoS::AtLeastOnce);
    other.publish("b", "x", QoS::AtLeastOnce);
    other.publish("b", "", QoS::AtLeastOnce);
    client.subscribe("b", QoS::AtMostOnce);
    client.hears("kept");
    client.nothing();
}

/// Returns whether retained messages follow the first SUBSCRIBE, and a repeated one.
fn with_handling(version: Version, handling: RetainHandling) -> [bool; 2] {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.retain("a", "kept", QoS::AtLeastOnce);
    let mut subscription = Subscription::new(filter("a"), QoS::AtMostOnce);
    subscription.retain_handling = handling;
    [(), ()].map(|()| {
        client.subscribe_with(&[subscription], &[]);
        client.send(&Packet::PingReq);
        let came = client.raw().unwrap()[0] & 0xF0 == 0x30;
        if came {
            comes!(client, Packet::PingResp);
        }
        came
    })
}

pub(crate) fn retain_handling_0(version: Version) {
    assert_eq!(with_handling(version, RetainHandling::Send), [true, true]);
}

pub(crate) fn retain_handling_1(version: Version) {
    assert_eq!(
        with_handling(version, RetainHandling::SendIfNew),
        [true, false]
    );
}

pub(crate) fn retain_handling_2(version: Version) {
    assert_eq!(
        with_handling(version, RetainHandling::DoNotSend),
        [false, false]
    );
}

pub(crate) fn overlapping_subscriptions_give_the_highest_qos(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.subscribe("a/#", QoS::AtMostOnce);
    client.subscribe("a/b", QoS::ExactlyOnce);
    client.subscribe("+/b", QoS::AtLeastOnce);
    let mut other = Client::new(&broker, version, "other");
    other.publish("a/b", "x", QoS::ExactlyOnce);
    // One copy comes, at the highest QoS.
    assert_eq!(client.hears("x").qos, QoS::ExactlyOnce);
    client.nothing();
}

pub(crate) fn all_subscription_identifiers_go_with_the_message(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for (text, identifier) in [("a/#", Some(1)), ("a/b", Some(268_435_455)), ("+/b", None)] {
        let properties: Vec<_> = identifier
            .map(Property::SubscriptionIdentifier)
            .into_iter()
            .collect();
        client.subscribe_with(
            &[Subscription::new(filter(text), QoS::AtMostOnce)],
            &properties,
        );
    }
    client.say("a/b", "x", QoS::AtMostOnce);
    let mut identifiers = client.hears("x").identifiers;
    identifiers.sort_unstable();
    assert_eq!(identifiers, [1, 268_435_455]);
    client.nothing();
    client.say("c/b", "y", QoS::AtMostOnce);
    assert_eq!(client.hears("y").identifiers, [0_u32; 0]);
}

pub(crate) fn topics_reach_whose_filters_match(version: Version) {
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    let names = [
        "a", "a/b", "a/b/c", "/a", "a/", "A", "$a/b", "\u{e9}", "e\u{301}",
    ];
    for (text, matching) in [
        ("a", &["a"][..]),
        ("a/#", &["a", "a/b", "a/b/c", "a/"]),
        ("a/+", &["a/b", "a/"]),
        ("+/+", &["a/b", "/a", "a/"]),
        (
            "#",
            &["a", "a/b", "a/b/c", "/a", "a/", "A", "\u{e9}", "e\u{301}"],
        ),
        ("+/b", &["a/b"]),
        ("$a/#", &["$a/b"]),
        ("$a/b", &["$a/b"]),
        ("\u{e9}", &["\u{e9}"]),
    ] {
        let mut client = Client::new(&broker, version, "pump");
        client.subscribe(text, QoS::AtMostOnce);
        for name in names {
            other.publish(name, text, QoS::AtMostOnce);
            if matching.contains(&name) {
                assert_eq!(client.hears(text).topic, name);
            }
            client.nothing();
        }
    }
}

pub(crate) fn share_names_are_well_formed(version: Version) {
    for wrong in [
        "$share/",
        "$share//a",
        "$share/g",
        "$share/g/",
        "$share/g+/a",
        "$share/g#/a",
    ] {
        crate::format::subscribing_closes(version, wrong);
    }
    for right in ["$share/g/a", "$share/g/#", "$share/g//"] {
        crate::format::subscribing_works(version, right);
    }
}

pub(crate) fn a_shared_subscription_keeps_its_qos(version: Version) {
    let broker = Broker::start();
    let mut other = Client::new(&broker, version, "other");
    for granted in QOS {
        let mut client = Client::new(&broker, version, "pump");
        client.subscribe("$share/g/a", granted);
        for published in QOS {
            other.publish("a", "x", published);
            assert_eq!(client.hears("x").qos, granted.min(published));
        }
    }
}

pub(crate) fn a_ping_is_answered(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    for _ in 0..3 {
        client.send(&Packet::PingReq);
        assert_eq!(client.raw().unwrap(), [0xD0, 0]);
    }
}

/// Checks that every code of the broker's answers belongs to its packet; the decoder of these tests accepts no others.
pub(crate) fn codes_are_those_of_the_packet(version: Version) {
    each_filter_gets_its_code_in_order(version);
    several_filters_are_left_at_once(version);
    let broker = Broker::with(|config| {
        config.subscriptions = 1;
        config.topic_levels = 2;
    });
    let mut client = Client::new(&broker, version, "pump");
    let code = |v5| {
        if version.is_v5() {
            v5
        } else {
            ReasonCode::UnspecifiedError
        }
    };
    assert_eq!(
        client.subscribe("a/b/c", QoS::AtMostOnce),
        code(ReasonCode::TopicFilterInvalid)
    );
    assert_eq!(client.subscribe("a", QoS::AtMostOnce), ReasonCode::Success);
    assert_eq!(
        client.subscribe("b", QoS::AtMostOnce),
        code(ReasonCode::QuotaExceeded)
    );
}

pub(crate) fn several_filters_are_asked_for_at_once(version: Version) {
    let broker = Broker::start();
    let mut client = Client::new(&broker, version, "pump");
    client.retain("a", "kept", QoS::AtMostOnce);
    // The filter is there twice: the second subscription replaces the first.
    let list = [
        Subscription::new(filter("a"), QoS::ExactlyOnce),
        Subscription::new(filter("b"), QoS::AtMostOnce),
        Subscription::new(filter("a"), QoS::AtLeastOnce),
    ];
    let packet = Packet::Subscribe(Subscribe {
        packet_id: id(9),
        properties: Properties::EMPTY,
        filters: List::from(&list[..]),
    });
    client.bytes(&encode(&packet, version));
    client.next(|packet| match packet {
        Packet::SubAck(suback) => assert_eq!(suback.codes.iter().count(), 3),
        other => panic!("came {other:?}"),
    });
    client.hears("kept");
    client.hears("kept");
    let mut other = Client::new(&broker, version, "other");
    other.publish("a", "x", QoS::ExactlyOnce);
    assert_eq!(client.hears("x").qos, QoS::AtLeastOnce);
    client.nothing();
}
