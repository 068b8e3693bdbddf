//! Servers on 127.0.0.1 for the clients under test: Mosquitto, the broker of this workspace, and servers with behaviour that no
//! broker has.

#[cfg(feature = "transport")]
mod certificates;
mod closed;
#[cfg(feature = "transport")]
mod dns;
mod flood;
#[cfg(feature = "handles")]
mod hosted;
mod mosquitto;
mod nats;
mod raw;
mod scripted;
#[cfg(all(feature = "handles", feature = "transport"))]
mod secured;

#[cfg(feature = "transport")]
pub use certificates::{Authority, Issued, Subject, pem_source};
pub use closed::ClosedPort;
#[cfg(feature = "transport")]
pub use dns::{DnsServer, SrvRecord, Zone};
pub use flood::FloodServer;
#[cfg(feature = "handles")]
pub use hosted::HostedBroker;
pub use mosquitto::{Mosquitto, free_port};
pub use nats::NatsServers;
pub use raw::{CONNACK_3_1_1, CONNACK_5, RawServer};
pub use scripted::{Reaction, ScriptedServer};
#[cfg(all(feature = "handles", feature = "transport"))]
pub use secured::SecuredBroker;
