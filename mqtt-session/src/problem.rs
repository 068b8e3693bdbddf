//! The errors of a peer in one byte, inside the machine. A caller gets them as a [`Violation`].

use mqtt_proto::num::{to_u32, to_usize};
use mqtt_proto::wire::{Reader, frame};
use mqtt_proto::{DecodeError, PacketId, PacketType, ReasonCode, Rule};

use crate::engine::Engine;
use crate::error::Violation;
use crate::progress::Progress;

/// An error of the peer. The step in which it happened has the values that belong to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Problem {
    /// The bytes are not a packet of this version, or the packet is too large.
    Malformed,
    /// A packet that must be complete in the input is larger than the input buffer.
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
    /// Returns the reason code that MQTT 5 has for it. For malformed bytes the step has it.
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

    /// Returns the violation of a time-out.
    pub(crate) const fn timeout(self) -> Violation {
        match self {
            Self::PingTimeout => Violation::PingTimeout,
            Self::KeepAliveTimeout => Violation::KeepAliveTimeout,
            _ => Violation::ConnectTimeout,
        }
    }

    /// Returns the violation of a step, with the values that the step has.
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

/// Returns the exact error of malformed bytes.
fn malformed(engine: &Engine, progress: &Progress<'_>) -> DecodeError {
    let (version, limit) = (engine.link.version, engine.link.ours.packet);
    let frame = frame(progress.input, engine.is_v5(), limit);
    let (left, missing) = (to_usize(progress.left), progress.consumed);
    let body = Reader::failed(progress.fault, left, missing);
    DecodeError::of_packet(frame, &body, progress.input, (version, limit))
}
