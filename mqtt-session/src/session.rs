//! One side of a conversation, without its role: the session that survives, the connection that does not, and the bytes
//! between them and the transport. `client.rs` and `server.rs` decide which packets may come when; what happens to
//! messages and acknowledgements happens here.

use core::num::NonZeroU32;

use mqtt_proto::{
    Ack, AckKind, Decoded, Delivery, Disconnect, Encode, FixedHeader, Packet, PacketType,
    Properties, Publish, ReasonCode, TopicName, Version,
};

use crate::alias::Aliases;
use crate::config::Config;
use crate::connection::{Connection, Phase};
use crate::error::{Refused, Violation};
use crate::event::{Ended, Outgoing, Receipt, Step, Token};
use crate::inbound::{Arrival, Inbound};
use crate::outbound::Outbound;
use crate::outbox::{ACK_LEN, Outbox, to_usize};
use crate::storage::{Parts, Storage};

/// The state that belongs to a client identifier, not to a connection (section 4.1).
pub(crate) struct Session<S: Storage> {
    pub(crate) outbound: Outbound<S::Kept, S::Slots>,
    pub(crate) inbound: Inbound<S::Received>,
}

/// FNV-1a: enough to tell the few identifiers that one application uses apart, in four bytes.
pub(crate) fn fingerprint(client_id: impl AsRef<[u8]>) -> NonZeroU32 {
    let hash = client_id
        .as_ref()
        .iter()
        .fold(0x811C_9DC5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
    NonZeroU32::new(hash).unwrap_or(NonZeroU32::MAX)
}

pub(crate) struct Side<S: Storage> {
    pub(crate) config: Config,
    pub(crate) session: Session<S>,
    pub(crate) connection: Connection,
    pub(crate) outbox: Outbox<S::Outgoing>,
    pub(crate) aliases_in: Aliases<S::Aliases>,
    aliases_out: Aliases<S::Aliases>,
    /// The session that the peer has, or may have, is not the one here: it has to begin anew.
    pub(crate) must_start_clean: bool,
}

/// Whether there is any MQTT 5 in this build.
pub(crate) const V5: bool = Version::V5.is_v5();

/// Whether speed goes before size.
pub(crate) const FAST: bool = cfg!(target_pointer_width = "64");

impl<S: Storage> Side<S> {
    pub(crate) fn new(config: Config, storage: S) -> Self {
        let Parts {
            outgoing,
            kept,
            slots,
            received,
            aliases_in,
            aliases_out,
        } = storage.into_parts();
        Self {
            connection: Connection::new(config.version, &config),
            config,
            session: Session {
                outbound: Outbound::new(kept, slots, config.version),
                inbound: Inbound::new(received),
            },
            outbox: Outbox::new(outgoing),
            aliases_in: Aliases::new(aliases_in),
            aliases_out: Aliases::new(aliases_out),
            must_start_clean: false,
        }
    }

    /// A new network connection: nothing of the last one stays.
    pub(crate) fn open(&mut self, version: Version) {
        self.lost();
        (self.connection.phase, self.connection.version) = (Phase::Connecting, version);
    }

    /// The network connection is gone.
    pub(crate) fn lost(&mut self) {
        self.stop_large();
        if self.connection.phase != Phase::Offline {
            self.session.outbound.disconnected();
            self.session.inbound.disconnected();
        }
        self.connection = Connection::new(self.connection.version, &self.config);
        self.outbox.clear();
        self.aliases_in.clear();
        self.aliases_out.clear();
    }

    /// Both sides agreed to go on with the session, or to begin a new one.
    pub(crate) fn connected(&mut self, resumed: bool) {
        self.connection.phase = Phase::Connected;
        if !resumed {
            self.session_lost();
        }
        self.pump();
    }

    /// The peer has no session, or not the one that is here.
    pub(crate) fn session_lost(&mut self) {
        self.session.inbound.clear();
        self.session.outbound.session_lost(self.config.session_lost);
    }

    /// How many bytes are needed before the front of the input says something.
    #[inline]
    pub(crate) fn needs(&self, input: &[u8]) -> Option<usize> {
        if self.connection.pieces.get().is_some() {
            return input.is_empty().then_some(1);
        }
        match FixedHeader::decode(input, self.connection.version, self.connection.packet_limit) {
            Ok(None) => Some(input.len().wrapping_add(1).max(2)),
            Ok(Some(header)) if header.packet_len() > input.len() => Some(header.packet_len()),
            Ok(Some(_)) | Err(_) => None,
        }
    }

    /// The version and the size of the packets that are read now.
    #[inline]
    pub(crate) const fn reads(&self) -> (Version, u32) {
        (self.connection.version, self.connection.packet_limit)
    }

    /// What a step is while there is no connection: what comes in is dropped.
    #[inline]
    pub(crate) fn without_connection<E>(&self, input: &[u8]) -> Option<Step<E>> {
        match self.connection.phase {
            Phase::Connected | Phase::Connecting => None,
            Phase::Offline | Phase::Closing if input.is_empty() => Some(Step::Needs(1)),
            Phase::Offline | Phase::Closing => Some(Step::Packet {
                consumed: input.len(),
                event: None,
            }),
        }
    }

    /// The PUBLISH or acknowledgement at the front of the input of a connection, if that is what is there whole and its answer
    /// has room: most packets are, and this way they go from the input to their event without being put together in
    /// between. A short cut, taken where speed goes before size. What `forbidden` says of a message is its role's own rule,
    /// `arrived` and `acknowledged` make its role's events.
    #[inline(always)]
    pub(crate) fn common<'i, E>(
        &mut self,
        input: &'i [u8],
        forbidden: impl FnOnce(&Publish<'_>) -> bool,
        arrived: impl FnOnce(Arrival, Publish<'i>) -> Option<E>,
        acknowledged: impl FnOnce(Option<(Token, ReasonCode)>, Properties<'i>) -> Option<E>,
    ) -> Option<Result<Step<E>, Violation>> {
        if !FAST
            || self.connection.phase != Phase::Connected
            || self.connection.pieces.get().is_some()
            || self.session.outbound.has_ended()
        {
            return None;
        }
        let (version, limit) = self.reads();
        match input.first()? {
            0x30..0x40 => match Packet::decode(input, version, limit) {
                Ok(Decoded::Packet {
                    packet: Packet::Publish(publish),
                    consumed,
                }) if self.answer_fits() => {
                    let arrival = if forbidden(&publish) {
                        Err(Violation::Unexpected(PacketType::Publish))
                    } else {
                        self.on_publish(&publish)
                    };
                    Some(match arrival {
                        Ok(arrival) => Ok(Step::Packet {
                            consumed,
                            event: arrived(arrival, publish),
                        }),
                        Err(violation) => Err(violation),
                    })
                }
                _ => None,
            },
            0x40..0x80 => match &Packet::decode(input, version, limit) {
                Ok(Decoded::Packet { packet, consumed }) if self.answer_fits() => {
                    let (kind, ack) = packet.as_ack()?;
                    let consumed = *consumed;
                    Some(self.on_ack(kind, ack).map(|ended| Step::Packet {
                        consumed,
                        event: acknowledged(ended, ack.properties),
                    }))
                }
                _ => None,
            },
            _ => None,
        }
    }

    #[inline]
    pub(crate) fn answer_fits(&mut self) -> bool {
        let limit = to_usize(self.config.outgoing_limit);
        self.outbox.control_fits(ACK_LEN, limit)
    }

    #[inline]
    pub(crate) fn on_publish(&mut self, publish: &Publish<'_>) -> Result<Arrival, Violation> {
        self.learn_alias(publish)?;
        self.arrived(publish.delivery)
    }

    #[inline]
    pub(crate) fn learn_alias(&mut self, publish: &Publish<'_>) -> Result<(), Violation> {
        if let Some(alias) = publish.topic_alias
            && self.connection.version.is_v5()
        {
            // 5 [MQTT-3.3.2-9], [MQTT-3.3.2-11]
            let known = if alias.get() > self.connection.alias_maximum {
                false
            } else if publish.topic.is_none() {
                self.aliases_in.topic(alias).is_some()
            } else {
                self.aliases_in.set(alias, publish.topic)
            };
            if !known {
                return Err(Violation::TopicAlias(alias.get()));
            }
        }
        Ok(())
    }

    /// A message came whole: it is acknowledged, or waits for that.
    #[inline]
    pub(crate) fn arrived(&mut self, delivery: Delivery) -> Result<Arrival, Violation> {
        let Some(id) = delivery.packet_id() else {
            return Ok(Arrival::New(None));
        };
        let Self {
            session,
            connection,
            outbox,
            config,
            ..
        } = self;
        let inbound = &mut session.inbound;
        inbound.publish(delivery.qos(), id, config, connection, outbox)
    }

    /// The token of the message that this ended, if it ended one, and how.
    #[inline]
    pub(crate) fn on_ack(
        &mut self,
        kind: AckKind,
        ack: &Ack<'_>,
    ) -> Result<Option<(Token, ReasonCode)>, Violation> {
        if kind == AckKind::PubRel {
            self.session
                .inbound
                .release(ack.packet_id, &mut self.outbox, self.connection.version);
            return Ok(None);
        }
        let window = &mut self.connection.window;
        let ended = self.session.outbound.acknowledge(
            kind,
            ack.packet_id,
            ack.reason,
            window,
            &mut self.outbox,
        )?;
        if ended.is_some() {
            self.pump();
        }
        // 5, section 3.7.2.1: a PUBCOMP that does not know the identifier any more is no error; the message has arrived.
        let reason = if kind == AckKind::PubComp {
            ReasonCode::Success
        } else {
            ack.reason
        };
        Ok(ended.map(|token| (token, reason)))
    }

    pub(crate) fn publish(&mut self, message: &Outgoing<'_>) -> Result<Option<Token>, Refused> {
        if V5 {
            self.connection.supported.publish(message)?;
        }
        let Self {
            session,
            connection,
            outbox,
            aliases_out,
            config,
            ..
        } = self;
        let (online, auto_alias) = (connection.phase == Phase::Connected, connection.auto_alias);
        let alias = |publish: &mut Publish<'_>| {
            if let Some((alias, known)) = aliases_out.assign(publish.topic, auto_alias) {
                publish.topic_alias = Some(alias);
                if known {
                    publish.topic = TopicName::NONE;
                }
            }
        };
        session.outbound.publish(
            message,
            online,
            (cfg!(feature = "aliases") && auto_alias > 0).then_some(alias),
            &mut connection.window,
            outbox,
            config,
        )
    }

    pub(crate) fn acknowledge(
        &mut self,
        receipt: Receipt,
        reason: ReasonCode,
    ) -> Result<(), Refused> {
        let online = self.connection.phase == Phase::Connected;
        self.session.inbound.acknowledge(
            receipt,
            reason,
            &mut self.outbox,
            self.connection.version,
            online,
        )
    }

    /// The transport took `n` bytes: what waited for room may go.
    #[inline]
    pub(crate) fn sent(&mut self, n: usize) {
        if self.outbox.large.get().is_none() {
            self.outbox.sent(n);
        } else {
            self.sent_with_large(n);
        }
        if self.connection.phase == Phase::Connected {
            self.session.inbound.flush(&mut self.outbox);
            self.pump();
        }
    }

    #[inline]
    fn pump(&mut self) {
        if self.session.outbound.waits(&self.connection.window) {
            self.session
                .outbound
                .pump(&mut self.connection.window, &mut self.outbox, &self.config);
        }
    }

    pub(crate) fn next_ended(&mut self) -> Option<(Token, Ended)> {
        self.session
            .outbound
            .next_ended(&mut self.connection.window)
    }

    /// Sends a packet that belongs to no flow.
    pub(crate) fn send(&mut self, packet: &dyn Encode) -> Result<(), Refused> {
        let version = self.connection.version;
        let len = packet.encoded_len(version)?;
        let limit = to_usize(self.config.outgoing_limit);
        let max = to_usize(self.connection.window.packet_size).min(limit);
        if len > max {
            return Err(Refused::TooLarge { len, max });
        }
        if !self.outbox.control_fits(len, limit) {
            return Err(Refused::Full);
        }
        let room = self.outbox.control(len).ok_or(Refused::Full)?;
        let len = packet.encode(version, room)?;
        self.outbox.advance(len);
        Ok(())
    }

    /// The peer broke a rule: says so where the version can, and ends the connection. The session stays.
    #[cold]
    pub(crate) fn fail(&mut self, violation: &Violation) {
        self.stop_large();
        // 5 [MQTT-4.13.1-1]; before CONNACK no DISCONNECT may go (5 [MQTT-3.14.0-1]).
        if self.connection.version.is_v5() && self.connection.phase == Phase::Connected {
            let reason = violation.reason_code();
            let reason = if reason.belongs_in(PacketType::Disconnect) {
                reason
            } else {
                ReasonCode::ProtocolError
            };
            let _ = self.send(&Disconnect {
                reason,
                ..Disconnect::default()
            });
        }
        self.connection.phase = Phase::Closing;
    }

    #[cold]
    pub(crate) fn time_out(&mut self, violation: Violation) -> Result<(), Violation> {
        self.fail(&violation);
        Err(violation)
    }

    /// DISCONNECT, and nothing behind it.
    pub(crate) fn disconnect(&mut self, disconnect: &Disconnect<'_>) -> Result<(), Refused> {
        if self.connection.phase != Phase::Connected {
            return Err(Refused::WrongPhase);
        }
        self.send(disconnect)?;
        self.connection.phase = Phase::Closing;
        Ok(())
    }

    pub(crate) fn topic(&self, publish: &Publish<'_>) -> Option<TopicName<'_>> {
        publish
            .topic_alias
            .and_then(|alias| self.aliases_in.topic(alias))
    }

    /// Whether a message of this quality of service would find a window open; not whether it fits the buffer.
    pub(crate) const fn is_connected(&self) -> bool {
        matches!(self.connection.phase, Phase::Connected)
    }
}
