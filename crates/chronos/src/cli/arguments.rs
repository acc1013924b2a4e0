//! What can be written on the command line.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// What a person tries first, below the list of commands.
const EXAMPLES: &str = "\
Examples:
  chronos run --mem 50% --for 2h -- python train.py
  chronos create 0 0.5 3600      half of GPU 0 for an hour
  chronos suggest --count 2      when two GPUs are free, and which
  chronos doctor                 what is enforced on this machine

Exit codes:
  0 done, 2 arguments, 65 no such partition, 69 not enforceable, 73 no capacity,
  74 the machine failed, 75 waited in vain, 77 not permitted, 78 configuration;
  `run` gives the job's, or 124 and 137 when its time was over";

/// Time-limited partitions of the GPUs of one machine.
#[derive(Debug, Parser)]
#[command(name = "chronos", version, max_term_width = 100, arg_required_else_help = false)]
#[command(after_help = EXAMPLES)]
pub struct Arguments {
    /// Print one JSON object (`chronos schema` prints its schema)
    #[arg(long, global = true, display_order = 900)]
    pub json: bool,
    /// What to do
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Take a partition: `create DEVICE FRACTION SECONDS`, or by flags
    Create {
        /// What to take.
        #[command(flatten)]
        wanted: Wanted,
        /// Keep it in the calendar from this time on (RFC 3339) instead of taking it now
        #[arg(long, value_name = "TIME", conflicts_with_all = NOT_KEPT)]
        start: Option<String>,
    },
    /// Take a partition and run a command in it; ends with the command
    Run {
        /// What to take.
        #[command(flatten)]
        wanted: Wanted,
        /// Run in a partition that exists instead of taking one
        #[arg(long, value_name = "ID", conflicts_with_all = TAKEN)]
        lease: Option<String>,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        job: Vec<OsString>,
    },
    /// Show live partitions
    List {
        /// Only those of this user
        #[arg(long)]
        user: Option<String>,
        /// Only those on this GPU
        #[arg(long)]
        gpu: Option<u32>,
        /// Those of every user, which is also the default
        #[arg(long)]
        all: bool,
    },
    /// Show one partition
    Get {
        /// Its id
        id: String,
    },
    /// Print the environment of a partition: eval "$(chronos env ID)"
    Env {
        /// Its id
        id: String,
        /// For which shell
        #[arg(long, default_value = "sh")]
        shell: Shell,
    },
    /// Give a partition back; its processes are ended
    Release {
        /// Its id
        id: String,
        /// Kill its processes without a grace
        #[arg(long)]
        force: bool,
    },
    /// Give a partition back and kill its processes without a grace
    ForceRelease {
        /// Its id
        id: String,
    },
    /// Move a deadline
    Extend {
        /// Its id
        id: String,
        /// By how much, such as 30m
        #[arg(long = "for", value_name = "DURATION")]
        by: String,
    },
    /// Show or leave the queue and the calendar
    Queue {
        /// What to do with it
        #[command(subcommand)]
        what: Option<QueueCommand>,
    },
    /// Stop the processes of a partition, so that they can be resumed
    Suspend {
        /// Its id
        id: String,
    },
    /// Let the processes of a suspended partition run again
    Resume {
        /// Its id
        id: String,
        /// For how long; what was left of its time without it
        #[arg(long = "for", value_name = "DURATION")]
        duration: Option<String>,
        /// Wait for its place
        #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "366d", require_equals = true)]
        wait: Option<String>,
    },
    /// Put a running process and its later children into a partition
    Attach {
        /// Its id
        id: String,
        /// The process
        #[arg(long)]
        pid: u32,
    },
    /// Print how much of a GPU's memory is free
    Available {
        /// Number or UUID of the GPU
        #[arg(allow_negative_numbers = true, default_value = "0")]
        device: String,
    },
    /// Show GPUs, what is leased on them, and what was used
    Stats {
        /// Also each partition and process
        #[arg(long)]
        detailed: bool,
        /// Every GPU, which is also the default
        #[arg(long)]
        all: bool,
        /// Also what ended partitions used in that time, such as 7d (table and json)
        #[arg(long, value_name = "DURATION")]
        since: Option<String>,
        /// In which form
        #[arg(long, default_value = "table")]
        format: StatsFormat,
    },
    /// Say when and where a partition would fit, and why
    Suggest(Wanted),
    /// Show GPUs and partitions until Enter is pressed (one picture when not at a terminal)
    Top {
        /// Seconds between pictures
        #[arg(long, default_value_t = 1)]
        interval: u64,
        /// Number of pictures; endless at a terminal without it
        #[arg(long)]
        frames: Option<u64>,
    },
    /// Show or check configuration and policy
    Config {
        /// What to do with it
        #[command(subcommand)]
        what: ConfigCommand,
    },
    /// Examine this machine and say what is enforced on it
    Doctor,
    /// Install the helper of a machine that is shared (root)
    Setup {
        /// Print what would be written instead of writing it
        #[arg(long)]
        print: bool,
    },
    /// Close the GPUs to every process outside a partition (root)
    Lockdown {
        /// on or off
        state: Switch,
    },
    /// Print completions for a shell
    Completions {
        /// Which
        shell: clap_complete::Shell,
    },
    /// Print the schema of --json
    Schema,
    /// Print the version
    Version,
    /// Serve users of a machine that is shared (started by the service manager)
    #[command(hide = true)]
    Helper {
        /// Leave when nobody has asked for that long
        #[arg(long)]
        idle: Option<String>,
    },
    /// End partitions on time
    #[command(hide = true)]
    Guard {
        /// Start one that outlives its caller
        #[arg(long)]
        detach: bool,
    },
    /// Do whatever is due
    #[command(hide = true)]
    Reap,
    /// Enter a partition and become a command
    #[command(hide = true)]
    Join {
        /// Its id
        id: String,
        /// The command and its arguments
        #[arg(last = true, required = true)]
        job: Vec<OsString>,
    },
}

