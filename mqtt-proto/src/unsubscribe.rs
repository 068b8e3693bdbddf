//! UNSUBSCRIBE and UNSUBACK: sections 3.10 and 3.11.
//!
//! | bytes | what |
//! | --- | --- |
//! | 2 | packet identifier |
//! | block | properties (5) |
//! | list | UNSUBSCRIBE: topic filters; UNSUBACK: a code for each (5), nothing in 3.1.1 |

use crate::connect::{read_properties, write_properties};
use crate::error::{EncodeError, Field};
use crate::header::PacketType;
use crate::id::PacketId;
use crate::list::List;
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::subscribe::{SubAck, read_list, write_codes};
use crate::topic::{self, TopicFilter};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// A client unsubscribes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Unsubscribe<'a> {
    /// Its packet identifier.
    pub packet_id: PacketId,
    /// Properties (5).
    pub properties: Properties<'a>,
    /// At least one filter.
    pub filters: List<'a, TopicFilter<'a>>,
}

const PLACE: Place = Place::packet(PacketType::Unsubscribe);
const ACK_PLACE: Place = Place::packet(PacketType::UnsubAck);

impl<'a> Unsubscribe<'a> {
    /// An UNSUBSCRIBE without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, filters: impl Into<List<'a, TopicFilter<'a>>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            filters: filters.into(),
        }
    }

    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let packet_id = body.packet_id()?;
        let properties = read_properties(body, version, PLACE)?;
        let filters = List::validated(body.rest());
        read_list(body, |body| topic::read_filter(body, version))?;
        Ok(Self {
            packet_id,
            properties,
            filters,
        })
    }
}

impl Body for Unsubscribe<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Unsubscribe.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.refuse_if(
            self.filters.is_empty(),
            EncodeError::EmptyList(Field::Filters),
        );
        out.u16(self.packet_id.get());
        write_properties(&self.properties, version, PLACE, out);
        self.filters
            .each(|filter| out.binary(Field::Filters, filter.as_bytes()));
    }
}

/// The server's answer to UNSUBSCRIBE.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct UnsubAck<'a> {
    /// The packet identifier of the UNSUBSCRIBE.
    pub packet_id: PacketId,
    /// Properties (5).
    pub properties: Properties<'a>,
    /// A code for each filter (5); empty in 3.1.1.
    pub codes: List<'a, ReasonCode>,
}

impl<'a> UnsubAck<'a> {
    /// An UNSUBACK without properties.
    #[must_use]
    pub fn new(packet_id: PacketId, codes: impl Into<List<'a, ReasonCode>>) -> Self {
        Self {
            packet_id,
            properties: Properties::EMPTY,
            codes: codes.into(),
        }
    }

    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        SubAck::read(body, PacketType::UnsubAck, version).map(Self::from)
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
        PacketType::UnsubAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.u16(self.packet_id.get());
        write_properties(&self.properties, version, ACK_PLACE, out);
        if version.is_v5() {
            write_codes(self.codes, PacketType::UnsubAck, version, out);
        } else {
            out.refuse_if(
                !self.codes.is_empty(),
                EncodeError::NeedsV5(Field::ReasonCodes),
            );
        }
    }
}
