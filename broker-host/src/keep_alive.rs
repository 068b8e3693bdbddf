//! The keep-alive of TCP, by which the system notices that a client without a keep-alive of MQTT has vanished.

use std::io;
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

/// When the system asks the peer of a silent connection whether it is still there, and when it ends the connection. The system's own
/// times are hours.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct TcpKeepAlive {
    /// How long a connection is silent before the first probe, in whole seconds; zero turns the keep-alive off. Default 60 s.
    pub idle: Duration,
    /// The time between two probes, in whole seconds. Default 10 s.
    pub interval: Duration,
    /// How many probes without an answer end the connection. Default 6.
    pub probes: u32,
}

impl Default for TcpKeepAlive {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(60),
            interval: Duration::from_secs(10),
            probes: 6,
        }
    }
}

impl TcpKeepAlive {
    /// Sets this for a listening socket. The system passes it on to the accepted connections.
    pub(crate) fn set(self, socket: SockRef<'_>) -> io::Result<()> {
        if self.idle.is_zero() {
            return socket.set_keepalive(false);
        }
        let times = TcpKeepalive::new().with_time(self.idle);
        // Others have no such options, or not all of them.
        #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
        let times = times.with_interval(self.interval).with_retries(self.probes);
        socket.set_tcp_keepalive(&times)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use socket2::SockRef;

    use super::*;
    use crate::{Listener, listen};

    /// Returns the idle time, the interval and the number of probes of a connection that a listener accepts.
    async fn accepted(listener: Listener) -> Option<(u64, u64, u32)> {
        let client = std::net::TcpStream::connect(listener.address().unwrap()).unwrap();
        let (accepted, _) = listener.next().await.unwrap();
        drop(client);
        let crate::listener::Accepted::Tcp(stream) = accepted else {
            panic!("a TCP listener");
        };
        let socket = SockRef::from(&stream);
        socket.keepalive().unwrap().then(|| {
            (
                socket.tcp_keepalive_time().unwrap().as_secs(),
                socket.tcp_keepalive_interval().unwrap().as_secs(),
                socket.tcp_keepalive_retries().unwrap(),
            )
        })
    }

    #[tokio::test]
    async fn accepted_connections_have_the_keep_alive_of_their_listener() {
        let bound = || Listener::from(listen(([127, 0, 0, 1], 0).into()).unwrap());
        assert_eq!(accepted(bound()).await, Some((60, 10, 6)));
        let other = TcpKeepAlive {
            idle: Duration::from_secs(77),
            interval: Duration::from_secs(5),
            probes: 3,
        };
        let listener = bound().keep_alive(other).unwrap();
        assert_eq!(accepted(listener).await, Some((77, 5, 3)));
        let off = TcpKeepAlive {
            idle: Duration::ZERO,
            ..other
        };
        assert_eq!(accepted(bound().keep_alive(off).unwrap()).await, None);
    }
}
