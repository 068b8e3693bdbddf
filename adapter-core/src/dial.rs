//! Opens connections: the address of the socket, the order of the addresses, and the stages over the socket.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use mqtt_agent::{Options, Scheme};

use crate::driver::{Timer, Transport};
use crate::unreached::{at_server, host_port};

pub use crate::unreached::at_address;

/// Settings for opening a connection that are not part of [`Options`]. Each field exists with the feature of its name.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DialOptions {
    /// The TLS settings of `mqtts://` and `wss://`. Default: the CAs of the system, and no client certificate.
    #[cfg(feature = "tls")]
    pub tls: mqtt_transport::tls::TlsOptions,
    /// The WebSocket settings of `ws://` and `wss://`. The path comes from [`Options::path`].
    #[cfg(feature = "websocket")]
    pub websocket: mqtt_transport::websocket::WebSocketOptions,
    /// The proxy through which the connection goes. Default none.
    #[cfg(feature = "proxy")]
    pub proxy: Option<mqtt_transport::proxy::ProxyOptions>,
    /// The settings of TCP sockets.
    #[cfg(feature = "sockets")]
    pub sockets: crate::SocketOptions,
    /// Whether the host is a domain whose servers are named by its SRV records. The certificate of a server must be for the domain, or for
    /// `tls.server_name`: anybody may have forged the records. Default none: the host is the server.
    #[cfg(feature = "srv")]
    pub srv: Option<crate::SrvOptions>,
}

/// The address of a socket.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Target<'a> {
    /// A port of a host, which is a name or an IP address.
    Tcp(&'a str, u16),
    /// The path of a Unix socket; `@name` is an abstract socket of Linux.
    Unix(&'a str),
}

/// Prepares the connections of one client, for an adapter that opens the sockets.
pub struct Dialler {
    scheme: Scheme,
    host: String,
    port: u16,
    path: String,
    #[cfg(feature = "srv")]
    limit: Duration,
    #[cfg_attr(
        not(any(
            feature = "proxy",
            feature = "sockets",
            feature = "srv",
            feature = "tls",
            feature = "websocket"
        )),
        allow(dead_code, reason = "it has no fields then")
    )]
    options: DialOptions,
    /// Made for the first connection and used for all later ones, so that TLS sessions are resumed.
    #[cfg(feature = "tls")]
    tls: std::sync::OnceLock<mqtt_transport::tls::TlsConnector>,
}

impl fmt::Debug for Dialler {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dialler")
            .field("scheme", &self.scheme)
            .field("host", &self.host)
            .field("port", &self.port)
            .finish_non_exhaustive()
    }
}

impl Dialler {
    /// Makes a dialler for the host, port, scheme and path of these options.
    #[must_use]
    pub fn new(options: &Options, dial: DialOptions) -> Self {
        Self {
            scheme: options.scheme,
            host: options.host.clone(),
            port: options.port,
            path: options.path.clone(),
            #[cfg(feature = "srv")]
            limit: options.dial_timeout,
            options: dial,
            #[cfg(feature = "tls")]
            tls: std::sync::OnceLock::new(),
        }
    }

