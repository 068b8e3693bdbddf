//! Splits a packet into its fields with their bytes, for people who write packets by hand.
//!
//! The rows are made from a decoded packet, so all lengths in it are valid; [`Cursor`] only splits it.

use mqtt_tokio::proto::{
    ConnAck, Connect, FixedHeader, MAX_PACKET, Packet, PacketType, PropertyId, PropertyKind, QoS,
    ReasonCode, Version,
};
use serde_json::{Value, json};

use crate::hex;

/// A field: its bytes, its name and its value.
#[derive(Debug)]
pub(crate) struct Row {
    pub(crate) at: usize,
    pub(crate) bytes: Vec<u8>,
    pub(crate) name: String,
    /// The value as text; empty if the name is enough.
    pub(crate) text: String,
    /// The value for JSON.
    pub(crate) value: Value,
}

struct Cursor<'a> {
    bytes: &'a [u8],
    at: usize,
    rows: Vec<Row>,
}

/// Splits `bytes`, which decode to `packet`.
pub(crate) fn rows(bytes: &[u8], packet: &Packet<'_>, version: Version) -> Vec<Row> {
    let mut cursor = Cursor {
        bytes,
        at: 0,
        rows: Vec::new(),
    };
    // CONNECT contains its version.
    let version = match packet {
        Packet::Connect(connect) => connect.version,
        _ => version,
    };
    cursor.fixed_header(packet, version);
    let v5 = version.is_v5();
    match packet {
        Packet::Connect(connect) => cursor.connect(connect),
        Packet::ConnAck(connack) => cursor.connack(connack, v5),
        Packet::Publish(publish) => {
            cursor.text("topic name");
            if publish.delivery.packet_id().is_some() {
                cursor.u16("packet identifier", "");
            }
            cursor.properties(v5, "");
            cursor.rest("payload");
        }
        Packet::PubAck(ack) | Packet::PubRec(ack) | Packet::PubRel(ack) | Packet::PubComp(ack) => {
            cursor.u16("packet identifier", "");
            cursor.reason(ack.reason);
        }
        Packet::Subscribe(subscribe) => {
            cursor.u16("packet identifier", "");
            cursor.properties(v5, "");
            for _ in subscribe.filters {
                cursor.text("topic filter");
                cursor.u8("options", |options| subscription_options(options, v5));
            }
        }
        Packet::SubAck(suback) => {
            cursor.u16("packet identifier", "");
            cursor.properties(v5, "");
            cursor.codes(suback.codes.iter());
        }
        Packet::Unsubscribe(unsubscribe) => {
            cursor.u16("packet identifier", "");
            cursor.properties(v5, "");
            for _ in unsubscribe.filters {
                cursor.text("topic filter");
            }
        }
        Packet::UnsubAck(unsuback) => {
            cursor.u16("packet identifier", "");
            cursor.properties(v5, "");
            cursor.codes(unsuback.codes.iter());
        }
        Packet::Disconnect(disconnect) => cursor.reason(disconnect.reason),
        Packet::Auth(auth) => cursor.reason(auth.reason),
        Packet::PingReq | Packet::PingResp => {}
    }
    cursor.rows
}

/// Returns all fields after the fixed header in one line for logs.
pub(crate) fn summary(bytes: &[u8], packet: &Packet<'_>, version: Version) -> String {
    let rows = rows(bytes, packet, version);
    let mut line = rows.first().map_or_else(String::new, |first| {
        format!("{} {}", first.name, first.text)
            .trim_end()
            .to_owned()
    });
    let mut before = ", ";
    for row in rows.iter().skip(2).filter(|row| !row.text.is_empty()) {
        // Passwords are not logged.
        let text = if row.name == "password" {
            "***"
        } else {
            &row.text
        };
        line.push_str(before);
        line.push_str(&format!("{} {text}", row.name));
        before = ", ";
    }
    line
}

