//! AUTH: section 3.15 of 5. A reason code and properties; both left out if it is success without properties.

use crate::ack::{read_reason, write_reason};
use crate::error::{EncodeError, Field};
use crate::header::PacketType;
use crate::properties::Properties;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// A step of an extended authentication (5, section 4.12).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Auth<'a> {
    /// Success, continue authentication or re-authenticate.
    pub reason: ReasonCode,
    /// The authentication method and data, among others.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let (reason, properties) = read_reason(body, PacketType::Auth, version)?;
        Ok(Self { reason, properties })
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::Auth.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        out.refuse_if(!version.is_v5(), EncodeError::NeedsV5(Field::Auth));
        write_reason(
            self.reason,
            &self.properties,
            PacketType::Auth,
            version,
            out,
        );
    }
}
