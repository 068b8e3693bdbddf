//! UNSUBSCRIBE and UNSUBACK: sections 3.10 and 3.11.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | block | properties (5) |
//! | list | UNSUBSCRIBE: topic filters; UNSUBACK: a code for each filter (5), nothing in 3.1.1 |

use crate::encode::{Body, Draft, Filter, Request, first_byte};
use crate::error::Field;
use crate::id::PacketId;
use crate::list::List;
use crate::out::Out;
use crate::properties::Properties;
use crate::subscribe::SubAck;
use crate::topic::TopicFilter;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View};

/// A client's request to end subscriptions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unsubscribe<'a> {
    /// The packet identifier.
    pub packet_id: PacketId,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// The filters, at least one.
    pub filters: List<'a, TopicFilter<'a>>,
}

impl<'a> Unsubscribe<'a> {
    /// Makes an UNSUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: impl Into<List<'a, TopicFilter<'a>>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.into(),
        }
    }

    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            packet_id: view.packet_id(),
            properties: view.properties(),
            filters: view.filters(),
        }
    }
}

impl Filter for TopicFilter<'_> {
    const PACKET: PacketType = PacketType::Unsubscribe;

    fn write(&self, _: Version, out: &mut Out<'_>) {
        out.binary(Field::Filters, self.as_bytes());
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::Unsubscribe)
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let request = Request {
            id: self.packet_id,
            properties: self.properties,
            filters: self.filters,
        };
        request.write(version, out);
    }
}

/// The server's answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsubAck<'a> {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
    /// A code for each filter (MQTT 5); empty in 3.1.1.
    pub codes: List<'a, ReasonCode>,
}

impl<'a> UnsubAck<'a> {
    /// Makes an UNSUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, codes: impl Into<List<'a, ReasonCode>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            codes: codes.into(),
        }
    }
}

impl<'a> From<SubAck<'a>> for UnsubAck<'a> {
    fn from(answer: SubAck<'a>) -> Self {
        Self {
            packet_id: answer.packet_id,
            properties: answer.properties,
            codes: answer.codes,
        }
    }
}

impl<'a> From<UnsubAck<'a>> for SubAck<'a> {
    fn from(answer: UnsubAck<'a>) -> Self {
        Self {
            packet_id: answer.packet_id,
            properties: answer.properties,
            codes: answer.codes,
        }
    }
}

impl Body for UnsubAck<'_> {
    fn first_byte(&self) -> u8 {
        first_byte(PacketType::UnsubAck)
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let draft = Draft::with_id(PacketType::UnsubAck, self.packet_id, self.properties);
        draft.write_codes(&self.codes, version, out);
    }
}
