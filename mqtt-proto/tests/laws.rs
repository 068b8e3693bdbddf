//! The laws of the codec, for arbitrary packets of every type in every version.

use mqtt_proto::{Encode, MAX_PACKET, Packet, PacketType, TopicFilter, TopicName, Version};
use mqtt_testing::choices::Choices;
use mqtt_testing::laws::{codec, model, views};
use mqtt_testing::packets::generated::{VERSIONS, types, with_packet};
use proptest::collection::vec;
use proptest::prelude::*;

fn encoded(packet_type: PacketType, version: Version, choices: &[u8]) -> Vec<u8> {
    with_packet(
        packet_type,
        version,
        &mut Choices::new(choices),
        |packet: &Packet<'_>| {
            let mut bytes = vec![0; packet.encoded_len(version).unwrap()];
            packet.encode(version, &mut bytes).unwrap();
            bytes
        },
    )
}

fn stream(version: Version, choices: &[Vec<u8>]) -> Vec<u8> {
    let types: Vec<_> = types(version).collect();
    let packet = |choices: &Vec<u8>| encoded(Choices::new(choices).pick(&types), version, choices);
    choices.iter().flat_map(packet).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_packet_reads_back_as_it_was_written(choices in vec(any::<u8>(), 0..120)) {
        for version in VERSIONS {
            for packet_type in types(version) {
                with_packet(packet_type, version, &mut Choices::new(&choices), |packet| {
                    codec::round_trips(packet, version);
                });
            }
        }
    }

    #[test]
    fn any_split_into_reads_gives_the_same_packets(
        packets in vec(vec(any::<u8>(), 0..60), 1..6),
        splits in vec(any::<u8>(), 0..40),
        damage in proptest::option::of((any::<u16>(), any::<u8>())),
    ) {
        for version in VERSIONS {
            let mut stream = stream(version, &packets);
            if let Some((at, byte)) = damage {
                let at = usize::from(at) % stream.len();
                stream[at] = byte;
            }
            for limit in [MAX_PACKET, 100] {
                codec::split_invariant(&stream, &mut Choices::new(&splits), version, limit);
            }
        }
    }

    #[test]
    fn a_damaged_packet_never_panics(
        choices in vec(any::<u8>(), 0..80),
        damage in vec((any::<u16>(), any::<u8>()), 1..5),
        cut in any::<u16>(),
    ) {
        for version in VERSIONS {
            for packet_type in types(version) {
                let mut bytes = encoded(packet_type, version, &choices);
                for (at, byte) in &damage {
                    let at = usize::from(*at) % bytes.len();
                    bytes[at] = *byte;
                }
                bytes.truncate(bytes.len() - usize::from(cut) % 3);
                for version in VERSIONS {
                    codec::reencodes(&bytes, version);
views::agree(&bytes, version);
                }
            }
        }
    }

    #[test]
    fn any_bytes_never_panic(bytes in vec(any::<u8>(), 0..200)) {
        for version in VERSIONS {
            codec::reencodes(&bytes, version);
views::agree(&bytes, version);
        }
    }

    #[test]
    fn matching_equals_the_plain_model(
        filter in "[$]?[ab+#/]{1,8}|[$]share/[ab+]?/[ab+#/]{0,6}",
        topic in "[$]?[ab/]{1,8}",
    ) {
        let topic = TopicName::new(&topic).unwrap();
        match TopicFilter::new(&filter) {
            Ok(parsed) => {
                prop_assert_eq!(parsed.matches(topic), model::matches(&filter, topic.as_str()), "{} {}", filter, topic);
                prop_assert!(model::is_filter(&filter));
            }
            Err(_) if filter.starts_with("$share/") => {}
            Err(error) => prop_assert!(!model::is_filter(&filter), "{}: {}", filter, error),
        }
    }
}

/// The examples of sections 4.7.1 and 4.7.2.
#[test]
fn the_examples_of_matching_in_the_standard_hold() {
    for (filter, topic, expected) in [
        ("sport/tennis/player1/#", "sport/tennis/player1", true),
        (
            "sport/tennis/player1/#",
            "sport/tennis/player1/score/wimbledon",
            true,
        ),
        ("sport/#", "sport", true),
        ("#", "sport/tennis", true),
        ("sport/tennis/+", "sport/tennis/player1", true),
        ("sport/tennis/+", "sport/tennis/player1/ranking", false),
        ("sport/+", "sport", false),
        ("sport/+", "sport/", true),
        ("+/+", "/finance", true),
        ("/+", "/finance", true),
        ("+", "/finance", false),
        ("#", "$SYS/monitor", false),
        ("+/monitor/Clients", "$SYS/monitor/Clients", false),
        ("$SYS/#", "$SYS/monitor", true),
        ("ACCOUNTS", "Accounts", false),
        ("$share/group/a/+", "a/b", true),
        ("$share/group/#", "$SYS/a", false),
    ] {
        let matched = TopicFilter::new(filter)
            .unwrap()
            .matches(TopicName::new(topic).unwrap());
        assert_eq!(matched, expected, "{filter} {topic}");
    }
}
