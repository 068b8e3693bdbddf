//! `mqtt sub -F`: implements the format language of mosquitto_sub.

use std::io::IsTerminal;

use chrono::{DateTime, Local};
use mqtt_tokio::Message;
use serde_json::json;

use crate::failure::{Failure, fail};
use crate::json;

/// A parsed format.
#[derive(Debug)]
pub(crate) struct Format {
    parts: Vec<Part>,
    pretty: bool,
    /// Whether the output is a terminal, which must not get control characters of a message.
    is_terminal: bool,
}

#[derive(Debug, PartialEq)]
enum Part {
    Literal(Vec<u8>),
    Field(Field),
    /// The payload, or `(null)` if it is empty.
    PayloadOrNull,
    /// An `@` sequence.
    Time(char),
}

/// A `%` sequence with its flags and widths.
#[derive(Debug, PartialEq)]
struct Field {
    letter: char,
    zero: bool,
    left: bool,
    width: usize,
    most: Option<usize>,
}

/// The letters that may follow `%`.
const LETTERS: &str = "ACDEFIJPRSUXjlmpqrtx";
/// The letters that take flags and widths.
const WIDE: &str = "ACEFIRSXlmptx";

impl Format {
    fn new(parts: Vec<Part>) -> Self {
        Self {
            parts,
            pretty: false,
            is_terminal: std::io::stdout().is_terminal(),
        }
    }

    pub(crate) fn payload() -> Self {
        Self::new(vec![field('p')])
    }

    pub(crate) fn verbose() -> Self {
        let space = Part::Literal(b" ".to_vec());
        Self::new(vec![field('t'), space, Part::PayloadOrNull])
    }

    /// Sets whether JSON is printed in several lines.
    pub(crate) const fn pretty(mut self, pretty: bool) -> Self {
        self.pretty = pretty;
        self
    }

    pub(crate) fn parse(text: &str) -> Result<Self, Failure> {
        let mut parts = Vec::new();
        let mut literal = Vec::new();
        let mut rest = text.chars().peekable();
        while let Some(character) = rest.next() {
            let part = match character {
                '\\' => {
                    literal.push(escape(rest.next())?);
                    continue;
                }
                '%' => percent(&mut rest)?,
                '@' => match rest.next() {
                    Some('@') => Part::Literal(b"@".to_vec()),
                    Some(letter) => Part::Time(letter),
                    None => return Err(fail("format: nothing follows the last @")),
                },
                other => {
                    literal.extend(other.encode_utf8(&mut [0; 4]).bytes());
                    continue;
                }
            };
            if !literal.is_empty() {
                parts.push(Part::Literal(std::mem::take(&mut literal)));
            }
            parts.push(part);
        }
        if !literal.is_empty() {
            parts.push(Part::Literal(literal));
        }
        Ok(Self::new(parts))
    }

    /// Appends `message` in this format.
    pub(crate) fn write(&self, message: &Message, out: &mut Vec<u8>) -> Result<(), String> {
        let now = Local::now();
        for part in &self.parts {
            match part {
                Part::Literal(bytes) => out.extend_from_slice(bytes),
                Part::Time('N') => {
                    out.extend_from_slice(format!("{:09}", now.timestamp_subsec_nanos()).as_bytes())
                }
                Part::Time(letter) => {
                    use std::fmt::Write;
                    let mut text = String::new();
                    write!(text, "{}", now.format(&format!("%{letter}")))
                        .map_err(|_| format!("@{letter} is not a time format"))?;
                    out.extend_from_slice(text.as_bytes());
                }
                Part::PayloadOrNull if message.payload.is_empty() => {
                    out.extend_from_slice(b"(null)");
                }
                Part::PayloadOrNull => out.extend(self.harmless(message.payload.to_vec())),
                Part::Field(field) => {
                    let value = value(field.letter, message, &now, self.pretty)?;
                    field.write(self.harmless(value), out);
                }
            }
        }
        Ok(())
    }
}

impl Format {
    /// Replaces control characters for a terminal, except line ends and tabs.
    fn harmless(&self, value: Vec<u8>) -> Vec<u8> {
        if self.is_terminal {
            without_controls(&value).into_bytes()
        } else {
            value
        }
    }
}

fn without_controls(value: &[u8]) -> String {
    let harmful = |c: char| c.is_control() && !matches!(c, '\n' | '\t');
    let text = String::from_utf8_lossy(value);
    text.replace(harmful, "\u{FFFD}")
}

impl Field {
    /// Appends a value in the widths of the field.
    fn write(&self, mut value: Vec<u8>, out: &mut Vec<u8>) {
        // As in mosquitto_sub, the width is also the maximum for a payload, and a precision is ignored.
        let most = match self.letter {
            'p' => Some(self.width).filter(|width| *width > 0),
            'x' | 'X' => Some(self.width / 2 * 2).filter(|width| *width > 0),
            _ => self.most,
        };
        if let Some(most) = most {
            value.truncate(most);
        }
        let padding = if self.zero { b'0' } else { b' ' };
        let padding = std::iter::repeat_n(padding, self.width.saturating_sub(value.len()));
        if self.left {
            out.extend(value);
            out.extend(padding);
        } else {
            out.extend(padding);
            out.extend(value);
        }
    }
}

