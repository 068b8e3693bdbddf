//! How long the messages of a pair of clients take, and how many pass, while 1,000 others perform handshakes of TLS 1.3 with the same
//! broker, again and again. `--seconds N --rounds N` are the time of each measurement (1) and how often they are repeated in turns (5); the
//! medians of the rounds count. The pair uses TLS as well. It fails if the median of a message is more than a quarter longer than without
//! them, or the rate more than a quarter lower.
//!
//! The broker has a thread and the pair another one. The 1,000 clients run in a process of the policy SCHED_IDLE (`chrt --idle 0`), so
//! that they take a processor only while nobody else does, and leave it at once: other machines would compute for them. A processor that
//! sleeps takes a while to wake, so a pair is measured as well beside a process that only computes under the same policy.

use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mqtt_testing::peers::SecuredBroker;
use mqtt_tokio::proto::QoS;
use mqtt_tokio::transport::tls::rustls::client::Resumption;
use mqtt_tokio::transport::tls::rustls::pki_types::ServerName;
use mqtt_tokio::transport::tls::rustls::{ClientConfig, ClientConnection};
use mqtt_tokio::transport::tls::{Roots, TlsConnector, TlsOptions};
use mqtt_tokio::{Handle, Options, Scheme};

const CLIENTS: usize = 1_000;
/// How much longer a message of the pair may take beside them.
const GOAL: f64 = 1.25;
/// How many messages at QoS 1 the pair has under way when its rate is measured.
const WINDOW: usize = 100;

/// Performs handshakes, each client one after the other, and prints how many there were.
fn shake(address: &str, seconds: u64) {
    let mut options = TlsOptions::default();
    options.roots = Roots::InsecureAcceptAny;
    let connector = TlsConnector::new(options).expect("settings");
    let mut config = ClientConfig::clone(&connector.config().expect("settings"));
    config.resumption = Resumption::disabled();
    let config = Arc::new(config);
    let count = AtomicU64::new(0);
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            let client = std::thread::Builder::new().stack_size(128 << 10);
            let (config, count) = (&config, &count);
            let run = move || {
                while Instant::now() < until {
                    // A broker that is stopped ends the handshake.
                    if handshake(address, config).is_ok() {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                }
            };
            client.spawn_scoped(scope, run).expect("a thread");
        }
    });
    println!("{}", count.into_inner());
}

/// Keeps each processor busy.
fn compute(seconds: u64) {
    let until = Instant::now() + Duration::from_secs(seconds);
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..processors {
            scope.spawn(move || while Instant::now() < until {});
        }
    });
    println!("0");
}

fn handshake(address: &str, config: &Arc<ClientConfig>) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    let name = ServerName::try_from("localhost").expect("a name");
    let client = ClientConnection::new(Arc::clone(config), name);
    let mut client = client.map_err(std::io::Error::other)?;
    while client.is_handshaking() {
        client.complete_io(&mut stream)?;
    }
    Ok(())
}

