#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

#[cfg(unix)]
#[cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "only an engine makes several processes")
)]
mod about;
mod control;
mod descriptors;
mod host;
mod keep_alive;
mod layers;
mod link;
mod listener;
#[cfg(any(feature = "proxy", feature = "websocket"))]
mod network;
mod panics;
mod peer;
#[cfg(any(unix, feature = "files"))]
mod priority;
#[cfg(unix)]
#[cfg_attr(
    not(feature = "nats"),
    allow(dead_code, reason = "only an engine makes several processes")
)]
mod processes;
#[cfg(unix)]
mod relay;
#[cfg(unix)]
mod shaking;
#[cfg_attr(not(unix), path = "no_shards.rs")]
#[cfg_attr(
    not(feature = "nats"),
    allow(
        dead_code,
        reason = "only settings make several shards, and only an engine several processes"
    )
)]
mod shards;
mod shared;
pub mod signals;
#[cfg_attr(not(unix), path = "no_sockets.rs")]
mod sockets;
mod staged;
#[cfg(feature = "store")]
mod storage;
#[cfg(unix)]
mod stream;
mod task;

#[cfg(feature = "files")]
mod acl;
#[cfg(feature = "files")]
mod binding;
#[cfg(feature = "files")]
mod checks;
#[cfg(feature = "files")]
mod division;
#[cfg(feature = "files")]
mod engine;
#[cfg(feature = "files")]
mod error;
#[cfg(all(test, unix))]
mod floods;
#[cfg(feature = "files")]
mod guard;
#[cfg(feature = "files")]
mod lines;
#[cfg(feature = "files")]
mod listening;
#[cfg(feature = "files")]
mod logging;
#[cfg(feature = "files")]
mod memory;
#[cfg(all(feature = "nats", unix))]
mod nats_pipes;
#[cfg(feature = "files")]
mod opening;
#[cfg(feature = "files")]
mod own_access;
#[cfg(feature = "files")]
mod passed;
#[cfg(feature = "files")]
mod random;
#[cfg(feature = "files")]
mod reload;
#[cfg(feature = "files")]
mod settings;
#[cfg(feature = "files")]
mod threads;
#[cfg(feature = "files")]
mod units;
#[cfg(feature = "files")]
pub mod users;

#[cfg(feature = "files")]
pub use acl::{Acl, AclError};
pub use control::{Commands, Connected, Control, control};
#[cfg(feature = "files")]
pub use division::StoreParts;
#[cfg(feature = "files")]
pub use error::{Error, SettingsError};
#[cfg(feature = "files")]
pub use guard::Guard;
pub use host::Host;
#[cfg(feature = "store")]
pub use host::StoreFailed;
pub use keep_alive::TcpKeepAlive;
pub use layers::Layers;
pub use listener::{Listener, listen};
#[cfg(feature = "files")]
pub use listening::Listening;
pub use mqtt_broker as broker;
pub use mqtt_proto as proto;
#[cfg(feature = "store")]
pub use mqtt_store as store;
pub use mqtt_transport as transport;
#[cfg(any(feature = "proxy", feature = "websocket"))]
pub use network::{Network, NoNetwork};
pub use peer::Peer;
#[cfg(feature = "files")]
pub use reload::Reloader;
#[cfg(feature = "files")]
pub use settings::{ListenerSettings, Settings};
#[cfg(feature = "files")]
pub use units::{EngineUrl, NoSeconds, Seconds};
#[cfg(feature = "files")]
pub use users::Users;
