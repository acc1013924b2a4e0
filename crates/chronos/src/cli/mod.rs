//! The command line: arguments in, one text or one JSON object out.
//!
//! Results go to standard output and nothing else does; progress, warnings and errors go to
//! standard error. The exit code says what happened ([`exit`]).

pub(crate) mod arguments;
mod doctor;
mod exit;
mod gpu_commands;
mod lease_commands;
mod print;
mod setup;
pub mod views;

use std::mem::ManuallyDrop;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

pub use arguments::Arguments;
use arguments::Command;
pub use exit::Failure;

use crate::os::{Session, Settings};

/// Runs the tool with the arguments of this process.
pub fn main() -> ExitCode {
    let given: Vec<std::ffi::OsString> = std::env::args_os().collect();
    if given.len() == 1 {
        // The tool has always printed its usage and failed when it is called with nothing.
        let _ = Arguments::command().print_help();
        return ExitCode::from(1);
    }
    let arguments = match Arguments::try_parse_from(&given) {
        Ok(arguments) => arguments,
        Err(error) => return misread(&error, given.iter().any(|word| word == "--json")),
    };
    let json = arguments.json;
    match dispatch(arguments) {
        Ok(code) => code,
        Err(failure) => failure.report(json),
    }
}

/// Help and version are asked for; the rest means nothing to us, which is 2 as everywhere.
fn misread(error: &clap::Error, as_json: bool) -> ExitCode {
    if !error.use_stderr() || !as_json {
        error.exit();
    }
    let text = error.to_string();
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    Failure::usage(first.to_owned(), "`chronos help` and `chronos COMMAND --help`").report(true)
}

fn dispatch(arguments: Arguments) -> Result<ExitCode, Failure> {
    let out = print::Output::new(arguments.json);
    match arguments.command {
        Command::Completions { shell } => {
            let mut command = Arguments::command();
            clap_complete::generate(shell, &mut command, "chronos", &mut std::io::stdout());
            return Ok(ExitCode::SUCCESS);
        }
        Command::Version => {
            let version = env!("CARGO_PKG_VERSION");
            if out.json {
                let api = views::API_VERSION;
                out.object(&serde_json::json!({
                    "apiVersion": api, "kind": "Version", "version": version,
                }));
            } else {
                out.line(&format!("chronos {version}"));
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Schema => {
            out.line(views::SCHEMA);
            return Ok(ExitCode::SUCCESS);
        }
        Command::Doctor => return doctor::doctor(out),
        _ => {}
    }
    let settings = Settings::read()?;
    match arguments.command {
        Command::Guard { detach } => {
            if !detach || crate::os::detach::detach()? {
                crate::os::guard::run(&settings)?;
            }
            return Ok(ExitCode::SUCCESS);
        }
        Command::Reap => {
            crate::os::guard::reap(&settings)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Helper { idle } => {
            let idle = idle.as_deref().map(crate::quantity::Span::parse).transpose();
            crate::os::helper::run(&settings, idle.map_err(Failure::from_quantity)?)?;
            return Ok(ExitCode::SUCCESS);
        }
        Command::Config { what } => return setup::config(&settings, what, out),
        Command::Setup { print } => return setup::setup(&settings, print, out),
        Command::Lockdown { state } => return setup::lockdown(&settings, state, out),
        _ => {}
    }
    // The process ends with the command: a thousand leases are not given back one by one first.
    let mut session = ManuallyDrop::new(Session::open(&settings)?);
    lease_commands::run(&mut session, arguments.command, out)
}
