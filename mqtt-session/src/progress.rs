//! One step over the input: its arguments and its result. The struct is written in place and never moved.

use mqtt_proto::wire::{Fault, View};
use mqtt_proto::{PacketId, ReasonCode};

use crate::event::{Ended, Incoming, Nth, Receipt, Token};

/// The result of a step.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Found {
    /// The step needs more input; `consumed` is how many bytes must be there.
    Needs,
    /// The outgoing bytes have to be written first.
    Blocked,
    /// Nothing that the application has to know.
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
    // The results that only a server has.
    Connect,
    Subscribe,
    Unsubscribe,
    Ping,
}

/// One step over the input.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Progress<'i> {
    /// The input from its front, as much as has arrived.
    pub(crate) input: &'i [u8],
    pub(crate) now: u32,
    /// Whether the input buffer is full and cannot grow.
    pub(crate) full: bool,
    pub(crate) found: Found,
    /// How many bytes of the input are consumed; with a fault, how many bytes the field lacks.
    pub(crate) consumed: usize,
    /// The token of the message or request.
    pub(crate) token: Token,
    /// How many bytes of a payload are left. For a packet that does not fit: its length. With a fault: its place, from the end.
    /// For a wrong number of codes: the number of filters.
    pub(crate) left: u32,
    /// The serial number of a message that is to be acknowledged by hand.
    pub(crate) serial: Option<u16>,
    pub(crate) how: Ended,
    /// Whether the session continues.
    pub(crate) resumed: bool,
    /// Whether CONNACK has session present after a clean start.
    pub(crate) unasked_session: bool,
    /// Whether the server granted more than the request asked for.
    pub(crate) granted_more: bool,
    /// The fault of malformed bytes.
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
            found: Found::Nothing,
            consumed: 0,
            token: Token {
                number: 0,
                nth: Nth::NONE,
            },
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

    /// Returns the message that arrived.
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

    /// Returns how a publish ended. A PUBCOMP whose reason code says that the identifier is not known any more is not an error,
    /// because the message has arrived (5, section 3.7.2.1).
    #[inline]
    pub(crate) fn outcome(&self) -> ReasonCode {
        if self.view.kind == mqtt_proto::wire::kind::PUBCOMP {
            ReasonCode::Success
        } else {
            self.view.reason_code()
        }
    }
}
