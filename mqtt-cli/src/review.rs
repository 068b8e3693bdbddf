//! What no packet shows alone: packets of one connection that do not go together.

use mqtt_tokio::proto::{Packet, PacketId, Version};

/// What was seen of a connection.
#[derive(Debug, Default)]
pub(crate) struct Review {
    /// The clean start flag of the last CONNECT.
    clean_start: Option<bool>,
}

impl Review {
    /// Takes the next packet and returns what is worth a remark.
    pub(crate) fn packet(&mut self, packet: &Packet<'_>, version: Version) -> Vec<String> {
        let mut notes = Vec::new();
        match packet {
            Packet::Connect(connect) => {
                self.clean_start = Some(connect.clean_start);
                if connect.lacks_client_id() {
                    notes.push(format!(
                        "MQTT {version} wants a client identifier here; brokers refuse this CONNECT"
                    ));
                }
            }
            // 3.1.1 [MQTT-3.2.2-1], 5 [MQTT-3.2.2-2]: a clean start ends the session that was there.
            Packet::ConnAck(connack)
                if connack.session_present && self.clean_start == Some(true) =>
            {
                let statement = if version.is_v5() {
                    "5 [MQTT-3.2.2-2]"
                } else {
                    "3.1.1 [MQTT-3.2.2-1]"
                };
                notes.push(format!(
                    "the broker says that it has a session, although CONNECT asked for a clean start: {statement}"
                ));
            }
            Packet::Publish(publish) => {
                notes.extend(publish.delivery.packet_id().and_then(text_identifier));
            }
            Packet::PubAck(ack) | Packet::PubRec(ack) => {
                notes.extend(text_identifier(ack.packet_id));
            }
            _ => {}
        }
        notes
    }
}

/// An identifier that is the beginning of JSON or XML: most likely QoS was changed in the first byte only.
fn text_identifier(id: PacketId) -> Option<String> {
    let bytes = id.get().to_be_bytes();
    let [first, second] = bytes;
    let begins = matches!(first, b'{' | b'[' | b'<') && (b' '..=b'~').contains(&second);
    begins.then(|| {
        format!(
            "the packet identifier {id} is the text {:?}: at QoS 1 and 2 two bytes of packet identifier stand before the payload; if \
             they were forgotten, the payload's first two bytes are taken for it",
            String::from_utf8_lossy(&bytes)
        )
    })
}
