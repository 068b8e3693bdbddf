//! The CPU time of `mqtt broker` over TLS for each large message, beside a relay that only decrypts the bytes of one client and encrypts
//! them for another one with rustls, which is the least work that a broker could do. Both get the same bytes from the same two clients.
//!
//! Arguments: `--mqtt PROGRAM`, and `--megabytes N` for each measurement (512). The CPU time is that of the process of the broker or the
//! relay, from `/proc`, so this runs on Linux only. Runs of the two alternate, and the least of each counts.

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use benches::server::TOPIC;
use mqtt_proto::{
    Connect, Packet, PacketId, Publish, QoS, Subscribe, Subscription, TopicFilter, TopicName,
    Version,
};
use mqtt_testing::packets::encode;
use mqtt_testing::peers::{Authority, Subject, free_port};
use mqtt_tokio::transport::tls::rustls::pki_types::pem::PemObject;
use mqtt_tokio::transport::tls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use mqtt_tokio::transport::tls::rustls::{
    ClientConfig, ClientConnection, ServerConfig, ServerConnection, StreamOwned, crypto,
};

const ROUNDS: usize = 5;
/// How many bytes the sender may be ahead of the receiver, so that no message is dropped.
const AHEAD: usize = 1 << 20;
const CONNACK: [u8; 4] = [0x20, 2, 0, 0];
const SUBACK: [u8; 5] = [0x90, 3, 0, 1, 0];

type Secured<C> = StreamOwned<C, TcpStream>;

fn packet(packet: &Packet<'_>) -> Vec<u8> {
    encode(packet, Version::V311)
}

/// Relays the bytes of the second client to the first one.
fn relay(port: &str, folder: &Path) -> std::io::Result<()> {
    let read = |name| fs::read(folder.join(name));
    let chain = CertificateDer::pem_slice_iter(&read("certificate")?)
        .collect::<Result<_, _>>()
        .expect("a certificate");
    let key = PrivateKeyDer::from_pem_slice(&read("key")?).expect("a key");
    let config = ServerConfig::builder_with_provider(crypto::ring::default_provider().into())
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a pair");
    let config = Arc::new(config);
    let listener = TcpListener::bind(format!("127.0.0.1:{port}"))?;
    let mut space = vec![0; 64 << 10];
    let mut accept = || -> std::io::Result<Secured<ServerConnection>> {
        let (stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a server");
        let mut client = StreamOwned::new(connection, stream);
        let _ = client.read(&mut space)?;
        client.write_all(&CONNACK)?;
        Ok(client)
    };
    let mut receiver = accept()?;
    receiver.write_all(&SUBACK)?;
    let mut sender = accept()?;
    loop {
        match sender.read(&mut space)? {
            0 => return Ok(()),
            n => receiver.write_all(&space[..n])?,
        }
    }
}

/// What both servers use.
struct Certificates {
    folder: PathBuf,
    client: Arc<ClientConfig>,
}

fn certificates() -> &'static Certificates {
    static MADE: OnceLock<Certificates> = OnceLock::new();
    MADE.get_or_init(|| {
        let authority = Authority::new("an authority");
        let issued = authority.issue(&Subject::host("localhost"));
        let folder = std::env::temp_dir().join(format!("mqtt-relay-{}", std::process::id()));
        fs::create_dir_all(&folder).expect("a folder");
        fs::write(folder.join("certificate"), &issued.certificate).expect("a file");
        fs::write(folder.join("key"), &issued.key).expect("a file");
        let client = ClientConfig::builder_with_provider(crypto::ring::default_provider().into())
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(authority.roots())
            .with_no_client_auth();
        Certificates {
            folder,
            client: client.into(),
        }
    })
}

/// A process of the broker or of the relay; it ends when this is dropped.
struct Server {
    process: Child,
    port: u16,
}

impl Server {
    /// Starts `mqtt broker`, or the relay if there is no program.
    fn start(program: Option<&str>) -> Self {
        let (folder, port) = (&certificates().folder, free_port());
        let mut command = match program {
            Some(program) => Command::new(program),
            None => Command::new(std::env::current_exe().expect("a path")),
        };
        match program {
            Some(_) => command
                .args(["broker", "--log", "warn", "--threads", "1"])
                .arg("--bind")
                .arg(format!("mqtts://127.0.0.1:{port}"))
                .arg("--cert")
                .arg(folder.join("certificate"))
                .arg("--key")
                .arg(folder.join("key")),
            None => command.arg("--relay").arg(port.to_string()).arg(folder),
        };
        let process = command
            .stdout(Stdio::null())
            .spawn()
            .expect("the program starts");
        Self { process, port }
    }

