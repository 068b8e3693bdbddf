//! What a peer did wrong, in one byte, on its way to the edge, where it becomes a [`Violation`].

use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::wire::{Reader, frame};
use mqtt_proto::{DecodeError, PacketId, PacketType, ReasonCode, Rule};

use crate::engine::Engine;
use crate::error::Violation;
use crate::progress::Progress;

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

    /// The violation of a tick.
    #[cold]
    pub(crate) const fn timeout(self) -> Violation {
        match self {
            Self::PingTimeout => Violation::PingTimeout,
            Self::KeepAliveTimeout => Violation::KeepAliveTimeout,
            _ => Violation::ConnectTimeout,
        }
    }

    /// The violation of a step, with what the step knows of it.
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
                filters: to_usize(progress.left),
            },
            Self::AuthNotAgreed => Violation::AuthNotAgreed,
            timeout => timeout.timeout(),
        }
    }
}

/// The exact error of malformed bytes.
fn malformed(engine: &Engine, progress: &Progress<'_>) -> DecodeError {
    let (version, limit) = (engine.link.version, engine.link.packet_limit);
    let frame = frame(progress.input, engine.is_v5(), limit);
    let (left, missing) = (to_usize(progress.left), progress.consumed);
    let body = Reader::failed(progress.fault, left, missing);
    DecodeError::of_packet(frame, &body, progress.input, (version, limit))
}
