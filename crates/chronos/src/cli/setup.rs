//! Configuration, installation for many users, and lockdown.

use std::process::ExitCode;

use serde_json::json;

use super::arguments::{ConfigCommand, Switch};
use super::exit::Failure;
use super::print::Output;
use super::views;
use crate::os::session::own_caller;
use crate::os::settings::Access;
use crate::os::{Settings, install, lockdown as kernel};
use crate::refusal::Refusal;

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
    let object = json!({
        "apiVersion": views::API_VERSION,
        "kind": "Config",
        "runtime_directory": settings.runtime,
        "state_directory": settings.state,
        "access": access,
        "backend": settings.backend,
        "configuration": settings.config_file,
        "policy": settings.has_policy().then_some(&settings.policy_file),
        "lock_compat": settings.config.lock_compat,
        "limits": limits,
    });
    if out.json {
        out.object(&object);
        return Ok(());
    }
    for (key, value) in
        object.as_object().into_iter().flatten().filter(|(k, _)| *k != "apiVersion" && *k != "kind")
    {
        let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        out.line(&format!("{key}: {text}"));
    }
    Ok(())
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
