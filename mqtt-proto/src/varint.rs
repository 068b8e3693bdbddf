//! Variable byte integers: section 2.2.3 of 3.1.1, 1.5.5 of 5. One to four bytes have seven bits each, least significant first.
//! Bit 7 of a byte is set if another byte follows.

use crate::error::Rule;
use crate::num::low_byte;
use crate::wire::{Fault, varint, varint_len};

/// A number from 0 to 268,435,455 that is encoded in one to four bytes.
///
/// ```
/// use mqtt_proto::VarInt;
/// assert_eq!(VarInt::new(321).unwrap().encode(), ([0xC1, 0x02, 0, 0], 2));
/// assert_eq!(VarInt::decode(&[0xC1, 0x02]), Ok(Some((VarInt::new(321).unwrap(), 2))));
/// assert_eq!(VarInt::decode(&[0xC1]), Ok(None)); // the last byte is missing
/// assert!(VarInt::new(268_435_456).is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VarInt(u32);

impl VarInt {
    /// The largest value, 268,435,455.
    pub const MAX: Self = Self(268_435_455);

    /// Makes a variable byte integer. Returns `None` if `value` is greater than [`Self::MAX`].
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// Returns the number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// Returns the length of the encoded number in bytes, 1 to 4.
    #[must_use]
    pub const fn encoded_len(self) -> usize {
        varint_len(self.0)
    }

    /// Returns the encoded bytes, and how many of the four are used.
    #[must_use]
    #[inline]
    pub const fn encode(self) -> ([u8; 4], usize) {
        let septets = (self.0 & 0x7F)
            | (self.0 & 0x3F80) << 1
            | (self.0 & 0x1F_C000) << 2
            | (self.0 & 0x0FE0_0000) << 3;
        let len = self.encoded_len();
        let more = match len {
            1 => 0,
            2 => 0x80,
            3 => 0x8080,
            _ => 0x80_8080,
        };
        ((septets | more).to_le_bytes(), len)
    }

    /// Reads a variable byte integer from the front of `input`. Returns it with its length in bytes, or `None` while its last
    /// byte is missing.
    ///
    /// # Errors
    /// [`Rule::VarIntTooLong`] if the fourth byte announces another one, [`Rule::VarIntNotMinimal`] if fewer bytes have the
    /// same value (5 \[MQTT-1.5.5-1\]; the encoder of 3.1.1 also makes the shortest form only).
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, Rule> {
        let (value, len) = varint(input);
        if len > 0 {
            return Ok(Some((Self(value), len)));
        }
        Rule::plain(Fault::new(low_byte(value))).map_or(Ok(None), Err)
    }
}
