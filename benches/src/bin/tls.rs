//! The CPU time of a tokio client over TLS for each message: with the stage of `mqtt_transport`, and with `tokio_rustls` below the same
//! client; and for large messages, beside rustls alone, which writes the same packets. Runs of the two alternate, and the least of
//! each counts.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use benches::server::{PAYLOAD, TOPIC, cost, count, listen, serve};
use mqtt_testing::peers::{Authority, Subject};
use mqtt_tokio::proto::{QoS, TopicName};
use mqtt_tokio::transport::tls::rustls::pki_types::pem::PemObject;
use mqtt_tokio::transport::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use mqtt_tokio::transport::tls::rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned, crypto,
};
use mqtt_tokio::{DialOptions, Handle, Options, Outgoing, QoS0Overflow, Scheme};
use tokio_rustls::TlsConnector;

const ROUNDS: usize = 5;
/// The payload of a large message, and how many there are.
const LARGE: usize = 256 << 10;
const LARGE_COUNT: usize = 1_000;
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];

struct Certificates {
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let authority = Authority::new("an authority");
        let issued = authority.issue(&Subject::host("localhost"));
        let provider = Arc::new(crypto::ring::default_provider());
        let chain = CertificateDer::pem_slice_iter(issued.certificate.as_bytes())
            .collect::<Result<_, _>>()
            .expect("a certificate");
        let key = PrivateKeyDer::from_pem_slice(issued.key.as_bytes()).expect("a key");
        let server = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain, key)
            .expect("a pair");
        let client = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        Certificates {
            client: client.into(),
            server: server.into(),
        }
    })
}

fn accept(stream: TcpStream) -> StreamOwned<ServerConnection, TcpStream> {
    let config = Arc::clone(&certificates().server);
    StreamOwned::new(ServerConnection::new(config).expect("a server"), stream)
}

/// Accepts a client and discards all that it sends.
fn discard(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = accept(stream);
    let mut space = vec![0; 256 << 10];
    // CONNECT comes whole.
    let _len = stream.read(&mut space)?;
    stream.write_all(&CONNACK)?;
    while stream.read(&mut space)? > 0 {}
    Ok(())
}

/// Which implementation is below the client.
#[derive(Clone, Copy)]
enum Below {
    Stage,
    TokioRustls,
}

async fn connect(port: u16, below: Below) -> Handle {
    let mut options = Options::new("localhost", port);
    (options.config.window, options.config.window_qos2) = (128, 128);
    options.qos0_overflow = QoS0Overflow::PauseReading;
    let config = Arc::clone(&certificates().client);
    let handle = match below {
        Below::Stage => {
            options.scheme = Scheme::Mqtts;
            let mut dial = DialOptions::default();
            dial.tls.config = Some(config);
            Handle::start_dialling(options, dial)
        }
        Below::TokioRustls => Handle::start_with(options, move || {
            let connector = TlsConnector::from(Arc::clone(&config));
            async move {
                let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
                stream.set_nodelay(true)?;
                let name = ServerName::try_from("localhost").expect("a name");
                connector.connect(name, stream).await
            }
        }),
    };
    handle.first_attempt().await.expect("a server");
    handle
}

async fn publishes(port: u16, below: Below, qos: u8, payload: &[u8], count: usize) {
    let handle = connect(port, below).await;
    let level = QoS::new(qos).expect("a QoS");
    let message = Outgoing::new(TopicName::from_static(TOPIC), level, payload);
    for _ in 0..count {
        drop(handle.publish_message(&message).await.expect("accepted"));
    }
    assert!(handle.close(Duration::from_secs(60)).await.is_empty());
}

async fn receives(port: u16, below: Below, qos: u8) {
    let handle = connect(port, below).await;
    let level = QoS::new(qos).expect("a QoS");
    let mut messages = handle.subscribe(TOPIC, level).await.expect("granted");
    for _ in 0..count(qos) {
        std::hint::black_box(messages.next().await.expect("a message"));
    }
}

/// Writes the packets of large messages with rustls alone.
fn writes(port: u16) {
    let config = Arc::clone(&certificates().client);
    let name = ServerName::try_from("localhost").expect("a name");
    let connection = ClientConnection::new(config, name).expect("a client");
    let stream = TcpStream::connect(("127.0.0.1", port)).expect("a server");
    let mut stream = StreamOwned::new(connection, stream);
    stream.write_all(b"\x10\0").expect("a connection");
    stream.read_exact(&mut [0; 4]).expect("an answer");
    let packet = vec![0x42; LARGE + TOPIC.len() + 6];
    for _ in 0..LARGE_COUNT {
        stream.write_all(&packet).expect("a connection");
    }
}

/// Prints the least cost of each, and their ratio.
fn compare(what: &str, ours: impl Fn() -> f64, other: impl Fn() -> f64) {
    let (mut least, mut beside) = (f64::INFINITY, f64::INFINITY);
    for _ in 0..ROUNDS {
        least = least.min(ours());
        beside = beside.min(other());
    }
    let ratio = least / beside;
    println!("| {what} | {least:.3} | {beside:.3} | {ratio:.2} |");
}

fn main() {
    let port = listen(|stream| serve(accept(stream)));
    println!("| microseconds of CPU a message | ours | other | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    for qos in 0..3 {
        let run = move |below| {
            let count = count(qos);
            cost(count, move || publishes(port, below, qos, &PAYLOAD, count))
        };
        let what = format!("publish 64 B at QoS {qos}, beside tokio-rustls");
        compare(&what, || run(Below::Stage), || run(Below::TokioRustls));
    }
    for qos in 0..3 {
        let run = move |below| cost(count(qos), move || receives(port, below, qos));
        let what = format!("receive 64 B at QoS {qos}, beside tokio-rustls");
        compare(&what, || run(Below::Stage), || run(Below::TokioRustls));
    }
    let port = listen(discard);
    let large: &'static [u8] = vec![0x42; LARGE].leak();
    let run = move |below| {
        cost(LARGE_COUNT, move || {
            publishes(port, below, 0, large, LARGE_COUNT)
        })
    };
    let ours = || run(Below::Stage);
    compare(
        "publish 256 KiB at QoS 0, beside tokio-rustls",
        ours,
        || run(Below::TokioRustls),
    );
    let alone = || cost(LARGE_COUNT, move || async move { writes(port) });
    compare("publish 256 KiB at QoS 0, beside rustls alone", ours, alone);
}
