//! Prints packets and errors.

use mqtt_tokio::proto::num::to_usize;
use mqtt_tokio::proto::{DecodeError, Packet};
use serde_json::{Value, json};

use super::advice::Advice;
use super::explain;
use super::reader::Assumed;
use crate::anatomy::{self, Row};
use crate::failure::{Failure, fail};
use crate::hex;
use crate::packet::Draft;

/// How to print.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Show {
    pub(crate) json: bool,
    pub(crate) explain: bool,
}

/// A packet and what is printed of it.
pub(crate) struct Shown<'a> {
    /// The direction, if the input has two.
    pub(crate) name: Option<&'a str>,
    /// The position of its first byte in the input.
    pub(crate) at: usize,
    pub(crate) assumed: &'a Assumed,
    pub(crate) packet: &'a Packet<'a>,
    pub(crate) rows: &'a [Row],
    pub(crate) notes: &'a [String],
}

/// Bytes that are no whole packet, and what is printed of them.
#[derive(Clone, Copy)]
pub(crate) struct Unreadable<'a> {
    /// The direction, if the input has two.
    pub(crate) name: Option<&'a str>,
    /// The position of the first byte in the input.
    pub(crate) at: usize,
    pub(crate) bytes: &'a [u8],
    pub(crate) advice: Option<&'a Advice>,
}

impl Unreadable<'_> {
    /// Returns the name of the packet type that the first byte has.
    fn packet_type(&self) -> String {
        self.bytes
            .first()
            .map_or_else(String::new, |first| anatomy::type_name(*first))
    }
}

/// Replaces control characters, which would disturb a terminal.
pub(crate) fn printable(text: &str) -> String {
    text.chars()
        .map(|character| {
            if character.is_control() {
                '\u{FFFD}'
            } else {
                character
            }
        })
        .collect()
}

impl Show {
    /// Prints a remark about the input.
    pub(crate) fn note(self, text: &str) {
        if !self.json {
            crate::output(format_args!("{}\n", printable(text)));
        }
    }

    /// Prints the version and the reason for it, unless a CONNECT has it.
    pub(crate) fn assumed(self, assumed: &Assumed) {
        if assumed.why != "CONNECT says so" && !self.json {
            crate::output(format_args!("MQTT {}: {}\n", assumed.version, assumed.why));
        }
    }

    pub(crate) fn packet(self, shown: &Shown<'_>) -> Result<(), Failure> {
        if self.json {
            return json_packet(shown);
        }
        let Shown {
            name,
            at,
            assumed,
            packet,
            rows,
            notes,
        } = *shown;
        let from = name.map_or_else(String::new, |name| format!("{name}: "));
        let what = rows.first().map_or("", |row| &row.name);
        let len: usize = rows.iter().map(|row| row.bytes.len()).sum();
        let unit = if len == 1 { "byte" } else { "bytes" };
        let version = assumed.version;
        crate::output(format_args!("{from}{what}, {len} {unit}, MQTT {version}\n"));
        for row in rows {
            if self.explain {
                for (offset, bytes, text) in explain::row(row, packet) {
                    lines(at + row.at + offset, bytes, &text);
                }
            } else {
                lines(
                    at + row.at,
                    &row.bytes,
                    &format!("{} {}", row.name, row.text),
                );
            }
        }
        for note in notes {
            crate::output(format_args!("        note: {}\n", printable(note)));
        }
        Ok(())
    }

    /// Prints an error and the place of the wrong byte.
    pub(crate) fn malformed(self, unreadable: &Unreadable<'_>, error: &DecodeError) {
        let Unreadable {
            name,
            at,
            bytes,
            advice,
        } = *unreadable;
        let wrong = to_usize(error.at);
        let statement = error.statement();
        let reason = error.reason_code();
        if self.json {
            let object = json!({
                "packet": error.packet.map(|packet| packet.to_string()),
                "direction": name,
                "at": at,
                "version": error.version.to_string(),
                "error": { "at": at + wrong, "rule": error.rule.to_string(), "statement": statement,
                    "reason_code": reason.get(), "reason": reason.to_string(),
                    "cause": advice.map(|advice| &advice.cause),
                    "corrected": advice.map(|advice| hex::spaced(&advice.corrected)) },
            });
            return crate::output_json(&object);
        }
        let from = name.map_or_else(String::new, |name| format!("{name}: "));
        let what = unreadable.packet_type();
        crate::output(format_args!(
            "{from}{what}, malformed, MQTT {}\n",
            error.version
        ));
        let column = 8 + 3 * around(at, bytes, wrong);
        crate::output(format_args!(
            "{:column$}^^ byte {}: {}\n",
            "",
            at + wrong,
            error.rule
        ));
        let statement = statement.map_or_else(String::new, |id| {
            format!("statement {id} of MQTT {}, ", error.version)
        });
        crate::output(format_args!(
            "{:column$}   {statement}reason code {reason}\n",
            ""
        ));
        self.advice(advice);
    }

