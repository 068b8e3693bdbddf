//! A packet between its two halves: its fixed header was judged, its body waits to be read as what the header says.

use crate::ack::Ack;
use crate::auth::Auth;
use crate::connack::ConnAck;
use crate::connect::Connect;
use crate::disconnect::Disconnect;
use crate::error::DecodeError;
use crate::packet::Packet;
use crate::publish::Publish;
use crate::subscribe::{SubAck, Subscribe};
use crate::unsubscribe::{UnsubAck, Unsubscribe};
use crate::version::Version;
use crate::wire::{self, Fault, PacketType, Reader, View, frame};

/// A packet whose fixed header was read, with as much of its body as is there.
///
/// Each type is read by the method named after it; [`Self::packet_type`] says which fits.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    frame: wire::Frame,
    version: Version,
    input: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Reads the fixed header at the front of `input`; `None` while it is not whole.
    ///
    /// # Errors
    /// As [`crate::FixedHeader::decode`].
    #[inline]
    pub fn decode(
        input: &'a [u8],
        version: Version,
        limit: u32,
    ) -> Result<Option<Self>, DecodeError> {
        let frame = frame(input, version.is_v5(), limit);
        if frame.fault.is_some() {
            return Err(DecodeError::of_frame(&frame, version, limit));
        }
        let it = Self {
            frame,
            version,
            input,
        };
        Ok((frame.head > 0).then_some(it))
    }

    /// What packet it is.
    #[must_use]
    #[inline]
    pub fn packet_type(&self) -> PacketType {
        PacketType::new(self.frame.kind()).unwrap_or(PacketType::Auth)
    }

    /// Length of the whole packet, fixed header included.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        self.frame.needs()
    }

    /// How many bytes of the packet are not there. While there are any, only [`Self::publish`] has something to read.
    #[must_use]
    #[inline]
    pub fn missing(&self) -> usize {
        self.frame.needs().saturating_sub(self.input.len())
    }

    /// PUBLISH, with as much of its payload as is there; `None` while its head is not whole.
    ///
    /// # Errors
    /// A [`DecodeError`] for bytes that no such packet of this version can be.
    pub fn publish(&self) -> Result<Option<Publish<'a>>, DecodeError> {
        let (view, body) = self.view();
        match body.fault {
            Fault::NONE => Ok(Some(Publish::of(&view))),
            Fault::TRUNCATED if body.missing() <= self.missing() => Ok(None),
            _ => Err(DecodeError::of_body(
                &self.frame,
                &body,
                self.input,
                self.version,
            )),
        }
    }

    fn view(&self) -> (View<'a>, Reader<'a>) {
        let (mut view, mut body) = (View::default(), Reader::new(self.frame.front(self.input)));
        view.read(self.frame.first, &mut body, self.version.is_v5());
        (view, body)
    }

    fn read(&self) -> Result<View<'a>, DecodeError> {
        let (view, body) = self.view();
        if body.fault.is_none() {
            return Ok(view);
        }
        Err(DecodeError::of_body(
            &self.frame,
            &body,
            self.input,
            self.version,
        ))
    }

    /// Any of them.
    ///
    /// # Errors
    /// As [`Self::publish`].
    #[inline]
    pub fn packet(&self) -> Result<Packet<'a>, DecodeError> {
        self.read().map(|view| Packet::of(&view, self.version))
    }
}

macro_rules! bodies {
    ($($name:ident $packet:ident $text:literal $of:expr;)*) => {
        impl<'a> Frame<'a> {
            $(#[doc = $text]
            ///
            /// # Errors
            /// As [`Self::publish`].
            #[inline]
            pub fn $name(&self) -> Result<$packet<'a>, DecodeError> {
                let of: fn(&View<'a>, &Self) -> $packet<'a> = $of;
                self.read().map(|view| of(&view, self))
            })*
        }
    };
}

bodies! {
    connect Connect "CONNECT." |view, _| Connect::of(view);
    connack ConnAck "CONNACK." |view, frame| ConnAck::of(view, frame.version);
    ack Ack "PUBACK, PUBREC, PUBREL or PUBCOMP." |view, _| Ack::of(view);
    subscribe Subscribe "SUBSCRIBE." |view, _| Subscribe::of(view);
    suback SubAck "SUBACK." |view, _| SubAck::of(view);
    unsubscribe Unsubscribe "UNSUBSCRIBE." |view, _| Unsubscribe::of(view);
    unsuback UnsubAck "UNSUBACK." |view, _| SubAck::of(view).into();
    disconnect Disconnect "DISCONNECT." |view, _| Disconnect::of(view);
    auth Auth "AUTH." |view, _| Auth::of(view);
}
