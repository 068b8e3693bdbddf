//! The fixed header: section 2.2 of 3.1.1, 2.1 of 5.
//!
//! | byte | what |
//! | --- | --- |
//! | 0 | packet type (bits 7 to 4), flags (bits 3 to 0) |
//! | 1 to 4 | remaining length, a variable byte integer |

use crate::error::DecodeError;
use crate::num::to_usize;
use crate::version::Version;
use crate::wire::{PacketType, frame};

/// A fixed header that [`FixedHeader::decode`] has checked.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FixedHeader {
    /// The packet type.
    pub packet_type: PacketType,
    /// The four flag bits. Only PUBLISH has flags whose values vary.
    pub flags: u8,
    /// Length of this header in bytes, 2 to 5.
    pub header_len: u8,
    /// Length in bytes of the packet behind this header.
    pub remaining_length: u32,
}

impl FixedHeader {
    /// Reads the fixed header from the first bytes of a packet. Returns `None` while `input` ends before the header does.
    ///
    /// `limit` is the length in bytes of the longest packet accepted, fixed header included. It is compared with the announced
    /// length, so a packet that is too long is refused before its body arrives.
    ///
    /// # Errors
    /// A [`DecodeError`] for a reserved packet type, wrong flags, a remaining length that takes more than four bytes or more
    /// bytes than its value needs, a packet longer than `limit`, and a remaining length other than the only one that the packet
    /// type has.
    ///
    /// ```
    /// use mqtt_proto::{FixedHeader, PacketType, Version};
    /// let header = FixedHeader::decode(&[0x30, 0x0E], Version::V311, 1024).unwrap().unwrap();
    /// assert_eq!((header.packet_type, header.packet_len()), (PacketType::Publish, 16));
    /// // The header announces 268,435,455 bytes where 1,024 are allowed: refused at once.
    /// assert!(FixedHeader::decode(&[0x10, 0xFF, 0xFF, 0xFF, 0x7F], Version::V311, 1024).is_err());
    /// ```
    pub fn decode(input: &[u8], version: Version, limit: u32) -> Result<Option<Self>, DecodeError> {
        let frame = frame(input, version.is_v5(), limit);
        if frame.fault.is_some() {
            return Err(DecodeError::of_frame(frame, version, limit));
        }
        let packet_type = PacketType::new(frame.kind());
        Ok(packet_type
            .filter(|_| frame.head > 0)
            .map(|packet_type| Self {
                packet_type,
                flags: frame.first & 15,
                header_len: frame.head,
                remaining_length: frame.total.wrapping_sub(u32::from(frame.head)),
            }))
    }

    /// Returns the length of the whole packet in bytes, this header included.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        to_usize(self.remaining_length).wrapping_add(usize::from(self.header_len))
    }
}
