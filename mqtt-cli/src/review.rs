//! Finds packets of one connection that contradict each other.

use mqtt_tokio::proto::{Packet, PacketId, PacketType, QoS, Version};

/// The sender of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum From {
    Client,
    Broker,
}

/// An answer that a packet requires.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Awaited {
    by: From,
    packet: PacketType,
    id: Option<PacketId>,
}

/// The state of a connection, as far as its packets determine it.
#[derive(Debug, Default)]
pub(crate) struct Review {
    /// The clean start flag of the last CONNECT.
    clean_start: Option<bool>,
    awaited: Vec<Awaited>,
    /// The keep-alive of the last CONNECT.
    pub(crate) keep_alive: Option<u16>,
    /// Whether the broker broke a rule that involves several packets.
    pub(crate) is_broken: bool,
}

impl Review {
    /// Adds the next packet and returns remarks. Answers are checked only if the sender is known.
    pub(crate) fn packet(
        &mut self,
        packet: &Packet<'_>,
        version: Version,
        from: Option<From>,
    ) -> Vec<String> {
        let mut notes = Vec::new();
        match packet {
            Packet::Connect(connect) => {
                self.clean_start = Some(connect.clean_start);
                self.keep_alive = Some(connect.keep_alive);
                self.awaited.clear();
                if connect.lacks_client_id() {
                    notes.push(format!(
                        "MQTT {version} wants a client identifier here; brokers refuse this CONNECT"
                    ));
                }
            }
            // 3.1.1 [MQTT-3.2.2-1], 5 [MQTT-3.2.2-2]: a clean start ends the old session.
            Packet::ConnAck(connack)
                if connack.session_present && self.clean_start == Some(true) =>
            {
                self.is_broken = true;
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
        if let Some(from) = from {
            notes.extend(self.answer(packet, from));
        }
        notes
    }

    /// Returns whether an answer of the broker is missing.
    pub(crate) fn has_missing_answer(&self) -> bool {
        self.awaited
            .iter()
            .any(|awaited| awaited.by == From::Broker)
    }

    /// Notes which request a packet answers, and which answer it requires.
    fn answer(&mut self, packet: &Packet<'_>, from: From) -> Option<String> {
        let id = identifier(packet);
        let note = if is_answer(packet.packet_type()) {
            let place = self.awaited.iter().position(|awaited| {
                awaited.by == from && awaited.packet == packet.packet_type() && awaited.id == id
            });
            match place {
                Some(place) => {
                    self.awaited.remove(place);
                    None
                }
                // A resumed session has identifiers of earlier connections.
                None if self.clean_start == Some(true) => {
                    self.is_broken |= from == From::Broker;
                    let what = packet.packet_type();
                    let id = id.map_or_else(String::new, |id| format!(" {id}"));
                    Some(format!("no request awaits this {what}{id}"))
                }
                None => None,
            }
        } else {
            None
        };
        if let Some((packet, id)) = asks_for(packet) {
            let by = match from {
                From::Client => From::Broker,
                From::Broker => From::Client,
            };
            self.awaited.push(Awaited { by, packet, id });
        }
        note
    }
}

const fn is_answer(packet: PacketType) -> bool {
    use PacketType as P;
    matches!(
        packet,
        P::ConnAck | P::PubAck | P::PubRec | P::PubComp | P::SubAck | P::UnsubAck | P::PingResp
    )
}

/// Returns the answer that a packet requires.
fn asks_for(packet: &Packet<'_>) -> Option<(PacketType, Option<PacketId>)> {
    let answer = match packet {
        Packet::Connect(_) => PacketType::ConnAck,
        Packet::Publish(publish) => match publish.qos() {
            QoS::AtMostOnce => return None,
            QoS::AtLeastOnce => PacketType::PubAck,
            QoS::ExactlyOnce => PacketType::PubRec,
        },
        Packet::PubRel(_) => PacketType::PubComp,
        Packet::Subscribe(_) => PacketType::SubAck,
        Packet::Unsubscribe(_) => PacketType::UnsubAck,
        Packet::PingReq => PacketType::PingResp,
        _ => return None,
    };
    Some((answer, identifier(packet)))
}

fn identifier(packet: &Packet<'_>) -> Option<PacketId> {
    match packet {
        Packet::Publish(publish) => publish.delivery.packet_id(),
        Packet::Subscribe(it) => Some(it.packet_id),
        Packet::SubAck(it) => Some(it.packet_id),
        Packet::Unsubscribe(it) => Some(it.packet_id),
        Packet::UnsubAck(it) => Some(it.packet_id),
        other => other.as_ack().map(|(_, ack)| ack.packet_id),
    }
}

/// Returns a remark on an identifier that is the beginning of JSON or XML: most likely only the QoS in the first byte was
/// changed.
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
