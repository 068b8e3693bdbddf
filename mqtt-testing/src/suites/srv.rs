//! Tests of servers that SRV records name, for the handles of every runtime.

use std::error::Error;
use std::net::SocketAddr;
use std::ops::Deref;

use mqtt_adapter_core::proto::QoS;
use mqtt_adapter_core::{DialOptions, Handle, Options, Outcome, Scheme, SrvOptions};

use crate::peers::{
    ClosedPort, DnsServer, HostedBroker, RawServer, SecuredBroker, SrvRecord, Zone,
};

/// Writes the tests of this suite into the calling module: a function that starts a client with options and the settings of its
/// transport, and one that runs a future to its end.
#[macro_export]
macro_rules! srv {
    ($start:expr, $run:expr) => {
        use $crate::suites::srv;

        #[test]
        fn the_first_server_that_answers_is_used_by_priority() {
            $run(srv::by_priority($start, false));
        }

        #[test]
        fn many_records_are_asked_for_over_tcp() {
            $run(srv::by_priority($start, true));
        }

        #[test]
        fn a_server_with_tls_has_a_certificate_for_the_domain() {
            $run(srv::with_tls($start));
        }

        #[test]
        fn a_domain_without_records_is_its_own_server() {
            $run(srv::without_records($start));
        }

        #[test]
        fn a_domain_without_the_service_is_refused() {
            $run(srv::without_service($start));
        }

        #[test]
        fn dns_servers_that_fail_are_named() {
            $run(srv::with_broken_servers($start));
        }
    };
}

const DOMAIN: &str = "plant.example";

fn record(domain: &str, priority: u16, port: u16, target: &str) -> SrvRecord {
    SrvRecord {
        name: format!("_mqtt._tcp.{domain}"),
        priority,
        weight: 0,
        port,
        target: target.to_owned(),
    }
}

fn settings(options: &mut Options, dial: &mut DialOptions, dns: &[SocketAddr]) {
    options.back_off.attempts = Some(1);
    let mut srv = SrvOptions::default();
    srv.dns_servers = dns.to_vec();
    dial.srv = Some(srv);
}

/// Passes a message.
async fn passes(handle: &Handle) {
    handle.first_attempt().await.expect("a connection");
    let sent = handle.publish("a", QoS::AtLeastOnce, false, "x").await;
    let outcome = sent.expect("accepted").await;
    assert!(matches!(outcome, Outcome::Acknowledged(_)), "{outcome:?}");
}

/// Returns the cause of the failed first attempt.
async fn refusal(handle: &Handle) -> String {
    let error = handle.first_attempt().await.expect_err("no connection");
    error.source().map(ToString::to_string).unwrap_or_default()
}

/// The record with the lowest number is of a server that does not listen, the next one is of the broker, and the last one of a
/// spare server.
///
/// # Panics
/// The client does not connect, or connects to the spare server.
pub async fn by_priority<H>(start: impl Fn(Options, DialOptions) -> H, tcp_only: bool)
where
    H: Deref<Target = Handle>,
{
    let broker = HostedBroker::start(None);
    let spare = RawServer::start(|_, _| {});
    let closed = ClosedPort::new();
    let records = vec![
        record(DOMAIN, 30, spare.port, "localhost"),
        record(DOMAIN, 20, broker.port, "localhost"),
        record(DOMAIN, 10, closed.number(), "localhost"),
        record("other.example", 0, closed.number(), "localhost"),
    ];
    let dns = DnsServer::start(match tcp_only {
        true => Zone::TcpOnly(records),
        false => Zone::Records(records),
    });
    let mut options = Options::new(DOMAIN, 1);
    let mut dial = DialOptions::default();
    settings(&mut options, &mut dial, &[dns.address]);
    passes(&start(options, dial)).await;
    assert_eq!(spare.connections(), 0);
}

/// The name of the service is that of TLS, and the certificate must be for the domain.
///
/// # Panics
/// The client does not connect, or connects to another domain's server.
pub async fn with_tls<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let broker = SecuredBroker::own();
    let port = broker.port(Scheme::Mqtts);
    let of = |domain: &str| SrvRecord {
        name: format!("_secure-mqtt._tcp.{domain}"),
        ..record(domain, 1, port, "localhost")
    };
    let dns = DnsServer::start(Zone::Records(vec![of("localhost"), of(DOMAIN)]));
    for domain in ["localhost", DOMAIN] {
        let (mut options, mut dial) = broker.settings(Options::new(domain, 1), Scheme::Mqtts);
        options.host = domain.to_owned();
        settings(&mut options, &mut dial, &[dns.address]);
        let handle = start(options, dial);
        if domain == DOMAIN {
            let told = refusal(&handle).await;
            let why = "expected plant.example, found localhost";
            assert!(told.contains(why), "{told}");
        } else {
            passes(&handle).await;
        }
    }
}

/// # Panics
/// The client does not connect to the host and port of its options.
pub async fn without_records<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let broker = HostedBroker::start(None);
    let dns = DnsServer::start(Zone::Records(Vec::new()));
    let mut options = Options::new("localhost", broker.port);
    let mut dial = DialOptions::default();
    settings(&mut options, &mut dial, &[dns.address]);
    passes(&start(options, dial)).await;
}

/// A single record with the target `.` says that there is no such service.
///
/// # Panics
/// The error does not say so.
pub async fn without_service<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let dns = DnsServer::start(Zone::Records(vec![record(DOMAIN, 0, 0, ".")]));
    let mut options = Options::new(DOMAIN, 1);
    let mut dial = DialOptions::default();
    settings(&mut options, &mut dial, &[dns.address]);
    let told = refusal(&start(options, dial)).await;
    let why = "_mqtt._tcp.plant.example: the domain does not have this service";
    assert_eq!(told, why);
}

/// A server that fails is followed by the next one; if all fail, the last one is named.
///
/// # Panics
/// The client does not connect by the second server, or the error does not name the first one.
pub async fn with_broken_servers<H>(start: impl Fn(Options, DialOptions) -> H)
where
    H: Deref<Target = Handle>,
{
    let broker = HostedBroker::start(None);
    let broken = DnsServer::start(Zone::Broken);
    let records = vec![record(DOMAIN, 0, broker.port, "localhost")];
    let dns = DnsServer::start(Zone::Records(records));
    let mut options = Options::new(DOMAIN, 1);
    let mut dial = DialOptions::default();
    settings(&mut options, &mut dial, &[broken.address, dns.address]);
    passes(&start(options.clone(), dial.clone())).await;
    settings(&mut options, &mut dial, &[broken.address]);
    let told = refusal(&start(options, dial)).await;
    let address = broken.address;
    let why = format!("_mqtt._tcp.plant.example: DNS server {address}: it reports ServerFailure");
    assert_eq!(told, why);
}
