//! The filters of a SUBSCRIBE or UNSUBSCRIBE that are not handled yet, in packets of a few filters. The packet is kept as it
//! came, and each small packet is made when its turn comes, so that no turn has work for every filter.

use core::ops::Range;

use mqtt_session::proto::Version;

use crate::work::{Work, step};

/// The most filters of a small packet.
const FILTERS: usize = 32;

/// The part of a packet with filters that is not handled yet.
#[derive(Debug)]
pub(crate) struct Portions {
    /// The packet, as it came.
    packet: Box<[u8]>,
    /// The range of the packet identifier and the properties in the packet.
    head: Range<usize>,
    /// Where the first filter begins that is left.
    at: usize,
}

impl Portions {
    /// Takes a packet that was decoded, without the first `used` bytes of its filters. Returns `None` if nothing is left of them.
    pub(crate) fn new(packet: &[u8], version: Version, used: usize) -> Option<Self> {
        let mut start = 1_usize.saturating_add(varint(packet.get(1..)?)?.1);
        let body = start;
        start = start.saturating_add(2);
        if version.is_v5() {
            let (properties, len) = varint(packet.get(start..)?)?;
            start = start.saturating_add(len).saturating_add(properties);
        }
        let at = start.saturating_add(used);
        (at < packet.len()).then(|| Self {
            packet: packet.into(),
            head: body..start,
            at,
        })
    }

    /// Returns a packet with the next filters, and takes them out; `None` if there are no more.
    pub(crate) fn next(&mut self) -> Option<Vec<u8>> {
        let first = *self.packet.first()?;
        // The options of a subscription follow its filter.
        let options = usize::from(first >> 4 == SUBSCRIBE);
        let mut end = self.at;
        for _ in 0..FILTERS {
            let Some([high, low]) = self.packet.get(end..).and_then(<[u8]>::first_chunk) else {
                break;
            };
            step(Work::Filter);
            let len = usize::from(u16::from_be_bytes([*high, *low]));
            end = end
                .saturating_add(2)
                .saturating_add(len)
                .saturating_add(options);
        }
        let filters = self
            .packet
            .get(self.at..end)
            .filter(|rest| !rest.is_empty())?;
        let head = self.packet.get(self.head.clone())?;
        let mut len = head.len().saturating_add(filters.len());
        let mut packet = vec![first];
        loop {
            let low = u8::try_from(len & 0x7F).unwrap_or(0);
            len >>= 7_u32;
            if len == 0 {
                packet.push(low);
                break;
            }
            packet.push(low | 0x80);
        }
        packet.extend_from_slice(head);
        packet.extend_from_slice(filters);
        self.at = end;
        Some(packet)
    }
}

/// The packet type of SUBSCRIBE.
const SUBSCRIBE: u8 = 8;

/// Returns the number at the front of the bytes, a variable byte integer, and how many bytes it takes.
fn varint(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut number = 0_usize;
    for (at, byte) in bytes.iter().enumerate().take(4) {
        let bits = usize::from(byte & 0x7F);
        number |= bits << at.saturating_mul(7);
        if byte & 0x80 == 0 {
            return Some((number, at.saturating_add(1)));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use mqtt_session::proto::{
        Decoded, MAX_PACKET, Packet, PacketId, Properties, Property, QoS, Subscribe, Subscription,
        TopicFilter, Unsubscribe,
    };
    use mqtt_testing::packets::encode;

    use super::*;
    use crate::work::steps;

    /// Returns the filters of a packet, with the QoS of its subscriptions, if it is the one that is expected but for its filters.
    fn filters(
        bytes: &[u8],
        version: Version,
        expected: &Packet<'_>,
    ) -> Vec<(String, Option<QoS>)> {
        let Ok(Decoded::Packet { packet, consumed }) = Packet::decode(bytes, version, MAX_PACKET)
        else {
            panic!("{bytes:x?}")
        };
        assert_eq!(consumed, bytes.len());
        match (packet, expected) {
            (Packet::Subscribe(own), Packet::Subscribe(expected)) => {
                assert_eq!(
                    (own.packet_id, own.properties),
                    (expected.packet_id, expected.properties)
                );
                let all = own.filters.iter();
                all.map(|own| (own.filter.to_string(), Some(own.qos)))
                    .collect()
            }
            (Packet::Unsubscribe(own), Packet::Unsubscribe(expected)) => {
                assert_eq!(
                    (own.packet_id, own.properties),
                    (expected.packet_id, expected.properties)
                );
                own.filters
                    .iter()
                    .map(|filter| (filter.to_string(), None))
                    .collect()
            }
            _ => panic!("another packet: {packet:?}"),
        }
    }

    #[test]
    fn the_packets_have_all_filters_that_are_left() {
        let names: Vec<_> = (0..1_000).map(|n| format!("filter/{n}")).collect();
        let id = PacketId::new(500).unwrap();
        for version in [Version::V311, Version::V5] {
            let list = [Property::UserProperty("name", "x".repeat(200).leak())];
            let properties = match version {
                Version::V5 => Properties::from(&list[..]),
                _ => Properties::EMPTY,
            };
            let all: Vec<_> = names
                .iter()
                .map(|name| TopicFilter::new(name).unwrap())
                .collect();
            let wanted: Vec<_> = all
                .iter()
                .map(|filter| Subscription::new(*filter, QoS::AtLeastOnce))
                .collect();
            let subscribe = Subscribe {
                properties,
                ..Subscribe::new(id, &wanted[..])
            };
            let unsubscribe = Unsubscribe {
                properties,
                ..Unsubscribe::new(id, &all[..])
            };
            for (packet, options) in [
                (Packet::Subscribe(subscribe), 1),
                (Packet::Unsubscribe(unsubscribe), 0),
            ] {
                let bytes = encode(&packet, version);
                let whole = filters(&bytes, version, &packet);
                for done in [0, 1, 999, 1_000] {
                    let used = names[..done]
                        .iter()
                        .map(|name| 2 + name.len() + options)
                        .sum();
                    let portions = Portions::new(&bytes, version, used);
                    assert_eq!(portions.is_none(), done == 1_000);
                    let mut found = Vec::new();
                    if let Some(mut portions) = portions {
                        while let Some(bytes) = portions.next() {
                            found.extend(filters(&bytes, version, &packet));
                        }
                    }
                    assert_eq!(found, whole[done..]);
                }
            }
        }
    }

    /// Keeping a packet looks at none of its filters, and each packet at a few.
    #[test]
    fn no_call_looks_at_all_filters() {
        let filter = TopicFilter::from_static("a/b");
        let wanted = vec![Subscription::new(filter, QoS::AtMostOnce); 40_000];
        let subscribe = Packet::Subscribe(Subscribe::new(PacketId::FIRST, &wanted[..]));
        let bytes = encode(&subscribe, Version::V311);
        let make = || Portions::new(&bytes, Version::V311, 0).unwrap();
        let (looked_at, mut portions) = steps(Work::Filter, make);
        assert_eq!(looked_at, 0);
        let mut packets = 0;
        loop {
            let (looked_at, packet) = steps(Work::Filter, || portions.next());
            assert!(looked_at <= FILTERS);
            if packet.is_none() {
                break;
            }
            packets += 1;
        }
        assert_eq!(packets, 40_000 / FILTERS);
    }
}
