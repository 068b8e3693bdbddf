//! Packet identifiers (section 2.3.1 of 3.1.1, 2.2.1 of 5), the quality of service (4.3), and topic aliases (5, 3.3.2.3.4).

use core::fmt;
use core::num::NonZeroU16;

/// A packet identifier, 1 to 65,535. Zero is not one (3.1.1 \[MQTT-2.3.1-1\]).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct PacketId(NonZeroU16);

impl PacketId {
    /// The first identifier, 1.
    pub const FIRST: Self = Self(NonZeroU16::MIN);

    /// Makes a packet identifier. Returns `None` for zero.
    #[must_use]
    #[inline]
    pub const fn new(id: u16) -> Option<Self> {
        match NonZeroU16::new(id) {
            Some(id) => Some(Self(id)),
            None => None,
        }
    }

    /// Returns the number, 1 to 65,535.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u16 {
        self.0.get()
    }

    /// Returns the identifier after this one; 1 comes after 65,535.
    #[must_use]
    #[inline]
    pub const fn next(self) -> Self {
        match self.0.checked_add(1) {
            Some(id) => Self(id),
            None => Self::FIRST,
        }
    }
}

impl fmt::Display for PacketId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A topic alias of MQTT 5: 1 to 65,535.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct TopicAlias(NonZeroU16);

impl TopicAlias {
    /// Makes a topic alias. Returns `None` for zero (5 \[MQTT-3.3.2-8\]).
    #[must_use]
    pub const fn new(alias: u16) -> Option<Self> {
        match NonZeroU16::new(alias) {
            Some(alias) => Some(Self(alias)),
            None => None,
        }
    }

    /// Returns the number, 1 to 65,535.
    #[must_use]
    pub const fn get(self) -> u16 {
        self.0.get()
    }
}

/// The quality of service of a message: how often it is delivered.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum QoS {
    /// QoS 0: at most once.
    #[default]
    AtMostOnce,
    /// QoS 1: at least once.
    AtLeastOnce,
    /// QoS 2: exactly once.
    ExactlyOnce,
}

impl QoS {
    /// Returns the quality of service with this number. `None` for 3 and above (3.1.1 \[MQTT-3.3.1-4\], 5 \[MQTT-3.3.1-4\]).
    #[must_use]
    #[inline]
    pub const fn new(value: u8) -> Option<Self> {
        match value {
            0 => Some(Self::AtMostOnce),
            1 => Some(Self::AtLeastOnce),
            2 => Some(Self::ExactlyOnce),
            _ => None,
        }
    }

    /// Returns the number, 0, 1 or 2.
    #[must_use]
    #[inline]
    pub const fn get(self) -> u8 {
        match self {
            Self::AtMostOnce => 0,
            Self::AtLeastOnce => 1,
            Self::ExactlyOnce => 2,
        }
    }
}

impl fmt::Display for QoS {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// The quality of service of a PUBLISH, and its packet identifier if it has one. No value has an identifier at QoS 0 or lacks
/// one above (3.1.1 \[MQTT-2.3.1-5\], 5 \[MQTT-2.2.1-2\]).
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Delivery {
    /// QoS 0, without an identifier.
    #[default]
    AtMostOnce,
    /// QoS 1.
    AtLeastOnce(PacketId),
    /// QoS 2.
    ExactlyOnce(PacketId),
}

impl Delivery {
    /// Returns the quality of service.
    #[must_use]
    #[inline]
    pub const fn qos(self) -> QoS {
        match self {
            Self::AtMostOnce => QoS::AtMostOnce,
            Self::AtLeastOnce(_) => QoS::AtLeastOnce,
            Self::ExactlyOnce(_) => QoS::ExactlyOnce,
        }
    }

    /// Returns the packet identifier. `None` at QoS 0.
    #[must_use]
    #[inline]
    pub const fn packet_id(self) -> Option<PacketId> {
        match self {
            Self::AtMostOnce => None,
            Self::AtLeastOnce(id) | Self::ExactlyOnce(id) => Some(id),
        }
    }
}
