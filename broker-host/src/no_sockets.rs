//! Where there is no `epoll` or `kqueue`, TCP connections have a task each like all others.

use std::cell::RefCell;
use std::rc::Rc;

use mqtt_broker::{ConnectionId, Hooks};
use tokio::net::TcpStream;
use tokio::task::spawn_local;

use crate::shared::Shared;
use crate::task::connection;

#[derive(Debug, Default)]
pub(crate) struct Sockets;

impl Sockets {
    pub(crate) fn is_ready(&mut self, _: ConnectionId) {}
}

pub(crate) fn accepted<H: Hooks + 'static>(shared: &Rc<RefCell<Shared<H>>>, stream: TcpStream) {
    spawn_local(connection(Rc::clone(shared), stream));
}

pub(crate) async fn serve<H: Hooks>(_: Rc<RefCell<Shared<H>>>) {}
