//! UTF-8 encoded strings (section 1.5.3 of 3.1.1, 1.5.4 of 5): one pass finds ill-formed UTF-8, U+0000 and, for topics,
//! wildcards together. ASCII without any of them, which is nearly all there is, goes eight bytes at a time.

use crate::error::Rule;

const LOW: u64 = 0x0101_0101_0101_0101;
const HIGH: u64 = 0x8080_8080_8080_8080;

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
#[inline]
pub(crate) fn check_and_find_wildcard(bytes: &[u8]) -> Result<bool, (usize, Rule)> {
    if plain::<true>(bytes) {
        Ok(false)
    } else {
        look_closer(bytes).map(|()| true)
    }
}

#[cold]
fn look_closer(bytes: &[u8]) -> Result<(), (usize, Rule)> {
    // 3.1.1 [MQTT-1.5.3-1], 5 [MQTT-1.5.4-1]: surrogates are ill-formed for `from_utf8` as well.
    let end_of_valid = match core::str::from_utf8(bytes) {
        Ok(_) => bytes.len(),
        Err(error) => error.valid_up_to(),
    };
    // 3.1.1 [MQTT-1.5.3-2], 5 [MQTT-1.5.4-2]
    match bytes.iter().position(|&b| b == 0) {
        Some(at) if at < end_of_valid => Err((at, Rule::NullCharacter)),
        _ if end_of_valid < bytes.len() => Err((end_of_valid, Rule::IllFormedUtf8)),
        _ => Ok(()),
    }
}

/// Whether every byte is ASCII, not zero, and (with `TOPIC`) neither `+` nor `#`.
#[inline]
fn plain<const TOPIC: bool>(bytes: &[u8]) -> bool {
    let mut found = 0_u64;
    if let Some(last) = bytes.last_chunk::<8>() {
        let (words, _) = bytes.as_chunks::<8>();
        for word in words {
            found |= odd_bytes::<TOPIC>(u64::from_ne_bytes(*word));
        }
        // The last word overlaps the one before it: looking twice is cheaper than a loop over the rest.
        found |= odd_bytes::<TOPIC>(u64::from_ne_bytes(*last));
    } else if let (Some(first), Some(last)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let word =
            (u64::from(u32::from_ne_bytes(*first)) << 32) | u64::from(u32::from_ne_bytes(*last));
        found = odd_bytes::<TOPIC>(word);
    } else {
        for &byte in bytes {
            let odd = byte == 0 || byte >= 0x80 || (TOPIC && (byte == b'+' || byte == b'#'));
            found |= u64::from(odd);
        }
    }
    found == 0
}

/// Non-zero if one of the eight bytes needs a closer look.
#[inline]
const fn odd_bytes<const TOPIC: bool>(word: u64) -> u64 {
    let mut found = (word & HIGH) | zero_bytes(word);
    if TOPIC {
        found |= zero_bytes(word ^ (LOW.wrapping_mul(0x2B)))
            | zero_bytes(word ^ (LOW.wrapping_mul(0x23)));
    }
    found
}

/// Non-zero if and only if one of the eight bytes is zero.
#[inline]
const fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(LOW) & !word & HIGH
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
