//! The tests of `chronos` that need more than one module, in one binary.
//!
//! GPUs are fake; processes, kills, signals, control groups and users are real. A test that needs
//! root or a service manager says so and is left out where there is none.
//!
//! With the feature `portable` the same tests hold the other half of `os` to the same behaviour;
//! left out are those of what only Linux has.

// A test that cannot go on says so by panicking, in its helpers as well.
#![allow(clippy::unwrap_used)]

mod behaviour;
mod escapes;
mod examples;
mod exit_codes;
mod faults;
mod fence;
mod guards;
mod inside;
#[cfg(not(feature = "portable"))]
mod installation;
mod kill_points;
#[cfg(not(feature = "portable"))]
mod many_users;
mod model;
#[cfg(not(feature = "portable"))]
mod network_fs;
mod nvidia;
#[cfg(feature = "portable")]
mod portable;
mod sandbox;
mod scheduling;
mod schema;
#[cfg(not(feature = "portable"))]
mod timers;
mod trace;
#[cfg(not(feature = "portable"))]
mod users;
mod views;

/// `SEED` of the environment, or `default`.
fn seed(default: u64) -> u64 {
    number("SEED").unwrap_or(default)
}

/// `TIMES` of the environment, or `default`.
fn times(default: u64) -> u64 {
    number("TIMES").unwrap_or(default)
}

fn number(name: &str) -> Option<u64> {
    let text = std::env::var(name).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{name} `{text}` is not a number")))
}
