//! Every malformed input that a statement forbids is refused with an error that names the packet, the byte, the rule and the
//! statement.

use mqtt_proto::{MAX_PACKET, Packet, Rule, Version};
use mqtt_testing::laws::views;
use mqtt_testing::packets::vectors::hex;

use Version::{V5, V311};

/// Decodes each row of a table. The columns are the version, the bytes and the text of the error.
#[track_caller]
fn refused(table: &str) {
    for row in table.trim().lines() {
        let columns: Vec<&str> = row.split('|').map(str::trim).collect();
        let &[version, bytes, text] = &columns[..] else {
            panic!("not three columns: {row}");
        };
        let version = if version == "5" { V5 } else { V311 };
        let bytes = hex(bytes);
        let error = Packet::decode(&bytes, version, MAX_PACKET).expect_err(row);
        assert_eq!(error.to_string(), text, "{row}");
        views::agree(&bytes, version);
    }
}

#[track_caller]
fn accepted(version: Version, bytes: &str) {
    let bytes = hex(bytes);
    let decoded = Packet::decode(&bytes, version, MAX_PACKET);
    assert!(decoded.is_ok(), "{decoded:?}");
}

#[test]
fn wrong_flags_of_the_fixed_header_are_refused() {
    refused(
        "
        3.1.1 | 80 00 | SUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.8.1-1]
        5     | 80 00 | SUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.8.1-1]
        3.1.1 | A0 00 | UNSUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.10.1-1]
        5     | A0 00 | UNSUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.10.1-1]
        3.1.1 | 60 02 | PUBREL, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.6.1-1]
        5     | 60 02 | PUBREL, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.6.1-1]
        3.1.1 | C1 00 | PINGREQ, byte 0: flags are 0b0001, must be 0b0000 [MQTT-2.2.2-2]
        5     | C1 00 | PINGREQ, byte 0: flags are 0b0001, must be 0b0000 [MQTT-2.1.3-1]
        3.1.1 | E2 00 | DISCONNECT, byte 0: flags are 0b0010, must be 0b0000 [MQTT-3.14.1-1]
        5     | E2 00 | DISCONNECT, byte 0: flags are 0b0010, must be 0b0000 [MQTT-3.14.1-1]
        5     | F8 00 | AUTH, byte 0: flags are 0b1000, must be 0b0000 [MQTT-3.15.1-1]
        ",
    );
}

#[test]
fn reserved_packet_types_are_refused() {
    refused(
        "
        3.1.1 | 00 00 | byte 0: packet type 0 is reserved
        5     | 00 00 | byte 0: packet type 0 is reserved
        3.1.1 | F0 00 | byte 0: packet type 15 is reserved
        ",
    );
}

#[test]
fn qos_3_and_dup_at_qos_0_are_refused() {
    refused(
        "
        3.1.1 | 36 05 | PUBLISH, byte 0: QoS is 3, must be 0, 1 or 2 [MQTT-3.3.1-4]
        5     | 36 05 | PUBLISH, byte 0: QoS is 3, must be 0, 1 or 2 [MQTT-3.3.1-4]
        3.1.1 | 38 05 | PUBLISH, byte 0: DUP is set on a QoS 0 message [MQTT-3.3.1-2]
        5     | 38 05 | PUBLISH, byte 0: DUP is set on a QoS 0 message [MQTT-3.3.1-2]
        ",
    );
}

#[test]
fn packet_identifier_0_is_refused() {
    refused(
        "
        3.1.1 | 32 05 0001 61 0000    | PUBLISH, byte 5: packet identifier is 0 [MQTT-2.3.1-1]
        5     | 34 06 0001 61 0000 00 | PUBLISH, byte 5: packet identifier is 0 [MQTT-2.2.1-3]
        3.1.1 | 40 02 0000            | PUBACK, byte 2: packet identifier is 0 [MQTT-2.3.1-1]
        3.1.1 | 82 06 0000 0001 61 00 | SUBSCRIBE, byte 2: packet identifier is 0 [MQTT-2.3.1-1]
        5     | A2 06 0000 00 0001 61 | UNSUBSCRIBE, byte 2: packet identifier is 0 [MQTT-2.2.1-3]
        ",
    );
}

#[test]
fn variable_byte_integers_that_are_too_long_are_refused() {
    refused(
        "
        3.1.1 | 30 FF FF FF FF 01   | PUBLISH, byte 1: variable byte integer does not end within four bytes
        5     | 30 FF FF FF FF 01   | PUBLISH, byte 1: variable byte integer does not end within four bytes
        5     | 30 80 00            | PUBLISH, byte 1: variable byte integer uses more bytes than it needs [MQTT-1.5.5-1]
        3.1.1 | 30 FF 00            | PUBLISH, byte 1: variable byte integer uses more bytes than it needs
        5     | 30 05 0001 61 80 00 | PUBLISH, byte 5: variable byte integer uses more bytes than it needs [MQTT-1.5.5-1]
        ",
    );
}