const fn field(letter: char) -> Part {
    Part::Field(Field {
        letter,
        zero: false,
        left: false,
        width: 0,
        most: None,
    })
}

fn escape(letter: Option<char>) -> Result<u8, Failure> {
    Ok(match letter {
        Some('\\') => b'\\',
        Some('0') => 0,
        Some('a') => 7,
        Some('e') => 27,
        Some('n') => b'\n',
        Some('r') => b'\r',
        Some('t') => b'\t',
        Some('v') => 11,
        Some(other) => return Err(fail(format!("format: \\{other} is not an escape sequence"))),
        None => return Err(fail("format: nothing follows the last \\")),
    })
}

fn percent(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Part, Failure> {
    if rest.next_if_eq(&'%').is_some() {
        return Ok(Part::Literal(b"%".to_vec()));
    }
    let (mut zero, mut left, mut plain) = (false, false, true);
    while let Some(flag) = rest.next_if(|c| matches!(c, '0' | '-')) {
        plain = false;
        zero |= flag == '0';
        left |= flag == '-';
    }
    let width = number(rest)?;
    let most = if rest.next_if_eq(&'.').is_some() {
        Some(number(rest)?.unwrap_or(0))
    } else {
        None
    };
    plain &= width.is_none() && most.is_none();
    match rest.next() {
        Some(letter) if LETTERS.contains(letter) && (plain || WIDE.contains(letter)) => {
            Ok(Part::Field(Field {
                letter,
                zero: zero && !left,
                left,
                width: width.unwrap_or(0),
                most,
            }))
        }
        Some(letter) if LETTERS.contains(letter) => {
            Err(fail(format!("format: %{letter} has no width")))
        }
        Some(other) => Err(fail(format!("format: %{other} is not known"))),
        None => Err(fail("format: nothing follows the last %")),
    }
}

fn number(rest: &mut std::iter::Peekable<std::str::Chars<'_>>) -> Result<Option<usize>, Failure> {
    let mut digits = String::new();
    while let Some(digit) = rest.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    match digits.parse() {
        Ok(number @ ..=10_000) => Ok(Some(number)),
        _ => Err(fail(format!("format: a width of {digits} is too much"))),
    }
}

fn value(
    letter: char,
    message: &Message,
    now: &DateTime<Local>,
    pretty: bool,
) -> Result<Vec<u8>, String> {
    let properties = message.properties();
    let hex = |upper: bool| -> String {
        let digits = message.payload.iter().map(|byte| {
            if upper {
                format!("{byte:02X}")
            } else {
                format!("{byte:02x}")
            }
        });
        digits.collect()
    };
    let number = |number: Option<u32>| number.map_or_else(String::new, |number| number.to_string());
    Ok(match letter {
        'p' => return Ok(message.payload.to_vec()),
        'D' => return Ok(properties.correlation_data().unwrap_or_default().to_vec()),
        't' => message.topic().to_string(),
        'q' => message.qos.get().to_string(),
        'r' => u8::from(message.retain).to_string(),
        'l' => message.payload.len().to_string(),
        'm' => message.packet_id.map_or(0, |id| id.get()).to_string(),
        'x' => hex(false),
        'X' => hex(true),
        'I' => now.format("%Y-%m-%dT%H:%M:%S%z").to_string(),
        'U' => format!("{}.{:09}", now.timestamp(), now.timestamp_subsec_nanos()),
        'C' => properties.content_type().unwrap_or_default().to_owned(),
        'E' => number(properties.message_expiry_interval()),
        'F' => number(properties.payload_format_indicator().map(u32::from)),
        'R' => properties
            .response_topic()
            .map_or_else(String::new, |topic| topic.to_string()),
        'S' => number(properties.subscription_identifiers().next()),
        'P' => {
            let pairs: Vec<_> = properties
                .user_properties()
                .map(|(name, value)| format!("{name}:{value}"))
                .collect();
            pairs.join(" ")
        }
        'j' | 'J' => as_json(letter, message, now, pretty)?,
        // %A: the session has replaced the alias with its topic.
        _ => String::new(),
    }
    .into_bytes())
}

/// `%j` prints the payload as a string, `%J` as JSON.
fn as_json(
    letter: char,
    message: &Message,
    now: &DateTime<Local>,
    pretty: bool,
) -> Result<String, String> {
    let payload = if letter == 'j' {
        json!(String::from_utf8_lossy(&message.payload))
    } else {
        serde_json::from_slice(&message.payload).map_err(|_| {
            let topic = message.topic();
            format!(
                "the payload is not valid JSON on topic {:?}",
                topic.as_str()
            )
        })?
    };
    Ok(json::text(message, now, payload, pretty))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_are_replaced() {
        assert_eq!(
            without_controls(b"a\x1b[2J\tb\n\x9b"),
            "a\u{FFFD}[2J\tb\n\u{FFFD}"
        );
        assert_eq!(
            without_controls("gr\u{fc}n\u{9b}".as_bytes()),
            "gr\u{fc}n\u{FFFD}"
        );
    }
}
