//! UTF-8 encoded strings (section 1.5.3 of 3.1.1, 1.5.4 of 5): one pass finds ill-formed UTF-8, U+0000 and, for topics,
//! wildcards together. ASCII without any of them, which is nearly all there is, goes sixteen bytes at a time.

use crate::error::Rule;
use crate::sink::FAST;

/// Checks a string that may hold any character but U+0000. An error gives the offset of the byte that proves it.
#[inline]
pub(crate) fn check(bytes: &[u8]) -> Result<(), (usize, Rule)> {
    if plain::<false>(bytes) {
        Ok(())
    } else {
        look_closer(bytes)
    }
}

/// Like [`check`], and says whether there may be a wildcard: `false` is certain.
#[cfg_attr(target_pointer_width = "64", inline(always))]
#[cfg_attr(not(target_pointer_width = "64"), inline)]
pub(crate) fn check_and_find_wildcard(bytes: &[u8]) -> Result<bool, (usize, Rule)> {
    if plain::<true>(bytes) {
        Ok(false)
    } else {
        look_closer(bytes).map(|()| true)
    }
}

#[cold]
fn look_closer(bytes: &[u8]) -> Result<(), (usize, Rule)> {
    // 3.1.1 [MQTT-1.5.3-1], 5 [MQTT-1.5.4-1]: surrogates are ill-formed for both.
    let end_of_valid = if FAST {
        core::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len)
    } else {
        valid_up_to(bytes)
    };
    // 3.1.1 [MQTT-1.5.3-2], 5 [MQTT-1.5.4-2]
    match bytes.iter().position(|&b| b == 0) {
        Some(at) if at < end_of_valid => Err((at, Rule::NullCharacter)),
        _ if end_of_valid < bytes.len() => Err((end_of_valid, Rule::IllFormedUtf8)),
        _ => Ok(()),
    }
}

/// How many bytes from the front are well-formed UTF-8. What `from_utf8` says, in a quarter of its code.
fn valid_up_to(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((first, behind)) = rest.split_first() {
        // How many bytes follow, and what the first of them may be: nothing that fewer bytes say, no surrogate, nothing
        // beyond U+10FFFF.
        let (follow, second) = match first {
            0x00..=0x7F => (0, 0x80..=0xBF),
            0xC2..=0xDF => (1, 0x80..=0xBF),
            0xE0 => (2, 0xA0..=0xBF),
            0xED => (2, 0x80..=0x9F),
            0xE1..=0xEF => (2, 0x80..=0xBF),
            0xF0 => (3, 0x90..=0xBF),
            0xF1..=0xF3 => (3, 0x80..=0xBF),
            0xF4 => (3, 0x80..=0x8F),
            _ => break,
        };
        match behind.split_at_checked(follow) {
            Some((tail, behind))
                if tail.iter().all(|byte| byte & 0xC0 == 0x80)
                    && tail.first().is_none_or(|byte| second.contains(byte)) =>
            {
                rest = behind;
            }
            _ => break,
        }
    }
    bytes.len().saturating_sub(rest.len())
}

/// Whether every byte is ASCII, not zero, and (with `TOPIC`) neither `+` nor `#`.
#[inline]
fn plain<const TOPIC: bool>(bytes: &[u8]) -> bool {
    if !FAST {
        return !bytes.iter().any(|byte| odd_byte::<TOPIC>(*byte));
    }
    // The last piece overlaps the one before it: looking twice is cheaper than a loop over the rest.
    if let Some(last) = bytes.last_chunk::<16>() {
        let (pieces, _) = bytes.as_chunks::<16>();
        let mut odd = odd_bytes::<TOPIC, 16>(last);
        for piece in pieces {
            odd |= odd_bytes::<TOPIC, 16>(piece);
        }
        !odd
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<8>(), bytes.last_chunk::<8>()) {
        !(odd_bytes::<TOPIC, 8>(first) | odd_bytes::<TOPIC, 8>(last))
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        !(odd_bytes::<TOPIC, 4>(first) | odd_bytes::<TOPIC, 4>(last))
    } else {
        !bytes.iter().any(|byte| odd_byte::<TOPIC>(*byte))
    }
}

/// Whether one of the bytes needs a closer look. No branch: the compiler looks at all of them at once where it can.
#[inline]
fn odd_bytes<const TOPIC: bool, const N: usize>(bytes: &[u8; N]) -> bool {
    bytes
        .iter()
        .fold(false, |odd, byte| odd | odd_byte::<TOPIC>(*byte))
}

#[inline]
const fn odd_byte<const TOPIC: bool>(byte: u8) -> bool {
    (byte == 0) | (byte >= 0x80) | (TOPIC & ((byte == b'+') | (byte == b'#')))
}

#[cfg(test)]
mod tests {
    extern crate std;
    use super::*;
    use std::vec;

    #[test]
    fn every_odd_byte_is_found_at_every_place_of_every_length() {
        for len in 1..40 {
            assert!(plain::<true>(&vec![b'a'; len]));
            for at in 0..len {
                for (byte, text, topic) in [
                    (0, false, false),
                    (0x80, false, false),
                    (b'+', true, false),
                    (b'#', true, false),
                    (0x7F, true, true),
                    (1, true, true),
                ] {
                    let mut bytes = vec![b'a'; len];
                    bytes[at] = byte;
                    assert_eq!(plain::<false>(&bytes), text, "{byte:#x} at {at} of {len}");
                    assert_eq!(plain::<true>(&bytes), topic, "{byte:#x} at {at} of {len}");
                }
            }
        }
    }

    /// All sequences of bytes that differ in their class at any place, four long.
    #[test]
    fn utf8_ends_where_the_standard_library_says() {
        const CLASSES: [u8; 20] = [
            0x00, 0x7F, 0x80, 0x8F, 0x90, 0x9F, 0xA0, 0xBF, 0xC0, 0xC1, 0xC2, 0xDF, 0xE0, 0xE1,
            0xED, 0xEF, 0xF0, 0xF1, 0xF4, 0xF5,
        ];
        for number in (0..20_usize.pow(4)).step_by(if cfg!(miri) { 997 } else { 1 }) {
            let bytes = [0, 1, 2, 3].map(|at| CLASSES[number / 20_usize.pow(at) % 20]);
            for len in 0..=4 {
                let bytes = &bytes[..len];
                let expected =
                    core::str::from_utf8(bytes).map_or_else(|error| error.valid_up_to(), str::len);
                assert_eq!(valid_up_to(bytes), expected, "{bytes:x?}");
            }
        }
    }

    #[test]
    fn the_first_odd_byte_is_named() {
        assert_eq!(check(b"ab\0\xFF"), Err((2, Rule::NullCharacter)));
        assert_eq!(check(b"ab\xFF\0"), Err((2, Rule::IllFormedUtf8)));
        assert_eq!(
            check(b"\xED\xA0\x80"),
            Err((0, Rule::IllFormedUtf8)),
            "a surrogate"
        );
        assert_eq!(check("\u{FEFF}gr\u{fc}n".as_bytes()), Ok(()));
    }
}
