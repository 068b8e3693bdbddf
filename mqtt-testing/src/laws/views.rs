//! The law of the two decoders: `mqtt_proto::wire` and `Packet::decode` accept and refuse the same bytes, with the same
//! fields.

use mqtt_proto::wire::{self, Fault, Reader, View};
use mqtt_proto::{
    Connect, DecodeError, Decoded, List, MAX_PACKET, Packet, Properties, PropertyId, PropertyKind,
    Publish, ReasonCode, Subscribe, Version,
};

/// A result of [`wire`]: a view and the length of its packet, or how many bytes are needed, or a fault and its place.
enum Found<'a> {
    View(View<'a>, usize),
    Needs(usize),
    Fault(Fault, usize),
}

fn read(bytes: &[u8], version: Version, limit: u32) -> Found<'_> {
    let v5 = version.is_v5();
    let frame = wire::frame(bytes, v5, limit);
    if frame.fault.is_some() {
        let of_first_byte = [
            Fault::RESERVED_TYPE,
            Fault::FLAGS,
            Fault::QOS_3,
            Fault::DUP_ON_QOS_0,
        ];
        let at = usize::from(!of_first_byte.contains(&frame.fault));
        return Found::Fault(frame.fault, at);
    }
    let Some(body) = frame.body(bytes) else {
        return Found::Needs(frame.needs());
    };
    let (mut view, mut reader) = (View::default(), Reader::new(body));
    view.read(frame.first, &mut reader, v5);
    by_client(frame.first, body, v5, &reader);
    if reader.fault.is_none() {
        Found::View(view, frame.needs())
    } else {
        Found::Fault(reader.fault, frame.needs() - reader.left())
    }
}

/// Checks that a client accepts exactly the packets of a server.
fn by_client(first: u8, body: &[u8], v5: bool, whole: &Reader<'_>) {
    let (mut view, mut reader) = (View::default(), Reader::new(body));
    view.read_by_client(first, &mut reader, v5);
    let comes = match first >> 4 {
        1 | 8 | 10 | 12 => false,
        14 => v5,
        _ => true,
    };
    let expected = if comes {
        whole.fault
    } else {
        Fault::UNEXPECTED
    };
    assert_eq!(reader.fault, expected, "{first:02X} {body:02X?}");
}

/// Both decoders accept and refuse the same packets, with equal fields, faults and places.
///
/// # Panics
/// The law does not hold.
pub fn agree(bytes: &[u8], version: Version) {
    for limit in [40, MAX_PACKET] {
        match (
            Packet::decode(bytes, version, limit),
            read(bytes, version, limit),
        ) {
            (Ok(Decoded::Packet { packet, consumed }), Found::View(view, len)) => {
                assert_eq!(consumed, len, "{bytes:02X?}");
                same_fields(&packet, &view, version);
            }
            (Ok(Decoded::Needs(typed)), Found::Needs(found)) => {
                assert_eq!(typed, found, "{bytes:02X?}");
            }
            (Err(error), Found::Fault(fault, at)) => {
                same_fault(&error, fault, at, bytes);
            }
            (typed, _) => panic!("the view differs from {typed:?}, {bytes:02X?}"),
        }
    }
}

fn same_fault(error: &DecodeError, fault: Fault, at: usize, bytes: &[u8]) {
    let place = usize::try_from(error.at).expect("32 bits");
    assert_eq!(place, at, "{error}, {fault:?}, {bytes:02X?}");
    assert_eq!(
        error.reason_code().get(),
        fault.reason(),
        "{error}, {fault:?}, {bytes:02X?}"
    );
}

