//! DISCONNECT: section 3.14. It has no body in 3.1.1. In 5 it has a reason code and properties, which may be left out.

use crate::encode::{Body, Draft};
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View, kind};

/// Announces the end of the connection and, in MQTT 5, its reason.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// The reason (MQTT 5). After [`ReasonCode::Success`], a normal end, the server does not publish the will.
    pub reason: ReasonCode,
    /// The properties (MQTT 5).
    pub properties: Properties<'a>,
}

impl<'a> Disconnect<'a> {
    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            reason: view.reason_code(),
            properties: view.properties(),
        }
    }
}

impl Body for Disconnect<'_> {
    fn first_byte(&self) -> u8 {
        kind::DISCONNECT << 4
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let reason = self.reason;
        let draft = Draft::new(PacketType::Disconnect, self.properties);
        Draft { reason, ..draft }.write(version, out);
    }
}
