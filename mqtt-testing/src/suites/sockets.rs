//! Tests of the settings of sockets, for the handles of every runtime.

use std::error::Error;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::Deref;
use std::sync::{Arc, Mutex};

use mqtt_adapter_core::{DialOptions, Handle, Options};

use crate::peers::{CONNACK_3_1_1, RawServer};

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
        fn an_address_of_another_family_is_refused() {
            $run($crate::suites::sockets::from_another_family($start));
        }

        #[test]
        fn nobody_listens_where_a_bound_client_connects() {
            $run($crate::suites::sockets::to_nobody($start));
        }
    };
}

fn client(port: u16, from: IpAddr) -> (Options, DialOptions) {
    let mut options = Options::new("127.0.0.1", port);
    options.back_off.attempts = Some(1);
    let mut dial = DialOptions::default();
    dial.sockets.local_addresses = vec![from];
    dial.sockets.keep_alive = Some(std::time::Duration::from_secs(60));
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
    let port = crate::peers::free_port();
    let (options, dial) = client(port, IpAddr::V4(Ipv4Addr::LOCALHOST));
    let error = start(options, dial).first_attempt().await;
    let error = told(&error.expect_err("nobody listens"));
    assert!(error.to_lowercase().contains("refused"), "{error}");
}
