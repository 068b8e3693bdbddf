//! One step over the input: what it was given and what it found. Written in place, never moved.

use mqtt_proto::wire::{Fault, View};
use mqtt_proto::{PacketId, ReasonCode};

use crate::event::{Ended, Incoming, Receipt, Token};

/// What a step found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum What {
    /// `consumed` is how many bytes must be there.
    Needs,
    /// What is outgoing is to be written first.
    Blocked,
    /// Something that the application need not know.
    Nothing,
    Connected,
    Refused,
    Message,
    Head,
    Piece,
    Acknowledged,
    Subscribed,
    Unsubscribed,
    Ended,
    Auth,
    Disconnected,
    Pong,
    // What only a server gets.
    Connect,
    Subscribe,
    Unsubscribe,
    Ping,
}

/// One step.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress<'i> {
    /// The front of the input, as much as there is.
    pub(crate) input: &'i [u8],
    pub(crate) now: u32,
    /// There is no room for more input.
    pub(crate) full: bool,
    pub(crate) what: What,
    /// How many bytes of the input are used up; of a fault, how many the field lacks.
    pub(crate) consumed: usize,
    /// Which message or request.
    pub(crate) token: Token,
    /// How many bytes of a payload are left; of what does not fit, how many there are. Of a fault, where it is.
    pub(crate) left: u32,
    /// With which serial number a message is to be acknowledged by hand.
    pub(crate) serial: Option<u16>,
    pub(crate) how: Ended,
    /// The session goes on.
    pub(crate) resumed: bool,
    /// The server said session present after a clean start.
    pub(crate) unasked_session: bool,
    /// The server granted more than was asked for.
    pub(crate) granted_more: bool,
    /// What is wrong with the bytes.
    pub(crate) fault: Fault,
    /// The packet.
    pub(crate) view: View<'i>,
}

impl<'i> Progress<'i> {
    #[inline]
    pub(crate) fn new(input: &'i [u8], now: u32, full: bool) -> Self {
        Self {
            input,
            now,
            full,
            what: What::Nothing,
            consumed: 0,
            token: Token { number: 0, nth: 0 },
            left: 0,
            serial: None,
            how: Ended::Sent,
            resumed: false,
            unasked_session: false,
            granted_more: false,
            fault: Fault::NONE,
            view: View::default(),
        }
    }

    /// The message that came.
    #[inline]
    pub(crate) fn incoming(&self) -> Incoming<'i> {
        Incoming {
            publish: self.view.publish(),
            receipt: self.receipt(),
        }
    }

    #[inline]
    pub(crate) fn receipt(&self) -> Option<Receipt> {
        let id = PacketId::new(self.view.id)?;
        self.serial.map(|serial| Receipt { id, serial })
    }

    /// How a publish ended. 5, section 3.7.2.1: a PUBCOMP that does not know the identifier any more is no error; the message
    /// has arrived.
    #[inline]
    pub(crate) fn outcome(&self) -> ReasonCode {
        if self.view.kind == mqtt_proto::wire::kind::PUBCOMP {
            ReasonCode::Success
        } else {
            self.view.reason_code()
        }
    }
}
