//! Measures how clients that mean well fare while other clients attack the broker. `scripts/attack.sh` calls it.
//!
//! Argument: the program of the broker. Options before it: `--mosquitto` if it is Mosquitto, `--seconds N` for each attack (3),
//! `--limit N` to fail if the 99th percentile is more than N times that without an attack, `--memory N` for the MB that a broker
//! may take (512), `--only NAME`. Every verdict but "served" and "slow" is a failure.
//!
//! Attackers would have machines of their own. They run with the lowest priority and, like the clients that mean well, on one
//! processor; the broker may use all. So what is measured is a wait for the broker, and not one for a processor.
//!
//! All sockets are on 127.0.0.1. Each attack has a separate broker, and ends after its seconds.

mod attacks;
mod broker;
mod client;
mod honest;
mod machine;

use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use attacks::{ATTACKS, Attack, Target};
use broker::Program;
use honest::{ABSENT, Measured, Watch};

/// A 99th percentile of at least this many times that of a quiet broker is slow.
const SLOW: u64 = 10;

struct Settings {
    seconds: u64,
    limit: Option<u64>,
    memory: u64,
    only: Option<String>,
    program: Program,
}

impl Settings {
    fn read() -> Self {
        let folder = std::env::temp_dir().join(format!("attack-{}", std::process::id()));
        let mut settings = Self {
            seconds: 3,
            limit: None,
            memory: 512,
            only: None,
            program: Program {
                path: String::new(),
                is_mosquitto: false,
                folder,
            },
        };
        let mut arguments = std::env::args().skip(1);
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().expect("a value");
            match argument.as_str() {
                "--mosquitto" => settings.program.is_mosquitto = true,
                "--seconds" => settings.seconds = value().parse().expect("a number"),
                "--limit" => settings.limit = Some(value().parse().expect("a number")),
                "--memory" => settings.memory = value().parse().expect("a number"),
                "--only" => settings.only = Some(value()),
                _ => settings.program.path = argument,
            }
        }
        assert!(!settings.program.path.is_empty(), "which broker?");
        settings
    }

    fn wants(&self, attack: &Attack) -> bool {
        let only = self.only.as_deref();
        attack.attackers == 0 || only.is_none_or(|only| attack.name.contains(only))
    }
}

/// The result of one attack.
struct Outcome {
    measured: Measured,
    /// The memory in MB, if it is known.
    memory: Option<u64>,
    /// Whether the broker serves a new pair after the attack.
    survived: bool,
}

enum Verdict {
    Served,
    /// How many times the 99th percentile of a quiet broker this one is.
    Slow(u64),
    Harmed(String),
}

impl Outcome {
    fn of(attack: &Attack, settings: &Settings) -> Self {
        let broker = settings.program.start(attack.setup);
        let target = Target {
            address: broker.address,
            over: AtomicBool::new(false),
        };
        attack.watch.prepare(&broker);
        let measured = std::thread::scope(|scope| {
            for _ in 0..attack.attackers {
                scope.spawn(|| {
                    machine::lower_priority();
                    (attack.run)(&target);
                });
            }
            // The measurement includes the preparations of the attack.
            let time = Duration::from_secs(settings.seconds);
            let measured = attack.watch.measure(&broker, time);
            target.over.store(true, Ordering::Relaxed);
            measured
        });
        Self {
            survived: Watch::Pair.measure(&broker, Duration::ZERO).failed == 0,
            memory: broker.memory(),
            measured,
        }
    }

    /// Returns the verdict, compared with the 99th percentile of a quiet broker.
    fn verdict(&self, watch: Watch, quiet: u64, most: u64) -> Verdict {
        let measured = &self.measured;
        let harmed = |text: &str| Verdict::Harmed(text.to_owned());
        if !self.survived {
            return harmed("serves nobody");
        }
        if measured.lost > 0 {
            return Verdict::Harmed(format!("loses {} of {ABSENT}", measured.lost));
        }
        if measured.failed > 0 && matches!(watch, Watch::Pair | Watch::Absent) {
            return harmed("locked out");
        }
        if measured.failed > 0 {
            let (failed, count) = (measured.failed, measured.count());
            return Verdict::Harmed(format!("locked out: {failed} of {count}"));
        }
        if self.memory.is_some_and(|memory| memory > most) {
            return harmed("too much memory");
        }
        match measured.micros(99) / quiet {
            times if times >= SLOW => Verdict::Slow(times),
            _ => Verdict::Served,
        }
    }
}

/// Returns the [`Watch`] whose quiet broker an attack is compared with.
fn base(watch: Watch) -> Watch {
    match watch {
        Watch::Absent => Watch::Pair,
        watch => watch,
    }
}

fn main() -> ExitCode {
    let settings = Settings::read();
    std::fs::create_dir_all(&settings.program.folder).expect("a folder for files");
    machine::leave_a_processor();
    machine::reserve_descriptors(4_096);
    println!("| attack | median, us | 99 of 100, us | memory, MB | verdict |");
    println!("| --- | ---: | ---: | ---: | --- |");
    let mut quiet: Vec<(Watch, u64)> = Vec::new();
    let mut failed = false;
    for attack in ATTACKS.iter().filter(|attack| settings.wants(attack)) {
        let outcome = Outcome::of(attack, &settings);
        let (median, high) = (outcome.measured.micros(50), outcome.measured.micros(99));
        if attack.attackers == 0 {
            quiet.push((attack.watch, high.max(1)));
        }
        let known = quiet.iter().find(|(watch, _)| *watch == base(attack.watch));
        let compared = known.map_or(1, |(_, high)| *high);
        let verdict = match outcome.verdict(attack.watch, compared, settings.memory) {
            Verdict::Served => "served".to_owned(),
            Verdict::Slow(times) => {
                failed |= settings.limit.is_some_and(|limit| times > limit);
                format!("slow: {times} times")
            }
            Verdict::Harmed(how) => {
                failed = true;
                how
            }
        };
        let memory = outcome
            .memory
            .map_or_else(|| "-".to_owned(), |memory| memory.to_string());
        println!(
            "| {} | {median} | {high} | {memory} | {verdict} |",
            attack.name
        );
    }
    let _ = std::fs::remove_dir_all(&settings.program.folder);
    if failed {
        eprintln!("an attack did more than the limits allow");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}
