//! Which sharing strategy suits a pod that asks for whole GPUs.
//!
//! In this order: what forbids sharing; the highest-priority policy, where it allows no override;
//! the pod's own annotations; that policy, where it does; what its predecessors used; the pod's
//! consent without a strategy. What none of these covers is left as it is: a guess from the type
//! of workload only [recommends](recommend).

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

use gpu_autoscaler_model::consent::{self, SHARING, SHARING_MODE};
use gpu_autoscaler_model::{Labels, SharingStrategy};

/// Finished pods of the same owner and image that make a history.
const HISTORY_PODS_MIN: u32 = 3;
/// Seconds of samples that make a history as well.
const HISTORY_SECS_MIN: u64 = 3_600;
/// A workload whose compute is below this at the 95th percentile, in thousandths, has room for
/// others. Published: "historical utilization below 50 % gets a MIG slice".
const COMPUTE_P95_MAX_MILLI: u16 = 500;
/// Memory on top of the 99th percentile, in percent: what one more CUDA context and a larger
/// batch than was seen may need.
const MEMORY_MARGIN_PERCENT: u64 = 20;
/// Published default of MPS clients on one GPU.
pub const MPS_CLIENTS_DEFAULT: u16 = 16;
/// The most client processes that a server of any GPU has.
pub const MPS_CLIENTS_MAX: u16 = 48;
/// Published default of time-slicing replicas.
pub const REPLICAS_DEFAULT: u16 = 4;

/// What is known of a pod that asks for whole GPUs.
#[derive(Clone, Copy, Debug)]
pub struct Workload<'a> {
    /// How many whole GPUs.
    pub gpus: u32,
    /// Its annotations.
    pub annotations: &'a Labels,
    /// Its labels.
    pub labels: &'a Labels,
    /// The labels of its namespace.
    pub namespace_labels: &'a Labels,
    /// The policies that select it.
    pub policies: &'a [SharingPolicy],
    /// What pods of the same owner and image used; `None` when nothing was measured.
    pub history: Option<History>,
}

/// A GPUSharingPolicy, as far as it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharingPolicy {
    /// Its name.
    pub name: Arc<str>,
    /// The highest decides; of equal ones the first name.
    pub priority: i32,
    /// Whether the pod's annotations stand above it.
    pub allow_override: bool,
    /// What it prescribes; `None` for `auto`, which leaves the choice to the history.
    pub prescribes: Option<Share>,
}

/// What pods of the same owner and image used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// Pods that have ended.
    pub finished_pods: u32,
    /// Seconds with samples.
    pub sampled_secs: u64,
    /// Compute in use at the 95th percentile, in thousandths of a GPU.
    pub compute_p95_milli: u16,
    /// Framebuffer in use at the 99th percentile, in MiB.
    pub memory_p99_mib: u32,
}

/// A share of a GPU in place of whole ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// The MIG profile of this name.
    MigProfile(Arc<str>),
    /// The smallest MIG profile with this much framebuffer, in MiB.
    MigAtLeast {
        /// Framebuffer, in MiB; 0 for the smallest of all.
        memory_mib: u32,
    },
    /// A client of an MPS server with so many at most.
    Mps {
        /// The most client processes.
        clients: u16,
    },
    /// One of equal time-slicing replicas.
    TimeSlicing {
        /// How many.
        replicas: u16,
    },
    /// A whole GPU: sharing is ruled out.
    Exclusive,
}

/// Who decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Basis {
    /// The pod's annotation of this key.
    Annotation(&'static str),
    /// The policy of this name.
    Policy(Arc<str>),
    /// What its predecessors used.
    History(History),
}

/// The choice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Share in this way.
    Share(Share, Basis),
    /// Leave the request as it is.
    Leave(Reason),
}

/// Why a request is left as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    /// It asks for no GPU.
    NoGpu,
    /// The pod's annotation of this key opts out.
    PodOptedOut(&'static str),
    /// The namespace's label opts out.
    NamespaceOptedOut,
    /// It declares itself training.
    Training,
    /// It asks for several GPUs, which no share replaces.
    SeveralGpus {
        /// How many.
        gpus: u32,
    },
    /// An annotation has a value that means nothing.
    Unreadable {
        /// Its key.
        key: &'static str,
        /// Its value, at most 64 characters of it.
        value: String,
    },
    /// Sharing is ruled out.
    Exclusive(Basis),
    /// Too little was measured.
    ShortHistory {
        /// Pods that have ended.
        finished_pods: u32,
        /// Seconds with samples.
        sampled_secs: u64,
    },
    /// It uses too much compute to be shared.
    Busy {
        /// Compute at the 95th percentile, in thousandths.
        compute_p95_milli: u16,
    },
    /// Nothing covers it.
    Nothing,
}

