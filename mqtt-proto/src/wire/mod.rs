//! The protocol as data. The machines of this workspace read and write packets with this module.
//!
//! Programs use [`crate::Packet`], which is made of this module. Here, a received packet of any type is one [`View`], a fault
//! is one byte, and one [`Writer`], through [`crate::write`], writes all packets:
//!
//! ```text
//! bytes -> frame()       type, flags, length and limit; tells how many bytes the packet needs
//!       -> Reader        reads the body and keeps the first fault with its place
//!       -> View::read()  reads a packet of any type into one struct, by the layout of its type
//! ```
//!
//! The argument `v5` is the version. MQTT 3.1 is read as 3.1.1, because only their CONNECT differs: in the protocol name and
//! level.
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

// For `mqtt-session`, which chooses alike.
#[doc(hidden)]
pub use crate::tune::FAST;
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
