//! Prints a message as JSON in the form of mosquitto_sub.

use std::io::{self, Write};

use chrono::{DateTime, Local};
use mqtt_tokio::Message;
use serde::ser::{Serialize, SerializeMap, Serializer};
use serde_json::ser::Formatter;
use serde_json::{Value, json};

/// An object whose entries keep their order, and may repeat a name, like user properties.
struct Object(Vec<(String, Node)>);

enum Node {
    Value(Value),
    Object(Object),
}

impl Serialize for Object {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(self.0.len()))?;
        for (name, node) in &self.0 {
            match node {
                Node::Value(value) => map.serialize_entry(name, value)?,
                Node::Object(object) => map.serialize_entry(name, object)?,
            }
        }
        map.end()
    }
}

impl Object {
    fn add(&mut self, name: &str, value: Value) {
        self.0.push((name.to_owned(), Node::Value(value)));
    }
}

/// Returns the message with this payload, in one line or several.
pub(crate) fn text(
    message: &Message,
    now: &DateTime<Local>,
    payload: Value,
    pretty: bool,
) -> String {
    let object = object(message, now, payload);
    if pretty {
        let mut out = Vec::new();
        let mut serializer = serde_json::Serializer::with_formatter(&mut out, Lines::default());
        // Writing to a vector does not fail, and the names are strings.
        let _ = object.serialize(&mut serializer);
        return String::from_utf8_lossy(&out).into_owned();
    }
    serde_json::to_string(&object).unwrap_or_default()
}

fn object(message: &Message, now: &DateTime<Local>, payload: Value) -> Object {
    let mut object = Object(Vec::new());
    object.add(
        "tst",
        json!(now.format("%Y-%m-%dT%H:%M:%S%.6f%z").to_string()),
    );
    object.add("topic", json!(message.topic().as_str()));
    object.add("qos", json!(message.qos.get()));
    object.add("retain", json!(u8::from(message.retain)));
    object.add("payloadlen", json!(message.payload.len()));
    if let Some(id) = message.packet_id {
        object.add("mid", json!(id.get()));
    }
    let extra = properties(message);
    if !extra.0.is_empty() {
        object
            .0
            .push(("properties".to_owned(), Node::Object(extra)));
    }
    object.add("payload", payload);
    object
}

fn properties(message: &Message) -> Object {
    let properties = message.properties();
    let mut extra = Object(Vec::new());
    if let Some(text) = properties.content_type() {
        extra.add("content-type", json!(text));
    }
    if let Some(seconds) = properties.message_expiry_interval() {
        extra.add("message-expiry-interval", json!(seconds));
    }
    if let Some(is_text) = properties.payload_format_indicator() {
        extra.add("payload-format-indicator", json!(u8::from(is_text)));
    }
    if let Some(topic) = properties.response_topic() {
        extra.add("response-topic", json!(topic.as_str()));
    }
    if let Some(data) = properties.correlation_data() {
        extra.add("correlation-data", json!(String::from_utf8_lossy(data)));
    }
    let pairs: Vec<_> = properties
        .user_properties()
        .map(|(name, value)| (name.to_owned(), Node::Value(json!(value))))
        .collect();
    if !pairs.is_empty() {
        let pairs = Node::Object(Object(pairs));
        extra.0.push(("user-properties".to_owned(), pairs));
    }
    extra
}

/// The layout of cJSON, which mosquitto_sub uses: tabs, one line for each entry of an object, and arrays in one line.
#[derive(Default)]
struct Lines {
    depth: usize,
    has_entries: bool,
}

impl Lines {
    fn indent<W: ?Sized + Write>(&self, out: &mut W) -> io::Result<()> {
        (0..self.depth).try_for_each(|_| out.write_all(b"\t"))
    }
}

impl Formatter for Lines {
    fn begin_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        self.has_entries = false;
        out.write_all(b"{\n")
    }

    fn begin_object_key<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if !first {
            out.write_all(b",\n")?;
        }
        self.indent(out)
    }

    fn begin_object_value<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        out.write_all(b":\t")
    }

    fn end_object_value<W: ?Sized + Write>(&mut self, _: &mut W) -> io::Result<()> {
        self.has_entries = true;
        Ok(())
    }

    fn end_object<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        if self.has_entries {
            out.write_all(b"\n")?;
        }
        self.indent(out)?;
        out.write_all(b"}")
    }

    fn begin_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth += 1;
        out.write_all(b"[")
    }

    fn end_array<W: ?Sized + Write>(&mut self, out: &mut W) -> io::Result<()> {
        self.depth -= 1;
        out.write_all(b"]")
    }

    fn begin_array_value<W: ?Sized + Write>(&mut self, out: &mut W, first: bool) -> io::Result<()> {
        if first { Ok(()) } else { out.write_all(b", ") }
    }
}
