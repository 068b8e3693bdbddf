//! CONNACK: section 3.2.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | bit 0: session present |
//! | 1 | return code (3.1.1) or reason code (5) |
//! | block | properties (5) |

use crate::connect::{read_properties, write_properties};
use crate::error::{EncodeError, Rule};
use crate::header::PacketType;
use crate::properties::Properties;
use crate::property::Place;
use crate::reader::{Read, Reader};
use crate::sink::{Body, Sink};
use crate::version::Version;
use crate::wire::reason::ReasonCode;

/// The server's answer to CONNECT. The return codes of 3.1.1 are given as the reason codes of 5 that say the same.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server still knows the session.
    pub session_present: bool,
    /// [`ReasonCode::Success`], or why not.
    pub reason: ReasonCode,
    /// Properties (5).
    pub properties: Properties<'a>,
}

const PLACE: Place = Place::packet(PacketType::ConnAck);

impl<'a> ConnAck<'a> {
    pub(crate) fn read(body: &mut Reader<'a, '_>, version: Version) -> Read<Self> {
        let flags_at = body.left();
        let flags = body.u8()?;
        // 5 [MQTT-3.2.2-1]
        if flags > 1 {
            return Err(body.fault_at(flags_at, Rule::ReservedBits { found: flags }));
        }
        let session_present = flags == 1;
        let reason_at = body.left();
        let found = body.u8()?;
        let reason = if version.is_v5() {
            ReasonCode::new(found).filter(|reason| reason.belongs_in(PacketType::ConnAck))
        } else {
            ReasonCode::from_return_code(found)
        };
        let reason = reason.ok_or_else(|| body.fault_at(reason_at, Rule::ReasonCode { found }))?;
        // 3.1.1 [MQTT-3.2.2-4], 5 [MQTT-3.2.2-6]
        if session_present && reason != ReasonCode::Success {
            return Err(body.fault_at(flags_at, Rule::SessionPresentOnRefusal));
        }
        let properties = read_properties(body, version, PLACE)?;
        Ok(Self {
            session_present,
            reason,
            properties,
        })
    }
}

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        PacketType::ConnAck.first_byte()
    }

    fn write<S: Sink>(&self, version: Version, out: &mut S) {
        let refusal = self.reason != ReasonCode::Success;
        out.refuse_if(
            self.session_present && refusal,
            EncodeError::SessionPresentOnRefusal,
        );
        out.u8(u8::from(self.session_present));
        let code = if version.is_v5() {
            self.reason
                .belongs_in(PacketType::ConnAck)
                .then_some(self.reason.get())
        } else {
            self.reason.to_return_code()
        };
        match code {
            Some(code) => out.u8(code),
            None => out.refuse(EncodeError::ReasonCode(self.reason)),
        }
        write_properties(&self.properties, version, PLACE, out);
    }
}
