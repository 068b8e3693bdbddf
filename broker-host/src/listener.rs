//! Listening sockets, and the task of each that accepts connections.

use std::cell::RefCell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::time::Duration;

use mqtt_broker::Hooks;
use tokio::net::{TcpListener, TcpSocket};
use tokio::time::sleep;

use crate::shared::Shared;
use crate::sockets;

/// How long to wait when a connection cannot be accepted, such as for want of file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// Connections that the system completes and keeps until they are accepted.
const BACKLOG: u32 = 1_024;

/// Listens on an address, for [`Host::run`](crate::Host::run). The address can be used again at once after a broker ended, while
/// the system still remembers the connections of that broker.
///
/// # Errors
/// The address is not of this machine, is in use, or may not be used.
pub fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    // 3.1.1 [MQTT-7.1.1-1] and [MQTT-7.0.0-2], 5 [MQTT-4.2.0-1]: TCP keeps the order of bytes and loses none; nothing
    // else is needed.
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4(),
        SocketAddr::V6(_) => TcpSocket::new_v6(),
    }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Accepts connections until it is dropped.
pub(crate) async fn accept<H: Hooks + 'static>(
    shared: Rc<RefCell<Shared<H>>>,
    listener: TcpListener,
) {
    #[cfg(feature = "files")]
    let mut fails = false;
    loop {
        let accepted = listener.accept().await;
        #[cfg(feature = "files")]
        tell_change(&mut fails, accepted.as_ref().err());
        match accepted {
            Ok((stream, _)) => {
                // Without it a small packet may wait for the acknowledgement of the last.
                let _ = stream.set_nodelay(true);
                sockets::accepted(&shared, stream);
            }
            Err(_) => sleep(ACCEPT_AGAIN).await,
        }
    }
}

/// Logs the first connection that cannot be accepted, such as for want of file descriptors, and the first that can be again.
#[cfg(feature = "files")]
fn tell_change(fails: &mut bool, error: Option<&io::Error>) {
    match error {
        Some(error) if !*fails => tracing::warn!(%error, "connections cannot be accepted"),
        None if *fails => tracing::info!("connections are accepted again"),
        _ => {}
    }
    *fails = error.is_some();
}