fn same_fields(packet: &Packet<'_>, view: &View<'_>, version: Version) {
    assert_eq!(packet.packet_type().get(), view.kind, "{packet:?}");
    match packet {
        Packet::Connect(connect) => same_connect(connect, view),
        Packet::ConnAck(connack) => {
            assert_eq!(u8::from(connack.session_present), view.flags);
            let reason = if version.is_v5() {
                Some(connack.reason.get())
            } else {
                connack.reason.to_return_code()
            };
            assert_eq!(reason, Some(view.reason));
            same_properties(&connack.properties, view);
        }
        Packet::Publish(publish) => same_publish(publish, view),
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            assert_eq!(
                (ack.packet_id.get(), ack.reason.get()),
                (view.id, view.reason)
            );
            same_properties(&ack.properties, view);
        }
        Packet::Subscribe(subscribe) => same_subscribe(subscribe, view),
        Packet::Unsubscribe(unsubscribe) => {
            assert_eq!(unsubscribe.packet_id.get(), view.id);
            let mut rest = Reader::new(view.body);
            for filter in &unsubscribe.filters {
                assert_eq!(filter.as_bytes(), rest.binary());
            }
            assert!(rest.rest.is_empty() && rest.fault.is_none());
            same_properties(&unsubscribe.properties, view);
        }
        Packet::SubAck(suback) => {
            assert_eq!(suback.packet_id.get(), view.id);
            same_codes(suback.codes, view);
            same_properties(&suback.properties, view);
        }
        Packet::UnsubAck(unsuback) => {
            assert_eq!(unsuback.packet_id.get(), view.id);
            same_codes(unsuback.codes, view);
            same_properties(&unsuback.properties, view);
        }
        Packet::Disconnect(disconnect) => {
            assert_eq!(disconnect.reason.get(), view.reason);
            same_properties(&disconnect.properties, view);
        }
        Packet::Auth(auth) => {
            assert_eq!(auth.reason.get(), view.reason);
            same_properties(&auth.properties, view);
        }
        Packet::PingReq | Packet::PingResp => {}
    }
}

fn same_connect(connect: &Connect<'_>, view: &View<'_>) {
    assert_eq!(connect.version.level(), view.level & 0x7F);
    assert_eq!(connect.bridge, view.level & 0x80 != 0);
    assert_eq!(connect.client_id.as_bytes(), view.topic);
    assert_eq!(connect.keep_alive, view.id);
    assert_eq!(connect.clean_start, view.flags & 2 != 0);
    assert_eq!(connect.will.is_some(), view.flags & 4 != 0);
    assert_eq!(connect.user_name.is_some(), view.flags & 0x80 != 0);
    assert_eq!(connect.password.is_some(), view.flags & 0x40 != 0);
    same_properties(&connect.properties, view);
}

fn same_subscribe(subscribe: &Subscribe<'_>, view: &View<'_>) {
    assert_eq!(subscribe.packet_id.get(), view.id);
    let mut rest = Reader::new(view.body);
    for subscription in &subscribe.filters {
        assert_eq!(subscription.filter.as_bytes(), rest.binary());
        assert_eq!(subscription.qos.get(), rest.u8() & 3);
    }
    assert!(rest.rest.is_empty() && rest.fault.is_none());
    same_properties(&subscribe.properties, view);
}

fn same_publish(publish: &Publish<'_>, view: &View<'_>) {
    let flags = u8::from(publish.dup) << 3 | publish.qos().get() << 1 | u8::from(publish.retain);
    assert_eq!(flags, view.flags);
    assert_eq!(publish.topic.as_bytes(), view.topic);
    assert_eq!(
        publish.topic_alias.map_or(0, |alias| alias.get()),
        view.alias
    );
    assert_eq!(
        publish.delivery.packet_id().map_or(0, |id| id.get()),
        view.id
    );
    assert_eq!(publish.payload, view.body);
    same_properties(&publish.properties, view);
}

fn same_codes(codes: List<'_, ReasonCode>, view: &View<'_>) {
    assert!(
        codes
            .iter()
            .map(ReasonCode::get)
            .eq(view.body.iter().copied())
    );
}

fn same_properties(properties: &Properties<'_>, view: &View<'_>) {
    for id in PropertyId::ALL.iter().copied() {
        match id.kind() {
            PropertyKind::Pair => {
                let mut rest = Reader::new(view.properties);
                let entries = core::iter::from_fn(|| rest.next_property());
                let pairs = entries.filter(|entry| entry.id == id);
                let typed = properties.user_properties();
                assert!(
                    typed
                        .map(|(name, value)| (name.as_bytes(), value.as_bytes()))
                        .eq(pairs.map(|entry| (entry.name, entry.bytes)))
                );
            }
            kind if kind.is_number() => {
                let mut first = None;
                properties.each_number(&mut |found, number| {
                    if found == id && first.is_none() {
                        first = Some(number);
                    }
                });
                assert_eq!(first, view.number(id), "{id}");
            }
            _ => assert_eq!(properties.bytes(id), view.bytes(id), "{id}"),
        }
    }
}