    /// Returns the address of the socket to open: that of the server, or of the proxy.
    #[must_use]
    pub fn target(&self) -> Target<'_> {
        if self.scheme == Scheme::Unix {
            return Target::Unix(&self.path);
        }
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.options.proxy {
            return Target::Tcp(&proxy.host, proxy.port);
        }
        Target::Tcp(&self.host, self.port)
    }

    /// Adds the address of [`Self::target`] to the error of an attempt to open its socket, unless a server is named there.
    #[must_use]
    pub fn unreached(&self, error: io::Error) -> io::Error {
        #[cfg(feature = "srv")]
        if self.options.srv.is_some() {
            // The error names the service, the DNS server, or the server of a record.
            return error;
        }
        let name = || match self.target() {
            Target::Unix(path) => path.to_owned(),
            Target::Tcp(host, port) => host_port(host, port),
        };
        #[cfg(feature = "proxy")]
        if self.options.proxy.is_some() && self.scheme != Scheme::Unix {
            return at_server(|| format!("the proxy {}", name()), error);
        }
        at_server(name, error)
    }

    /// Adds the server to the error of a handshake.
    #[must_use]
    pub fn unopened(&self, error: io::Error) -> io::Error {
        if self.scheme == Scheme::Unix {
            return self.unreached(error);
        }
        let server = || host_port(&self.host, self.port);
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.options.proxy {
            let proxy = host_port(&proxy.host, proxy.port);
            return at_server(|| format!("{} through the proxy {proxy}", server()), error);
        }
        at_server(server, error)
    }

    /// Returns the settings of TCP sockets, if any is set.
    #[cfg(feature = "sockets")]
    #[must_use]
    pub fn sockets(&self) -> Option<&crate::SocketOptions> {
        let sockets = &self.options.sockets;
        (*sockets != crate::SocketOptions::default()).then_some(sockets)
    }

    /// Returns the query for the servers of the host, if the host is a domain whose SRV records name them. [`Self::target`] is to be
    /// ignored then.
    ///
    /// # Errors
    /// The scheme has no such records, the host is an address, or a proxy is set, which would have to look up the names.
    #[cfg(feature = "srv")]
    pub fn srv(&self) -> io::Result<Option<crate::srv::SrvQuery>> {
        let Some(options) = &self.options.srv else {
            return Ok(None);
        };
        #[cfg(feature = "proxy")]
        if self.options.proxy.is_some() {
            let message = "SRV records cannot be looked up through a proxy";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
        }
        let domain = crate::srv::Endpoint {
            host: self.host.clone(),
            port: self.port,
        };
        crate::srv::SrvQuery::new(options, self.scheme, domain, self.limit).map(Some)
    }

    /// Returns the stages of a new connection; `None` if the bytes pass unchanged.
    ///
    /// # Errors
    /// A setting that cannot be used, such as a file that cannot be read, or a scheme whose feature is off.
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    pub fn stages(&self) -> io::Result<Option<mqtt_transport::Stack>> {
        let mut stack = mqtt_transport::Stack::new();
        #[cfg(feature = "proxy")]
        if let Some(proxy) = &self.options.proxy
            && self.scheme != Scheme::Unix
        {
            let stage = mqtt_transport::proxy::ProxyStage::client(proxy, &self.host, self.port)?;
            stack.push(stage);
        }
        if self.scheme.is_tls() {
            #[cfg(feature = "tls")]
            stack.push(self.connector()?.stage(&self.host)?);
            #[cfg(not(feature = "tls"))]
            return Err(missing("TLS", "tls"));
        }
        if self.scheme.is_websocket() {
            #[cfg(feature = "websocket")]
            stack.push(self.websocket()?);
            #[cfg(not(feature = "websocket"))]
            return Err(missing("WebSocket", "websocket"));
        }
        Ok(Some(stack).filter(|stack| !stack.is_plain()))
    }

    /// Rejects the schemes that need stages, for an adapter without stages.
    ///
    /// # Errors
    /// The scheme needs TLS or WebSocket.
    pub fn check(&self) -> io::Result<()> {
        match (self.scheme.is_tls(), self.scheme.is_websocket()) {
            (true, _) => Err(missing("TLS", "tls")),
            (_, true) => Err(missing("WebSocket", "websocket")),
            _ => Ok(()),
        }
    }

    #[cfg(feature = "tls")]
    fn connector(&self) -> io::Result<&mqtt_transport::tls::TlsConnector> {
        if let Some(connector) = self.tls.get() {
            return Ok(connector);
        }
        let connector = mqtt_transport::tls::TlsConnector::new(self.options.tls.clone())?;
        Ok(self.tls.get_or_init(|| connector))
    }

    #[cfg(feature = "websocket")]
    fn websocket(&self) -> io::Result<mqtt_transport::websocket::WebSocketClient> {
        let mut options = self.options.websocket.clone();
        options.path.clone_from(&self.path);
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let authority = if self.port == self.scheme.default_port() {
            host
        } else {
            format!("{host}:{}", self.port)
        };
        Ok(mqtt_transport::websocket::WebSocketClient::new(
            &authority, &options,
        )?)
    }
}

pub(crate) fn missing(what: &str, feature: &str) -> io::Error {
    let message = format!("{what} is not part of this build: turn on the feature {feature:?}");
    io::Error::new(io::ErrorKind::Unsupported, message)
}

/// An open transport, with its stages if it has any.
pub enum Opened<W> {
    /// A transport without stages.
    Plain(W),
    /// A transport with stages.
    #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
    Staged(Box<crate::staged::Staged<W>>),
}

impl<W> fmt::Debug for Opened<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened")
    }
}

impl<W: Transport> Opened<W> {
    /// Performs the handshakes of the scheme over a new socket.
    ///
    /// # Errors
    /// The certificate of the server is not accepted, the server refuses the client or speaks another protocol, or the
    /// transport fails.
    pub async fn new(transport: W, dialler: &Dialler) -> io::Result<Self> {
        #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
        if let Some(stages) = dialler.stages()? {
            let staged = crate::staged::Staged::open(transport, stages).await;
            let staged = staged.map_err(|error| dialler.unopened(error))?;
            return Ok(Self::Staged(Box::new(staged)));
        }
        #[cfg(not(any(feature = "proxy", feature = "tls", feature = "websocket")))]
        dialler.check()?;
        Ok(Self::Plain(transport))
    }
}