    fn connect(&self) -> Secured<ClientConnection> {
        let name = ServerName::try_from("localhost").expect("a name");
        let config = Arc::clone(&certificates().client);
        let connection = ClientConnection::new(config, name).expect("a client");
        for _ in 0..500 {
            if let Ok(stream) = TcpStream::connect(("127.0.0.1", self.port)) {
                stream.set_nodelay(true).expect("an option of TCP");
                return StreamOwned::new(connection, stream);
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("nobody listens");
    }

    /// Returns the microseconds of CPU that the process has used.
    fn cpu(&self) -> f64 {
        let path = format!("/proc/{}/stat", self.process.id());
        let text = fs::read_to_string(path).expect("Linux");
        let (_, fields) = text.rsplit_once(')').expect("the name");
        let fields: Vec<_> = fields.split_whitespace().collect();
        let ticks = |at: usize| fields[at].parse::<f64>().expect("a number");
        // A tick of this file is 10 ms on each Linux.
        (ticks(11) + ticks(12)) * 1e4
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Returns the microseconds of CPU of the server for each message.
fn cost(program: Option<&str>, payload: usize, count: usize) -> f64 {
    let server = Server::start(program);
    let mut receiver = server.connect();
    greet(&mut receiver, "receiver", &CONNACK);
    if program.is_some() {
        let filter = TopicFilter::from_static(TOPIC);
        let filters = [Subscription::new(filter, QoS::AtMostOnce)];
        let subscribe = Subscribe::new(PacketId::FIRST, &filters[..]);
        let subscribe = packet(&Packet::Subscribe(subscribe));
        receiver.write_all(&subscribe).expect("a connection");
    }
    expect(&mut receiver, &SUBACK);
    let mut sender = server.connect();
    greet(&mut sender, "sender", &CONNACK);
    let payload = vec![0x42; payload];
    let publish = Publish::new(TopicName::from_static(TOPIC), &payload);
    let publish = packet(&Packet::Publish(publish));
    let (permits, permitted) = sync_channel(AHEAD / publish.len() + 1);
    let before = server.cpu();
    std::thread::scope(|scope| {
        let len = publish.len();
        scope.spawn(move || receive(&mut receiver, len * count, len, &permitted));
        send(&mut sender, &publish, count, &permits);
    });
    (server.cpu() - before) / count as f64
}

fn greet(stream: &mut Secured<ClientConnection>, name: &str, answer: &[u8]) {
    let connect = packet(&Packet::Connect(Connect::new(Version::V311, name)));
    stream.write_all(&connect).expect("a connection");
    expect(stream, answer);
}

fn expect(stream: &mut impl Read, answer: &[u8]) {
    let mut found = vec![0; answer.len()];
    stream.read_exact(&mut found).expect("an answer");
    assert_eq!(found, answer);
}

fn send(stream: &mut impl Write, publish: &[u8], count: usize, permits: &SyncSender<()>) {
    for _ in 0..count {
        // It waits while all permits are taken, each by a message that is under way.
        permits.send(()).expect("a receiver");
        stream.write_all(publish).expect("a connection");
    }
}

fn receive(stream: &mut impl Read, all: usize, each: usize, permitted: &Receiver<()>) {
    let mut space = vec![0; 64 << 10];
    let (mut received, mut told) = (0, 0);
    while received < all {
        received += stream.read(&mut space).expect("a connection");
        while told < received / each {
            permitted.recv().expect("a sender");
            told += 1;
        }
    }
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (program, megabytes) = match arguments[..] {
        ["--relay", port, folder] => {
            // An error is the end of a client.
            let _ = relay(port, Path::new(folder));
            return;
        }
        ["--mqtt", program] => (program, 512),
        ["--mqtt", program, "--megabytes", number] => (program, number.parse().expect("a number")),
        _ => panic!("--mqtt PROGRAM [--megabytes N]"),
    };
    println!("| microseconds of CPU a message | mqtt broker | relay with rustls | ratio |");
    println!("| --- | ---: | ---: | ---: |");
    for kilobytes in [16, 256] {
        let payload = kilobytes << 10;
        let count = (megabytes << 20) / payload;
        let (mut ours, mut other) = (f64::INFINITY, f64::INFINITY);
        for _ in 0..ROUNDS {
            ours = ours.min(cost(Some(program), payload, count));
            other = other.min(cost(None, payload, count));
        }
        let ratio = ours / other;
        println!("| {kilobytes} KiB | {ours:.1} | {other:.1} | {ratio:.2} |");
    }
    let _ = fs::remove_dir_all(&certificates().folder);
}
