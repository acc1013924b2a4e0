//! Which sharing strategy suits a pod that asks for whole GPUs.
//!
//! In this order: what forbids sharing; a policy that allows no override; the pod's own
//! annotations; the highest-priority policy; what its predecessors used. What none of these
//! covers is left as it is: a guess from the type of workload only recommends.

use std::cmp::Reverse;
use std::fmt;
use std::sync::Arc;

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

const OPTIMIZE: &str = "gpu-autoscaler.io/optimize";
const SHARING: &str = "gpu-autoscaler.io/sharing";
const SHARING_MODE: &str = "gpu-autoscaler.io/sharing-mode";
const MIG_PROFILE: &str = "gpu-autoscaler.io/mig-profile";
const MPS_CLIENTS: &str = "gpu-autoscaler.io/mps-clients";
const REPLICAS: &str = "gpu-autoscaler.io/timeslice-replicas";
const WORKLOAD_TYPE: &str = "gpu-autoscaler.io/workload-type";
const NAMESPACE_SHARING: &str = "gpu-autoscaler.io/sharing-enabled";

/// The sharing strategy for a pod.
pub fn choose(workload: &Workload<'_>) -> Choice {
    if let Some(reason) = forbidden(workload) {
        return Choice::Leave(reason);
    }
    let policy =
        workload.policies.iter().min_by_key(|policy| (Reverse(policy.priority), &policy.name));
    let prescribed = policy.and_then(|policy| {
        let share = policy.prescribes.clone()?;
        Some((share, Basis::Policy(policy.name.clone()), policy.allow_override))
    });
    if let Some((share, basis, false)) = &prescribed {
        return decided(share.clone(), basis.clone());
    }
    match annotated(workload.annotations) {
        Err(reason) => return Choice::Leave(reason),
        Ok(Some((share, key))) => return decided(share, Basis::Annotation(key)),
        Ok(None) => {}
    }
    if let Some((share, basis, _)) = prescribed {
        return decided(share, basis);
    }
    match workload.history {
        None => Choice::Leave(Reason::Nothing),
        Some(history) => by_history(history),
    }
}

fn decided(share: Share, basis: Basis) -> Choice {
    match share {
        Share::Exclusive => Choice::Leave(Reason::Exclusive(basis)),
        share => Choice::Share(share, basis),
    }
}

