//! What a machine that is shared needs: a socket that starts the helper, and a policy to begin
//! with.

use std::fs;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::systemd;
use crate::os::fault::Fault;
use crate::os::guard;
use crate::os::places;
use crate::os::settings::Settings;

const UNITS: &str = "/etc/systemd/system";

/// A policy that limits nobody and shows what can be limited.
const POLICY: &str = "\
# Who may have what. `chronos config check` examines this file, `chronos config show` prints what
# applies to you. The entry of a user wins, else the most generous of the user's groups, else
# `default`. Root is never limited. What is absent is not limited.
#
# default: {maxGpus: 1, maxMemory: 50%, maxDuration: 8h, maxPriority: normal, maxLeases: 4}
# groups:
#   staff: {maxGpus: 4, maxDuration: 2d, maxPriority: high}
# users:
#   ann: {gpuHours: 48}
";

/// The files of the installation, with their content.
///
/// # Errors
/// [`Fault::Os`] when this program has no path.
pub fn files() -> Result<Vec<(PathBuf, String)>, Fault> {
    let program = guard::program()?;
    let socket = format!(
        "[Unit]\nDescription=Chronos helper\n\n[Socket]\nListenStream={}/helper.sock\n\
         SocketMode=0666\nDirectoryMode=0755\n\n[Install]\nWantedBy=sockets.target\n",
        places::machine_runtime().display()
    );
    let service = format!(
        "[Unit]\nDescription=Chronos helper\n\n[Service]\nExecStart={} helper --idle 5s\n\
         KillMode=process\nDelegate=yes\n",
        program.display()
    );
    Ok(vec![
        (Path::new(UNITS).join("chronos-helper.socket"), socket),
        (Path::new(UNITS).join("chronos-helper.service"), service),
        (places::machine_policy(), POLICY.to_owned()),
    ])
}

/// Writes the files that are not there yet and starts the socket. Returns what was done.
///
/// # Errors
/// [`Fault::Os`].
pub fn install(settings: &Settings) -> Result<Vec<String>, Fault> {
    let with_manager = systemd::present();
    let mut done = Vec::new();
    for (path, text) in files()? {
        if !with_manager && path.starts_with(UNITS) {
            continue;
        }
        let folder = path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(folder).map_err(|e| Fault::os("make directory", folder.display(), e))?;
        let mut options = fs::OpenOptions::new();
        options.write(true).create_new(true).mode(0o644);
        let write = |mut file: fs::File| io::Write::write_all(&mut file, text.as_bytes());
        match options.open(&path).and_then(write) {
            Ok(()) => done.push(format!("Wrote {}", path.display())),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                done.push(format!("Kept {}", path.display()));
            }
            Err(error) => return Err(Fault::os("write", path.display(), error)),
        }
    }
    if with_manager {
        run("systemctl", &["daemon-reload"])?;
        run("systemctl", &["enable", "--now", "chronos-helper.socket"])?;
        done.push("Started chronos-helper.socket".to_owned());
    } else {
        let runtime = settings.runtime.display();
        let start = "have your init run `chronos helper` as root";
        done.push(format!("No service manager here: {start}; its socket is {runtime}/helper.sock"));
    }
    Ok(done)
}

fn run(program: &'static str, arguments: &[&str]) -> Result<(), Fault> {
    let fail = |e| Fault::os("run", format!("{program} {}", arguments.join(" ")), e);
    let status = Command::new(program).args(arguments).status().map_err(fail)?;
    if status.success() {
        return Ok(());
    }
    Err(fail(io::Error::other(status.to_string())))
}