/// Returns the times of a message at QoS 0 in microseconds, about one each millisecond, in ascending order.
async fn times(broker: &SecuredBroker, span: Duration) -> Vec<f64> {
    let (from, to) = pair(broker).await;
    let mut messages = to
        .subscribe("pair", QoS::AtMostOnce)
        .await
        .expect("granted");
    let mut times = Vec::new();
    let start = Instant::now();
    while start.elapsed() < span {
        let sent = Instant::now();
        let ticket = from.publish("pair", QoS::AtMostOnce, false, "x").await;
        drop(ticket.expect("accepted"));
        messages.next().await.expect("a message");
        times.push(sent.elapsed().as_secs_f64() * 1e6);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    times.sort_by(f64::total_cmp);
    times
}

/// Returns how many messages at QoS 1 pass in a second if a hundred are under way.
async fn rate(broker: &SecuredBroker, span: Duration) -> f64 {
    let (from, to) = pair(broker).await;
    let mut messages = to
        .subscribe("pair", QoS::AtLeastOnce)
        .await
        .expect("granted");
    let publish = async || {
        let ticket = from
            .publish("pair", QoS::AtLeastOnce, false, &[b'x'; 64])
            .await;
        drop(ticket.expect("accepted"));
    };
    for _ in 0..WINDOW {
        publish().await;
    }
    let (start, mut count) = (Instant::now(), 0_u32);
    while start.elapsed() < span {
        messages.next().await.expect("a message");
        publish().await;
        count += 1;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

async fn pair(broker: &SecuredBroker) -> (Handle, Handle) {
    let connect = async || {
        let options = Options::new("localhost", broker.port(Scheme::Mqtts));
        let (options, dial) = broker.settings(options, Scheme::Mqtts);
        let handle = Handle::start_dialling(options, dial);
        handle.first_attempt().await.expect("the broker");
        handle
    };
    (connect().await, connect().await)
}

/// Starts this program under SCHED_IDLE, and gives it a second to make its connections.
fn start_idle(arguments: &[&str]) -> Child {
    let own = std::env::current_exe().expect("a path");
    let mut command = Command::new("chrt");
    command.args(["--idle", "0"]).arg(own).args(arguments);
    let child = command.stdout(Stdio::piped()).spawn().expect("clients");
    std::thread::sleep(Duration::from_secs(1));
    child
}

/// What one measurement of the pair yields: median and 99th percentile of a message in microseconds, messages and handshakes a second.
type Row = [f64; 4];

/// The rows of the table, with what runs beside the pair.
const NAMES: [&str; 3] = [
    "quiet",
    "beside a process that computes",
    "beside 1,000 handshakes",
];

fn measure(
    runtime: &tokio::runtime::Runtime,
    broker: &SecuredBroker,
    arguments: &[&str],
    seconds: u64,
) -> Row {
    let other = (!arguments.is_empty()).then(|| start_idle(arguments));
    let span = Duration::from_secs(seconds);
    let times = runtime.block_on(times(broker, span));
    let rate = runtime.block_on(rate(broker, span));
    let handshakes = other.map_or(0.0, |child| {
        let told = child.wait_with_output().expect("clients").stdout;
        let text = String::from_utf8(told).expect("a number");
        let all: f64 = text.trim().parse().expect("a number");
        all / whole(seconds) as f64
    });
    let at = |part: usize| times[times.len() * part / 100];
    [at(50), at(99), rate, handshakes]
}

/// Returns the seconds for which another process runs beside the pair.
const fn whole(seconds: u64) -> u64 {
    2 * seconds + 2
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn main() {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
    let (seconds, rounds) = match arguments[..] {
        ["--shake", address, seconds] => {
            return shake(address, seconds.parse().expect("a number"));
        }
        ["--compute", seconds] => return compute(seconds.parse().expect("a number")),
        ["--seconds", seconds, "--rounds", rounds] => (
            seconds.parse().expect("a number"),
            rounds.parse().expect("a number"),
        ),
        _ => (1, 5),
    };
    let broker = SecuredBroker::own();
    let address = format!("127.0.0.1:{}", broker.port(Scheme::Mqtts));
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let whole = whole(seconds).to_string();
    let beside: [&[&str]; 3] = [&[], &["--compute", &whole], &["--shake", &address, &whole]];
    // The rows of a round follow each other, so that a machine that changes its speed changes them alike.
    let measured: Vec<[Row; 3]> = (0_u64..rounds)
        .map(|_| beside.map(|arguments| measure(&runtime, &broker, arguments, seconds)))
        .collect();
    println!("| | median, us | 99 of 100, us | messages a second | handshakes a second |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    for (row, name) in NAMES.iter().enumerate() {
        let of = |at: usize| median(measured.iter().map(|round| round[row][at]).collect());
        let [middle, slow, rate, handshakes] = [0, 1, 2, 3].map(of);
        println!("| {name} | {middle:.0} | {slow:.0} | {rate:.0} | {handshakes:.0} |");
    }
    let mut is_met = true;
    for (row, name) in NAMES.iter().enumerate().take(2) {
        let times = |at: usize, is_rate: bool| -> Vec<f64> {
            let of = |round: &[Row; 3]| round[2][at] / round[row][at];
            let ratio = |round| if is_rate { 1.0 / of(round) } else { of(round) };
            measured.iter().map(ratio).collect()
        };
        for (what, ratios) in [
            ("the median", times(0, false)),
            ("99 of 100", times(1, false)),
            ("the rate", times(2, true)),
        ] {
            let middle = median(ratios.clone());
            println!(
                "{what} beside handshakes, to {name}: {middle:.2} times as long; rounds {ratios:.2?}"
            );
            is_met &= row > 0 || what == "99 of 100" || middle <= GOAL;
        }
    }
    if !is_met {
        std::process::exit(1);
    }
}
