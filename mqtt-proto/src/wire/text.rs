//! Strings, topic names and topic filters (section 1.5.3 of 3.1.1, 1.5.4 of 5, and 4.7 of both). Hosts check ASCII without
//! wildcards, the most common text, sixteen bytes at a time.

use super::fault::Fault;
use crate::num::to_u16;
use crate::tune::FAST;

/// The error of a string and its place. The struct fits a register.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Wrong {
    /// The fault, if there is one.
    pub fault: Fault,
    /// Offset of the byte that is wrong.
    pub at: u16,
}

impl Wrong {
    const NOTHING: Self = Self {
        fault: Fault::NONE,
        at: 0,
    };

    fn new(fault: Fault, at: usize) -> Self {
        Self {
            fault,
            at: to_u16(at),
        }
    }
}

/// Checks a string: UTF-8 without U+0000.
#[must_use]
#[inline]
pub fn text(bytes: &[u8]) -> Wrong {
    if FAST && is_plain::<false>(bytes) {
        return Wrong::NOTHING;
    }
    find_text_fault(bytes)
}

/// Checks a topic name: a string without wildcards. It may be empty.
#[must_use]
#[inline]
pub fn name(bytes: &[u8]) -> Wrong {
    if FAST && is_plain::<true>(bytes) {
        return Wrong::NOTHING;
    }
    find_name_fault(bytes)
}

/// Checks a topic filter; with `shared` also the form of a shared subscription (5, section 4.8.2).
#[must_use]
pub fn filter(bytes: &[u8], shared: bool) -> Wrong {
    let wrong = text(bytes);
    if wrong.fault.is_some() {
        return wrong;
    }
    if let Some(at) = misplaced(bytes) {
        return Wrong::new(Fault::FILTER, at);
    }
    // 5 [MQTT-4.8.2-1] and [MQTT-4.8.2-2]
    if cfg!(feature = "v5") && shared && bytes.starts_with(SHARE) {
        let proper = split_share(bytes).is_some_and(|(group, rest)| {
            !group.is_empty()
                && !rest.is_empty()
                && !group.iter().any(|byte| matches!(byte, b'+' | b'#'))
        });
        if !proper {
            return Wrong::new(Fault::SHARE_NAME, SHARE.len());
        }
    }
    Wrong::NOTHING
}

/// Returns the place of a wildcard that is not a whole level, or of a `#` that is not in the last level.
pub(crate) const fn misplaced(filter: &[u8]) -> Option<usize> {
    let (mut rest, mut before) = (filter, b'/');
    while let Some((byte, behind)) = rest.split_first() {
        // 3.1.1 [MQTT-4.7.1-2] and [MQTT-4.7.1-3], 5 [MQTT-4.7.1-1] and [MQTT-4.7.1-2]
        let fits = match *byte {
            b'#' => before == b'/' && behind.is_empty(),
            b'+' => before == b'/' && matches!(behind, [] | [b'/', ..]),
            _ => true,
        };
        if !fits {
            return Some(filter.len().wrapping_sub(rest.len()));
        }
        (before, rest) = (*byte, behind);
    }
    None
}

/// Returns whether no byte is U+0000 or, with `wildcards`, a wildcard. These are the rules that a `str` may break.
pub(crate) const fn has_none(text: &[u8], wildcards: bool) -> bool {
    let mut rest = text;
    while let Some((byte, behind)) = rest.split_first() {
        if *byte == 0 || (wildcards && matches!(*byte, b'+' | b'#')) {
            return false;
        }
        rest = behind;
    }
    true
}

/// Returns whether the bytes are a valid string or, with `name`, a valid topic name, which may be empty.
#[must_use]
#[inline]
pub fn text_fits(bytes: &[u8], name: bool) -> bool {
    let wrong = if name { self::name(bytes) } else { text(bytes) };
    wrong.fault.is_none()
}

/// Returns whether the bytes are a valid topic filter.
#[must_use]
#[inline]
pub fn filter_fits(bytes: &[u8], v5: bool) -> bool {
    !bytes.is_empty() && filter(bytes, v5).fault.is_none()
}

/// The prefix of a shared subscription (5, section 4.8.2).
pub(crate) const SHARE: &[u8] = b"$share/";

/// Splits a shared subscription into its share name and its filter.
pub(crate) fn split_share(filter: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = filter.strip_prefix(SHARE)?;
    let slash = rest.iter().position(|byte| *byte == b'/')?;
    let (name, rest) = rest.split_at_checked(slash)?;
    Some((name, rest.strip_prefix(b"/")?))
}

#[cold]
#[inline(never)]
fn find_name_fault(bytes: &[u8]) -> Wrong {
    let wrong = find_text_fault(bytes);
    if wrong.fault.is_none()
        && let Some(at) = bytes.iter().position(|byte| matches!(byte, b'+' | b'#'))
    {
        // 3.1.1 [MQTT-4.7.1-1], 5 [MQTT-4.7.0-1]
        return Wrong::new(Fault::TOPIC_WILDCARD, at);
    }
    wrong
}

#[cold]
#[inline(never)]
fn find_text_fault(bytes: &[u8]) -> Wrong {
    // 3.1.1 [MQTT-1.5.3-3], 5 [MQTT-1.5.4-3]: U+FEFF is a character like any other.
    if !FAST {
        return by_bytes(bytes);
    }
    let end = core::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
    // 3.1.1 [MQTT-1.5.3-2] and [MQTT-4.7.3-2], 5 [MQTT-1.5.4-2] and [MQTT-4.7.3-2]
    match bytes.iter().position(|byte| *byte == 0) {
        Some(at) if at < end => Wrong::new(Fault::NULL_CHARACTER, at),
        // 3.1.1 [MQTT-1.5.3-1], 5 [MQTT-1.5.4-1]: surrogates are ill-formed for both.
        _ if end < bytes.len() => Wrong::new(Fault::UTF_8, end),
        _ => Wrong::NOTHING,
    }
}

