//! The tests of `chronos` that need more than one module, in one binary.

mod model;

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
