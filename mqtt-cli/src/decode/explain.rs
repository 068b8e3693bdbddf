//! Describes each byte of a field for `mqtt decode --explain`.

use mqtt_tokio::proto::Packet;

use crate::anatomy::Row;

/// The position of a part in the field, its bytes, and their meaning.
pub(crate) type Part<'a> = (usize, &'a [u8], String);

/// Splits a field into parts.
pub(crate) fn row<'a>(row: &'a Row, packet: &Packet<'_>) -> Vec<Part<'a>> {
    let whole = || vec![(0, &row.bytes[..], format!("{} {}", row.name, row.text))];
    match (row.name.as_str(), &row.bytes[..]) {
        (_, [first]) if row.at == 0 => vec![(0, &row.bytes[..], first_byte(*first, row, packet))],
        ("remaining length", bytes) => {
            let note = format!("{}: so many bytes follow{}", row.text, sum(bytes));
            vec![(0, bytes, format!("{} {note}", row.name))]
        }
        (name, bytes) if name.ends_with("property length") => {
            let note = format!(
                "{}: so many bytes of properties follow{}",
                row.text,
                sum(bytes)
            );
            vec![(0, bytes, format!("{name} {note}"))]
        }
        ("connect flags", [flags]) => {
            vec![(0, &row.bytes[..], connect_flags(*flags))]
        }
        ("options", [options]) => vec![(
            0,
            &row.bytes[..],
            format!("options {options:08b}: {}", row.text),
        )],
        ("packet identifier" | "keep-alive", [high, low]) => vec![(
            0,
            &row.bytes[..],
            format!("{} {high} * 256 + {low} = {}", row.name, row.text),
        )],
        (name, bytes) if is_string(name) && bytes.len() >= 2 => {
            let (length, text) = bytes.split_at(2);
            let count = text.len();
            let mut parts = vec![(0, length, format!("length of the {name}: {count}"))];
            if count > 0 {
                parts.push((2, text, format!("{name} {}", row.text)));
            }
            parts
        }
        (name, [id, value @ ..]) if is_property(name, row) && !value.is_empty() => vec![
            (0, &row.bytes[..1], format!("property {id:#04x}: {name}")),
            (1, value, format!("{name} {}", row.text)),
        ],
        _ => whole(),
    }
}

fn first_byte(first: u8, row: &Row, packet: &Packet<'_>) -> String {
    let (high, low) = (first >> 4, first & 0x0F);
    let flags = if let Packet::Publish(publish) = packet {
        let (dup, retain) = (u8::from(publish.dup), u8::from(publish.retain));
        format!("DUP {dup}, QoS {}, RETAIN {retain}", publish.qos().get())
    } else {
        format!("flags {low:04b}, as this type must have")
    };
    format!("{high:04b} {low:04b}: type {high} {}, {flags}", row.name)
}

/// Explains a variable byte integer of several bytes as a sum.
fn sum(bytes: &[u8]) -> String {
    if bytes.len() < 2 {
        return String::new();
    }
    let terms: Vec<_> = bytes
        .iter()
        .enumerate()
        .map(|(n, byte)| {
            let digit = byte & 0x7F;
            if n == 0 {
                format!("{digit}")
            } else {
                format!("{digit} * {}", 128_u32.pow(n.try_into().unwrap_or(0)))
            }
        })
        .collect();
    format!(" ({}; 0x80 says that a byte follows)", terms.join(" + "))
}

fn connect_flags(flags: u8) -> String {
    let bit = |mask: u8| u8::from(flags & mask != 0);
    format!(
        "connect flags {flags:08b}: user name {}, password {}, will retain {}, will QoS {}, will {}, clean start {}, reserved 0",
        bit(0x80),
        bit(0x40),
        bit(0x20),
        flags >> 3 & 3,
        bit(0x04),
        bit(0x02)
    )
}

fn is_string(name: &str) -> bool {
    matches!(
        name,
        "protocol name"
            | "client identifier"
            | "will topic"
            | "will payload"
            | "user name"
            | "password"
            | "topic name"
            | "topic filter"
    )
}

/// Recognises a property, whose first byte is its identifier.
fn is_property(name: &str, row: &Row) -> bool {
    let name = name.strip_prefix("will ").unwrap_or(name);
    row.bytes.first().is_some_and(|id| {
        mqtt_tokio::proto::PropertyId::new(*id).is_some_and(|id| id.to_string() == name)
    })
}
