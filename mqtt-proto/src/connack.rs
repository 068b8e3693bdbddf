//! CONNACK: section 3.2.
//!
//! | bytes | what |
//! | --- | --- |
//! | 1 | bit 0: session present |
//! | 1 | return code (3.1.1) or reason code (5) |
//! | block | properties (5) |

use crate::encode::Body;
use crate::error::Unencodable;
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View, kind};

/// The server's answer to CONNECT. The return codes of 3.1.1 become the reason codes of 5 with the same meaning.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ConnAck<'a> {
    /// Whether the server has a session of this client.
    pub session_present: bool,
    /// [`ReasonCode::Success`], or why the connection is refused.
    pub reason: ReasonCode,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
}

impl<'a> ConnAck<'a> {
    pub(crate) fn of(view: &View<'a>, version: Version) -> Self {
        Self {
            session_present: view.flags != 0,
            reason: view.connack_reason(version.is_v5()),
            properties: view.properties(),
        }
    }
}

impl Body for ConnAck<'_> {
    fn first_byte(&self) -> u8 {
        kind::CONNACK << 4
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let is_refusal = self.reason != ReasonCode::Success;
        let code = self.reason.code(PacketType::ConnAck, version.is_v5());
        let present = self.session_present;
        out.refuse_if(present && is_refusal, Unencodable::SessionPresentOnRefusal);
        out.writer.u8(u8::from(present));
        out.refuse_if(code.is_none(), Unencodable::ReasonCode(self.reason));
        out.writer.u8(code.unwrap_or_default());
        self.properties.write_if(version, kind::CONNACK, out);
    }
}
