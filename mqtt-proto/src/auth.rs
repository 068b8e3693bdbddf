//! AUTH: section 3.15 of 5. A reason code and properties, which are both left out for success without properties.

use crate::encode::{Body, Draft};
use crate::out::Out;
use crate::properties::Properties;
use crate::version::Version;
use crate::wire::{PacketType, ReasonCode, View, kind};

/// A step of an extended authentication (5, section 4.12).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Auth<'a> {
    /// [`ReasonCode::Success`], [`ReasonCode::ContinueAuthentication`] or [`ReasonCode::ReAuthenticate`].
    pub reason: ReasonCode,
    /// The properties, such as the authentication method and its data.
    pub properties: Properties<'a>,
}

impl<'a> Auth<'a> {
    pub(crate) fn of(view: &View<'a>) -> Self {
        Self {
            reason: view.reason_code(),
            properties: view.properties(),
        }
    }
}

impl Body for Auth<'_> {
    fn first_byte(&self) -> u8 {
        kind::AUTH << 4
    }

    fn write(&self, version: Version, out: &mut Out<'_>) {
        let reason = self.reason;
        let draft = Draft::new(PacketType::Auth, self.properties);
        Draft { reason, ..draft }.write(version, out);
    }
}
