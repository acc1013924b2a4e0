//! A process that is killed while it writes loses nothing that was acknowledged.
//!
//! `TIMES` kills, three by default, on one file; `SEED` chooses the records and the moments.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Command, Stdio};

use super::*;

/// Where the child process writes; set for it alone.
const CHILD_FILE: &str = "GPU_AUTOSCALER_STORE_CHILD_FILE";
/// The first batch that it writes.
const CHILD_BATCH: &str = "GPU_AUTOSCALER_STORE_CHILD_BATCH";

fn number(variable: &str, default: u64) -> u64 {
    env::var(variable).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// SplitMix64: the same numbers for the same seed in both processes.
fn chance(seed: u64, at: u64) -> u64 {
    let mut z = seed.wrapping_add(at.wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The records of one batch, which are written together or not at all.
fn batch(seed: u64, at: u64, through: Timestamp) -> Vec<HistoryRecord> {
    let count = 1 + chance(seed, at) % 120;
    (0..count)
        .map(|n| {
            let value = chance(seed ^ at, n);
            match value % 3 {
                0 => demand(value % 5, value % 48, value, through),
                _ => usage(value % 200, value, through),
            }
        })
        .collect()
}

/// Times of records are whole days, so that both processes mean the same.
fn today() -> Timestamp {
    let day = 24 * 3600 * 1000;
    Timestamp::from_millis(now().as_millis() / day * day).expect("in range")
}

/// The process that is killed: a test without a parent has nothing to do.
#[test]
fn child_that_writes_until_it_is_killed() {
    let Some(path) = env::var_os(CHILD_FILE) else { return };
    let (seed, through) = (number("SEED", 1), today());
    let store = open(Path::new(&path));
    for at in number(CHILD_BATCH, 0).. {
        put(&store.writer, batch(seed, at, through));
        // Not by `println!`, which the harness keeps back.
        writeln!(std::io::stderr(), "acknowledged {at}").expect("the parent reads");
    }
}

#[test]
fn killed_at_any_write_nothing_acknowledged_is_lost() {
    let (times, seed) = (number("TIMES", 3), number("SEED", 1));
    println!("seed={seed} kills={times}");
    let folder = Folder::new();
    let (path, through) = (folder.file(), today());
    let mut model = Model::default();
    let mut next = 0;
    let mut torn = 0;
    for kill in 0..times {
        let after = next + chance(!seed, kill) % 20;
        let acknowledged = write_and_kill(&path, seed, next, after);
        for at in next..=acknowledged {
            model.put(&batch(seed, at, through));
        }
        next = acknowledged + 1;
        let found = Model::of(&open(&path).records);
        if found != model {
            // The batch that was under way may be there, but only as a whole.
            model.put(&batch(seed, next, through));
            next += 1;
            torn += 1;
        }
        assert!(found == model, "seed={seed} kill={kill}: not what was acknowledged");
    }
    println!("{times} kills, {next} batches; {torn} times the batch under way was kept as well");
}

/// Runs the child from batch `first` until it has acknowledged batch `after`, kills it, and
/// returns the last batch that it acknowledged.
fn write_and_kill(path: &Path, seed: u64, first: u64, after: u64) -> u64 {
    let mut child = Command::new(env::current_exe().expect("a test has a path"))
        .args(["--exact", "--nocapture", "kills::child_that_writes_until_it_is_killed"])
        .env(CHILD_FILE, path)
        .env(CHILD_BATCH, first.to_string())
        .env("SEED", seed.to_string())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the test can run itself");
    let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
    let mut acknowledged = None;
    let mut killed = false;
    // What it wrote before it died is in the pipe, and counts.
    while let Some(Ok(line)) = lines.next() {
        let Some(at) = line.strip_prefix("acknowledged ") else { panic!("the child: {line}") };
        let at = at.parse().expect("a number");
        acknowledged = Some(at);
        if at >= after && !killed {
            child.kill().expect("it runs");
            killed = true;
        }
    }
    child.wait().expect("it is ours");
    assert!(killed, "the child ended by itself");
    acknowledged.expect("at least one")
}
