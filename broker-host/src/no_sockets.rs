//! Serves each connection of a listener by a separate task, on systems without `epoll` and `kqueue`.

use std::cell::RefCell;
use std::rc::Rc;

use mqtt_broker::{ConnectionId, Hooks};

use crate::listener::Accepted;
use crate::peer::{Peer, Peers};
use crate::shared::Shared;
use crate::staged::Staged;
use crate::task::spawn_accepted;

#[derive(Debug, Default)]
pub(crate) struct Sockets;

impl Sockets {
    pub(crate) fn is_ready(&mut self, _: ConnectionId) {}

    pub(crate) fn write_last(&mut self, _: &[u8], _: &Peers, _: impl Fn(ConnectionId) -> bool) {}
}

pub(crate) fn accepted<H: Hooks + 'static>(
    shared: &Rc<RefCell<Shared<H>>>,
    accepted: Accepted,
    peer: Peer,
    staged: Option<Box<Staged>>,
) {
    spawn_accepted(shared, accepted, peer, staged);
}

pub(crate) async fn serve<H: Hooks>(_: Rc<RefCell<Shared<H>>>) {}
