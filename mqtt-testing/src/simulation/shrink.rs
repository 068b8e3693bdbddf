//! Shrinks a failure: fewer operations, fewer clients, fewer classes of events, as long as a run fails.

use std::fmt::Write as _;

use super::{Failure, Plan, class, run, run_with_log};

/// How many runs a search may take.
const RUNS: usize = 600;
/// With fewer clients a seed makes a different run, so neighbouring seeds are tried as well.
const BESIDE: u64 = 6;

/// Reports a failure: its seed, the smallest failing plan, and the operations and packets of the client concerned.
#[must_use]
pub fn explain(failure: &Failure, plan: Plan) -> String {
    let mut text = format!("{failure}\n");
    let (smallest, small) = shrink(
        failure.clone(),
        Plan {
            trace: false,
            ..plan
        },
    );
    let names: Vec<_> = class::ALL
        .iter()
        .filter(|(bit, _)| small.classes & bit != 0)
        .map(|(_, name)| *name)
        .collect();
    let _ = writeln!(
        text,
        "the smallest that fails: --first {} --seeds 1 --clients {} --operations {} --classes {} ({})\n{smallest}",
        smallest.seed,
        small.clients,
        small.operations,
        small.classes,
        names.join(", ")
    );
    if let (Some(client), seed) = (smallest.client, smallest.seed)
        && let Err(recorded) = run_with_log(seed, small, Some(client))
    {
        let _ = writeln!(text, "client {client}, with all that went over its wire:");
        for line in recorded.log {
            let _ = writeln!(text, "  {line:.300}");
        }
    }
    text
}

fn shrink(mut failure: Failure, mut plan: Plan) -> (Failure, Plan) {
    let mut runs = 0;
    loop {
        let candidates = smaller(plan);
        let mut found = None;
        'search: for candidate in candidates {
            let same_life = candidate.clients == plan.clients && candidate.classes == plan.classes;
            let beside = if same_life { 1 } else { BESIDE };
            for seed in failure.seed..failure.seed.saturating_add(beside) {
                runs += 1;
                if runs > RUNS {
                    break 'search;
                }
                if let Err(smaller) = run(seed, candidate)
                    && kind(&smaller) == kind(&failure)
                {
                    found = Some((smaller, candidate));
                    break 'search;
                }
            }
        }
        match found {
            Some(smaller) => (failure, plan) = smaller,
            None => return (failure, plan),
        }
    }
}

/// Returns the text of a failure without names and numbers.
fn kind(failure: &Failure) -> Vec<&str> {
    failure
        .what
        .split(|c: char| !c.is_alphabetic())
        .filter(|word| word.len() > 1)
        .take(2)
        .collect()
}

/// Returns plans that are smaller in one respect, the largest step first.
fn smaller(plan: Plan) -> Vec<Plan> {
    let mut plans = Vec::new();
    for (numerator, denominator) in [(1, 8), (1, 2), (4, 5), (19, 20)] {
        let clients = plan.clients * numerator / denominator;
        if clients >= 2 && clients < plan.clients {
            plans.push(Plan { clients, ..plan });
        }
        let operations = plan.operations * numerator / denominator;
        if operations < plan.operations {
            plans.push(Plan { operations, ..plan });
        }
    }
    for (bit, _) in class::ALL {
        if plan.classes & bit != 0 {
            let classes = plan.classes & !bit;
            plans.push(Plan { classes, ..plan });
        }
    }
    plans
}
