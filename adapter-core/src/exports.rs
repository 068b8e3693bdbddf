//! The names that adapters export, so that a program depends on its adapter alone.

/// For every adapter: the options of a client, its messages and its events.
pub mod client {
    pub use crate::{
        AcknowledgeWhen, Authenticator, BackOff, Config, ConnectionEvent, ConnectionInfo,
        Credentials, CredentialsSource, Error, MakeAuthenticator, Message, MessageId, Offline,
        Options, Outcome, Outgoing, OwnedConnAck, OwnedSubscription, OwnedWill, Publication,
        QoS0Overflow, ReceivedMessage, Refused, Scheme, SessionLost, StopOn, Unclaimed, Unsent,
    };
    pub use crate::{proto, session};
}

/// For adapters of async runtimes: the futures and the streams of a handle.
pub mod futures {
    pub use crate::{
        Close, ConnectionEvents, Messages, Publishing, Requesting, Subscribing, Ticket,
        Unsubscribing,
    };
}

/// For adapters that open sockets and stores. The names exist with the features.
pub mod system {
    #[cfg(feature = "srv")]
    pub use crate::SrvOptions;
    #[cfg(feature = "store")]
    pub use crate::StoreOptions;
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    pub use crate::transport;
    pub use crate::{DialOptions, StoreFault};
}
