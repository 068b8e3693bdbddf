//! Tests of the settings of sockets, for the handles of every runtime.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
#[cfg(target_os = "linux")]
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mqtt_adapter_core::{DialOptions, Handle, Options};

#[cfg(target_os = "linux")]
use rustix::process::{PidfdFlags, PidfdGetfdFlags, getpid, pidfd_getfd, pidfd_open};
#[cfg(target_os = "linux")]
use socket2::SockRef;

#[cfg(target_os = "linux")]
use crate::peers::HostedBroker;
use crate::peers::{CONNACK_3_1_1, ClosedPort, RawServer};

/// Writes the tests of this suite into the calling module: a function that starts a client with options and the settings of its
/// transport, and one that runs a future to its end.
#[macro_export]
macro_rules! sockets {
    ($start:expr, $run:expr) => {
        #[test]
        #[cfg(target_os = "linux")]
        fn a_client_connects_from_the_address_that_is_set() {
            $run($crate::suites::sockets::from_an_address($start));
        }

        #[test]
        #[cfg(target_os = "linux")]
        fn a_socket_sends_small_packets_at_once_through_the_interface_that_is_set() {
            $run($crate::suites::sockets::with_its_options($start));
        }

        #[test]
        fn an_address_of_another_family_is_refused() {
            $run($crate::suites::sockets::from_another_family($start));
        }

        #[test]
        fn nobody_listens_where_a_bound_client_connects() {
            $run($crate::suites::sockets::to_nobody($start));
        }
    };
}

const KEEP_ALIVE: Duration = Duration::from_secs(60);

fn client(port: u16, from: IpAddr) -> (Options, DialOptions) {
    let mut options = Options::new("127.0.0.1", port);
    options.back_off.attempts = Some(1);
    let mut dial = DialOptions::default();
    dial.sockets.local_addresses = vec![from];
    dial.sockets.keep_alive = Some(KEEP_ALIVE);
    (options, dial)
}

/// Returns the cause of an error, which the error of the handle does not repeat.
fn told(error: &(dyn Error + 'static)) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// On Linux, each address of 127.0.0.0/8 belongs to the machine.
///
/// # Panics
/// The server sees another address.
pub async fn from_an_address<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let seen = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&seen);
    let server = RawServer::start(move |mut stream, _| {
        *noted.lock().expect("no panic") = stream.peer_addr().ok();
        let _ = stream.read(&mut [0; 100]);
        let _ = stream.write_all(&CONNACK_3_1_1);
        // Until the client ends.
        let _ = stream.read_to_end(&mut Vec::new());
    });
    let from = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));
    let (options, dial) = client(server.port, from);
    let handle = start(options, dial);
    handle.first_attempt().await.expect("a connection");
    let seen = seen.lock().expect("no panic").take();
    assert_eq!(seen.expect("a connection").ip(), from);
}

/// # Panics
/// A socket of the client or of the broker delays small packets, or that of the client does not belong to the interface that is set.
#[cfg(target_os = "linux")]
pub async fn with_its_options<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let (options, mut with_settings) = client(0, IpAddr::V4(Ipv4Addr::LOCALHOST));
    with_settings.sockets.interface = Some("lo".to_owned());
    for (dial, interface) in [
        (DialOptions::default(), None),
        (with_settings, Some(&b"lo"[..])),
    ] {
        let broker = HostedBroker::start(None);
        let mut options = options.clone();
        options.port = broker.port;
        let handle = start(options, dial);
        handle.first_attempt().await.expect("a connection");
        let (mut of_client, mut of_broker) = (0, 0);
        for socket in connected_to(broker.port) {
            let socket = SockRef::from(&socket);
            assert!(socket.tcp_nodelay().expect("TCP"));
            let peer = socket.peer_addr().expect("a connection").as_socket();
            if peer.is_some_and(|peer| peer.port() == broker.port) {
                let bound = socket.device().expect("Linux");
                assert_eq!(bound.as_deref(), interface);
                assert_eq!(socket.keepalive().expect("TCP"), interface.is_some());
                if interface.is_some() {
                    assert_eq!(socket.tcp_keepalive_time().expect("TCP"), KEEP_ALIVE);
                }
                of_client += 1;
            } else {
                of_broker += 1;
            }
        }
        assert!(of_client > 0 && of_broker > 0);
    }
}

/// Returns copies of the sockets of this process that are connected to a port of the machine, and of those that were accepted there.
#[cfg(target_os = "linux")]
fn connected_to(port: u16) -> Vec<OwnedFd> {
    let own = pidfd_open(getpid(), PidfdFlags::empty()).expect("Linux 5.3");
    let descriptors = std::fs::read_dir("/proc/self/fd").expect("Linux");
    let numbers = descriptors.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    // Another test may have closed it.
    let copies = numbers.filter_map(|n| pidfd_getfd(&own, n, PidfdGetfdFlags::empty()).ok());
    let is_connected = |socket: &OwnedFd| {
        let socket = SockRef::from(socket);
        let ends = [socket.local_addr(), socket.peer_addr()];
        let ports = ends.map(|end| Some(end.ok()?.as_socket()?.port()));
        ports.iter().all(Option::is_some) && ports.contains(&Some(port))
    };
    copies.filter(is_connected).collect()
}

/// # Panics
/// The error does not say what is wrong.
pub async fn from_another_family<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let (options, dial) = client(1, IpAddr::V6(Ipv6Addr::LOCALHOST));
    let error = start(options, dial).first_attempt().await;
    let error = told(&error.expect_err("no common family"));
    assert!(error.contains("of the family of 127.0.0.1:1"), "{error}");
}

/// # Panics
/// The refused connection is not reported.
pub async fn to_nobody<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let closed = ClosedPort::new();
    let (options, dial) = client(closed.number(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    let error = start(options, dial).first_attempt().await;
    let error = told(&error.expect_err("nobody listens"));
    assert!(error.to_lowercase().contains("refused"), "{error}");
}
