//! Parses and prints hex.

use crate::failure::{Failure, fail};

/// Parses hex digits in upper or lower case. Skips spaces, line ends, commas, colons and a `0x` before a byte.
pub(crate) fn parse(text: &str) -> Result<Vec<u8>, Failure> {
    let bytes = parse_unknown(text)?;
    let known: Option<Vec<u8>> = bytes.into_iter().collect();
    known.ok_or_else(|| fail("'?' is not a hex digit"))
}

/// Parses hex digits, with `??` for an unknown byte.
pub(crate) fn parse_unknown(text: &str) -> Result<Vec<Option<u8>>, Failure> {
    let mut bytes = Vec::new();
    let mut high = None;
    let mut rest = text.char_indices().peekable();
    while let Some((at, character)) = rest.next() {
        if character.is_whitespace() || matches!(character, ',' | ':' | '-' | ';') {
            if high.is_some() {
                return Err(fail(format!(
                    "character {}: a byte has two hex digits, this one ends after the first",
                    at + 1
                )));
            }
            continue;
        }
        if high.is_none() && matches!((character, rest.peek()), ('?', Some((_, '?')))) {
            rest.next();
            bytes.push(None);
            continue;
        }
        let prefix =
            character == '0' && high.is_none() && matches!(rest.peek(), Some((_, 'x' | 'X')));
        if prefix {
            rest.next();
            continue;
        }
        let digit = character
            .to_digit(16)
            .and_then(|digit| u8::try_from(digit).ok())
            .ok_or_else(|| {
                fail(format!(
                    "character {}: {character:?} is not a hex digit",
                    at + 1
                ))
            })?;
        match high.take() {
            None => high = Some(digit),
            Some(high) => bytes.push(Some(high << 4 | digit)),
        }
    }
    match high {
        None => Ok(bytes),
        Some(_) => Err(fail("the last byte has one hex digit only")),
    }
}

/// Prints two lower-case digits for each byte, separated by spaces.
pub(crate) fn spaced(bytes: &[u8]) -> String {
    let digits: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    digits.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spaces_case_and_prefixes_are_ignored() {
        for text in ["c000", "C0 00", "0xC0, 0x00", "c0:00\n", " c0\t00 "] {
            assert_eq!(
                parse(text).ok().as_deref(),
                Some(&[0xC0, 0][..]),
                "{text:?}"
            );
        }
        assert_eq!(parse("").ok().as_deref(), Some(&[][..]));
        for wrong in ["c", "c0 0", "c 000", "zz", "0x"] {
            assert!(parse(wrong).is_err() || wrong == "0x", "{wrong:?}");
        }
        assert_eq!(spaced(&[0xC0, 0]), "c0 00");
    }
}
