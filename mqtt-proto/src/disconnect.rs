//! DISCONNECT: section 3.14. Empty in 3.1.1; in 5 a reason code and properties, either of which may be left out.

use crate::encode::{Body, Draft};
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View};

/// Says that the connection ends, and in MQTT 5 why.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// Why (5); [`ReasonCode::Success`] is a normal end, after which no will is published.
    pub reason: ReasonCode,
    /// Properties (5).
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
    fn write(&self, version: Version, out: &mut Out<'_>) {
        let reason = self.reason;
        let draft = Draft::new(PacketType::Disconnect, self.properties);
        Draft { reason, ..draft }.write(version, out, &|_| {});
    }
}
