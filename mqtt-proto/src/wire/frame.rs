//! The fixed header: type, flags and length. The only place that knows "not enough bytes".

use super::fault::Fault;
use super::layout::{Layout, layout};
use super::packet_type::kind;
use crate::num::{low_byte, to_u32, to_usize};
use crate::tune::FAST;

/// The front of a packet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Frame {
    /// The first byte: packet type and flags.
    pub first: u8,
    /// Length of the fixed header; 0 while it is not whole.
    pub head: u8,
    /// What is wrong with the fixed header.
    pub fault: Fault,
    /// Length of the whole packet; while [`Self::head`] is 0, how many bytes it takes to go on.
    pub total: u32,
}

impl Frame {
    /// The packet type, 0 to 15.
    #[must_use]
    #[inline]
    pub const fn kind(&self) -> u8 {
        self.first >> 4
    }

    /// How many bytes from the packet's first it takes to go on: the whole packet, once its length is known.
    #[must_use]
    #[inline]
    pub fn needs(&self) -> usize {
        to_usize(self.total)
    }

    /// The body, if the packet is whole: while it is not, it needs more than there is.
    #[must_use]
    #[inline]
    pub fn body<'a>(&self, input: &'a [u8]) -> Option<&'a [u8]> {
        input.get(usize::from(self.head)..self.needs())
    }

    /// As much of the body as is there. Only PUBLISH can be read from that, as far as its payload.
    #[must_use]
    #[inline]
    pub fn front<'a>(&self, input: &'a [u8]) -> &'a [u8] {
        let end = self.needs().min(input.len());
        input.get(usize::from(self.head)..end).unwrap_or_default()
    }
}

/// The flags that PUBLISH may have, a bit for each: not QoS 3, and DUP only with QoS 1 or 2.
const PUBLISH_FLAGS: u16 = 0b0011_1100_0011_1111;

/// Reads the fixed header at the front of `input`. `limit` is the longest packet accepted, fixed header included.
///
/// Each rule is judged as soon as its bytes are there, so a wrong or over-long packet does not wait for its body.
#[must_use]
#[cfg_attr(target_pointer_width = "64", inline)]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
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

/// What is wrong with the flags of PUBLISH.
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
        // 3.1.1 [MQTT-2.2.2-1], [MQTT-2.2.2-2] and [MQTT-3.14.1-1], 5 [MQTT-2.1.3-1], [MQTT-3.14.1-1] and [MQTT-3.15.1-1]
        Fault::FLAGS
    } else {
        Fault::NONE
    }
}

/// Reads a variable byte integer: its value and its length in bytes. Length 0: it is not whole, or the value is the number of
/// a [`Fault`].
#[must_use]
#[cfg_attr(target_pointer_width = "64", inline)]
#[cfg_attr(not(target_pointer_width = "64"), inline(never))]
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
