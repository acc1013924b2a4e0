//! Configuration, installation for many users, and lockdown.

use std::process::ExitCode;

use serde_json::{Value, json};

use super::arguments::{ConfigCommand, Switch};
use super::exit::Failure;
use super::print::Output;
use super::views;
use crate::os::session::own_caller;
use crate::os::settings::Access;
use crate::os::{Settings, install, lockdown as kernel};
use crate::quantity::Span;
use crate::refusal::Refusal;
use crate::wanted::Defaults;

/// Shows or checks the configuration.
pub fn config(settings: &Settings, what: ConfigCommand, out: Output) -> Result<ExitCode, Failure> {
    match what {
        ConfigCommand::Check { policy } => {
            let settings = match policy {
                Some(file) => &Settings { policy_file: file, ..settings.clone() },
                None => settings,
            };
            settings.policy()?;
            let shown = |path: &std::path::Path, there: bool| {
                if there { path.display().to_string() } else { "none".to_owned() }
            };
            let config = settings.config_file.as_deref().unwrap_or(std::path::Path::new(""));
            let config = shown(config, settings.config_file.is_some());
            let policy = shown(&settings.policy_file, settings.has_policy());
            if out.json {
                out.object(&json!({
                    "apiVersion": views::API_VERSION, "kind": "Config",
                    "configuration": config, "policy": policy,
                }));
            } else {
                out.done(&format!("Configuration {config}, policy {policy}: no error"));
            }
        }
        ConfigCommand::Show => show(settings, out)?,
    }
    Ok(ExitCode::SUCCESS)
}

fn show(settings: &Settings, out: Output) -> Result<(), Failure> {
    let caller = own_caller()?;
    let limits = settings.policy()?.limits(&caller);
    let access = match &settings.access {
        Access::Own => "own".to_owned(),
        Access::Helper(socket) => format!("helper {}", socket.display()),
    };
    let seconds = |span: Span| format!("{:#}", span);
    let defaults = Defaults::of(&settings.config);
    let object = json!({
        "apiVersion": views::API_VERSION,
        "kind": "Config",
        "runtime_directory": settings.runtime,
        "state_directory": settings.state,
        "access": access,
        "backend": settings.backend,
        "gpus": settings.config.gpus,
        "grace": seconds(defaults.grace),
        "warn": defaults.warn.map(seconds),
        "preempt_exempt_time": seconds(settings.preempt_exempt_time()),
        "configuration": settings.config_file,
        "policy": settings.has_policy().then_some(&settings.policy_file),
        "lock_compat": settings.config.lock_compat,
        "lock_directory": settings.old_locks(),
        "limits": limits,
    });
    if out.json {
        out.object(&object);
        return Ok(());
    }
    for (key, value) in
        object.as_object().into_iter().flatten().filter(|(k, _)| *k != "apiVersion" && *k != "kind")
    {
        out.line(&format!("{key}: {}", plain(value)));
    }
    Ok(())
}

/// A setting as a person reads it: what is not set is `none`.
fn plain(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.is_empty() => "none".to_owned(),
        Value::Array(items) => items.iter().map(plain).collect::<Vec<_>>().join("; "),
        Value::Object(fields) => {
            let said = fields.iter().filter(|(_, value)| !value.is_null());
            let said: Vec<String> = said.map(|(key, v)| format!("{key} {}", plain(v))).collect();
            if said.is_empty() { "none".to_owned() } else { said.join(", ") }
        }
        other => other.to_string(),
    }
}

/// Installs what a shared machine needs.
pub fn setup(settings: &Settings, print: bool, out: Output) -> Result<ExitCode, Failure> {
    if print {
        let files = install::files()?;
        if out.json {
            let file = |(path, text): &(std::path::PathBuf, String)| json!({"path": path, "content": text});
            out.object(&views::list("FileList", files.iter().map(file).collect()));
            return Ok(ExitCode::SUCCESS);
        }
        for (path, text) in files {
            out.line(&format!("# {}", path.display()));
            out.line(&text);
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !own_caller()?.is_root() {
        return Err(Refusal::RootOnly { what: "set the helper up".to_owned() }.into());
    }
    let done = install::install(settings)?;
    if out.json {
        out.object(&views::done("SetUp", &done.join("; ")));
        return Ok(ExitCode::SUCCESS);
    }
    for line in done {
        out.done(&line);
    }
    Ok(ExitCode::SUCCESS)
}

/// Closes or opens the GPUs to what is outside every lease.
pub fn lockdown(settings: &Settings, state: Switch, out: Output) -> Result<ExitCode, Failure> {
    if !own_caller()?.is_root() {
        return Err(Refusal::RootOnly { what: "lock the GPUs down".to_owned() }.into());
    }
    let closed = kernel::set(settings, state == Switch::On)?;
    let text = match state {
        Switch::On => "closed to",
        Switch::Off => "open to",
    };
    let text = format!("GPUs are {text} {}", closed.join(", "));
    if out.json {
        out.object(&views::done("LockedDown", &text));
    } else {
        out.done(&text);
    }
    Ok(ExitCode::SUCCESS)
}
