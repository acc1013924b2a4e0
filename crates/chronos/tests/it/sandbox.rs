//! A machine of its own for one test: state directories, fake GPUs, and the tool.

use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

/// How often the folder of a sandbox is emptied, at most, when it is dropped.
const REMOVALS_MAX: usize = 1_000;

static NUMBER: AtomicU64 = AtomicU64::new(0);

/// Set for a test inside its own PID namespace: what the folders of its sandboxes begin with.
pub const INSIDE: &str = "CHRONOS_TEST_INSIDE";

/// What the folders of this test program begin with.
static PREFIX: LazyLock<PathBuf> = LazyLock::new(|| {
    let name = || std::env::temp_dir().join(format!("chronos-it-{}", std::process::id()));
    std::env::var_os(INSIDE).map_or_else(name, PathBuf::from)
});

/// Ends what a test program that was killed leaves behind, as no `drop` ran: leases, guardians and
/// jobs, all of which have the name of their sandbox in their environment, and the folders.
const JANITOR: &str = r#"
    read -r _
    for state in "$0"-*/run; do
        grep -aohsE 'partition_[0-9_]+' "$state"/journal* | sort -u | while read -r id; do
            CHRONOS_BACKEND=fake CHRONOS_PROGRAM=/bin/true CHRONOS_RUNTIME_DIR="$state" \
                CHRONOS_STATE_DIR="${state%run}state" "$1" release --force "$id"
        done
    done
    for environ in /proc/[0-9]*/environ; do
        if grep -qsF "$0-" "$environ"; then
            pid=${environ#/proc/}
            kill -KILL "${pid%/environ}"
        fi
    done
    rm -rf "$0"-*
"#;

/// Ready to clean up; its standard input ends with this process, whatever ends it.
static JANITOR_PROCESS: LazyLock<Child> = LazyLock::new(|| {
    let mut janitor = Command::new("sh");
    janitor.args(["-c", JANITOR]).arg(&*PREFIX).arg(Sandbox::tool());
    // Not of the group that a terminal or `timeout` signals.
    janitor.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    janitor.spawn().unwrap()
});

/// State of its own; everything in it is ended when it is dropped.
pub struct Sandbox {
    root: PathBuf,
    settings: Vec<(String, String)>,
}

/// What the sandboxes of a test program inside a namespace of this one are to begin with: this
/// one's janitor cleans up after it, as all that is inside ends at once.
pub fn prefix_inside() -> PathBuf {
    LazyLock::force(&JANITOR_PROCESS);
    PathBuf::from(format!("{}-inside", PREFIX.display()))
}

impl Sandbox {
    pub fn new(gpus: &str) -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        LazyLock::force(&JANITOR_PROCESS);
        let root = PathBuf::from(format!("{}-{number}", PREFIX.display()));
        std::fs::create_dir_all(&root).unwrap();
        let path = |name: &str| root.join(name).display().to_string();
        let settings = [
            ("CHRONOS_BACKEND", "fake".to_owned()),
            ("CHRONOS_FAKE_GPUS", gpus.to_owned()),
            ("CHRONOS_RUNTIME_DIR", path("run")),
            ("CHRONOS_STATE_DIR", path("state")),
            ("CHRONOS_CONFIG", "".to_owned()),
            ("CHRONOS_POLICY", path("policy.yaml")),
            ("HOME", path("home")),
        ];
        let settings = settings.map(|(name, value)| (name.to_owned(), value)).to_vec();
        Self { root, settings }
    }

    pub fn set(&mut self, name: &str, value: &str) {
        self.settings.retain(|(known, _)| known != name);
        self.settings.push((name.to_owned(), value.to_owned()));
    }

    /// No guardian is started from here on: the program that would be one ends at once.
    pub fn without_guardian(mut self) -> Self {
        self.set("CHRONOS_PROGRAM", "/bin/true");
        self
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    pub fn runtime(&self) -> PathBuf {
        self.root.join("run")
    }

    pub fn tool() -> &'static str {
        env!("CARGO_BIN_EXE_chronos")
    }

    pub fn dress(&self, command: &mut Command) {
        for (name, value) in &self.settings {
            command.env(name, value);
        }
        for name in ["CHRONOS_LEASE", "XDG_RUNTIME_DIR", "LISTEN_FDS"] {
            if !self.settings.iter().any(|(known, _)| known == name) {
                command.env_remove(name);
            }
        }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(Self::tool());
        command.args(arguments).stdin(Stdio::null());
        self.dress(&mut command);
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    /// Runs the tool, which has to succeed; returns its standard output.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{arguments:?}: {} {errors}", output.status);
        String::from_utf8(output.stdout).unwrap()
    }

    /// Runs the tool, which has to fail with `code`; returns its standard error.
    pub fn refused(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {errors}");
        assert_eq!(output.stdout, b"", "{arguments:?}: a failure prints nothing as a result");
        errors
    }

    pub fn json(&self, arguments: &[&str]) -> Value {
        let text = self.ok(&[arguments, &["--json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|e| panic!("{arguments:?}: {e} in {text}"))
    }

    pub fn leases(&self) -> Vec<Value> {
        self.json(&["list"])["items"].as_array().unwrap().clone()
    }

    pub fn create(&self, arguments: &[&str]) -> String {
        let lease = self.json(&[&["create"], arguments].concat());
        lease["id"].as_str().unwrap().to_owned()
    }

    /// The id of the first lease that is live.
    pub fn first_lease(&self) -> String {
        await_some("a lease", || Some(self.leases().first()?["id"].as_str()?.to_owned()))
    }

    /// The journal, as the library reads it.
    /// The journal. The portable half has its boot and a number in its name, the greatest of which
    /// counts; where there is none yet, this is the name that it will have first.
    pub fn journal(&self) -> PathBuf {
        if !cfg!(feature = "portable") {
            return self.runtime().join("journal");
        }
        let boot = chronos::os::clock::boot_id().unwrap().replace('-', "_");
        let prefix = format!("journal-{boot}-");
        let files = std::fs::read_dir(self.runtime()).into_iter().flatten().flatten();
        let names = files.filter_map(|file| file.file_name().into_string().ok());
        let numbers = names.filter_map(|name| name.strip_prefix(&prefix)?.parse::<u64>().ok());
        let number = numbers.max().unwrap_or(1);
        self.runtime().join(format!("{prefix}{number}"))
    }

    pub fn book(&self) -> chronos::book::Book {
        let mut book = chronos::book::Book::default();
        if let Ok(bytes) = std::fs::read(self.journal()) {
            chronos::journal::read(&bytes, &mut book).unwrap();
        }
        book
    }

    /// The guardian's process, when it lives: whoever holds the lock of `guard`.
    pub fn guardian(&self) -> Option<u32> {
        use std::os::unix::fs::MetadataExt;
        let inode = std::fs::metadata(self.runtime().join("guard")).ok()?.ino();
        let locks = std::fs::read_to_string("/proc/locks").ok()?;
        let line = locks.lines().find(|line| {
            let place = line.split_ascii_whitespace().nth(5).unwrap_or_default();
            place.ends_with(&format!(":{inode}"))
        })?;
        line.split_ascii_whitespace().nth(4)?.parse().ok()
    }
}

impl Drop for Sandbox {
    fn drop(&mut self) {
        self.set("CHRONOS_PROGRAM", "/bin/true");
        for id in self.book().leases().map(|lease| lease.id.0.clone()).collect::<Vec<_>>() {
            let _ = self.run(&["release", "--force", &id]);
        }
        crate::fence::remove(&self.runtime());
        let removed = remove(&self.root);
        assert!(removed || std::thread::panicking(), "{} is left behind", self.root.display());
    }
}

/// Removes a folder of state, and says whether it is gone. A guardian may write into a folder that
/// is being emptied, its line of the history for one; then the folder is emptied again.
pub fn remove(folder: &Path) -> bool {
    (0..REMOVALS_MAX).any(|_| std::fs::remove_dir_all(folder).or_else(absent).is_ok())
}

fn absent(error: std::io::Error) -> std::io::Result<()> {
    if error.kind() == std::io::ErrorKind::NotFound { Ok(()) } else { Err(error) }
}

/// A process that is killed when the test is over.
pub struct Killed(pub Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Looks until there is something; fails after 20 s.
pub fn await_some<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not appear");
        std::thread::yield_now();
    }
}

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// Whether a process that was seen by number is gone (or a zombie that nobody has waited for).
pub fn gone(pid: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_none_or(|(_, rest)| rest.trim_start().starts_with(['Z', 'X']))
}

pub fn kill(pid: u32) {
    let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
}

/// A shell that ignores SIGTERM, with a child that ignores it in a session of its own. It writes
/// both numbers to `file`.
pub fn stubborn(file: &Path) -> String {
    let file = file.display();
    format!(
        "trap '' TERM HUP; setsid sh -c 'trap \"\" TERM HUP; echo $$ >> {file}; \
         while :; do read x < /dev/zero || sleep 1000; done' & echo $$ >> {file}; wait"
    )
}

/// The numbers in a file that [`stubborn`] wrote, once there are `count`.
pub fn numbers(file: &Path, count: usize) -> Vec<u32> {
    await_some("the processes of the tree", || {
        let text = std::fs::read_to_string(file).ok()?;
        let numbers: Vec<u32> = text.lines().filter_map(|line| line.parse().ok()).collect();
        (numbers.len() >= count).then_some(numbers)
    })
}

/// Writes what a test measured to the folder that `CHRONOS_RECORD` names, if it names one.
pub fn record(name: &str, what: &Value) {
    if let Some(folder) = std::env::var_os("CHRONOS_RECORD") {
        let path = PathBuf::from(folder).join(format!("{name}.json"));
        std::fs::write(&path, format!("{what:#}\n")).unwrap();
    }
}