impl Cursor<'_> {
    fn push(&mut self, len: usize, name: &str, text: impl Into<String>, value: Value) {
        let end = (self.at + len).min(self.bytes.len());
        self.rows.push(Row {
            at: self.at,
            bytes: self.bytes.get(self.at..end).unwrap_or_default().to_vec(),
            name: name.to_owned(),
            text: text.into(),
            value,
        });
        self.at = end;
    }

    fn peek(&self, offset: usize) -> u8 {
        self.bytes.get(self.at + offset).copied().unwrap_or(0)
    }

    fn left(&self) -> usize {
        self.bytes.len() - self.at
    }

    fn number(&self, len: usize) -> u64 {
        (0..len).fold(0, |number, offset| {
            number << 8 | u64::from(self.peek(offset))
        })
    }

    fn u8<T: Into<String>>(&mut self, name: &str, say: impl FnOnce(u8) -> T) {
        let byte = self.peek(0);
        self.push(1, name, say(byte), json!(byte));
    }

    fn u16(&mut self, name: &str, unit: &str) {
        let number = self.number(2);
        self.push(2, name, format!("{number}{unit}"), json!(number));
    }

    fn text(&mut self, name: &str) {
        let len = self.string_len(0);
        let text = self.string(0);
        self.push(len, name, format!("{text:?}"), json!(text));
    }

    fn string_len(&self, offset: usize) -> usize {
        2 + usize::from(u16::from_be_bytes([
            self.peek(offset),
            self.peek(offset + 1),
        ]))
    }

    fn string_bytes(&self, offset: usize) -> &[u8] {
        let from = self.at + offset;
        self.bytes
            .get(from + 2..from + self.string_len(offset))
            .unwrap_or_default()
    }

    fn string(&self, offset: usize) -> String {
        String::from_utf8_lossy(self.string_bytes(offset)).into_owned()
    }

    fn binary(&mut self, name: &str) {
        let bytes = self.string_bytes(0).to_vec();
        self.push(self.string_len(0), name, content(&bytes), value(&bytes));
    }

    fn rest(&mut self, name: &str) {
        let bytes = self.bytes.get(self.at..).unwrap_or_default().to_vec();
        self.push(bytes.len(), name, content(&bytes), value(&bytes));
    }

    /// Returns the length and the value of the variable byte integer at the cursor.
    fn varint(&self) -> (usize, u64) {
        let mut number = 0;
        for offset in 0..4 {
            let byte = self.peek(offset);
            number |= u64::from(byte & 0x7F) << (7 * offset);
            if byte & 0x80 == 0 {
                return (offset + 1, number);
            }
        }
        (4, number)
    }

    fn fixed_header(&mut self, packet: &Packet<'_>, version: Version) {
        let name = packet.packet_type().to_string();
        let text = match packet {
            Packet::Publish(publish) => {
                let flags = [(publish.dup, ", DUP"), (publish.retain, ", retain")];
                let flags: String = flags
                    .iter()
                    .filter(|(set, _)| *set)
                    .map(|(_, flag)| *flag)
                    .collect();
                format!("QoS {}{flags}", publish.qos().get())
            }
            _ => String::new(),
        };
        self.push(1, &name, text, json!(name));
        let header = FixedHeader::decode(self.bytes, version, MAX_PACKET)
            .ok()
            .flatten();
        let (len, remaining) = header.map_or((1, 0), |header| {
            (header.header_len - 1, header.remaining_length)
        });
        self.push(
            usize::from(len),
            "remaining length",
            remaining.to_string(),
            json!(remaining),
        );
    }

    fn connect(&mut self, connect: &Connect<'_>) {
        let v5 = connect.version.is_v5();
        self.text("protocol name");
        self.u8("protocol level", |level| match level {
            3 => "MQTT 3.1",
            4 => "MQTT 3.1.1",
            0x83 => "MQTT 3.1, a bridge",
            0x84 => "MQTT 3.1.1, a bridge",
            _ => "MQTT 5",
        });
        self.connect_flags();
        self.u16("keep-alive", " s");
        self.properties(v5, "");
        self.text("client identifier");
        if connect.will.is_some() {
            self.properties(v5, "will ");
            self.text("will topic");
            self.binary("will payload");
        }
        if connect.user_name.is_some() {
            self.text("user name");
        }
        if connect.password.is_some() {
            self.binary("password");
        }
    }

    fn connack(&mut self, connack: &ConnAck<'_>, v5: bool) {
        self.u8("acknowledge flags", |flags| {
            if flags & 1 == 1 {
                "session present"
            } else {
                "no session present"
            }
        });
        let reason = connack.reason.to_string();
        self.u8(if v5 { "reason code" } else { "return code" }, |_| reason);
        self.properties(v5, "");
    }

    fn connect_flags(&mut self) {
        let flags = self.peek(0);
        let mut said = Vec::new();
        for (bit, name) in [
            (0x80, "user name"),
            (0x40, "password"),
            (0x20, "will retain"),
            (0x04, "will"),
        ] {
            if flags & bit != 0 {
                said.push(name.to_owned());
            }
        }
        if flags & 0x04 != 0 {
            said.push(format!("will QoS {}", flags >> 3 & 3));
        }
        if flags & 0x02 != 0 {
            said.push("clean start".to_owned());
        }
        self.push(1, "connect flags", said.join(", "), json!(said));
    }

    /// Splits the reason code and the properties, which MQTT 5 may leave out at the end of a packet.
    fn reason(&mut self, reason: ReasonCode) {
        if self.left() > 0 {
            self.u8("reason code", |_| reason.to_string());
        }
        let more = self.left() > 0;
        self.properties(more, "");
    }

    fn codes(&mut self, codes: impl Iterator<Item = ReasonCode>) {
        codes.for_each(|code| self.u8("reason code", |_| code.to_string()));
    }

    fn properties(&mut self, present: bool, prefix: &str) {
        if !present {
            return;
        }
        let (len, size) = self.varint();
        let end = self.at + len + usize::try_from(size).unwrap_or(usize::MAX);
        self.push(
            len,
            &format!("{prefix}property length"),
            size.to_string(),
            json!(size),
        );
        while self.at < end {
            let Some(id) = PropertyId::new(self.peek(0)) else {
                return;
            };
            self.property(id, prefix);
        }
    }

    fn property(&mut self, id: PropertyId, prefix: &str) {
        let name = format!("{prefix}{id}");
        match id.kind() {
            PropertyKind::Bool => self.number_property(1, &name),
            PropertyKind::U16 | PropertyKind::U16NonZero => self.number_property(2, &name),
            PropertyKind::U32 | PropertyKind::U32NonZero => self.number_property(4, &name),
            PropertyKind::VarInt => {
                self.at += 1;
                let (len, number) = self.varint();
                self.at -= 1;
                self.push(1 + len, &name, number.to_string(), json!(number));
            }
            PropertyKind::Text | PropertyKind::Topic => {
                let text = self.string(1);
                self.push(
                    1 + self.string_len(1),
                    &name,
                    format!("{text:?}"),
                    json!(text),
                );
            }
            PropertyKind::Binary => {
                let bytes = self.string_bytes(1).to_vec();
                self.push(
                    1 + self.string_len(1),
                    &name,
                    content(&bytes),
                    value(&bytes),
                );
            }
            PropertyKind::Pair => self.user_property(&name),
        }
    }

    /// Splits a property with an identifier and a number of `len` bytes.
    fn number_property(&mut self, len: usize, name: &str) {
        self.at += 1;
        let number = self.number(len);
        self.at -= 1;
        self.push(1 + len, name, number.to_string(), json!(number));
    }

    fn user_property(&mut self, name: &str) {
        let key_len = self.string_len(1);
        let (key, text) = (self.string(1), self.string(1 + key_len));
        let len = 1 + key_len + self.string_len(1 + key_len);
        let pair = format!("{key:?} = {text:?}");
        self.push(len, name, pair, json!([key, text]));
    }
}

