//! Clients and servers of `mqtt_session` in virtual time: a machine whose peer is the test, or a pair with a wire between them.

mod endpoint;
mod pair;
mod tested;

pub use endpoint::{CLIENT_ID, Endpoint, Opening, OwnedEvent, Role, answer};
pub(crate) use pair::step;
pub use pair::{Direction, Pair};
pub use tested::TestedMachine;
