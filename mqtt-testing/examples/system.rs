//! Runs the whole system for many seeds: `--seeds N` (200 clients each), `--first SEED`, `--clients N`, `--operations N`,
//! `--classes BITS`, `--shards N`, `--trace`. Without `--first` it picks one by itself and prints it.

use std::hash::{BuildHasher, RandomState};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_testing::simulation::{Failure, Plan, Report, class, explain, run};

fn main() -> ExitCode {
    let (mut seeds, mut first, mut plan) = (2_000, None, Plan::default());
    let mut arguments = std::env::args().skip(1);
    while let Some(name) = arguments.next() {
        if name == "--trace" {
            plan.trace = true;
            continue;
        }
        let number: Option<u64> = arguments.next().and_then(|value| value.parse().ok());
        let Some(number) = number else {
            eprintln!("{name} needs a number");
            return ExitCode::from(2);
        };
        let small = usize::try_from(number).unwrap_or(usize::MAX);
        match name.as_str() {
            "--seeds" => seeds = number,
            "--first" => first = Some(number),
            "--clients" => plan.clients = small,
            "--operations" => plan.operations = small,
            "--shards" => plan.shards = small,
            "--classes" => plan.classes = u32::try_from(number).unwrap_or(class::EVERY),
            _ => {
                eprintln!("unknown: {name}");
                return ExitCode::from(2);
            }
        }
    }
    // The hasher of the standard library has a random seed of the system.
    let first = first.unwrap_or_else(|| RandomState::new().hash_one(seeds) % 1_000_000_000);
    println!("seeds {first} to {}", first + seeds.saturating_sub(1));
    let failure = run_all(first, seeds, plan);
    if let Some(failure) = &failure {
        eprintln!("{}", explain(failure, plan));
    }
    ExitCode::from(u8::from(failure.is_some()))
}

/// Runs the seeds on all processors until one fails.
fn run_all(first: u64, seeds: u64, plan: Plan) -> Option<Failure> {
    let next = AtomicU64::new(first);
    let total = Mutex::new(Report::default());
    let failed = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds || failed.lock().expect("no panic").is_some() {
                return;
            }
            let report = std::panic::catch_unwind(|| run(seed, plan));
            let panicked = |_| {
                Err(Failure {
                    seed,
                    client: None,
                    what: "a panic: the message is above".to_owned(),
                    log: Vec::new(),
                })
            };
            match report.unwrap_or_else(panicked) {
                Ok(report) => total.lock().expect("no panic").add(&report),
                Err(failure) => {
                    failed.lock().expect("no panic").get_or_insert(failure);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    print(&total.into_inner().expect("no panic"), seeds, plan);
    failed.into_inner().expect("no panic")
}

fn print(total: &Report, seeds: u64, plan: Plan) {
    println!(
        "{seeds} seeds, {} clients each: {} messages published, {} received, {} of them again, {} connections cut, \
         {} processes killed, {} crashes of the broker",
        plan.clients,
        total.published,
        total.received,
        total.repeated,
        total.cuts,
        total.kills,
        total.crashes
    );
    println!(
        "{} processes with a disk ended, {} of them lost it; {} messages were sent on by the next process, {} acknowledged with a note",
        total.restored, total.disks_lost, total.continued, total.noted
    );
    println!(
        "{} clients had short queues and lost nothing; {} more were given up",
        total.short_queues, total.given_up
    );
    println!(
        "{} messages went from one shard to another; {} links were cut, {} shards were away while others served",
        total.between_shards, total.links_cut, total.away
    );
    println!(
        "{} connections had stages below MQTT; {} of them ended cleanly",
        total.layered, total.ended
    );
}