fn subscription_options(options: u8, v5: bool) -> String {
    let qos = QoS::new(options & 3).unwrap_or_default().get();
    if !v5 {
        return format!("QoS {qos}");
    }
    let no_local = if options & 4 != 0 { ", no local" } else { "" };
    let as_published = if options & 8 != 0 {
        ", retain as published"
    } else {
        ""
    };
    let handling = match options >> 4 & 3 {
        0 => "retained messages are sent",
        1 => "retained messages are sent if the subscription is new",
        _ => "no retained messages",
    };
    format!("QoS {qos}{no_local}{as_published}, {handling}")
}

/// How many bytes of a payload are printed.
const SHOWN: usize = 64;

fn content(bytes: &[u8]) -> String {
    let count = match bytes.len() {
        0 => return "empty".to_owned(),
        1 => "1 byte".to_owned(),
        n => format!("{n} bytes"),
    };
    let shown = bytes.get(..SHOWN).unwrap_or(bytes);
    let dots = if shown.len() < bytes.len() {
        " ..."
    } else {
        ""
    };
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.contains(|c: char| c.is_control() && !c.is_whitespace()) => {
            let shown: String = text.chars().take(SHOWN).collect();
            format!("{count}: {shown:?}{dots}")
        }
        _ => format!("{count}: {}{dots}", hex::spaced(shown)),
    }
}

/// Returns text as text, and other bytes as hex.
fn value(bytes: &[u8]) -> Value {
    match std::str::from_utf8(bytes) {
        Ok(text) => json!(text),
        Err(_) => json!({ "hex": hex::spaced(bytes) }),
    }
}

/// Returns the name of the packet type of a first byte.
pub(crate) fn type_name(first: u8) -> String {
    PacketType::new(first >> 4).map_or_else(
        || format!("packet type {}", first >> 4),
        |known| known.to_string(),
    )
}