/// Calls the same method of either variant.
macro_rules! either {
    ($self:expr, $transport:ident => $call:expr; $first:path, $($second:tt)*) => {
        match $self {
            $first($transport) => $call,
            $($second)*($transport) => $call,
        }
    };
}

macro_rules! opened {
    ($self:expr, $transport:ident => $call:expr) => {
        match $self {
            Self::Plain($transport) => $call,
            #[cfg(any(feature = "proxy", feature = "tls", feature = "websocket"))]
            Self::Staged($transport) => $call,
        }
    };
}

impl<W: Transport> Transport for Opened<W> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        opened!(self, transport => transport.poll_fill(cx, buffer))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        opened!(self, transport => transport.poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        opened!(self, transport => transport.poll_write_vectored(cx, slices))
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        opened!(self, transport => transport.poll_flush(cx))
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        opened!(self, transport => transport.poll_close(cx))
    }
}

/// A transport of one of two types.
#[derive(Debug)]
pub enum Either<A, B> {
    /// The first type, such as TCP.
    First(A),
    /// The second type, such as a Unix socket.
    Second(B),
}

impl<A: Transport, B: Transport> Transport for Either<A, B> {
    fn poll_fill(
        &mut self,
        cx: &mut Context<'_>,
        buffer: &mut BytesMut,
    ) -> Poll<io::Result<usize>> {
        either!(self, transport => transport.poll_fill(cx, buffer); Self::First, Self::Second)
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        either!(self, transport => transport.poll_write(cx, bytes); Self::First, Self::Second)
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        either!(self, transport => transport.poll_write_vectored(cx, slices); Self::First, Self::Second)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, transport => transport.poll_flush(cx); Self::First, Self::Second)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, transport => transport.poll_close(cx); Self::First, Self::Second)
    }
}

/// Returns the time after `span`. The clock of the system cannot represent every sum, so a longer time counts as 100 years.
#[must_use]
pub fn after(span: Duration) -> Instant {
    const CENTURY: Duration = Duration::from_secs(100 * 365 * 24 * 3_600);
    Instant::now() + span.min(CENTURY)
}

/// How long to wait for one address before the next one is tried in parallel (RFC 8305, section 5).
pub const NEXT_ADDRESS: Duration = Duration::from_millis(250);

/// Returns the addresses in the order in which to try them: the families take turns, beginning with that of the first address
/// (RFC 8305, section 4).
#[must_use]
pub fn interleave(addresses: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let addresses: Vec<_> = addresses.into_iter().collect();
    let first = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (mut these, mut others): (VecDeque<_>, VecDeque<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first);
    let mut order = Vec::new();
    while !these.is_empty() || !others.is_empty() {
        order.extend(these.pop_front());
        order.extend(others.pop_front());
    }
    order
}

