#![doc = include_str!("../README.md")]
#![no_std]
#![forbid(unsafe_code)]
#![warn(clippy::arithmetic_side_effects, clippy::panic, clippy::unwrap_used)]
#![warn(clippy::as_conversions, clippy::expect_used, clippy::indexing_slicing)]

mod header;
mod packet;
mod ping;

mod ack;
mod auth;
mod connack;
mod connect;
mod disconnect;
mod encode;
mod publish;
mod subscribe;
mod unsubscribe;

mod error;
mod id;
mod list;
#[cfg(feature = "bytes")]
mod message;
pub mod num;
mod out;
mod properties;
mod property;
mod topic;
mod tune;
mod typed;
mod varint;
mod version;
pub mod wire;

/// Writes packets in two steps, [`packet_len`](write::packet_len) and [`write_packet`](write::write_packet), without the typed
/// structs. The machines of this workspace write with this module; programs use [`Encode`].
pub mod write {
    pub use crate::encode::{Body, Draft, Filter, Request, packet_len, write_packet};
    pub use crate::error::Unencodable;
    pub use crate::out::Out;
}

pub use ack::{Ack, AckKind};
pub use auth::Auth;
pub use connack::ConnAck;
pub use connect::{Connect, Will};
pub use disconnect::Disconnect;
pub use encode::Encode;
pub use error::{DecodeError, EncodeError, Field, Rule};
pub use header::FixedHeader;
pub use id::{Delivery, PacketId, QoS, TopicAlias};
pub use list::{Element, List, ListIter};
#[cfg(feature = "bytes")]
pub use message::Message;
pub use packet::{Decoded, Packet};
pub use ping::{PingReq, PingResp};
pub use properties::{Properties, PropertyIter};
pub use property::{Property, PropertyValue};
pub use publish::{Head, Publish, PublishHead};
pub use subscribe::{RetainHandling, SubAck, Subscribe, Subscription};
pub use topic::{InvalidTopic, TopicFilter, TopicName};
pub use unsubscribe::{UnsubAck, Unsubscribe};
pub use varint::VarInt;
pub use version::Version;
pub use wire::{PacketType, PropertyId, PropertyKind, ReasonCode};

/// The length in bytes of the longest packet that the protocol allows: a remaining length of 268,435,455 and a fixed header of
/// five bytes.
///
/// As the `limit` of [`Packet::decode`], it accepts every packet that the protocol allows.
pub const MAX_PACKET: u32 = 268_435_460;