    /// Prints a packet whose end is missing: it needs at least `needed` bytes.
    pub(crate) fn cut_short(self, unreadable: &Unreadable<'_>, needed: usize) {
        let Unreadable {
            name,
            at,
            bytes,
            advice,
        } = *unreadable;
        let what = unreadable.packet_type();
        if self.json {
            let object = json!({
                "packet": what, "direction": name, "at": at,
                "error": { "at": at + bytes.len(), "rule": "the packet is cut short", "needed": needed,
                    "cause": advice.map(|advice| &advice.cause),
                    "corrected": advice.map(|advice| hex::spaced(&advice.corrected)) },
            });
            return crate::output_json(&object);
        }
        let from = name.map_or_else(String::new, |name| format!("{name}: "));
        let len = bytes.len();
        crate::output(format_args!(
            "{from}{what}, cut short: {len} of {needed} bytes\n"
        ));
        around(at, bytes, len.saturating_sub(1));
        self.advice(advice);
    }

    fn advice(self, advice: Option<&Advice>) {
        if let Some(Advice { cause, corrected }) = advice {
            crate::output(format_args!("        cause:     {}\n", printable(cause)));
            for (n, line) in corrected.chunks(16).enumerate() {
                let what = if n == 0 { "corrected:" } else { "" };
                crate::output(format_args!("        {what:10} {}\n", hex::spaced(line)));
            }
        }
    }
}

/// Prints the line of sixteen bytes around a byte, and the line before it. Returns the position of the byte in its line.
fn around(at: usize, input: &[u8], place: usize) -> usize {
    // The byte may be the first missing one.
    let line = place.min(input.len().saturating_sub(1)) / 16 * 16;
    for from in [line.saturating_sub(16), line]
        .into_iter()
        .skip(usize::from(line == 0))
    {
        let bytes = input
            .get(from..input.len().min(from + 16))
            .unwrap_or_default();
        crate::output(format_args!("{:6}  {}\n", at + from, hex::spaced(bytes)));
    }
    place - line
}

/// Prints bytes, eight in each line, and the text beside the first line.
fn lines(at: usize, bytes: &[u8], what: &str) {
    for (line, bytes) in bytes.chunks(8).enumerate() {
        let offset = at + line * 8;
        let what = if line == 0 { what } else { "" };
        let row = format!("{offset:6}  {:23}  {}", hex::spaced(bytes), printable(what));
        crate::output(format_args!("{}\n", row.trim_end()));
    }
}

/// The packet as `mqtt encode --json` reads it, and its fields with their bytes.
fn json_packet(shown: &Shown<'_>) -> Result<(), Failure> {
    let Shown { at, notes, .. } = *shown;
    let fields: Vec<Value> = shown.rows
        .iter()
        .map(|row| json!({ "at": at + row.at, "bytes": hex::spaced(&row.bytes), "name": row.name, "value": row.value, "text": row.text }))
        .collect();
    let len: usize = shown.rows.iter().map(|row| row.bytes.len()).sum();
    let mut object =
        serde_json::to_value(Draft::of(shown.packet, shown.assumed.version)).map_err(fail)?;
    if let Some(map) = object.as_object_mut() {
        let mut add = |key: &str, value: Value| map.insert(key.to_owned(), value);
        add("version", json!(shown.assumed.version.to_string()));
        if let Some(name) = shown.name {
            add("direction", json!(name));
        }
        if shown.assumed.why != "CONNECT says so" {
            add("assumed", json!(shown.assumed.why));
        }
        add("at", json!(at));
        add("length", json!(len));
        if !notes.is_empty() {
            add("notes", json!(notes));
        }
        add("fields", json!(fields));
    }
    crate::output_json(&object);
    Ok(())
}
