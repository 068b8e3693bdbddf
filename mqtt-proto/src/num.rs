//! Conversions between the widths of whole numbers, for the crates of this workspace. None of them panics. A number that is too large
//! for the result becomes the largest one; only [`low_byte`] and [`low_half`] cut the upper bytes off.

/// Converts a number of 32 bits to `usize`. Returns `usize::MAX` if it does not fit.
#[must_use]
#[inline]
pub fn to_usize(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Converts a length or an index to 32 bits. Returns `u32::MAX` if it does not fit.
#[must_use]
#[inline]
pub fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// Converts a length or an index to 16 bits. Returns `u16::MAX` if it does not fit.
#[must_use]
#[inline]
pub fn to_u16(length: usize) -> u16 {
    u16::try_from(length).unwrap_or(u16::MAX)
}

/// Converts a length or an index to 64 bits.
#[must_use]
#[inline]
pub fn to_u64(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

/// Returns the lowest byte of a number.
#[must_use]
#[inline]
pub const fn low_byte(number: u32) -> u8 {
    let [.., low] = number.to_be_bytes();
    low
}

/// Returns the lowest two bytes of a number.
#[must_use]
#[inline]
pub const fn low_half(number: u32) -> u16 {
    let [.., high, low] = number.to_be_bytes();
    u16::from_be_bytes([high, low])
}

/// Returns bytes that were checked to be UTF-8 before as text. They are checked again, because this crate has no `unsafe`.
#[must_use]
#[inline]
pub(crate) fn checked_str(bytes: &[u8]) -> &str {
    core::str::from_utf8(bytes).unwrap_or_default()
}
