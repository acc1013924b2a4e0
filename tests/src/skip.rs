//! Skipping a test aloud, and turning skips into failures.

use std::ffi::OsStr;
use std::io::{self, Write as _};
use std::{env, thread};

/// Name of the environment variable that turns every skip, save GPU tests, into a failure.
pub const REQUIRE_ALL: &str = "REQUIRE_ALL";

/// Says that the calling test is skipped and why; the test then returns.
///
/// # Panics
/// When the environment has `REQUIRE_ALL=1`: a run that must prove everything may skip nothing.
pub fn skip_or_fail(reason: &str) {
    if skips_are_failures(env::var_os(REQUIRE_ALL).as_deref()) {
        panic!("{REQUIRE_ALL}=1 forbids to skip: {reason}");
    }
    announce(reason);
}

/// As [`skip_or_fail`] for a test that needs a GPU: these may be skipped on any machine.
pub fn skip_without_gpu(reason: &str) {
    announce(reason);
}

/// What the variable means: `1` and nothing else asks for failures.
fn skips_are_failures(value: Option<&OsStr>) -> bool {
    value.is_some_and(|value| value == "1")
}

fn announce(reason: &str) {
    let test = thread::current().name().unwrap_or("unnamed test").to_owned();
    // One line in one write: other tests write at the same time.
    let line = format!("skipped: {test}: {}\n", reason.replace('\n', "; "));
    // Not `eprintln!`: the test harness captures that and drops it when the test passes.
    // A closed stderr only loses the notice.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_value_1_turns_skips_into_failures() {
        assert!(skips_are_failures(Some(OsStr::new("1"))));
        for value in ["", "0", "true"] {
            assert!(!skips_are_failures(Some(OsStr::new(value))), "{value:?}");
        }
        assert!(!skips_are_failures(None));
    }
}
