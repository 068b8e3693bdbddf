//! Clients and servers of `mqtt_session` in virtual time: one whose peer is the test, or one of each with a wire between.

mod endpoint;
mod pair;
mod tested;

pub use endpoint::{CLIENT_ID, Endpoint, Opening, OwnedEvent, Role, answer};
pub(crate) use pair::step;
pub use pair::{Direction, Pair};
pub use tested::TestedMachine;
