//! Every vector decodes to the packet in its row and encodes back to the same bytes, or is refused with the error in its row.

use mqtt_proto::{Decoded, Encode, FixedHeader, MAX_PACKET, Packet, Publish, QoS, VarInt, Version};
use mqtt_testing::packets::vectors;

/// Describes a packet in the form of the table's third column.
fn describe(packet: &Packet<'_>) -> String {
    match packet {
        Packet::Connect(c) => format!(
            "v{} CONNECT; clean_session={}; keep_alive={}; client_id={}; username={}; password={}",
            c.version,
            u8::from(c.clean_start),
            c.keep_alive,
            c.client_id,
            c.user_name.unwrap(),
            std::str::from_utf8(c.password.unwrap()).unwrap()
        ),
        Packet::ConnAck(c) => format!(
            "CONNACK; session_present={}; return_code={}",
            u8::from(c.session_present),
            c.reason.to_return_code().unwrap()
        ),
        Packet::Publish(p) => describe_publish(p),
        Packet::Subscribe(s) => {
            let filters: String = s
                .filters
                .iter()
                .map(|f| format!("; filter={} qos={}", f.filter, f.qos))
                .collect();
            format!("SUBSCRIBE; packet_id={}{filters}", s.packet_id)
        }
        Packet::SubAck(s) => {
            let codes: Vec<_> = s
                .codes
                .iter()
                .map(|c| format!("granted qos {}", c.get()))
                .collect();
            format!(
                "SUBACK; packet_id={}; codes=[{}]",
                s.packet_id,
                codes.join(", ")
            )
        }
        Packet::Unsubscribe(u) => {
            let filters: String = u.filters.iter().map(|f| format!("; filter={f}")).collect();
            format!("UNSUBSCRIBE; packet_id={}{filters}", u.packet_id)
        }
        Packet::UnsubAck(u) => format!("UNSUBACK; packet_id={}", u.packet_id),
        Packet::PubAck(a) => format!("PUBACK; packet_id={}", a.packet_id),
        other => other.packet_type().to_string(),
    }
}

fn describe_publish(p: &Publish<'_>) -> String {
    let payload = match p.payload {
        [byte] => format!("{byte:#04x} (one byte, {byte} degrees)"),
        text => format!(
            "JSON of {} bytes, {}",
            text.len(),
            std::str::from_utf8(text).unwrap()
        ),
    };
    let (dup, retain) = (u8::from(p.dup), u8::from(p.retain));
    format!(
        "PUBLISH; dup={dup} qos={} retain={retain}; topic={}; payload={payload}",
        p.qos(),
        p.topic
    )
}

#[test]
fn every_vector_decodes_as_it_says_and_encodes_back() {
    let mut packets = 0;
    for vector in vectors::all()
        .iter()
        .filter(|v| !v.name.starts_with("remaining_length"))
    {
        if vector.expectation.starts_with("MALFORMED") {
            continue;
        }
        let decoded = Packet::decode(&vector.bytes, Version::V311, MAX_PACKET);
        let Ok(Decoded::Packet { packet, consumed }) = decoded else {
            panic!("{}: {decoded:?}", vector.name)
        };
        assert_eq!(consumed, vector.bytes.len(), "{}", vector.name);
        // A remark in brackets may follow what the packet says.
        let said = describe(&packet);
        let rest = vector.expectation.strip_prefix(&said);
        assert!(
            rest.is_some_and(|r| r.is_empty() || r.starts_with(" (")),
            "{}: {said}",
            vector.name
        );
        let mut buffer = [0; 512];
        let len = packet.encode(Version::V311, &mut buffer).unwrap();
        assert_eq!(buffer[..len], vector.bytes, "{}", vector.name);
        packets += 1;
    }
    assert_eq!(packets, 15);
}

/// 3.1.1 [MQTT-3.8.1-1]
#[test]
fn the_malformed_vector_is_refused_with_the_flags_found_and_required() {
    let malformed: Vec<_> = vectors::all()
        .into_iter()
        .filter(|v| v.expectation.starts_with("MALFORMED"))
        .collect();
    assert_eq!(malformed.len(), 1);
    let error = Packet::decode(&malformed[0].bytes, Version::V311, MAX_PACKET).unwrap_err();
    assert_eq!(
        error.to_string(),
        "SUBSCRIBE, byte 0: flags are 0b0000, must be 0b0010 [MQTT-3.8.1-1]"
    );
}

#[test]
fn the_remaining_length_vectors_hold_both_ways() {
    for (name, value) in [("remaining_length_64", 64), ("remaining_length_321", 321)] {
        let bytes = &vectors::all()
            .into_iter()
            .find(|v| v.name == name)
            .unwrap()
            .bytes;
        let number = VarInt::new(value).unwrap();
        assert_eq!(VarInt::decode(bytes), Ok(Some((number, bytes.len()))));
        let (encoded, len) = number.encode();
        assert_eq!(&encoded[..len], bytes);
    }
    // The 321 of CONNECT: three bytes of header in all.
    let header = FixedHeader::decode(&[0x10, 0xC1, 0x02], Version::V311, MAX_PACKET)
        .unwrap()
        .unwrap();
    assert_eq!((header.remaining_length, header.header_len), (321, 3));
    assert_eq!(QoS::new(3), None);
}
