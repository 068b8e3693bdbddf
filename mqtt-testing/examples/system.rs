//! Runs the whole system for many seeds: `--seeds N` (200 clients each), `--first SEED`, `--clients N`, `--operations N`, `--trace`.

use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};

use mqtt_testing::system::{Plan, run};

fn main() -> ExitCode {
    let (mut seeds, mut first, mut plan) = (2_000, 0, Plan::default());
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
            "--first" => first = number,
            "--clients" => plan.clients = small,
            "--operations" => plan.operations = small,
            _ => {
                eprintln!("unknown: {name}");
                return ExitCode::from(2);
            }
        }
    }
    let next = AtomicU64::new(first);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let work = || {
        let (mut published, mut received, mut cuts) = (0, 0, 0);
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= first + seeds {
                return Ok((published, received, cuts));
            }
            let report = run(seed, plan)?;
            published += report.published;
            received += report.received;
            cuts += report.cuts;
        }
    };
    let results: Vec<Result<_, String>> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .map(|thread| {
                let panicked = |_| Err("a panic: the message is above".to_owned());
                thread.join().unwrap_or_else(panicked)
            })
            .collect()
    });
    let (mut published, mut received, mut cuts) = (0, 0, 0);
    let mut failed = false;
    for result in results {
        match result {
            Ok((p, r, c)) => (published, received, cuts) = (published + p, received + r, cuts + c),
            Err(broken) => {
                eprintln!("{broken}");
                failed = true;
            }
        }
    }
    println!(
        "{seeds} seeds, {} clients each: {published} messages published, {received} received, {cuts} connections cut",
        plan.clients
    );
    ExitCode::from(u8::from(failed))
}
