//! The protocol as data: what the machines of this workspace use to read and write packets.
//!
//! Programs that want packets use [`crate::Packet`]; it stands on this module. Here a packet that came in is one [`View`],
//! whatever its type, a fault is one byte, and what is sent goes through one [`Writer`]:
//!
//! ```text
//! bytes -> frame()       first byte, length, limit: the only place that knows "not enough bytes"
//!       -> Reader        over the body; its first fault stays, with the place of the byte that proves it
//!       -> View::read()  any packet into one struct, by the layout of its type
//! ```
//!
//! The versions differ by one argument, `v5`. MQTT 3.1 is read as 3.1.1: only CONNECT says another name.
//!
//! ```
//! use mqtt_proto::wire::{Reader, View, frame, kind};
//! let input = b"\x32\x08\0\x03a/b\0\x01!";
//! let frame = frame(input, false, 1024);
//! let body = frame.body(input).expect("the packet is whole");
//! let (mut view, mut reader) = (View::default(), Reader::new(body));
//! view.read(frame.first, &mut reader, false);
//! assert!(reader.fault.is_none());
//! assert_eq!((view.kind, view.topic, view.id, view.body), (kind::PUBLISH, &b"a/b"[..], 1, &b"!"[..]));
//! ```

mod fault;
pub(crate) mod frame;
mod layout;
mod packet_type;
pub(crate) mod property;
mod reader;
pub(crate) mod reason;
pub(crate) mod text;
pub(crate) mod view;
pub(crate) mod writer;

pub use crate::encode::{Body, Draft, EachFilter};
pub use crate::out::Out;
pub use fault::Fault;
pub use frame::{Frame, frame, varint};
pub use layout::{Layout, layout};
pub use packet_type::{PacketType, kind};
pub use property::{Entry, PropertyId, PropertyKind};
pub use reader::{Block, Reader};
pub use reason::{ReasonCode, reason_fits};
pub use text::{Wrong, filter, filter_fits, name, text, text_fits};
pub use view::View;
pub use writer::{Writer, varint_len};
