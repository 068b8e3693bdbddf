//! The protocol versions, as CONNECT names them (section 3.1.2.1 and 3.1.2.2 of both standards).

use core::fmt;

/// A version of the protocol. Every decode and encode takes it as an argument, so one struct for each packet serves all
/// versions.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Version {
    /// MQTT 3.1: protocol name `MQIsdp`, level 3. Its packets are those of 3.1.1.
    V31,
    /// MQTT 3.1.1: protocol name `MQTT`, level 4.
    #[default]
    V311,
    /// MQTT 5: protocol name `MQTT`, level 5.
    V5,
}

impl Version {
    /// Returns whether this version has properties and reason codes. Without the feature `v5` this is a constant `false`, and
    /// the compiler drops the branches for MQTT 5.
    #[must_use]
    #[inline]
    pub const fn is_v5(self) -> bool {
        cfg!(feature = "v5") && matches!(self, Self::V5)
    }

    /// Returns the protocol name in CONNECT.
    #[must_use]
    pub const fn protocol_name(self) -> &'static str {
        match self {
            Self::V31 => "MQIsdp",
            Self::V311 | Self::V5 => "MQTT",
        }
    }

    /// Returns the byte of the protocol level (3.1.1) or protocol version (5) in CONNECT.
    #[must_use]
    pub const fn level(self) -> u8 {
        match self {
            Self::V31 => 3,
            Self::V311 => 4,
            Self::V5 => 5,
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::V31 => "3.1",
            Self::V311 => "3.1.1",
            Self::V5 => "5",
        })
    }
}
