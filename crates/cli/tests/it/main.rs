//! What a person sees of the command line.

mod fleet;
mod manifest;
mod plan;
mod replay;

use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

/// Runs the program in the folder of the samples and prints what it printed and how it ended.
fn run(args: &[&str], input: &str) -> String {
    run_with(args, &[], input)
}

/// The same on a terminal of 80 columns.
fn run_narrow(args: &[&str]) -> String {
    run_with(args, &[("COLUMNS", "80")], "")
}

/// The same with variables of the environment; none of a person's own cluster counts.
fn run_with(args: &[&str], environment: &[(&str, &str)], input: &str) -> String {
    let mut child = Command::new(env!("CARGO_BIN_EXE_gpu-autoscaler"))
        .args(args)
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/samples"))
        .env_clear()
        .env("HOME", "/nonexistent")
        .envs(environment.iter().copied())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program was built for this test");
    let mut stdin = child.stdin.take().expect("piped");
    // A program that reads nothing may be gone by now.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let output = child.wait_with_output().expect("it ends");
    let mut text = String::from_utf8(output.stdout).expect("text");
    for line in String::from_utf8(output.stderr).expect("text").lines() {
        text.push_str(&format!("! {line}\n"));
    }
    text.push_str(&format!("= {}\n", output.status.code().expect("it was not killed")));
    text
}
