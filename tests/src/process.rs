//! Child processes that cannot outlive the process that started them.
//!
//! Each child asks the kernel to be killed when its parent goes (`PR_SET_PDEATHSIG`), so a test
//! run that is interrupted, killed or aborted leaves nothing behind. Two facts shape this module:
//!
//! - The signal comes when the *thread* that started the child ends, and the test harness gives
//!   each test a thread of its own. All children are therefore started by one thread that lives as
//!   long as the process.
//! - The parent may be gone before the child has asked. util-linux' `setpriv` asks, then a shell
//!   compares its parent with the expected one, and only then becomes the program.

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek as _, SeekFrom, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::{LazyLock, mpsc};
use std::time::{Duration, Instant};
use std::{env, fs, process, thread};

use rustix::process::{Pid, Signal, kill_process};

use crate::wait::poll;

/// A command that failed, or the operating system refusing to run it.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program could not be started.
    #[error("start `{program}`")]
    Start {
        /// Path of the program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The standard output or error of the program could not be read.
    #[error("talk to `{program}`")]
    Pipe {
        /// Path of the program.
        program: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// The program ran for longer than its limit and was killed.
    #[error("`{program}` did not end within {} s and was killed", limit.as_secs())]
    TimedOut {
        /// Path of the program.
        program: PathBuf,
        /// The time it was given.
        limit: Duration,
    },
    /// The log file of the program could not be opened.
    #[error("open log `{path}`")]
    Log {
        /// Path of the log.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
}

/// A program with its arguments; its environment is empty but for `PATH` and what is given here.
///
/// Variables of the caller such as `ETCD_NAME`, `KUBECONFIG` or `HTTPS_PROXY` would otherwise
/// change what the program does.
#[derive(Debug, Clone)]
pub struct CommandLine {
    /// Path of the program.
    pub program: PathBuf,
    /// Arguments after the program's name.
    pub arguments: Vec<OsString>,
    /// Environment, beside `PATH`.
    pub environment: Vec<(OsString, OsString)>,
}

impl CommandLine {
    /// The command with these arguments and no further environment.
    pub fn new<A: Into<OsString>>(
        program: impl Into<PathBuf>,
        arguments: impl IntoIterator<Item = A>,
    ) -> Self {
        Self {
            program: program.into(),
            arguments: arguments.into_iter().map(Into::into).collect(),
            environment: Vec::new(),
        }
    }

    /// Adds one environment variable.
    #[must_use]
    pub fn with_environment(
        mut self,
        name: impl Into<OsString>,
        value: impl Into<OsString>,
    ) -> Self {
        self.environment.push((name.into(), value.into()));
        self
    }

    fn spawn(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Result<Child, ProcessError> {
        let mut command = Command::new("setpriv");
        command
            .args(["--pdeathsig", "KILL", "sh", "-c"])
            .arg(r#"[ "$PPID" = "$0" ] && exec "$@""#)
            .arg(process::id().to_string())
            .arg(&self.program)
            .args(&self.arguments)
            .env_clear()
            .env("PATH", env::var_os("PATH").unwrap_or_default())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            // Ctrl-C in a terminal goes to the whole foreground group; the children end in the
            // order that their owner chooses.
            .process_group(0)
            .stdin(stdin)
            .stdout(stdout)
            .stderr(stderr);
        spawn_from_lasting_thread(command)
            .map_err(|source| ProcessError::Start { program: self.program.clone(), source })
    }

    /// Runs the program to its end, feeding it `input`, and returns what it wrote.
    ///
    /// The exit status is the caller's to judge.
    ///
    /// # Errors
    /// [`ProcessError::Start`], [`ProcessError::Pipe`], and [`ProcessError::TimedOut`] when the
    /// program has not closed its output within `limit`; it is then killed.
    pub fn output_within(&self, input: &str, limit: Duration) -> Result<Output, ProcessError> {
        let began = Instant::now();
        let mut child = self.spawn(Stdio::piped(), Stdio::piped(), Stdio::piped())?;
        let stdout = drain(child.stdout.take().expect("stdout was piped"));
        let stderr = drain(child.stderr.take().expect("stderr was piped"));
        let mut stdin = child.stdin.take().expect("stdin was piped");
        let input = input.to_owned();
        // A program that ends without reading its input breaks the pipe: its status tells why.
        let feeder = thread::spawn(move || drop(stdin.write_all(input.as_bytes())));

        let mut receive = |pipe: &mpsc::Receiver<io::Result<Vec<u8>>>| {
            let left = limit.saturating_sub(began.elapsed());
            let received = pipe.recv_timeout(left);
            if received.is_err() {
                // Both answer `ESRCH` for a child that has just ended by itself.
                let _ = child.kill();
                let _ = child.wait();
            }
            received.map_err(|_| ProcessError::TimedOut { program: self.program.clone(), limit })
        };
        let piped = |source| ProcessError::Pipe { program: self.program.clone(), source };
        let stdout = receive(&stdout)?.map_err(piped)?;
        let stderr = receive(&stderr)?.map_err(piped)?;
        let status = child.wait().map_err(piped)?;
        let _ = feeder.join();
        Ok(Output { status, stdout, stderr })
    }
}

/// Reads a pipe to its end on a thread of its own.
fn drain(mut pipe: impl Read + Send + 'static) -> mpsc::Receiver<io::Result<Vec<u8>>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        let result = pipe.read_to_end(&mut bytes).map(|_| bytes);
        // The receiver is gone when the time limit has passed.
        let _ = sender.send(result);
    });
    receiver
}

type SpawnRequest = (Command, mpsc::Sender<io::Result<Child>>);

/// Starts `command` from the one thread that lives as long as the process; see the module.
fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static REQUESTS: LazyLock<mpsc::Sender<SpawnRequest>> = LazyLock::new(|| {
        let (sender, receiver) = mpsc::channel::<SpawnRequest>();
        thread::spawn(move || {
            for (mut command, reply) in receiver {
                // A caller that is gone has dropped its end; the child is reaped by nobody then,
                // and ends with this process.
                let _ = reply.send(command.spawn());
            }
        });
        sender
    });
    let (reply, answer) = mpsc::channel();
    REQUESTS.send((command, reply)).expect("the thread receives for ever");
    answer.recv().expect("the thread answers every request")
}

/// A running server, its log in a file; killed and reaped when dropped.
#[derive(Debug)]
pub struct Process {
    command: CommandLine,
    log: PathBuf,
    child: Child,
}

impl Process {
    /// Starts the program; what it writes to stdout and stderr is appended to `log`.
    ///
    /// # Errors
    /// [`ProcessError::Log`] and [`ProcessError::Start`].
    pub fn start(command: CommandLine, log: &Path) -> Result<Self, ProcessError> {
        let failed = |source| ProcessError::Log { path: log.to_owned(), source };
        let file = OpenOptions::new().create(true).append(true).open(log).map_err(failed)?;
        let second = file.try_clone().map_err(failed)?;
        let child = command.spawn(Stdio::null(), file.into(), second.into())?;
        Ok(Self { command, log: log.to_owned(), child })
    }

    /// Starts the same command line again, appending to the same log; a running one is killed.
    ///
    /// # Errors
    /// As [`Process::start`].
    pub fn start_again(&mut self) -> Result<(), ProcessError> {
        self.kill();
        *self = Self::start(self.command.clone(), &self.log)?;
        Ok(())
    }

    /// Process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// How the process ended, or nothing while it runs.
    pub fn exit_status(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child of this process can be waited for")
    }

    /// Sends SIGKILL and reaps; does nothing to a process that has ended.
    pub fn kill(&mut self) {
        // `kill` of std does not signal a reaped child, so no other process can be hit.
        self.child.kill().expect("a child of this process can be killed");
        self.child.wait().expect("a child of this process can be waited for");
    }

    /// Sends SIGTERM and reaps; after `limit` SIGKILL. Returns whether SIGTERM was enough.
    pub fn terminate(&mut self, limit: Duration) -> bool {
        self.signal(Signal::TERM);
        let ended = poll(limit, || Ok::<_, std::convert::Infallible>(self.exit_status()));
        self.kill();
        matches!(ended, Ok(Some(_)))
    }

    /// Sends SIGSTOP: the process stands still, its connections stay open and answer nothing.
    pub fn pause(&mut self) {
        self.signal(Signal::STOP);
    }

    /// Sends SIGCONT.
    pub fn resume(&mut self) {
        self.signal(Signal::CONT);
    }

    fn signal(&mut self, signal: Signal) {
        // An ended child is a zombie until waited for, so its process id is not given to another.
        if self.exit_status().is_none() {
            let pid = Pid::from_child(&self.child);
            kill_process(pid, signal).expect("a child of this process can be signalled");
        }
    }

    /// Resident memory in bytes; nothing when the process has ended.
    pub fn resident_bytes(&self) -> Option<u64> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib << 10)
    }

    /// Path of the log.
    pub fn log(&self) -> &Path {
        &self.log
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, or why it cannot be read.
pub fn log_tail(log: &Path) -> String {
    /// Enough for the panic or the refused flag that ended a server.
    const BYTES: u64 = 4 << 10;
    let read = || -> io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(BYTES)))?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        // The first line is cut somewhere, unless the log is short.
        let whole =
            if length > BYTES { text.split_once('\n').map_or("", |cut| cut.1) } else { &text };
        Ok(whole.to_owned())
    };
    let title = format!("--- end of {} ---\n", log.display());
    title + &read().unwrap_or_else(|error| format!("cannot be read: {error}\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scratch::ScratchDir;

    fn shell(script: &str) -> CommandLine {
        CommandLine::new("sh", ["-c", script])
    }

    #[test]
    fn a_child_lives_on_when_the_thread_that_asked_for_it_ends() {
        let scratch = ScratchDir::create("process").expect("create");
        let log = scratch.join("log");
        let mut child =
            thread::spawn(move || Process::start(shell("exec tail -f /dev/null"), &log))
                .join()
                .expect("joined")
                .expect("started");
        assert_eq!(child.exit_status(), None);
        assert!(child.resident_bytes().is_some_and(|bytes| bytes > 0));
        child.kill();
        assert!(child.exit_status().is_some());
        assert_eq!(child.resident_bytes(), None);
    }

    #[test]
    fn output_beyond_the_limit_is_an_error_that_names_the_limit() {
        let limit = Duration::from_millis(50);
        let error = shell("exec tail -f /dev/null").output_within("", limit).expect_err("too slow");
        assert!(matches!(error, ProcessError::TimedOut { .. }), "{error}");
    }

    #[test]
    fn input_larger_than_a_pipe_goes_through() {
        let input = "x".repeat(1 << 20);
        let output = CommandLine::new("cat", [""; 0])
            .output_within(&input, Duration::from_secs(60))
            .expect("cat runs");
        assert!(output.status.success());
        assert_eq!(output.stdout.len(), input.len());
    }

    #[test]
    fn the_environment_of_the_caller_is_not_passed_on() {
        let output = CommandLine::new("env", [""; 0])
            .with_environment("GIVEN", "yes")
            .output_within("", Duration::from_secs(60))
            .expect("env runs");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains("GIVEN=yes\n"));
        assert!(!text.contains("CARGO"), "{text}");
    }

    #[test]
    fn a_program_that_ignores_sigterm_is_killed() {
        let scratch = ScratchDir::create("process").expect("create");
        let log = scratch.join("log");
        let script = "trap '' TERM; echo ready; exec tail -f /dev/null";
        let mut child = Process::start(shell(script), &log).expect("started");
        crate::wait::until("the trap is set", Duration::from_secs(60), || {
            fs::read_to_string(&log).map(|text| text.contains("ready").then_some(()))
        });
        assert!(!child.terminate(Duration::from_millis(50)));
        assert!(child.exit_status().is_some());
    }

    #[test]
    fn the_tail_of_a_long_log_begins_with_a_whole_line() {
        let scratch = ScratchDir::create("process").expect("create");
        let lines: String = (0..10_000).map(|number| format!("line {number}\n")).collect();
        let log = scratch.write("log", &lines).expect("written");
        let tail = log_tail(&log);
        assert!(tail.ends_with("line 9999\n"));
        assert!(tail.lines().skip(1).all(|line| line.starts_with("line ")), "{tail}");
        assert!(log_tail(&scratch.join("absent")).contains("cannot be read"));
    }
}
