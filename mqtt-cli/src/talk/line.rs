//! Parses a line of input: hex, or a command of `mqtt encode`.

use clap::{CommandFactory, FromArgMatches, Parser};
use mqtt_tokio::proto::Version;

use crate::decode;
use crate::encode::Encode;
use crate::failure::{Failure, fail};

/// The content of a line.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Line {
    /// An empty line or a comment.
    Nothing,
    Quit,
    Packets(Vec<u8>),
}

#[derive(Parser)]
#[command(name = "a line", no_binary_name = true, disable_help_flag = true)]
struct Command {
    #[command(flatten)]
    encode: Encode,
}

/// Parses a line. `version` applies to commands without one.
pub(super) fn parse(line: &str, version: Version) -> Result<Line, Failure> {
    let line = line.trim();
    // A pasted line of a transcript begins with `>`; a received packet is a comment.
    let line = line.strip_prefix('>').map_or(line, str::trim_start);
    let first = line.split_whitespace().next().unwrap_or_default();
    if first.is_empty() || first.starts_with(['#', '<']) {
        return Ok(Line::Nothing);
    }
    if matches!(first, "quit" | "exit") {
        return Ok(Line::Quit);
    }
    let command = Command::command();
    let is_command = command.find_subcommand(first).is_some();
    if !is_command && !first.starts_with('-') {
        return decode::bytes_of(line).map(Line::Packets);
    }
    let words = words(line)?;
    let matches = command
        .try_get_matches_from(words)
        .map_err(|error| fail(one_line(&error)))?;
    let mut command =
        Command::from_arg_matches(&matches).map_err(|error| fail(one_line(&error)))?;
    match command.encode.bytes(version)? {
        Some(bytes) => Ok(Line::Packets(bytes)),
        None => Err(fail("the line has no packet type")),
    }
}

/// Returns the message of clap without its hints.
fn one_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default();
    first.strip_prefix("error: ").unwrap_or(first).to_owned()
}

/// Splits into words with quotes as in a shell.
fn words(line: &str) -> Result<Vec<String>, Failure> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    for character in line.chars() {
        match (quote, character) {
            (Some(open), _) if character == open => quote = None,
            (Some(_), _) => word.get_or_insert_default().push(character),
            (None, '"' | '\'') => {
                quote = Some(character);
                word.get_or_insert_default();
            }
            (None, _) if character.is_whitespace() => words.extend(word.take()),
            (None, _) => word.get_or_insert_default().push(character),
        }
    }
    if quote.is_some() {
        return Err(fail("a quote is not closed"));
    }
    words.extend(word);
    Ok(words)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_hex_or_commands() {
        let packets = |bytes: &[u8]| Line::Packets(bytes.to_vec());
        for (line, expected) in [
            ("", Line::Nothing),
            ("# c000", Line::Nothing),
            ("< d0 00", Line::Nothing),
            ("quit", Line::Quit),
            ("c000", packets(&[0xC0, 0])),
            ("> c0 00", packets(&[0xC0, 0])),
            ("{0xc0, 0}", packets(&[0xC0, 0])),
            ("ping", packets(&[0xC0, 0])),
            ("pub -t a -m 'h i'", packets(b"\x30\x06\0\x01ah i")),
            ("pub -t a -m \"\"", packets(b"\x30\x03\0\x01a")),
            (
                "--bad flags sub -t a/#",
                packets(b"\x80\x08\0\x01\0\x03a/#\0"),
            ),
            ("-V 5 disconnect --reason 4", packets(&[0xE0, 1, 4])),
        ] {
            assert_eq!(parse(line, Version::V311).unwrap(), expected, "{line}");
        }
        assert_eq!(
            parse("sub -t a", Version::V5).unwrap(),
            packets(b"\x82\x07\0\x01\0\0\x01a\0")
        );
        for wrong in ["pub -m x", "c0 0", "pub -t 'a", "-V 5", "hello"] {
            assert!(parse(wrong, Version::V311).is_err(), "{wrong}");
        }
    }
}
