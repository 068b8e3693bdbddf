//! Checks messages that are delivered in portions while receivers leave and time passes.

mod watched;

use std::time::Duration;

use mqtt_broker::records::Records;
use mqtt_broker::records::broker::{Entry, Targets};
use mqtt_session::proto::{
    Connect, Decoded, Delivery, MAX_PACKET, Packet, PacketId, Properties, Property, Publish, QoS,
    Subscription, TopicFilter, TopicName, Version,
};
use mqtt_testing::packets::encode;

use watched::{NOW, Watched, subscribe};

/// How many clients get each message: so many that it is delivered in portions.
const CROWD: usize = 3_000;

/// Connects many clients that subscribe to `a`.
fn crowd(watched: &mut Watched) {
    for n in 0..CROWD {
        let one = watched.join(&format!("one-{n}"));
        watched.subscribe(one, ["a"].into_iter());
    }
}

fn store(watched: &mut Watched) {
    let n = watched.broker.journal().len();
    watched.broker.stored(n);
}

/// The member that was chosen ends its session before the message reaches it, and another member gets it.
#[test]
fn a_message_goes_to_another_member_when_the_chosen_one_leaves_before_it_comes() {
    let mut watched = Watched::new(|_| ());
    watched.broker.start_journal();
    watched.broker.restored(NOW).unwrap();
    crowd(&mut watched);
    let list = [Subscription::new(
        TopicFilter::new("$share/g/a").unwrap(),
        QoS::AtLeastOnce,
    )];
    let stays = [Property::SessionExpiryInterval(60)];
    let stays = Connect {
        clean_start: false,
        properties: Properties::from(&stays),
        ..Connect::new(Version::V5, "stays")
    };
    let other = watched.connect(&stays);
    watched.say(other, &subscribe(&list));
    // A member without a connection comes last.
    watched.broker.closed(other, NOW);
    let chosen = watched.join("chosen");
    watched.say(chosen, &subscribe(&list));
    store(&mut watched);
    watched.drop_all(chosen);
    let from = watched.join("from");
    let message = Publish {
        delivery: Delivery::AtLeastOnce(PacketId::FIRST),
        ..Publish::new(TopicName::from_static("a"), b"shared")
    };
    let message = encode(&Packet::Publish(message), Version::V5);
    watched.broker.receive(from, &message, NOW);
    while watched.broker.journal().is_empty() {
        assert!(watched.tick(NOW), "it is never recorded");
    }
    assert_eq!(watched.broker.outgoing(chosen), b"", "it has not come");
    watched.broker.closed(chosen, NOW);
    watched.finish(NOW);
    store(&mut watched);
    assert_eq!(watched.broker.outgoing(from)[0], 0x40, "PUBACK");
    let other = watched.connect(&stays);
    store(&mut watched);
    assert_eq!(watched.hear(other), ["shared"]);
}

/// 5 [MQTT-3.3.2-5] and [MQTT-3.3.2-6]: the time of a message goes on while its first receivers get it.
#[test]
fn a_message_expires_while_it_is_delivered() {
    let mut watched = Watched::new(|_| ());
    crowd(&mut watched);
    let last = watched.join("last");
    watched.subscribe(last, ["a"].into_iter());
    watched.drop_all(last);
    let from = watched.join("from");
    let properties = [Property::MessageExpiryInterval(10)];
    let message = Publish {
        properties: Properties::from(&properties),
        ..Publish::new(TopicName::from_static("a"), b"x")
    };
    let message = encode(&Packet::Publish(message), Version::V5);
    for (seconds, expected) in [(0, Some(10)), (3, Some(7)), (10, None)] {
        watched.broker.receive(from, &message, NOW);
        assert_eq!(watched.broker.outgoing(last), b"", "it has not come");
        watched.finish(NOW.after(Duration::from_secs(seconds)));
        let bytes = watched.broker.outgoing(last).to_vec();
        let left = match Packet::decode(&bytes, Version::V5, MAX_PACKET) {
            Ok(Decoded::Packet {
                packet: Packet::Publish(publish),
                ..
            }) => publish.properties.message_expiry_interval(),
            _ => None,
        };
        assert_eq!(left, expected, "after {seconds} s");
        watched.drop_all(last);
    }
    let expired = watched.broker.statistics(NOW).publish_expired;
    assert!(expired > 0, "{expired}");
}

/// The record of a message names each target by its session and the number of its shared subscription, which has 16 bits. One client is
/// in more shared subscriptions than that: it gets no two copies by the same name, whether they are delivered at once or in portions.
#[test]
fn no_two_targets_of_a_message_have_the_same_name() {
    const GROUPS: usize = 65_600;
    for turn_steps in [4_096, u32::MAX] {
        let mut watched = Watched::new(|config| {
            config.turn_steps = turn_steps;
            config.subscriptions = GROUPS;
            config.subscription_bytes = usize::MAX;
            config.subscription_bytes_total = usize::MAX;
            config.queued_messages = GROUPS;
        });
        watched.broker.start_journal();
        watched.broker.restored(NOW).unwrap();
        let stays = [Property::SessionExpiryInterval(60)];
        let member = watched.connect(&Connect {
            properties: Properties::from(&stays),
            ..Connect::new(Version::V5, "member")
        });
        let filters: Vec<_> = (0..GROUPS).map(|n| format!("$share/{n}/a")).collect();
        for some in filters.chunks(4_000) {
            let list: Vec<_> = some
                .iter()
                .map(|text| Subscription::new(TopicFilter::new(text).unwrap(), QoS::AtLeastOnce))
                .collect();
            watched.say(member, &subscribe(&list));
            store(&mut watched);
            watched.drop_all(member);
        }
        let from = watched.join("from");
        let message = Publish {
            delivery: Delivery::AtLeastOnce(PacketId::FIRST),
            ..Publish::new(TopicName::from_static("a"), b"x")
        };
        watched.say(from, &Packet::Publish(message));
        watched.finish(NOW);
        let mut names: Vec<u64> = Records::new(watched.broker.journal())
            .filter_map(|record| match Entry::read(&record.unwrap()).unwrap() {
                Some(Entry::Message(_, Some(message))) => Some(message.targets),
                _ => None,
            })
            .flat_map(|targets: Targets<'_>| {
                targets
                    .iter()
                    .map(|target| target.session)
                    .collect::<Vec<_>>()
            })
            .collect();
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!((all, names.len()), (65_535, 65_535), "{turn_steps} steps");
        let dropped = watched.broker.statistics(NOW).publish_dropped;
        assert_eq!(dropped, (GROUPS - 65_535) as u64, "{turn_steps} steps");
    }
}
