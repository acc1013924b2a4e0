//! How the program ends.

use std::io::{self, IsTerminal};
use std::process::ExitCode;

/// Exit codes, for `--help` and the reference.
pub const HELP: &str = "\
Exit status:
  0  done
  1  nothing could be done; the reason is on standard error. Of `doctor`: a check failed; of
     `lint`: there is a problem
  2  the command line is wrong
  3  done in part: some input could not be read, or some part of the question cannot be answered;
     each is named on standard error";

/// How the program ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All was done.
    Done,
    /// Nothing could be done.
    Failed,
    /// Some input could not be read.
    Partly,
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        match exit {
            Exit::Done => Self::SUCCESS,
            Exit::Failed => Self::from(1),
            Exit::Partly => Self::from(3),
        }
    }
}

/// An error that knows what to do next.
#[derive(Debug)]
pub struct Hint {
    /// What to do next, in one sentence.
    pub hint: String,
}

impl Hint {
    /// With what to do next.
    pub fn new(hint: &str) -> Self {
        Self { hint: hint.to_owned() }
    }
}

impl std::fmt::Display for Hint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.hint)
    }
}

/// Prints the chain of causes, the innermost last, and the hint if there is one.
///
/// A reader that went away, as in `gpu-autoscaler plan … | head`, is no failure.
pub fn report(error: &anyhow::Error) -> Exit {
    let broken_pipe = error.chain().any(|cause| {
        cause.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::BrokenPipe)
    });
    if broken_pipe {
        return Exit::Done;
    }
    let (strong, plain) = if io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none() {
        ("\x1b[1;31m", "\x1b[0m")
    } else {
        ("", "")
    };
    let mut text = format!("{strong}error{plain}: {error}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        // Some libraries print a cause with the error that has it.
        if !text.ends_with(&cause) {
            text.push_str(&format!("\n  because: {cause}"));
        }
    }
    if let Some(hint) = error.downcast_ref::<Hint>() {
        text = text.replacen(&format!("{strong}error{plain}: {hint}\n  because"), "error", 1);
        text.push_str(&format!("\nhint: {hint}"));
    }
    eprintln!("{text}");
    Exit::Failed
}