/// Connects to the first of these addresses that answers. An address is tried when the one before it has failed, or has not
/// answered for [`NEXT_ADDRESS`].
///
/// # Errors
/// All addresses failed: the error of the last one, with this address. Or there is no address.
pub async fn race<T, F, W>(
    addresses: impl IntoIterator<Item = SocketAddr>,
    connect: impl Fn(SocketAddr) -> F,
) -> io::Result<W>
where
    T: Timer,
    F: Future<Output = io::Result<W>>,
{
    let mut waiting = VecDeque::from(interleave(addresses));
    let mut trying: Vec<(SocketAddr, Pin<Box<F>>)> = Vec::new();
    let mut timer = T::after(Duration::ZERO);
    let mut why = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    poll_fn(move |cx| {
        loop {
            let mut failed = false;
            let mut index = 0;
            while let Some((address, attempt)) = trying.get_mut(index) {
                match attempt.as_mut().poll(cx) {
                    Poll::Pending => index += 1,
                    Poll::Ready(Ok(transport)) => return Poll::Ready(Ok(transport)),
                    Poll::Ready(Err(error)) => {
                        why = at_address(*address, error);
                        failed = true;
                        drop(trying.remove(index));
                    }
                }
            }
            if trying.is_empty() && waiting.is_empty() {
                let why = std::mem::replace(&mut why, io::ErrorKind::Other.into());
                return Poll::Ready(Err(why));
            }
            if waiting.is_empty() || !(failed || trying.is_empty() || timer.poll(cx).is_ready()) {
                return Poll::Pending;
            }
            if let Some(address) = waiting.pop_front() {
                trying.push((address, Box::pin(connect(address))));
                timer.reset(NEXT_ADDRESS);
            }
        }
    })
    .await
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};
    use std::future::{pending, ready};
    use std::task::Waker;

    use super::*;

    thread_local! {
        /// The virtual time.
        static NOW: Cell<Duration> = const { Cell::new(Duration::ZERO) };
    }

    /// A timer of the virtual time.
    struct Virtual(Duration);

    impl Timer for Virtual {
        fn after(span: Duration) -> Self {
            Self(NOW.get() + span)
        }

        fn reset(&mut self, span: Duration) {
            self.0 = NOW.get() + span;
        }

        fn poll(&mut self, _: &mut Context<'_>) -> Poll<()> {
            match NOW.get() >= self.0 {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }

        fn elapsed(&self) -> Duration {
            Duration::ZERO
        }
    }

    /// How an address answers.
    #[derive(Clone, Copy)]
    enum Answer {
        Never,
        Refuses(io::ErrorKind),
        Accepts,
    }

    /// Connects to addresses that answer like this, until one has answered or a second has passed. Returns the port of the
    /// connected address, and the ports of all tried ones with their times.
    fn connect(answers: &[Answer]) -> (Option<io::Result<u16>>, Vec<(u16, u64)>) {
        NOW.set(Duration::ZERO);
        let tried = RefCell::new(Vec::new());
        let addresses = (0..)
            .zip(answers)
            .map(|(port, _)| ([127, 0, 0, 1], port).into());
        let open = |address: SocketAddr| {
            let port = address.port();
            let now = u64::try_from(NOW.get().as_millis()).unwrap();
            tried.borrow_mut().push((port, now));
            let answer: Pin<Box<dyn Future<Output = _>>> = match answers[usize::from(port)] {
                Answer::Never => Box::pin(pending()),
                Answer::Refuses(kind) => Box::pin(ready(Err(io::Error::from(kind)))),
                Answer::Accepts => Box::pin(ready(Ok(port))),
            };
            answer
        };
        let mut racing = Box::pin(race::<Virtual, _, _>(addresses, open));
        let mut cx = Context::from_waker(Waker::noop());
        let mut connected = None;
        while connected.is_none() && NOW.get() <= Duration::from_secs(1) {
            if let Poll::Ready(result) = racing.as_mut().poll(&mut cx) {
                connected = Some(result);
            }
            NOW.set(NOW.get() + Duration::from_millis(10));
        }
        drop(racing);
        (connected, tried.into_inner())
    }

    #[test]
    fn a_dead_address_delays_the_next_one_by_a_quarter_of_a_second() {
        let (connected, tried) = connect(&[Answer::Never, Answer::Never, Answer::Accepts]);
        assert_eq!(connected.unwrap().unwrap(), 2);
        assert_eq!(tried, [(0, 0), (1, 250), (2, 500)]);
    }

    #[test]
    fn an_address_that_refuses_does_not_delay_the_next_one() {
        let refuses = Answer::Refuses(io::ErrorKind::ConnectionRefused);
        let (connected, tried) = connect(&[refuses, refuses, Answer::Accepts, Answer::Accepts]);
        assert_eq!(connected.unwrap().unwrap(), 2);
        assert_eq!(tried, [(0, 0), (1, 0), (2, 0)]);
    }

    #[test]
    fn the_error_of_the_last_address_is_returned_when_all_have_failed() {
        let kinds = [
            io::ErrorKind::ConnectionRefused,
            io::ErrorKind::HostUnreachable,
        ];
        let (connected, _) = connect(&kinds.map(Answer::Refuses));
        assert_eq!(connected.unwrap().unwrap_err().kind(), kinds[1]);
        let (connected, _) = connect(&[]);
        assert_eq!(
            connected.unwrap().unwrap_err().kind(),
            io::ErrorKind::NotFound
        );
        let (connected, tried) = connect(&[Answer::Refuses(kinds[0]), Answer::Never]);
        assert!(
            connected.is_none() && tried.len() == 2,
            "one may still answer"
        );
    }

    #[test]
    fn the_families_of_addresses_take_turns() {
        let addresses = [
            "[::1]:1",
            "[::2]:1",
            "[::3]:1",
            "192.0.2.1:1",
            "192.0.2.2:1",
        ];
        let order = interleave(addresses.map(|address| address.parse().unwrap()));
        let expected = [
            "[::1]:1",
            "192.0.2.1:1",
            "[::2]:1",
            "192.0.2.2:1",
            "[::3]:1",
        ];
        assert_eq!(order, expected.map(|address| address.parse().unwrap()));
    }
}
