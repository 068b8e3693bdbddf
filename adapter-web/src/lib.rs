#![doc = include_str!("../README.md")]
#![forbid(unsafe_code)]

mod handle;
mod socket;
mod timer;

pub use handle::Handle;
pub use mqtt_adapter_core::{
    AcknowledgeWhen, Authenticator, BackOff, Close, Config, ConnectionEvent, ConnectionEvents,
    ConnectionInfo, Credentials, CredentialsSource, Error, MakeAuthenticator, Message, MessageId,
    Messages, Offline, Options, Outcome, Outgoing, OwnedConnAck, OwnedSubscription, OwnedWill,
    Publication, Publishing, QoS0Overflow, ReceivedMessage, Refused, Requesting, Scheme,
    SessionLost, StopOn, Subscribing, Ticket, Unclaimed, Unsent, Unsubscribing,
};
pub use mqtt_proto as proto;
pub use mqtt_session as session;
pub use socket::Socket;
pub use timer::{Clock, sleep};