/// What says which share of which GPUs.
const SHARE: [&str; 8] = ["positional", "gpu", "gpus", "count", "any", "prefer", "mem", "compute"];

/// What a window of the calendar does not keep: it is said when the window is taken up.
const NOT_KEPT: [&str; 10] = [
    "reservation",
    "wait",
    "priority",
    "on_expire",
    "grace",
    "warn",
    "warn_signal",
    "require",
    "user",
    "name",
];

/// What a partition that exists has been told already.
const TAKEN: [&str; 19] = [
    "positional",
    "gpu",
    "gpus",
    "count",
    "any",
    "prefer",
    "mem",
    "compute",
    "duration",
    "reservation",
    "wait",
    "priority",
    "on_expire",
    "grace",
    "warn",
    "warn_signal",
    "require",
    "user",
    "name",
];

/// What a partition is asked to be.
#[derive(Debug, Args)]
pub struct Wanted {
    /// DEVICE FRACTION SECONDS, or FRACTION SECONDS behind --gpus, --count or --any
    #[arg(value_name = "DEVICE FRACTION SECONDS", num_args = 0..=3, allow_negative_numbers = true)]
    pub positional: Vec<String>,
    /// This GPU, by number or UUID
    #[arg(long, value_name = "GPU", conflicts_with_all = ["gpus", "count", "any"])]
    pub gpu: Option<String>,
    /// All of these GPUs or none
    #[arg(long, value_name = "GPU,GPU", value_delimiter = ',', conflicts_with_all = ["count", "any"])]
    pub gpus: Vec<String>,
    /// This many GPUs, near each other, or none
    #[arg(long, value_name = "N")]
    pub count: Option<u32>,
    /// The least loaded GPU
    #[arg(long)]
    pub any: bool,
    /// Take these first where they fit
    #[arg(long, value_name = "GPU,GPU", value_delimiter = ',')]
    pub prefer: Vec<String>,
    /// Memory on each GPU, such as 20GiB or 50%
    #[arg(long, value_name = "SIZE", allow_negative_numbers = true)]
    pub mem: Option<String>,
    /// Share of the compute on each GPU, such as 50%
    #[arg(long, value_name = "PART")]
    pub compute: Option<String>,
    /// How long, such as 2h; without it an hour, or the rest of the reservation
    #[arg(long = "for", value_name = "DURATION", allow_negative_numbers = true)]
    pub duration: Option<String>,
    /// Take what this reservation keeps
    #[arg(long, value_name = "ID", conflicts_with_all = SHARE)]
    pub reservation: Option<String>,
    /// Place in the queue
    #[arg(long, default_value = "normal")]
    pub priority: PriorityName,
    /// Wait in the queue, at most that long
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "366d", require_equals = true)]
    pub wait: Option<String>,
    /// What happens to its processes at the deadline
    #[arg(long, default_value = "term")]
    pub on_expire: ExpiryName,
    /// From SIGTERM to SIGKILL, an hour at most; 10s without it
    #[arg(long, value_name = "DURATION")]
    pub grace: Option<String>,
    /// Say that long before the deadline that it is near
    #[arg(long, value_name = "DURATION")]
    pub warn: Option<String>,
    /// Send this signal to its processes with the warning
    #[arg(long, value_name = "SIGNAL", requires = "warn")]
    pub warn_signal: Option<SignalName>,
    /// Refuse unless enforced so: memory=kernel, memory=mig, memory=mps, memory=shim, memory=watch
    #[arg(long, value_name = "WHAT=TIER", value_delimiter = ',')]
    pub require: Vec<String>,
    /// For another user (root)
    #[arg(long)]
    pub user: Option<String>,
    /// A word of yours
    #[arg(long)]
    pub name: Option<String>,
}

/// What to do with the queue.
#[derive(Debug, Subcommand)]
pub enum QueueCommand {
    /// Show it
    List,
    /// Leave it, or give a reservation back
    Cancel {
        /// Id of the ticket or reservation
        id: String,
    },
}

/// What to do with the configuration.
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Print the settings in force and what policy allows you
    Show,
    /// Check the configuration and policy files
    Check {
        /// A policy file that is not installed yet
        #[arg(long)]
        policy: Option<PathBuf>,
    },
}

/// Priority, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum PriorityName {
    /// Before all others
    High,
    /// The default
    Normal,
    /// When nobody else wants it
    Low,
}

/// What happens at the deadline, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum ExpiryName {
    /// SIGTERM, the grace, SIGKILL
    Term,
    /// Suspend; where that fails, as term
    Suspend,
    /// Leave them running
    Notify,
}

/// A signal, as it is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum SignalName {
    /// SIGUSR1
    Usr1,
    /// SIGUSR2
    Usr2,
    /// SIGHUP
    Hup,
    /// SIGINT
    Int,
}

/// A shell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Shell {
    /// sh, bash, zsh
    Sh,
    /// fish
    Fish,
    /// csh, tcsh
    Csh,
}

/// On or off.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Switch {
    /// Closed
    On,
    /// Open
    Off,
}

/// Form of the statistics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum StatsFormat {
    /// For people
    Table,
    /// One JSON object
    Json,
    /// Comma-separated
    Csv,
    /// Prometheus text, for node_exporter's textfile collector
    Prom,
}