#[test]
fn strings_that_are_not_utf8_or_have_a_null_character_are_refused() {
    refused(
        "
        3.1.1 | 30 05 0003 61 C3 28                            | PUBLISH, byte 5: string is not well-formed UTF-8 [MQTT-1.5.3-1]
        5     | 30 06 0003 ED A0 80 00                         | PUBLISH, byte 4: string is not well-formed UTF-8 [MQTT-1.5.4-1]
        3.1.1 | 30 05 0003 61 00 62                            | PUBLISH, byte 5: string contains U+0000 [MQTT-1.5.3-2]
        5     | 30 06 0003 61 00 62 00                         | PUBLISH, byte 5: string contains U+0000 [MQTT-1.5.4-2]
        3.1.1 | 10 0D 0004 4D515454 04 02 0000 0001 FF         | CONNECT, byte 14: string is not well-formed UTF-8 [MQTT-1.5.3-1]
        3.1.1 | 10 10 0004 4D515454 04 82 0000 0001 61 0001 00 | CONNECT, byte 17: string contains U+0000 [MQTT-1.5.3-2]
        ",
    );
}

#[test]
fn invalid_topic_names_and_filters_are_refused() {
    refused(
        "
        3.1.1 | 30 06 0003 61 2F 2B 00                              | PUBLISH, byte 6: topic name contains a wildcard [MQTT-3.3.2-2]
        5     | 30 06 0003 61 2F 2B 00                              | PUBLISH, byte 6: topic name contains a wildcard [MQTT-3.3.2-2]
        3.1.1 | 30 06 0003 61 2F 23 00                              | PUBLISH, byte 6: topic name contains a wildcard [MQTT-3.3.2-2]
        5     | 30 06 0003 61 2F 23 00                              | PUBLISH, byte 6: topic name contains a wildcard [MQTT-3.3.2-2]
        3.1.1 | 30 03 0000 00                                       | PUBLISH, byte 2: topic is empty [MQTT-4.7.3-1]
        5     | 30 03 0000 00                                       | PUBLISH, byte 2: topic is empty [MQTT-4.7.3-1]
        3.1.1 | 82 07 0001 0002 61 2B 00                            | SUBSCRIBE, byte 7: wildcard in a topic filter is misplaced [MQTT-4.7.1-2]
        5     | 82 09 0001 00 0003 23 2F 61 00                      | SUBSCRIBE, byte 7: wildcard in a topic filter is misplaced [MQTT-4.7.1-1]
        3.1.1 | A2 05 0001 0001 00                                  | UNSUBSCRIBE, byte 6: string contains U+0000 [MQTT-1.5.3-2]
        3.1.1 | 82 05 0001 0000 00                                  | SUBSCRIBE, byte 4: topic is empty [MQTT-4.7.3-1]
        5     | 82 10 0001 00 000A 24 73 68 61 72 65 2F 2F 61 62 00 | SUBSCRIBE, byte 14: shared subscription needs $share/name/filter, the name without wildcards [MQTT-4.8.2-1]
        5     | 82 10 0001 00 000A 24 73 68 61 72 65 2F 67 2F 61 04 | SUBSCRIBE, byte 17: no local is set on a shared subscription [MQTT-3.8.3-4]
        ",
    );
    // In 3.1.1 `$share/` has no meaning.
    accepted(V311, "82 0F 0001 000A 24 73 68 61 72 65 2F 2F 61 62 00");
}

#[test]
fn lists_without_an_entry_are_refused() {
    refused(
        "
        3.1.1 | 82 02 0001    | SUBSCRIBE, byte 4: the list is empty, it needs at least one entry [MQTT-3.8.3-3]
        5     | 82 03 0001 00 | SUBSCRIBE, byte 5: the list is empty, it needs at least one entry [MQTT-3.8.3-2]
        3.1.1 | A2 02 0001    | UNSUBSCRIBE, byte 4: the list is empty, it needs at least one entry [MQTT-3.10.3-2]
        5     | A2 03 0001 00 | UNSUBSCRIBE, byte 5: the list is empty, it needs at least one entry [MQTT-3.10.3-2]
        3.1.1 | 90 02 0001    | SUBACK, byte 4: the list is empty, it needs at least one entry
        ",
    );
}

#[test]
fn reserved_bits_and_values_are_refused() {
    refused(
        "
        3.1.1 | 10 0C 0004 4D515454 04 03 0000 0000    | CONNECT, byte 9: reserved bits are set, byte is 0b00000011 [MQTT-3.1.2-3]
        5     | 10 0D 0004 4D515454 05 01 0000 00 0000 | CONNECT, byte 9: reserved bits are set, byte is 0b00000001 [MQTT-3.1.2-3]
        3.1.1 | 20 02 02 00                            | CONNACK, byte 2: reserved bits are set, byte is 0b00000010 [MQTT-2.2.2-1]
        5     | 20 03 80 00 00                         | CONNACK, byte 2: reserved bits are set, byte is 0b10000000 [MQTT-3.2.2-1]
        3.1.1 | 82 06 0001 0001 61 04                  | SUBSCRIBE, byte 7: reserved bits are set, byte is 0b00000100
        5     | 82 07 0001 00 0001 61 40               | SUBSCRIBE, byte 8: reserved bits are set, byte is 0b01000000 [MQTT-3.8.3-5]
        3.1.1 | 82 06 0001 0001 61 03                  | SUBSCRIBE, byte 7: QoS is 3, must be 0, 1 or 2
        5     | 82 07 0001 00 0001 61 30               | SUBSCRIBE, byte 8: retain handling is 3, must be 0, 1 or 2
        ",
    );
}

