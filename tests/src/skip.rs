//! Skipping a test aloud, and turning skips into failures.

use std::io::Write as _;
use std::thread;

/// Name of the environment variable that turns every skip, save GPU tests, into a failure.
pub const REQUIRE_ALL: &str = "REQUIRE_ALL";

/// Says that the calling test is skipped and why; the test then returns.
///
/// # Panics
/// When the environment has `REQUIRE_ALL=1`: a run that must prove everything may skip nothing.
pub fn skip_or_fail(reason: &str) {
    let required = std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1");
    assert!(!required, "{REQUIRE_ALL}=1 forbids to skip: {reason}");
    announce(reason);
}

/// As [`skip_or_fail`] for a test that needs a GPU: these may be skipped on any machine.
pub fn skip_without_gpu(reason: &str) {
    announce(reason);
}

fn announce(reason: &str) {
    let test = thread::current().name().unwrap_or("unnamed test").to_owned();
    // Not `eprintln!`: the test harness captures that and drops it when the test passes.
    // A closed stderr only loses the notice.
    let _ = writeln!(std::io::stderr(), "skipped: {test}: {reason}");
}