fn forbidden(workload: &Workload<'_>) -> Option<Reason> {
    let annotation = |key| workload.annotations.get(key);
    if workload.gpus == 0 {
        return Some(Reason::NoGpu);
    }
    if annotation(OPTIMIZE) == Some("false") {
        return Some(Reason::PodOptedOut(OPTIMIZE));
    }
    if annotation(SHARING) == Some("disabled") {
        return Some(Reason::PodOptedOut(SHARING));
    }
    if workload.namespace_labels.get(NAMESPACE_SHARING) == Some("false") {
        return Some(Reason::NamespaceOptedOut);
    }
    let declared = workload.labels.get(WORKLOAD_TYPE).or_else(|| annotation(WORKLOAD_TYPE));
    if declared == Some("training") {
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
        Some(text) => strategy(text).ok_or_else(|| unreadable(SHARING_MODE, text))?,
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

fn strategy(text: &str) -> Option<SharingStrategy> {
    match text {
        "mig" => Some(SharingStrategy::Mig),
        "mps" => Some(SharingStrategy::Mps),
        "timeslicing" => Some(SharingStrategy::TimeSlicing),
        "exclusive" => Some(SharingStrategy::Exclusive),
        _ => None,
    }
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
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        Labels::new(pairs.iter().map(|&(key, value)| (key.into(), value.into())))
    }

    fn policy(name: &str, priority: i32, allow_override: bool, share: Share) -> SharingPolicy {
        SharingPolicy { name: name.into(), priority, allow_override, prescribes: Some(share) }
    }

    const QUIET: History = History {
        finished_pods: 3,
        sampled_secs: 0,
        compute_p95_milli: 499,
        memory_p99_mib: 4_000,
    };

    fn with(
        annotations: &[(&str, &str)],
        policies: &[SharingPolicy],
        history: Option<History>,
    ) -> Choice {
        choose(&Workload {
            gpus: 1,
            annotations: &labels(annotations),
            labels: &Labels::default(),
            namespace_labels: &Labels::default(),
            policies,
            history,
        })
    }

    #[test]
    fn opting_out_stands_above_everything() {
        let forced = [policy("p", 9, false, Share::Mps { clients: 4 })];
        for out in [(OPTIMIZE, "false"), (SHARING, "disabled")] {
            let choice = with(&[out, (SHARING_MODE, "mps")], &forced, Some(QUIET));
            assert_eq!(choice, Choice::Leave(Reason::PodOptedOut(out.0)));
        }
        let choice = choose(&Workload {
            gpus: 1,
            annotations: &labels(&[(SHARING_MODE, "mps")]),
            labels: &Labels::default(),
            namespace_labels: &labels(&[(NAMESPACE_SHARING, "false")]),
            policies: &forced,
            history: None,
        });
        assert_eq!(choice, Choice::Leave(Reason::NamespaceOptedOut));
    }

    #[test]
    fn training_is_never_shared() {
        let annotations = [(WORKLOAD_TYPE, "training"), (SHARING_MODE, "timeslicing")];
        assert_eq!(with(&annotations, &[], Some(QUIET)), Choice::Leave(Reason::Training));
    }

    #[test]
    fn annotations_then_the_highest_policy_then_history() {
        let mps = || Share::Mps { clients: 8 };
        let slices = || Share::TimeSlicing { replicas: 2 };
        let policies = [policy("low", 1, true, slices()), policy("high", 2, true, mps())];
        let mode = [(SHARING_MODE, "timeslicing")];
        assert_eq!(
            with(&mode, &policies, Some(QUIET)),
            Choice::Share(Share::TimeSlicing { replicas: 4 }, Basis::Annotation(SHARING_MODE))
        );
        let by_high = Choice::Share(mps(), Basis::Policy("high".into()));
        assert_eq!(with(&[], &policies, Some(QUIET)), by_high);
        let fixed = [policy("high", 2, false, mps())];
        assert_eq!(with(&mode, &fixed, None), by_high);
        assert_eq!(
            with(&[], &[], Some(QUIET)),
            Choice::Share(Share::MigAtLeast { memory_mib: 4_800 }, Basis::History(QUIET))
        );
        assert_eq!(with(&[], &[], None), Choice::Leave(Reason::Nothing));
    }

    #[test]
    fn the_profile_alone_says_mig_and_a_wrong_value_changes_nothing() {
        assert_eq!(
            with(&[(MIG_PROFILE, "1g.5gb")], &[], None),
            Choice::Share(Share::MigProfile("1g.5gb".into()), Basis::Annotation(MIG_PROFILE))
        );
        let wrong = with(&[(SHARING_MODE, "mps"), (MPS_CLIENTS, "0")], &[], Some(QUIET));
        let Choice::Leave(reason) = wrong else { panic!("{wrong:?}") };
        assert_eq!(
            reason.to_string(),
            "its annotation `gpu-autoscaler.io/mps-clients` has the value `0`, which means nothing"
        );
    }

    #[test]
    fn a_history_is_three_pods_or_an_hour_and_below_half_of_the_compute() {
        let short = History { finished_pods: 2, sampled_secs: 3_599, ..QUIET };
        assert!(matches!(
            with(&[], &[], Some(short)),
            Choice::Leave(Reason::ShortHistory { finished_pods: 2, sampled_secs: 3_599 })
        ));
        let hour = History { finished_pods: 0, sampled_secs: 3_600, ..QUIET };
        assert!(matches!(with(&[], &[], Some(hour)), Choice::Share(..)));
        let busy = History { compute_p95_milli: 500, ..QUIET };
        assert_eq!(
            with(&[], &[], Some(busy)),
            Choice::Leave(Reason::Busy { compute_p95_milli: 500 })
        );
    }

    #[test]
    fn mps_clients_are_bounded_by_compute_capability() {
        assert_eq!(mps_clients_max(7, 0), 16);
        assert_eq!(mps_clients_max(7, 5), 48);
        assert_eq!(mps_clients_max(9, 0), 48);
    }
}
