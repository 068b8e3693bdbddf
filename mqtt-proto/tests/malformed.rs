//! Every malformed input that a MUST speaks of, refused with the byte that proves it, the rule and the statement.

use mqtt_proto::{MAX_PACKET, Packet, PropertyId, Rule, Version};
use mqtt_testing::laws::views;
use mqtt_testing::packets::vectors::hex;

use Version::{V5, V311};

#[track_caller]
fn refused(version: Version, bytes: &str, at: u32, rule: Rule, statement: &str) {
    let bytes = hex(bytes);
    let error = Packet::decode(&bytes, version, MAX_PACKET).expect_err("must be refused");
    assert_eq!((error.at, error.rule), (at, rule), "{error}");
    assert_eq!(error.statement().unwrap_or(""), statement, "{error}");
    views::agree(&bytes, version);
}

#[track_caller]
fn refused_in_both(bytes: &str, at: u32, rule: Rule, v311: &str, v5: &str) {
    refused(V311, bytes, at, rule, v311);
    refused(V5, bytes, at, rule, v5);
}

#[test]
fn fixed_header_flags() {
    refused_in_both(
        "80 00",
        0,
        Rule::Flags { found: 0, must: 2 },
        "MQTT-3.8.1-1",
        "MQTT-3.8.1-1",
    );
    refused_in_both(
        "A0 00",
        0,
        Rule::Flags { found: 0, must: 2 },
        "MQTT-3.10.1-1",
        "MQTT-3.10.1-1",
    );
    refused_in_both(
        "60 02",
        0,
        Rule::Flags { found: 0, must: 2 },
        "MQTT-3.6.1-1",
        "MQTT-3.6.1-1",
    );
    refused_in_both(
        "C1 00",
        0,
        Rule::Flags { found: 1, must: 0 },
        "MQTT-2.2.2-2",
        "MQTT-2.1.3-1",
    );
    refused_in_both(
        "E2 00",
        0,
        Rule::Flags { found: 2, must: 0 },
        "MQTT-3.14.1-1",
        "MQTT-3.14.1-1",
    );
    refused(
        V5,
        "F8 00",
        0,
        Rule::Flags { found: 8, must: 0 },
        "MQTT-3.15.1-1",
    );
}

#[test]
fn reserved_packet_types() {
    refused_in_both("00 00", 0, Rule::ReservedPacketType { found: 0 }, "", "");
    refused(V311, "F0 00", 0, Rule::ReservedPacketType { found: 15 }, "");
}

#[test]
fn publish_flags() {
    refused_in_both("36 05", 0, Rule::QoS3, "MQTT-3.3.1-4", "MQTT-3.3.1-4");
    refused_in_both("38 05", 0, Rule::DupOnQoS0, "MQTT-3.3.1-2", "MQTT-3.3.1-2");
}

#[test]
fn packet_identifier_zero() {
    refused(
        V311,
        "32 05 0001 61 0000",
        5,
        Rule::PacketIdZero,
        "MQTT-2.3.1-1",
    );
    refused(
        V5,
        "34 06 0001 61 0000 00",
        5,
        Rule::PacketIdZero,
        "MQTT-2.2.1-3",
    );
    refused(V311, "40 02 0000", 2, Rule::PacketIdZero, "MQTT-2.3.1-1");
    refused(
        V311,
        "82 06 0000 0001 61 00",
        2,
        Rule::PacketIdZero,
        "MQTT-2.3.1-1",
    );
    refused(
        V5,
        "A2 06 0000 00 0001 61",
        2,
        Rule::PacketIdZero,
        "MQTT-2.2.1-3",
    );
}

#[test]
fn variable_byte_integers() {
    refused_in_both("30 FF FF FF FF 01", 1, Rule::VarIntTooLong, "", "");
    refused(V5, "30 80 00", 1, Rule::VarIntNotMinimal, "MQTT-1.5.5-1");
    refused(V311, "30 FF 00", 1, Rule::VarIntNotMinimal, "");
    refused(
        V5,
        "30 05 0001 61 80 00",
        5,
        Rule::VarIntNotMinimal,
        "MQTT-1.5.5-1",
    );
}

#[test]
fn strings() {
    refused(
        V311,
        "30 05 0003 61 C3 28",
        5,
        Rule::IllFormedUtf8,
        "MQTT-1.5.3-1",
    );
    refused(
        V5,
        "30 06 0003 ED A0 80 00",
        4,
        Rule::IllFormedUtf8,
        "MQTT-1.5.4-1",
    );
    refused(
        V311,
        "30 05 0003 61 00 62",
        5,
        Rule::NullCharacter,
        "MQTT-1.5.3-2",
    );
    refused(
        V5,
        "30 06 0003 61 00 62 00",
        5,
        Rule::NullCharacter,
        "MQTT-1.5.4-2",
    );
    // The client identifier of CONNECT.
    refused(
        V311,
        "10 0D 0004 4D515454 04 02 0000 0001 FF",
        14,
        Rule::IllFormedUtf8,
        "MQTT-1.5.3-1",
    );
    // The user name.
    refused(
        V311,
        "10 10 0004 4D515454 04 82 0000 0001 61 0001 00",
        17,
        Rule::NullCharacter,
        "MQTT-1.5.3-2",
    );
}

