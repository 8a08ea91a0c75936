//! Random sequences of what clients, the network, the store and the machine do, held against a model of a page.
//!
//! `case.rs` has what can happen, `model.rs` what has to hold, `run.rs` brings the two together. Everything runs on simulated
//! time and without sockets, so that a sequence takes milliseconds. docs/testing.md says how to run it, and how to read what it
//! says when it fails.

mod bucket;
mod case;
mod catalog;
mod client;
mod ground;
mod model;
mod run;
mod shrink;
mod weather;

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use proptest::strategy::{Strategy as _, ValueTree as _};
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use case::Case;
use run::{Failure, Tally};
use shrink::Shrinker;
use weather::Schedule;

/// How many sequences are run unless it is said (`JUMAR_MODEL_SEQUENCES`).
const SEQUENCES: u64 = 2000;
fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{name} has to be a number")),
    )
}

/// The sequence of a seed.
fn drawn(seed: u64) -> Case {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let random = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(Config::default(), random);
    let tree = case::case().new_tree(&mut runner);
    tree.expect("nothing is rejected").current()
}

/// Runs a sequence under each schedule.
fn attempt(case: &Case, seed: u64) -> Result<Tally, (Schedule, Failure)> {
    let mut tally = Tally::default();
    for schedule in Schedule::ALL {
        tally.add(run::run(case, schedule, seed).map_err(|failure| (schedule, failure))?);
    }
    Ok(tally)
}

fn report(seed: u64, case: Case, schedule: Schedule, failure: Failure) -> String {
    let first = failure.what.clone();
    let smallest = Shrinker::shrink(case, schedule, failure, seed);
    let ops: Vec<String> = smallest
        .case
        .ops
        .iter()
        .map(|op| format!("    {op:?}"))
        .collect();
    format!(
        "{}\n\nthe smallest sequence found, under {:?}, on {:?}:\n{}\n\nwhat happened:\n    {}\n\n\
         at first it was: {first}\nrun it again: JUMAR_MODEL_SEED={seed} JUMAR_MODEL_SEQUENCES=1 cargo test --test model\n",
        smallest.failure.what,
        smallest.schedule,
        smallest.case.setup,
        ops.join("\n"),
        smallest.failure.log.join("\n    "),
    )
}

#[test]
fn never_back_exact_bytes_told_once_in_random_sequences() {
    // The same ones each time; `scripts/soak` draws others.
    let first = number("JUMAR_MODEL_SEED").unwrap_or(1);
    let sequences = number("JUMAR_MODEL_SEQUENCES").unwrap_or(SEQUENCES);
    println!("JUMAR_MODEL_SEED={first} JUMAR_MODEL_SEQUENCES={sequences}");
    let (next, failed) = (AtomicU64::new(0), AtomicBool::new(false));
    let work = || {
        let mut tally = Tally::default();
        while !failed.load(Ordering::SeqCst) {
            let n = next.fetch_add(1, Ordering::SeqCst);
            if n >= sequences {
                break;
            }
            let seed = first.wrapping_add(n);
            let case = drawn(seed);
            match attempt(&case, seed) {
                Ok(more) => tally.add(more),
                Err((schedule, failure)) if !failed.swap(true, Ordering::SeqCst) => {
                    panic!("{}", report(seed, case, schedule, failure));
                }
                Err(_) => break,
            }
        }
        tally
    };
    let tally = std::thread::scope(|scope| {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let workers: Vec<_> = (0..cores).map(|_| scope.spawn(work)).collect();
        let mut tally = Tally::default();
        for worker in workers {
            match worker.join() {
                Ok(more) => tally.add(more),
                Err(report) => std::panic::resume_unwind(report),
            }
        }
        tally
    });
    println!("{tally:?}");
    let Tally {
        answers,
        completions,
        ended,
        faults,
        deaths,
    } = tally;
    let least = sequences / 10;
    assert!(
        answers > sequences
            && [completions, ended, faults, deaths]
                .iter()
                .all(|n| *n >= least),
        "too little comes in the sequences: {tally:?}"
    );
}
