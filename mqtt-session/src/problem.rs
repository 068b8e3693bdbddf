//! What a peer did wrong, in one byte, on its way to the edge, where it becomes a [`Violation`].

use mqtt_proto::num::to_u32;
use mqtt_proto::{
    DecodeError, Decoded, Packet, PacketId, PacketType, PublishHead, ReasonCode, Rule,
};

use crate::engine::Engine;
use crate::error::Violation;
use crate::progress::Progress;
use crate::tune::LARGE;

/// What a peer did wrong. What belongs to it lies in the step in which it happened.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Problem {
    /// Bytes that are no packet of this version, or one too large.
    Malformed,
    /// What must be there whole is larger than the buffer.
    NoRoom,
    Unexpected,
    WrongAck,
    ReceiveMaximum,
    TopicAlias,
    UnknownSession,
    CodeCount,
    AuthNotAgreed,
    PingTimeout,
    KeepAliveTimeout,
    ConnectTimeout,
}

impl Problem {
    /// The reason code with which MQTT 5 says it; of malformed bytes the step has it.
    pub(crate) const fn reason_code(self) -> ReasonCode {
        match self {
            Self::NoRoom => ReasonCode::PacketTooLarge,
            Self::ReceiveMaximum => ReasonCode::ReceiveMaximumExceeded,
            Self::TopicAlias => ReasonCode::TopicAliasInvalid,
            Self::KeepAliveTimeout => ReasonCode::KeepAliveTimeout,
            Self::PingTimeout | Self::ConnectTimeout => ReasonCode::UnspecifiedError,
            _ => ReasonCode::ProtocolError,
        }
    }

    /// The violation, with what the step knows of it.
    #[cold]
    pub(crate) fn violation(self, engine: &Engine, progress: &Progress<'_>) -> Violation {
        let view = &progress.view;
        let packet = PacketType::new(view.kind);
        match self {
            Self::Malformed => Violation::Malformed(malformed(engine, progress)),
            Self::NoRoom => Violation::Malformed(DecodeError {
                packet,
                at: 1,
                rule: Rule::TooLarge {
                    len: progress.left,
                    max: to_u32(progress.input.len()),
                },
                version: engine.link.version,
            }),
            Self::Unexpected => Violation::Unexpected(packet.unwrap_or(PacketType::Connect)),
            Self::WrongAck => Violation::WrongAck {
                packet: packet.unwrap_or(PacketType::PubAck),
                id: PacketId::new(view.id).unwrap_or(PacketId::FIRST),
            },
            Self::ReceiveMaximum => Violation::ReceiveMaximumExceeded,
            Self::TopicAlias => Violation::TopicAlias(view.alias),
            Self::UnknownSession => Violation::SessionPresentWithoutState,
            Self::CodeCount => Violation::CodeCount {
                codes: view.body.len(),
                filters: mqtt_proto::num::to_usize(progress.left),
            },
            Self::AuthNotAgreed => Violation::AuthNotAgreed,
            Self::PingTimeout => Violation::PingTimeout,
            Self::KeepAliveTimeout => Violation::KeepAliveTimeout,
            Self::ConnectTimeout => Violation::ConnectTimeout,
        }
    }
}

/// The exact error of malformed bytes: the typed decoder is asked once more, which knows the values.
#[cold]
fn malformed(engine: &Engine, progress: &Progress<'_>) -> DecodeError {
    let (version, limit) = (engine.link.version, engine.link.packet_limit);
    if LARGE {
        match Packet::decode(progress.input, version, limit) {
            Err(error) => return error,
            Ok(Decoded::Needs(_)) => {
                if let Err(error) = PublishHead::decode(progress.input, version, limit) {
                    return error;
                }
            }
            Ok(Decoded::Packet { .. }) => {}
        }
    }
    DecodeError {
        packet: PacketType::new(progress.view.kind),
        at: 0,
        rule: Rule::Truncated { missing: 0 },
        version,
    }
}
