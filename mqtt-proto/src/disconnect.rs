//! DISCONNECT: section 3.14. Empty in 3.1.1; in 5 a reason code and properties, either of which may be left out.

use crate::ack::{read_reason, write_reason};
use crate::header::PacketType;
use crate::properties::Properties;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// Says that the connection ends, and in MQTT 5 why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// Why (5); [`ReasonCode::Success`] is a normal end, after which no will is published.
    pub reason: ReasonCode,
    /// Properties (5).
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let (reason, properties) = read_reason(body, PacketType::Disconnect, version)?;
        Ok(Self { reason, properties })
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Disconnect.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        write_reason(
            self.reason,
            &self.properties,
            PacketType::Disconnect,
            version,
            out,
        );
    }
}
