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

/// A checked fixed header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FixedHeader {
    /// The packet type.
    pub packet_type: PacketType,
    /// The four flag bits; only PUBLISH has any that say something.
    pub flags: u8,
    /// Length of this header, 2 to 5 bytes.
    pub header_len: u8,
    /// Length of what follows the header.
    pub remaining_length: u32,
}

impl FixedHeader {
    /// Reads the header from the first bytes of a packet; `None` while they do not show it whole.
    ///
    /// `limit` is the largest packet accepted, header included; it is checked here, before anything waits for the body.
    ///
    /// # Errors
    /// A reserved type, wrong flags, an over-long or non-minimal length, a length beyond the limit or other than the
    /// only one the type has.
    ///
    /// ```
    /// use mqtt_proto::{FixedHeader, PacketType, Version};
    /// let header = FixedHeader::decode(&[0x30, 0x0E], Version::V311, 1024).unwrap().unwrap();
    /// assert_eq!((header.packet_type, header.packet_len()), (PacketType::Publish, 16));
    /// // A megabyte is announced where a kilobyte is allowed: refused at once.
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

    /// Length of the whole packet.
    #[must_use]
    #[inline]
    pub fn packet_len(&self) -> usize {
        to_usize(self.remaining_length).wrapping_add(usize::from(self.header_len))
    }
}