#[test]
fn flags_of_connect_that_contradict_each_other_are_refused() {
    refused(
        "
        3.1.1 | 10 0C 0004 4D515454 04 0A 0000 0000      | CONNECT, byte 9: will QoS or will retain is set without a will [MQTT-3.1.2-11]
        3.1.1 | 10 0C 0004 4D515454 04 22 0000 0000      | CONNECT, byte 9: will QoS or will retain is set without a will [MQTT-3.1.2-11]
        3.1.1 | 10 0C 0004 4D515454 04 1E 0000 0000      | CONNECT, byte 9: QoS is 3, must be 0, 1 or 2 [MQTT-3.1.2-14]
        3.1.1 | 10 0E 0004 4D515454 04 42 0000 0000 0000 | CONNECT, byte 9: password without user name [MQTT-3.1.2-22]
        ",
    );
    // MQTT 5 allows a password without a user name.
    accepted(V5, "10 0F 0004 4D515454 05 42 0000 00 0000 0000");
}

#[test]
fn other_protocol_names_and_levels_are_refused() {
    refused(
        "
        3.1.1 | 10 0C 0004 4D515458 04 02 0000 0000 | CONNECT, byte 2: protocol name is neither MQTT nor MQIsdp [MQTT-3.1.2-1]
        3.1.1 | 10 0C 0004 4D515454 06 02 0000 0000 | CONNECT, byte 8: protocol level 6 is not supported [MQTT-3.1.2-2]
        ",
    );
    // The CONNECT of MQTT 3.1.
    accepted(V311, "10 0E 0006 4D5149736470 03 02 0000 0000");
}

#[test]
fn invalid_properties_are_refused() {
    refused(
        "
        5     | 30 08 0001 61 04 01 00 01 00    | PUBLISH, byte 8: payload format indicator comes twice
        5     | 30 06 0001 61 02 17 00          | PUBLISH, byte 6: request problem information does not belong here
        5     | 30 06 0001 61 02 01 02          | PUBLISH, byte 7: payload format indicator is out of its range
        5     | 30 07 0001 61 03 23 0000        | PUBLISH, byte 7: topic alias is out of its range [MQTT-3.3.2-8]
        5     | 30 06 0001 61 02 0B 00          | PUBLISH, byte 7: subscription identifier is out of its range
        5     | 20 06 00 00 03 21 0000          | CONNACK, byte 6: receive maximum is out of its range
        5     | 20 08 00 00 05 27 00000000      | CONNACK, byte 6: maximum packet size is out of its range
        5     | 30 06 0001 61 02 7F 00          | PUBLISH, byte 6: property identifier 0x7f does not exist
        5     | 30 05 0001 61 05 01             | PUBLISH, byte 7: the packet ends 4 bytes before the field does
        5     | 30 09 0001 61 02 02 00 62626262 | PUBLISH, byte 8: the properties end 3 bytes before the value does
        5     | 20 07 00 00 04 16 0001 61       | CONNACK, byte 9: authentication data without authentication method
        ",
    );
}

#[test]
fn packets_of_a_wrong_length_are_refused() {
    refused(
        "
        3.1.1 | 40 03 0001 00                          | PUBACK, byte 1: remaining length is 3, must be 2
        3.1.1 | C0 01 00                               | PINGREQ, byte 1: remaining length is 1, must be 0
        5     | 40 05 0001 00 00 00                    | PUBACK, byte 6: 1 bytes follow the last field
        3.1.1 | 30 03 0005 61                          | PUBLISH, byte 5: the packet ends 4 bytes before the field does
        3.1.1 | 10 0D 0004 4D515454 04 02 0000 0000 00 | CONNECT, byte 14: 1 bytes follow the last field
        ",
    );
}

#[test]
fn reason_codes_that_the_packet_does_not_have_are_refused() {
    refused(
        "
        3.1.1 | 20 02 00 06    | CONNACK, byte 3: reason code 0x06 does not belong here [MQTT-3.2.2-6]
        5     | 20 03 00 01 00 | CONNACK, byte 3: reason code 0x01 does not belong here [MQTT-3.2.2-8]
        3.1.1 | 90 03 0001 03  | SUBACK, byte 4: reason code 0x03 does not belong here [MQTT-3.9.3-2]
        5     | 40 03 0001 92  | PUBACK, byte 4: reason code 0x92 does not belong here [MQTT-3.4.2-1]
        3.1.1 | 20 02 01 05    | CONNACK, byte 2: session present is set on a refusal [MQTT-3.2.2-4]
        ",
    );
}

/// `10 FF FF FF 7F` announces 256 MiB. These five bytes are enough to compare the length with the limit.
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
