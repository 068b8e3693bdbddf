//! Variable byte integers: section 2.2.3 of 3.1.1, 1.5.5 of 5. Seven bits a byte, least significant first, bit 7 says
//! that another follows; one to four bytes.

use crate::error::Rule;

/// A number from 0 to 268,435,455 that goes over the wire as one to four bytes.
///
/// ```
/// use mqtt_proto::VarInt;
/// assert_eq!(VarInt::new(321).unwrap().encode(), ([0xC1, 0x02, 0, 0], 2));
/// assert_eq!(VarInt::decode(&[0xC1, 0x02]), Ok(Some((VarInt::new(321).unwrap(), 2))));
/// assert_eq!(VarInt::decode(&[0xC1]), Ok(None)); // not whole yet
/// assert!(VarInt::new(268_435_456).is_none());
/// ```
#[derive(Clone, Copy, Debug, Default, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct VarInt(u32);

impl VarInt {
    /// The largest value, 268,435,455.
    pub const MAX: Self = Self(268_435_455);

    /// Any number up to [`Self::MAX`].
    #[must_use]
    pub const fn new(value: u32) -> Option<Self> {
        if value <= Self::MAX.0 {
            Some(Self(value))
        } else {
            None
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u32 {
        self.0
    }

    /// How many bytes it takes: 1 to 4.
    #[must_use]
    #[inline]
    pub const fn encoded_len(self) -> usize {
        match self.0 {
            0..=0x7F => 1,
            0x80..=0x3FFF => 2,
            0x4000..=0x1F_FFFF => 3,
            _ => 4,
        }
    }

    /// The bytes, and how many of the four count.
    #[must_use]
    #[inline]
    pub const fn encode(self) -> ([u8; 4], usize) {
        let [b0, b1, b2, b3] = [
            septet(self.0),
            septet(self.0 >> 7),
            septet(self.0 >> 14),
            septet(self.0 >> 21),
        ];
        match self.encoded_len() {
            1 => ([b0, 0, 0, 0], 1),
            2 => ([b0 | 0x80, b1, 0, 0], 2),
            3 => ([b0 | 0x80, b1 | 0x80, b2, 0], 3),
            _ => ([b0 | 0x80, b1 | 0x80, b2 | 0x80, b3], 4),
        }
    }

    /// Reads one from the front; `None` while its end is not there. The second number is how many bytes it took.
    ///
    /// # Errors
    /// [`Rule::VarIntTooLong`] when a fifth byte would follow, [`Rule::VarIntNotMinimal`] when fewer bytes say the
    /// same (5 \[MQTT-1.5.5-1\]; 3.1.1 knows only one form as well).
    #[cfg_attr(target_pointer_width = "64", inline)]
    #[cfg_attr(not(target_pointer_width = "64"), inline(never))]
    pub fn decode(input: &[u8]) -> Result<Option<(Self, usize)>, Rule> {
        let (mut value, mut shift) = (0_u32, 0_u32);
        for (before, byte) in input.iter().take(4).enumerate() {
            value |= u32::from(byte & 0x7F).wrapping_shl(shift);
            shift = shift.wrapping_add(7);
            if *byte < 0x80 {
                return if *byte == 0 && before > 0 {
                    Err(Rule::VarIntNotMinimal)
                } else {
                    Ok(Some((Self(value), before.wrapping_add(1))))
                };
            }
        }
        if input.len() < 4 {
            Ok(None)
        } else {
            Err(Rule::VarIntTooLong)
        }
    }
}

#[allow(
    clippy::as_conversions,
    reason = "masked to seven bits; `try_from` is not const"
)]
const fn septet(value: u32) -> u8 {
    (value & 0x7F) as u8
}