const MIG_PROFILE: &str = "gpu-autoscaler.io/mig-profile";
const MPS_CLIENTS: &str = "gpu-autoscaler.io/mps-clients";
const REPLICAS: &str = "gpu-autoscaler.io/timeslice-replicas";
const NAMESPACE_SHARING: &str = "gpu-autoscaler.io/sharing-enabled";

/// The sharing strategy for a pod.
pub fn choose(workload: &Workload<'_>) -> Choice {
    if let Some(reason) = forbidden(workload) {
        return Choice::Leave(reason);
    }
    let policy =
        workload.policies.iter().min_by_key(|policy| (Reverse(policy.priority), &policy.name));
    let by_policy = |policy: &SharingPolicy| {
        let basis = Basis::Policy(policy.name.clone());
        policy.prescribes.clone().map(|share| decided(workload, share, basis))
    };
    let fixed = policy.filter(|policy| !policy.allow_override);
    if let Some(choice) = fixed.and_then(by_policy) {
        return choice;
    }
    // A policy of strategy `auto` without override leaves the choice to the history, not the pod.
    if fixed.is_none() {
        match annotated(workload.annotations) {
            Err(reason) => return Choice::Leave(reason),
            Ok(Some((share, key))) => return decided(workload, share, Basis::Annotation(key)),
            Ok(None) => {}
        }
    }
    if let Some(choice) = policy.and_then(by_policy) {
        return choice;
    }
    let by_history = workload.history.map_or(Choice::Leave(Reason::Nothing), by_history);
    match by_history {
        Choice::Leave(_) if workload.annotations.get(SHARING) == Some("enabled") => {
            consented(workload)
        }
        choice => choice,
    }
}

/// What a pod gets that consents to sharing and names no strategy. Published: MPS, else time
/// slices.
fn consented(workload: &Workload<'_>) -> Choice {
    let basis = || Basis::Annotation(SHARING);
    let mps = Share::Mps { clients: MPS_CLIENTS_DEFAULT };
    match decided(workload, mps, basis()) {
        Choice::Leave(_) => {
            decided(workload, Share::TimeSlicing { replicas: REPLICAS_DEFAULT }, basis())
        }
        choice => choice,
    }
}

/// The choice of `share`, unless the pod opts out of that very strategy.
fn decided(workload: &Workload<'_>, share: Share, basis: Basis) -> Choice {
    let strategy = match share {
        Share::Exclusive => return Choice::Leave(Reason::Exclusive(basis)),
        Share::MigProfile(_) | Share::MigAtLeast { .. } => SharingStrategy::Mig,
        Share::Mps { .. } => SharingStrategy::Mps,
        Share::TimeSlicing { .. } => SharingStrategy::TimeSlicing,
    };
    match consent::opts_out(workload.annotations, strategy) {
        Some(key) => Choice::Leave(Reason::PodOptedOut(key)),
        None => Choice::Share(share, basis),
    }
}

/// Host memory below which the published rules recommend a MIG slice, in bytes.
const MIG_MEMORY_BYTES_MAX: u64 = 20 << 30;

/// What the type of a workload suggests, for a person to consider: nothing is decided by it.
/// `host_memory_bytes` is what the pod requests.
///
/// Published: a slice for one GPU with less than 20 GiB of host memory; MPS for inference and
/// serving; time slices for development and batch; nothing for training.
pub fn recommend(workload: &Workload<'_>, host_memory_bytes: u64) -> Option<Share> {
    if forbidden(workload).is_some() {
        return None;
    }
    let small = (1..MIG_MEMORY_BYTES_MAX).contains(&host_memory_bytes);
    match consent::workload_types(workload.labels, workload.annotations).next()? {
        _ if small => Some(Share::MigAtLeast { memory_mib: 0 }),
        "inference" | "serving" => Some(Share::Mps { clients: MPS_CLIENTS_DEFAULT }),
        "development" | "batch" => Some(Share::TimeSlicing { replicas: REPLICAS_DEFAULT }),
        _ => None,
    }
}

fn forbidden(workload: &Workload<'_>) -> Option<Reason> {
    if workload.gpus == 0 {
        return Some(Reason::NoGpu);
    }
    let annotations = workload.annotations;
    if let Some(key) = consent::left_alone(annotations).or_else(|| consent::unshared(annotations)) {
        return Some(Reason::PodOptedOut(key));
    }
    if workload.namespace_labels.get(NAMESPACE_SHARING) == Some("false") {
        return Some(Reason::NamespaceOptedOut);
    }
    if consent::declares_training(workload.labels, annotations) {
        return Some(Reason::Training);
    }
    (workload.gpus > 1).then_some(Reason::SeveralGpus { gpus: workload.gpus })
}

