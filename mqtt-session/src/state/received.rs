//! The entry of a message that the peer sent and that has not ended.

use mqtt_proto::{PacketType, ReasonCode};

use crate::tune::BY_HAND;

/// A received message that has not ended. Its fields are private; firmware lends an array of them.
#[derive(Clone, Copy, Debug)]
pub struct ReceiveSlot {
    pub(crate) id: u16,
    #[cfg(feature = "by-hand")]
    serial: u16,
    pub(crate) state: u8,
    #[cfg(feature = "by-hand")]
    reason: ReasonCode,
}

/// The application has the message and has not acknowledged it.
pub(crate) const APPLICATION: u8 = 1;
/// The application has acknowledged the message. The packet waits for its turn, or for the peer to send the message again.
pub(crate) const ACKNOWLEDGED: u8 = 2;
/// The message has QoS 1; without this bit it has QoS 2.
pub(crate) const QOS_1: u8 = 4;
/// The message counts against the receive maximum of this side on this connection.
pub(crate) const COUNTED: u8 = 8;
/// An earlier process acknowledged it, and the peer has not sent it again: its place among the others is not known.
pub(crate) const RESTORED: u8 = 16;

impl ReceiveSlot {
    /// A free slot, to fill an array with.
    pub const EMPTY: Self = Self {
        id: 0,
        #[cfg(feature = "by-hand")]
        serial: 0,
        state: 0,
        #[cfg(feature = "by-hand")]
        reason: ReasonCode::Success,
    };

    pub(crate) const fn new(id: u16, state: u8) -> Self {
        Self {
            id,
            state,
            ..Self::EMPTY
        }
    }

    pub(crate) const fn is(&self, state: u8) -> bool {
        // Without acknowledgements by hand, an entry is always a message at QoS 2, and only this bit is used.
        (BY_HAND || state & COUNTED != 0) && self.state & state != 0
    }

    pub(crate) const fn is_qos2(&self, id: u16) -> bool {
        self.id == id && !self.is(QOS_1)
    }

    pub(crate) const fn set_serial(&mut self, number: u16) {
        #[cfg(feature = "by-hand")]
        {
            self.serial = number;
        }
        let _ = number;
    }

    pub(crate) const fn serial(&self) -> u16 {
        #[cfg(feature = "by-hand")]
        return self.serial;
        #[cfg(not(feature = "by-hand"))]
        0
    }

    pub(crate) const fn set_reason(&mut self, reason: ReasonCode) {
        #[cfg(feature = "by-hand")]
        {
            self.reason = reason;
        }
        let _ = reason;
    }

    pub(crate) const fn reason(&self) -> ReasonCode {
        #[cfg(feature = "by-hand")]
        return self.reason;
        #[cfg(not(feature = "by-hand"))]
        ReasonCode::Success
    }

    pub(crate) const fn quality(&self) -> Quality {
        if self.is(QOS_1) {
            Quality::One
        } else {
            Quality::Two
        }
    }

    /// Returns the packet type that acknowledges it.
    pub(crate) const fn answer(&self) -> PacketType {
        if self.is(QOS_1) {
            PacketType::PubAck
        } else {
            PacketType::PubRec
        }
    }
}

impl Default for ReceiveSlot {
    fn default() -> Self {
        Self::EMPTY
    }
}

/// The quality of service of a message that is acknowledged.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Quality {
    One,
    Two,
}

impl Quality {
    /// Returns the counter of this quality of service.
    pub(crate) const fn of(self, [one, two]: &mut [u16; 2]) -> &mut u16 {
        match self {
            Self::One => one,
            Self::Two => two,
        }
    }
}
