//! Measures how long the messages of one pair of clients take while other clients attack the broker. `scripts/attack.sh` calls it.
//!
//! Arguments: the program of the broker and its arguments, in which `PORT` stands for a free port. Options before them:
//! `--seconds N` for each attack (3), `--limit N` to fail if the 99th percentile is more than N times that without an attack,
//! `--memory N` to fail if the broker takes more than N MB, `--only NAME`. It is always a failure if a broker does not survive an
//! attack, or serves no client afterwards.
//!
//! All sockets are on 127.0.0.1. Each attack has a separate broker, and ends after its seconds.

mod attacks;
mod client;
mod pair;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use attacks::{ATTACKS, Attack};
use pair::Latencies;

/// A running broker. Dropping this kills it.
struct Broker {
    child: Child,
    address: SocketAddr,
}

impl Broker {
    fn start(program: &[String]) -> Self {
        let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = free.local_addr().expect("its address");
        drop(free);
        let port = address.port().to_string();
        let arguments = program.iter().skip(1);
        let child = Command::new(&program[0])
            .args(arguments.map(|argument| argument.replace("PORT", &port)))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("the broker starts");
        let broker = Self { child, address };
        let by = Instant::now() + Duration::from_secs(10);
        while TcpStream::connect(address).is_err() {
            assert!(Instant::now() < by, "the broker does not listen");
            std::thread::sleep(Duration::from_millis(10));
        }
        broker
    }

    /// Returns its largest resident memory so far in MB, on systems with `/proc`.
    fn memory(&self) -> Option<u64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(path).ok()?;
        let line = status.lines().find(|line| line.starts_with("VmHWM:"))?;
        let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
        Some(kilobytes / 1_024)
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Settings {
    seconds: u64,
    limit: Option<u32>,
    memory: Option<u64>,
    only: Option<String>,
    program: Vec<String>,
}

impl Settings {
    fn read() -> Self {
        let mut settings = Self {
            seconds: 3,
            limit: None,
            memory: None,
            only: None,
            program: Vec::new(),
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match argument.as_str() {
                "--seconds" => settings.seconds = value().parse().expect("a number"),
                "--limit" => settings.limit = Some(value().parse().expect("a number")),
                "--memory" => settings.memory = Some(value().parse().expect("a number")),
                "--only" => settings.only = Some(value()),
                _ => {
                    settings.program.push(argument);
                    settings.program.extend(arguments.by_ref());
                }
            }
        }
        assert!(!settings.program.is_empty(), "which broker?");
        settings
    }
}

/// The result of one attack.
struct Outcome {
    times_of_pair: Latencies,
    /// The memory in MB, if it is known.
    memory: Option<u64>,
    /// Whether the broker serves a new pair after the attack.
    survived: bool,
}

fn run(attack: &Attack, settings: &Settings) -> Outcome {
    let broker = Broker::start(&settings.program);
    let over = AtomicBool::new(false);
    let times_of_pair = std::thread::scope(|scope| {
        for _ in 0..attack.attackers {
            scope.spawn(|| (attack.run)(broker.address, &over));
        }
        // The measurement includes the preparations of the attack.
        let times_of_pair = pair::measure(broker.address, Duration::from_secs(settings.seconds));
        over.store(true, Ordering::Relaxed);
        times_of_pair
    });
    Outcome {
        survived: pair::measure(broker.address, Duration::ZERO).messages > 0,
        memory: broker.memory(),
        times_of_pair,
    }
}

fn main() -> ExitCode {
    let settings = Settings::read();
    println!(
        "| attack | middle, us | 99 of 100, us | longest, ms | messages | memory, MB | times the quiet 99th |"
    );
    println!("| --- | ---: | ---: | ---: | ---: | ---: | ---: |");
    let mut quiet = None;
    let mut failed = false;
    for attack in ATTACKS {
        let wanted = settings.only.as_ref();
        if attack.attackers > 0 && wanted.is_some_and(|only| !attack.name.contains(only.as_str())) {
            continue;
        }
        let Outcome {
            times_of_pair,
            memory,
            survived,
        } = run(attack, &settings);
        let most = settings.memory.unwrap_or(u64::MAX);
        if !survived || memory.is_some_and(|memory| memory > most) {
            eprintln!(
                "{}: the broker serves nobody, or takes too much memory",
                attack.name
            );
            failed = true;
        }
        let memory = memory.map_or_else(|| "-".to_owned(), |memory| memory.to_string());
        let base = *quiet.get_or_insert_with(|| times_of_pair.high.max(1));
        let times = times_of_pair.high.div_ceil(base);
        failed |= settings.limit.is_some_and(|limit| times > u64::from(limit));
        println!(
            "| {} | {} | {} | {} | {} | {memory} | {times} |",
            attack.name,
            times_of_pair.middle,
            times_of_pair.high,
            times_of_pair.longest / 1_000,
            times_of_pair.messages
        );
    }
    if failed {
        eprintln!("an attack did more than the limits allow");
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    }
}