/// Returns the fault of a string as [`find_text_fault`] does, one byte at a time and in a quarter of the code.
fn by_bytes(bytes: &[u8]) -> Wrong {
    // The start of the character, how many of its bytes follow, and the range of the next byte.
    let (mut start, mut follow, mut low, mut high) = (0, 0_u8, 0x80, 0xBF);
    for (at, byte) in bytes.iter().copied().enumerate() {
        if follow > 0 {
            if byte < low || byte > high {
                return Wrong::new(Fault::UTF_8, start);
            }
            follow = follow.wrapping_sub(1);
            (low, high) = (0x80, 0xBF);
            continue;
        }
        start = at;
        follow = match byte {
            0 => return Wrong::new(Fault::NULL_CHARACTER, at),
            0x01..=0x7F => continue,
            0xC2..=0xDF => 1,
            0xE0..=0xEF => 2,
            0xF0..=0xF4 => 3,
            _ => return Wrong::new(Fault::UTF_8, at),
        };
        // The range of the second byte excludes overlong forms, surrogates, and what is above U+10FFFF.
        match byte {
            0xE0 => low = 0xA0,
            0xED => high = 0x9F,
            0xF0 => low = 0x90,
            0xF4 => high = 0x8F,
            _ => {}
        }
    }
    if follow > 0 {
        Wrong::new(Fault::UTF_8, start)
    } else {
        Wrong::NOTHING
    }
}

/// Returns whether every byte is ASCII, not zero, and (with `TOPIC`) neither `+` nor `#`. Without the attribute, decoding a PUBLISH takes
/// 14 of 180 instructions more.
#[inline(always)]
fn is_plain<const TOPIC: bool>(bytes: &[u8]) -> bool {
    // The last chunk overlaps the one before it. Checking some bytes twice is cheaper than a loop over the rest.
    if let Some(last) = bytes.last_chunk::<16>() {
        let (pieces, _) = bytes.as_chunks::<16>();
        let mut special = has_special::<TOPIC, 16>(last);
        for piece in pieces {
            special |= has_special::<TOPIC, 16>(piece);
        }
        !special
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        !(has_special::<TOPIC, 8>(first) | has_special::<TOPIC, 8>(last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        !(has_special::<TOPIC, 4>(first) | has_special::<TOPIC, 4>(last))
    } else {
        !bytes.iter().any(|byte| is_special::<TOPIC>(*byte))
    }
}

/// Returns whether one of the bytes is special. Without a branch, so that the compiler can compare all bytes at once.
#[inline]
fn has_special<const TOPIC: bool, const N: usize>(bytes: &[u8; N]) -> bool {
    let any = |special, byte: &u8| special | is_special::<TOPIC>(*byte);
    bytes.iter().fold(false, any)
}

#[inline]
const fn is_special<const TOPIC: bool>(byte: u8) -> bool {
    (byte == 0) | (byte >= 0x80) | (TOPIC & ((byte == b'+') | (byte == b'#')))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_special_byte_is_found_at_every_place_of_every_length() {
        for len in 1..40 {
            let plain = [b'a'; 40];
            assert!(is_plain::<true>(&plain[..len]));
            for at in 0..len {
                for (byte, text, topic) in [
                    (0, false, false),
                    (0x80, false, false),
                    (b'+', true, false),
                    (b'#', true, false),
                    (0x7F, true, true),
                    (1, true, true),
                ] {
                    let mut bytes = plain;
                    bytes[at] = byte;
                    let bytes = &bytes[..len];
                    assert_eq!(is_plain::<false>(bytes), text, "{byte:#x} at {at} of {len}");
                    assert_eq!(is_plain::<true>(bytes), topic, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    /// Checks all sequences of four bytes, of each class of bytes that UTF-8 treats alike.
    #[test]
    fn utf8_ends_where_the_standard_library_says() {
        const CLASSES: [u8; 20] = [
            0x01, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1,
            0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5,
        ];
        for number in (0..20_usize.pow(4)).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let bytes = [0, 1, 2, 3].map(|at| CLASSES[number / 20_usize.pow(at) % 20]);
            for len in 0..=4 {
                let bytes = &bytes[..len];
                let expected = match core::str::from_utf8(bytes) {
                    Ok(_) => Wrong::NOTHING,
                    Err(error) => Wrong::new(Fault::UTF_8, error.valid_up_to()),
                };
                assert_eq!(by_bytes(bytes), expected, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn the_first_wrong_byte_is_named() {
        for check in [text, by_bytes, find_text_fault, name, find_name_fault] {
            assert_eq!(check(b"ab\0\xFF"), Wrong::new(Fault::NULL_CHARACTER, 2));
            assert_eq!(check(b"ab\xFF\0"), Wrong::new(Fault::UTF_8, 2));
            let surrogate = b"\xED\xA0\x80";
            assert_eq!(check(surrogate), Wrong::new(Fault::UTF_8, 0));
            let green = "\u{FEFF}gr\u{fc}n".as_bytes();
            assert_eq!(check(green), Wrong::NOTHING);
        }
        assert_eq!(name(b"a/+\xFF"), Wrong::new(Fault::UTF_8, 3));
        assert_eq!(name(b"a/+"), Wrong::new(Fault::TOPIC_WILDCARD, 2));
    }
}
