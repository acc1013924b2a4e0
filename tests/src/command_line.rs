//! The command line `gpu-autoscaler` as its own process.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;

/// The binary, built from this tree once per process; up to date it takes a moment.
static BUILT: LazyLock<PathBuf> = LazyLock::new(|| {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace's features, so that nothing is built twice.
    let built = Command::new(cargo)
        .args(["build", "--quiet", "--workspace", "--bin", "gpu-autoscaler"])
        .status()
        .expect("cargo runs this test");
    assert!(built.success(), "cannot build gpu-autoscaler");
    let test = env::current_exe().expect("a test has a path");
    test.ancestors().nth(2).expect("target/PROFILE/deps/TEST").join("gpu-autoscaler")
});

/// The binary, built from this tree.
pub fn binary() -> &'static Path {
    &BUILT
}

/// What a command printed and how it ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Printed {
    /// Exit status.
    pub code: i32,
    /// Standard output.
    pub stdout: String,
    /// Standard error.
    pub stderr: String,
}

/// Runs `arguments` with these variables and none of this process.
///
/// # Panics
/// When it cannot be started, is killed, or prints what is no text.
pub fn run(arguments: &[&str], environment: &[(&str, &str)]) -> Printed {
    let output = Command::new(binary())
        .args(arguments)
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(environment.iter().copied())
        .output()
        .expect("the program was built for this test");
    let text = |bytes| String::from_utf8(bytes).expect("the program prints text");
    Printed {
        code: output.status.code().expect("it was not killed"),
        stdout: text(output.stdout),
        stderr: text(output.stderr),
    }
}