#[test]
fn topics() {
    refused_in_both(
        "30 06 0003 61 2F 2B 00",
        6,
        Rule::TopicHasWildcard,
        "MQTT-3.3.2-2",
        "MQTT-3.3.2-2",
    );
    refused_in_both(
        "30 06 0003 61 2F 23 00",
        6,
        Rule::TopicHasWildcard,
        "MQTT-3.3.2-2",
        "MQTT-3.3.2-2",
    );
    refused_in_both(
        "30 03 0000 00",
        2,
        Rule::TopicEmpty,
        "MQTT-4.7.3-1",
        "MQTT-4.7.3-1",
    );
    refused(
        V311,
        "82 07 0001 0002 61 2B 00",
        7,
        Rule::MisplacedWildcard,
        "MQTT-4.7.1-2",
    );
    refused(
        V5,
        "82 09 0001 00 0003 23 2F 61 00",
        7,
        Rule::MisplacedWildcard,
        "MQTT-4.7.1-1",
    );
    refused(
        V311,
        "A2 05 0001 0001 00",
        6,
        Rule::NullCharacter,
        "MQTT-1.5.3-2",
    );
    refused(
        V311,
        "82 05 0001 0000 00",
        4,
        Rule::TopicEmpty,
        "MQTT-4.7.3-1",
    );
    // $share/ without a name: a filter like any other in 3.1.1.
    refused(
        V5,
        "82 10 0001 00 000A 24 73 68 61 72 65 2F 2F 61 62 00",
        14,
        Rule::ShareName,
        "MQTT-4.8.2-1",
    );
    assert!(
        Packet::decode(
            &hex("82 0F 0001 000A 24 73 68 61 72 65 2F 2F 61 62 00"),
            V311,
            MAX_PACKET
        )
        .is_ok()
    );
    refused(
        V5,
        "82 10 0001 00 000A 24 73 68 61 72 65 2F 67 2F 61 04",
        17,
        Rule::NoLocalShared,
        "MQTT-3.8.3-4",
    );
}

#[test]
fn empty_lists() {
    refused(V311, "82 02 0001", 4, Rule::EmptyList, "MQTT-3.8.3-3");
    refused(V5, "82 03 0001 00", 5, Rule::EmptyList, "MQTT-3.8.3-2");
    refused(V311, "A2 02 0001", 4, Rule::EmptyList, "MQTT-3.10.3-2");
    refused(V5, "A2 03 0001 00", 5, Rule::EmptyList, "MQTT-3.10.3-2");
    refused(V311, "90 02 0001", 4, Rule::EmptyList, "");
}

#[test]
fn reserved_bits() {
    refused(
        V311,
        "10 0C 0004 4D515454 04 03 0000 0000",
        9,
        Rule::ReservedBits { found: 3 },
        "MQTT-3.1.2-3",
    );
    refused(
        V5,
        "10 0D 0004 4D515454 05 01 0000 00 0000",
        9,
        Rule::ReservedBits { found: 1 },
        "MQTT-3.1.2-3",
    );
    refused(
        V311,
        "20 02 02 00",
        2,
        Rule::ReservedBits { found: 2 },
        "MQTT-2.2.2-1",
    );
    refused(
        V5,
        "20 03 80 00 00",
        2,
        Rule::ReservedBits { found: 0x80 },
        "MQTT-3.2.2-1",
    );
    refused(
        V311,
        "82 06 0001 0001 61 04",
        7,
        Rule::ReservedBits { found: 4 },
        "",
    );
    refused(
        V5,
        "82 07 0001 00 0001 61 40",
        8,
        Rule::ReservedBits { found: 0x40 },
        "MQTT-3.8.3-5",
    );
    refused(V311, "82 06 0001 0001 61 03", 7, Rule::QoS3, "");
    refused(V5, "82 07 0001 00 0001 61 30", 8, Rule::RetainHandling, "");
}

#[test]
fn connect_flags() {
    refused(
        V311,
        "10 0C 0004 4D515454 04 0A 0000 0000",
        9,
        Rule::WillFlagsWithoutWill,
        "MQTT-3.1.2-11",
    );
    refused(
        V311,
        "10 0C 0004 4D515454 04 22 0000 0000",
        9,
        Rule::WillFlagsWithoutWill,
        "MQTT-3.1.2-11",
    );
    refused(
        V311,
        "10 0C 0004 4D515454 04 1E 0000 0000",
        9,
        Rule::QoS3,
        "MQTT-3.1.2-14",
    );
    refused(
        V311,
        "10 0E 0004 4D515454 04 42 0000 0000 0000",
        9,
        Rule::PasswordWithoutUserName,
        "MQTT-3.1.2-22",
    );
    let v5_password = hex("10 0F 0004 4D515454 05 42 0000 00 0000 0000");
    assert!(
        Packet::decode(&v5_password, V5, MAX_PACKET).is_ok(),
        "MQTT 5 allows it"
    );
}

