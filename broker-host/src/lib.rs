#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]
#![deny(missing_docs)]

use cfg_if::cfg_if;

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
#[cfg_attr(
    not(all(feature = "nats", unix)),
    allow(dead_code, reason = "only several processes compare them")
)]
mod logins;
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

#[cfg(all(test, unix))]
mod floods;
#[cfg(all(feature = "nats", unix))]
mod nats_pipes;

cfg_if! {
    if #[cfg(feature = "files")] {
        mod acl;
        mod binding;
        mod checks;
        mod division;
        mod engine;
        mod error;
        mod guard;
        mod lines;
        mod listening;
        mod logging;
        mod memory;
        mod opening;
        mod own_access;
        mod passed;
        mod public;
        mod random;
        mod reload;
        mod scopes;
        mod settings;
        mod threads;
        mod units;
        pub mod users;

        pub use acl::{Acl, AclError};
        pub use division::StoreParts;
        pub use error::{Error, HashError, SettingsError};
        pub use guard::Guard;
        pub use listening::Listening;
        pub use reload::Reloader;
        pub use settings::{ListenerSettings, Settings};
        pub use units::{EngineUrl, NoSeconds, Seconds};
        pub use users::Users;
    }
}

pub use control::{Commands, Connected, Control, control};
pub use host::Host;
#[cfg(feature = "store")]
pub use host::StoreFailed;
pub use keep_alive::TcpKeepAlive;
pub use layers::Layers;
pub use listener::{Listener, listen};
pub use mqtt_broker as broker;
pub use mqtt_proto as proto;
#[cfg(feature = "store")]
pub use mqtt_store as store;
pub use mqtt_transport as transport;
#[cfg(any(feature = "proxy", feature = "websocket"))]
pub use network::{Network, NoNetwork};
pub use peer::Peer;