/// What the pod's own annotations ask for, and by which key.
fn annotated(annotations: &Labels) -> Result<Option<(Share, &'static str)>, Reason> {
    let unreadable = |key: &'static str, value: &str| Reason::Unreadable {
        key,
        value: value.chars().take(64).collect(),
    };
    let count = |key: &'static str, default: u16| match annotations.get(key) {
        None => Ok(default),
        Some(text) => match text.parse() {
            Ok(0) | Err(_) => Err(unreadable(key, text)),
            Ok(count) => Ok(count),
        },
    };
    let profile = annotations.get(MIG_PROFILE);
    let mode = match annotations.get(SHARING_MODE) {
        // The profile alone says MIG as well.
        None => return Ok(profile.map(|name| (Share::MigProfile(name.into()), MIG_PROFILE))),
        Some(text) => SharingStrategy::parse(text).ok_or_else(|| unreadable(SHARING_MODE, text))?,
    };
    let share = match mode {
        SharingStrategy::Mig => profile
            .map_or(Share::MigAtLeast { memory_mib: 0 }, |name| Share::MigProfile(name.into())),
        SharingStrategy::Mps => Share::Mps { clients: count(MPS_CLIENTS, MPS_CLIENTS_DEFAULT)? },
        SharingStrategy::TimeSlicing => {
            Share::TimeSlicing { replicas: count(REPLICAS, REPLICAS_DEFAULT)? }
        }
        SharingStrategy::Exclusive => Share::Exclusive,
    };
    Ok(Some((share, SHARING_MODE)))
}

fn by_history(history: History) -> Choice {
    let History { finished_pods, sampled_secs, compute_p95_milli, memory_p99_mib } = history;
    if finished_pods < HISTORY_PODS_MIN && sampled_secs < HISTORY_SECS_MIN {
        return Choice::Leave(Reason::ShortHistory { finished_pods, sampled_secs });
    }
    if compute_p95_milli >= COMPUTE_P95_MAX_MILLI {
        return Choice::Leave(Reason::Busy { compute_p95_milli });
    }
    let with_margin = u64::from(memory_p99_mib) * (100 + MEMORY_MARGIN_PERCENT) / 100;
    // More than any GPU has is refused where a profile is looked for.
    let memory_mib = u32::try_from(with_margin).unwrap_or(u32::MAX);
    Choice::Share(Share::MigAtLeast { memory_mib }, Basis::History(history))
}

/// The most client processes of an MPS server on a GPU of this compute capability.
///
/// Source: `maxClients` of NVIDIA's device plugin (commit 1b826acc): 48 from 7.5 on, else 16. It
/// counts processes, not containers, and one server serves one user at a time.
pub const fn mps_clients_max(compute_major: u32, compute_minor: u32) -> u16 {
    let new = compute_major > 7 || (compute_major == 7 && compute_minor >= 5);
    if new { MPS_CLIENTS_MAX } else { 16 }
}

/// Client processes of an MPS server for which `asked` were asked, on a GPU of this compute
/// capability: never more than the device has, never none.
pub fn mps_clients(asked: u16, compute_major: u32, compute_minor: u32) -> u16 {
    asked.clamp(1, mps_clients_max(compute_major, compute_minor))
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoGpu => write!(f, "it asks for no GPU"),
            Self::PodOptedOut(key) => write!(f, "its annotation `{key}` opts out"),
            Self::NamespaceOptedOut => {
                write!(f, "the label `{NAMESPACE_SHARING}` of its namespace opts out")
            }
            Self::Training => write!(f, "it declares itself training, which is never shared"),
            Self::SeveralGpus { gpus } => {
                write!(f, "it asks for {gpus} GPUs, which no share replaces")
            }
            Self::Unreadable { key, value } => {
                write!(f, "its annotation `{key}` has the value `{value}`, which means nothing")
            }
            Self::Exclusive(Basis::Annotation(key)) => {
                write!(f, "its annotation `{key}` rules sharing out")
            }
            Self::Exclusive(Basis::Policy(name)) => {
                write!(f, "GPUSharingPolicy `{name}` rules sharing out")
            }
            Self::Exclusive(Basis::History(_)) => write!(f, "its history rules sharing out"),
            Self::ShortHistory { finished_pods, sampled_secs } => write!(
                f,
                "{finished_pods} finished pods and {sampled_secs} s of samples, but \
                 {HISTORY_PODS_MIN} pods or {HISTORY_SECS_MIN} s are needed"
            ),
            Self::Busy { compute_p95_milli } => write!(
                f,
                "its compute is {compute_p95_milli} thousandths at the 95th percentile, at most \
                 {COMPUTE_P95_MAX_MILLI} are shared"
            ),
            Self::Nothing => write!(f, "no annotation, policy or history says how to share it"),
        }
    }
}

#[cfg(test)]
mod tests;