#[test]
fn protocol_name_and_level() {
    refused(
        V311,
        "10 0C 0004 4D515458 04 02 0000 0000",
        2,
        Rule::ProtocolName,
        "MQTT-3.1.2-1",
    );
    refused(
        V311,
        "10 0C 0004 4D515454 06 02 0000 0000",
        8,
        Rule::ProtocolLevel { found: 6 },
        "MQTT-3.1.2-2",
    );
    let v31 = hex("10 0E 0006 4D5149736470 03 02 0000 0000");
    assert!(
        Packet::decode(&v31, V311, MAX_PACKET).is_ok(),
        "3.1's CONNECT"
    );
}

#[test]
fn properties() {
    // PUBLISH a, properties: two payload format indicators.
    refused(
        V5,
        "30 08 0001 61 04 01 00 01 00",
        8,
        Rule::DuplicateProperty(PropertyId::PayloadFormatIndicator),
        "",
    );
    refused(
        V5,
        "30 06 0001 61 02 17 00",
        6,
        Rule::MisplacedProperty(PropertyId::RequestProblemInformation),
        "",
    );
    refused(
        V5,
        "30 06 0001 61 02 01 02",
        7,
        Rule::PropertyValue(PropertyId::PayloadFormatIndicator),
        "",
    );
    refused(
        V5,
        "30 07 0001 61 03 23 0000",
        7,
        Rule::PropertyValue(PropertyId::TopicAlias),
        "MQTT-3.3.2-8",
    );
    refused(
        V5,
        "30 06 0001 61 02 0B 00",
        7,
        Rule::PropertyValue(PropertyId::SubscriptionIdentifier),
        "",
    );
    refused(
        V5,
        "20 06 00 00 03 21 0000",
        6,
        Rule::PropertyValue(PropertyId::ReceiveMaximum),
        "",
    );
    refused(
        V5,
        "20 08 00 00 05 27 00000000",
        6,
        Rule::PropertyValue(PropertyId::MaximumPacketSize),
        "",
    );
    refused(
        V5,
        "30 06 0001 61 02 7F 00",
        6,
        Rule::UnknownProperty { found: 0x7F },
        "",
    );
    refused(
        V5,
        "30 05 0001 61 05 01",
        7,
        Rule::Truncated { missing: 4 },
        "",
    );
    // A value beyond the properties' end, though not beyond the packet's.
    refused(
        V5,
        "30 09 0001 61 02 02 00 62626262",
        8,
        Rule::PropertyTruncated { missing: 3 },
        "",
    );
    // Authentication data without a method.
    refused(
        V5,
        "20 07 00 00 04 16 0001 61",
        9,
        Rule::AuthDataWithoutMethod,
        "",
    );
}

#[test]
fn lengths() {
    refused(
        V311,
        "40 03 0001 00",
        1,
        Rule::RemainingLength { found: 3, must: 2 },
        "",
    );
    refused(
        V311,
        "C0 01 00",
        1,
        Rule::RemainingLength { found: 1, must: 0 },
        "",
    );
    refused(
        V5,
        "40 05 0001 00 00 00",
        6,
        Rule::TrailingBytes { count: 1 },
        "",
    );
    refused(V311, "30 03 0005 61", 5, Rule::Truncated { missing: 4 }, "");
    refused(
        V311,
        "10 0D 0004 4D515454 04 02 0000 0000 00",
        14,
        Rule::TrailingBytes { count: 1 },
        "",
    );
}

#[test]
fn reason_codes() {
    refused(
        V311,
        "20 02 00 06",
        3,
        Rule::ReasonCode { found: 6 },
        "MQTT-3.2.2-6",
    );
    refused(
        V5,
        "20 03 00 01 00",
        3,
        Rule::ReasonCode { found: 1 },
        "MQTT-3.2.2-8",
    );
    refused(
        V311,
        "90 03 0001 03",
        4,
        Rule::ReasonCode { found: 3 },
        "MQTT-3.9.3-2",
    );
    refused(
        V5,
        "40 03 0001 92",
        4,
        Rule::ReasonCode { found: 0x92 },
        "MQTT-3.4.2-1",
    );
    refused(
        V311,
        "20 02 01 05",
        2,
        Rule::SessionPresentOnRefusal,
        "MQTT-3.2.2-4",
    );
}

/// `10 FF FF FF 7F`: 256 MiB announced. The limit is judged on these five bytes, nothing waits for more.
#[test]
fn a_length_beyond_the_limit_is_refused_before_more_is_asked_for() {
    for version in [V311, V5] {
        let error = Packet::decode(&hex("10 FF FF FF 7F"), version, 1 << 20).unwrap_err();
        assert_eq!(
            error.rule,
            Rule::TooLarge {
                len: 268_435_460,
                max: 1 << 20
            }
        );
    }
}
