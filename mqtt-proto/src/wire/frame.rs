//! The fixed header: type, flags and length. [`frame`] tells how many bytes a packet needs; the typed packets (`header.rs`,
//! `packet.rs`, `publish.rs`) return it to programs. A body is read when it is whole; only PUBLISH can be read from a part.

use super::fault::Fault;
use super::layout::{Layout, layout};
use super::packet_type::kind;
use crate::num::{low_byte, to_u32, to_usize};
use crate::tune::FAST;

/// The fixed header of a packet, and how many bytes are needed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The first byte: packet type and flags.
    pub first: u8,
    /// Length of the fixed header in bytes; 0 while it is incomplete.
    pub head: u8,
    /// The error of the fixed header, if there is one.
    pub fault: Fault,
    /// Length of the whole packet in bytes. While [`Self::head`] is 0: how many bytes the next try needs.
    pub total: u32,
}

impl Frame {
    /// Returns the packet type, 0 to 15.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// Returns how many bytes, counted from the first byte of the packet, the next step needs: all of the packet once its
    /// length is known.
    #[must_use]
    #[inline]
    pub fn needs(&self) -> usize {
        to_usize(self.total)
    }

    /// Returns the body. `None` while the packet is incomplete.
    #[must_use]
    #[inline]
    pub fn body<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        input.get(usize::from(self.head)..self.needs())
    }

    /// Returns the part of the body that has arrived. Only PUBLISH can be read from a part, up to its payload.
    #[must_use]
    #[inline]
    pub fn front<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let end = self.needs().min(input.len());
        input.get(usize::from(self.head)..end).unwrap_or_default()
    }
}

/// The flags that PUBLISH may have: bit n is set if flags of the value n are valid. QoS 3, and DUP at QoS 0, are not.
const PUBLISH_FLAGS: u16 = 0b0011_1100_0011_1111;

/// Reads the fixed header at the front of `input`. `limit` is the length in bytes of the longest packet accepted, fixed header
/// included.
///
/// Each rule is checked as soon as its bytes have arrived, so a wrong or too long packet is refused before its body arrives.
#[must_use]
pub fn frame(input: &[u8], v5: bool, limit: u32) -> Frame {
    let mut frame = Frame {
        total: 2,
        ..Frame::default()
    };
    let Some((first, rest)) = input.split_first() else {
        return frame;
    };
    frame.first = *first;
    let is_publish = frame.kind() == kind::PUBLISH;
    let fixed_length = if is_publish {
        frame.fault = publish_fault(first & 15);
        None
    } else {
        let layout = layout(frame.kind(), v5);
        frame.fault = flags_fault(first & 15, layout);
        layout.fixed_length()
    };
    if frame.fault.is_some() {
        return frame;
    }
    let (value, len) = varint(rest);
    if len == 0 {
        frame.fault = Fault::new(low_byte(value));
        frame.total = to_u32(input.len()).saturating_add(1).max(2);
        return frame;
    }
    let head = to_u32(len).wrapping_add(1);
    frame.head = low_byte(head);
    frame.total = value.wrapping_add(head);
    if frame.total > limit {
        frame.fault = Fault::TOO_LARGE;
    } else if fixed_length.is_some_and(|must| must != value) {
        frame.fault = Fault::LENGTH;
    }
    frame
}

/// Returns the error of the flags of PUBLISH.
#[inline]
pub(crate) fn publish_fault(flags: u8) -> Fault {
    match flags {
        _ if PUBLISH_FLAGS.wrapping_shr(u32::from(flags)) & 1 != 0 => Fault::NONE,
        // 3.1.1 [MQTT-3.3.1-4], 5 [MQTT-3.3.1-4]
        _ if flags & 6 == 6 => Fault::QOS_3,
        // 3.1.1 [MQTT-3.3.1-2], 5 [MQTT-3.3.1-2]
        _ => Fault::DUP_ON_QOS_0,
    }
}

#[inline]
fn flags_fault(flags: u8, layout: Layout) -> Fault {
    if !layout.has(Layout::EXISTS) {
        Fault::RESERVED_TYPE
    } else if flags != layout.flags() {
        // 3.1.1 [MQTT-2.2.2-1], [MQTT-2.2.2-2] and [MQTT-3.14.1-1], 5 [MQTT-2.1.3-1], [MQTT-3.14.1-1] and [MQTT-3.15.1-1];
        // PUBREL: 3.1.1 [MQTT-3.6.1-1], 5 [MQTT-3.6.1-1]; SUBSCRIBE: 3.1.1 [MQTT-3.8.1-1], 5 [MQTT-3.8.1-1];
        // UNSUBSCRIBE: 3.1.1 [MQTT-3.10.1-1], 5 [MQTT-3.10.1-1]
        Fault::FLAGS
    } else {
        Fault::NONE
    }
}

/// Reads a variable byte integer. Returns its value and its length in bytes. If the length is 0, the value is the number of a
/// [`Fault`], or 0 if bytes are missing.
#[must_use]
pub fn varint(bytes: &[u8]) -> (u32, usize) {
    if FAST
        && let Some(first) = bytes.first()
        && *first < 0x80
    {
        return (u32::from(*first), 1);
    }
    let (mut value, mut len) = (0, 0);
    for byte in bytes.iter().take(4) {
        value |= u32::from(byte & 0x7F).wrapping_shl(len);
        len = len.wrapping_add(7);
        if *byte < 0x80 {
            // 5 [MQTT-1.5.5-1]
            if *byte == 0 && len > 7 {
                return (u32::from(Fault::VARINT_NOT_MINIMAL.get()), 0);
            }
            return (value, to_usize(len.wrapping_div(7)));
        }
    }
    let long = u32::from(Fault::VARINT_LONG.get());
    (if len == 28 { long } else { 0 }, 0)
}
