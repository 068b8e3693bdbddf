//! `mqtt decode`: hex in, fields out.

use std::io::Read;
use std::path::PathBuf;

use clap::Args;
use mqtt_tokio::proto::{DecodeError, Decoded, MAX_PACKET, Packet, Version};
use serde_json::{Value, json};

use crate::anatomy::{self, Row};
use crate::args::version;
use crate::failure::{Failure, fail};
use crate::hex;
use crate::packet::Draft;

/// Shows packets field by field beside their bytes.
///
/// Exits with 1 if a packet is malformed or cut short.
#[derive(Args, Debug)]
pub(crate) struct Decode {
    /// The bytes in hex; spaces and case do not matter, and several packets may follow each other. Without it, standard
    /// input is read
    hex: Vec<String>,
    /// Read the hex from this file
    #[arg(short, long, value_name = "FILE", conflicts_with = "hex")]
    file: Option<PathBuf>,
    /// The file or standard input has the bytes themselves, not hex
    #[arg(short, long, conflicts_with = "hex")]
    binary: bool,
    /// The version to read by, until a CONNECT says otherwise: 3.1, 3.1.1 or 5
    #[arg(short = 'V', long, value_name = "VERSION", default_value = "3.1.1", value_parser = version)]
    version: Version,
    /// Print one JSON object a packet
    #[arg(long)]
    json: bool,
}

impl Decode {
    pub(crate) fn run(self) -> Result<(), Failure> {
        let bytes = self.bytes()?;
        if bytes.is_empty() {
            return Err(fail("there are no bytes to decode"));
        }
        let mut version = self.version;
        let mut at = 0;
        while let Some(input @ [first, ..]) = bytes.get(at..) {
            match Packet::decode(input, version, MAX_PACKET) {
                Ok(Decoded::Packet { packet, consumed }) => {
                    if let Packet::Connect(connect) = packet {
                        version = connect.version;
                    }
                    let packet_bytes = input.get(..consumed).unwrap_or_default();
                    let rows = anatomy::rows(packet_bytes, &packet, version);
                    if self.json {
                        print_json(at, consumed, version, &packet, &rows)?;
                    } else {
                        print(at, consumed, version, &rows);
                    }
                    at += consumed;
                }
                Ok(Decoded::Needs(needed)) => {
                    let name = anatomy::type_name(*first);
                    return Err(fail(format!(
                        "the {name} at byte {at} is cut short: it has {} bytes and needs {needed} at least",
                        input.len()
                    )));
                }
                Err(error) => {
                    self.print_error(at, input, &error);
                    return Err(fail(format!("malformed packet at byte {at}: {error}")));
                }
            }
        }
        Ok(())
    }

    fn bytes(&self) -> Result<Vec<u8>, Failure> {
        if !self.hex.is_empty() {
            return hex::parse(&self.hex.join(" "));
        }
        let mut raw = Vec::new();
        match &self.file {
            Some(path) => {
                raw = std::fs::read(path)
                    .map_err(|error| fail(format!("{}: {error}", path.display())))?;
            }
            None => {
                std::io::stdin()
                    .read_to_end(&mut raw)
                    .map_err(|error| fail(format!("standard input: {error}")))?;
            }
        }
        if self.binary {
            return Ok(raw);
        }
        let text = String::from_utf8(raw).map_err(|_| {
            fail("the input is not text; give --binary if it has the bytes themselves")
        })?;
        hex::parse(&text)
    }

    /// Points at the byte.
    fn print_error(&self, at: usize, input: &[u8], error: &DecodeError) {
        let wrong = usize::try_from(error.at).unwrap_or(usize::MAX);
        let statement = error.statement();
        let reason = error.reason_code();
        if self.json {
            let object = json!({
                "packet": error.packet.map(|packet| packet.to_string()),
                "at": at,
                "version": error.version.to_string(),
                "error": { "at": at + wrong, "rule": error.rule.to_string(), "statement": statement,
                    "reason_code": reason.get(), "reason": reason.to_string() },
            });
            return crate::output(format_args!("{object}\n"));
        }
        let name = input
            .first()
            .map_or_else(String::new, |first| anatomy::type_name(*first));
        crate::output(format_args!("{name}, malformed, MQTT {}\n", error.version));
        // The line of sixteen bytes that the wrong one stands in, and the line before.
        let line = wrong / 16 * 16;
        for from in [line.saturating_sub(16), line]
            .into_iter()
            .skip(usize::from(line == 0))
        {
            let bytes = input
                .get(from..input.len().min(from + 16))
                .unwrap_or_default();
            crate::output(format_args!("{:6}  {}\n", at + from, hex::spaced(bytes)));
        }
        let column = 8 + 3 * (wrong - line);
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
    }
}

/// The packet as `mqtt encode --json` reads it, and its fields with their bytes.
fn print_json(
    at: usize,
    len: usize,
    version: Version,
    packet: &Packet<'_>,
    rows: &[Row],
) -> Result<(), Failure> {
    let fields: Vec<Value> = rows
        .iter()
        .map(|row| json!({ "at": at + row.at, "bytes": hex::spaced(&row.bytes), "name": row.name, "value": row.value, "text": row.text }))
        .collect();
    let mut object = serde_json::to_value(Draft::of(packet, version)).map_err(fail)?;
    if let Some(map) = object.as_object_mut() {
        map.insert("version".to_owned(), json!(version.to_string()));
        map.insert("at".to_owned(), json!(at));
        map.insert("length".to_owned(), json!(len));
        map.insert("fields".to_owned(), json!(fields));
    }
    crate::output(format_args!("{object}\n"));
    Ok(())
}

fn print(at: usize, len: usize, version: Version, rows: &[Row]) {
    let name = rows.first().map_or("", |row| &row.name);
    let bytes = if len == 1 { "byte" } else { "bytes" };
    crate::output(format_args!("{name}, {len} {bytes}, MQTT {version}\n"));
    for row in rows {
        for (line, bytes) in row.bytes.chunks(8).enumerate() {
            let offset = at + row.at + line * 8;
            let what = if line == 0 {
                format!("{} {}", row.name, row.text)
            } else {
                String::new()
            };
            let row = format!("{offset:6}  {:23}  {what}", hex::spaced(bytes));
            crate::output(format_args!("{}\n", row.trim_end()));
        }
    }
}
