//! Which sharing strategy suits a pod that asks for whole GPUs.
//!
//! In this order: what forbids sharing; the highest-priority policy, where it allows no override;
//! the pod's own annotations; that policy, where it does; what its predecessors used; the pod's
//! consent without a strategy. What none of these covers is left as it is: a guess from the type
//! of workload only [recommends](recommend).

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
const MPS_ENABLED: &str = "gpu-autoscaler.io/mps-enabled";
const TIME_SLICING_ENABLED: &str = "gpu-autoscaler.io/time-slicing-enabled";
const WORKLOAD_TYPE: &str = "gpu-autoscaler.io/workload-type";
/// Published examples have the label without our prefix as well.
const WORKLOAD_TYPE_BARE: &str = "workload-type";
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
    let opts_out = |key| workload.annotations.get(key) == Some("false");
    match share {
        Share::Exclusive => Choice::Leave(Reason::Exclusive(basis)),
        Share::Mps { .. } if opts_out(MPS_ENABLED) => {
            Choice::Leave(Reason::PodOptedOut(MPS_ENABLED))
        }
        Share::TimeSlicing { .. } if opts_out(TIME_SLICING_ENABLED) => {
            Choice::Leave(Reason::PodOptedOut(TIME_SLICING_ENABLED))
        }
        share => Choice::Share(share, basis),
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
    match declared_type(workload)? {
        _ if small => Some(Share::MigAtLeast { memory_mib: 0 }),
        "inference" | "serving" => Some(Share::Mps { clients: MPS_CLIENTS_DEFAULT }),
        "development" | "batch" => Some(Share::TimeSlicing { replicas: REPLICAS_DEFAULT }),
        _ => None,
    }
}

fn declared_type<'a>(workload: &Workload<'a>) -> Option<&'a str> {
    let annotation = || workload.annotations.get(WORKLOAD_TYPE);
    let bare = || workload.labels.get(WORKLOAD_TYPE_BARE);
    workload.labels.get(WORKLOAD_TYPE).or_else(annotation).or_else(bare)
}

/// Whether any of the places in which a pod declares its type says training.
fn declares_training(workload: &Workload<'_>) -> bool {
    let places = [
        workload.labels.get(WORKLOAD_TYPE),
        workload.annotations.get(WORKLOAD_TYPE),
        workload.labels.get(WORKLOAD_TYPE_BARE),
    ];
    places.into_iter().flatten().any(|declared| declared.eq_ignore_ascii_case("training"))
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
    if declares_training(workload) {
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

    /// Rules in their order; each is on or off, and the first that is on decides.
    const RULES: [&str; 10] = [
        "optimize=false",
        "sharing=disabled",
        "namespace",
        "training",
        "several GPUs",
        "fixed policy",
        "annotation",
        "policy",
        "history",
        "consent",
    ];

    fn decider(on: &dyn Fn(&str) -> bool) -> String {
        let mut annotations = Vec::new();
        if on("optimize=false") {
            annotations.push((OPTIMIZE, "false"));
        }
        if on("sharing=disabled") {
            annotations.push((SHARING, "disabled"));
        } else if on("consent") {
            annotations.push((SHARING, "enabled"));
        }
        if on("annotation") {
            annotations.push((SHARING_MODE, "timeslicing"));
        }
        let mut policies = Vec::new();
        if on("fixed policy") {
            policies.push(policy("fixed policy", 9, false, Share::Mps { clients: 2 }));
        }
        if on("policy") {
            policies.push(policy("policy", 5, true, Share::Mps { clients: 3 }));
            // A lower one never decides, whatever it forbids.
            policies.push(policy("lower", 1, false, Share::Exclusive));
        }
        let training = if on("training") { "training" } else { "inference" };
        let namespace = if on("namespace") { "false" } else { "true" };
        let choice = choose(&Workload {
            gpus: if on("several GPUs") { 2 } else { 1 },
            annotations: &labels(&annotations),
            labels: &labels(&[(WORKLOAD_TYPE, training)]),
            namespace_labels: &labels(&[(NAMESPACE_SHARING, namespace)]),
            policies: &policies,
            history: on("history").then_some(QUIET),
        });
        match choice {
            Choice::Leave(Reason::PodOptedOut(OPTIMIZE)) => "optimize=false".into(),
            Choice::Leave(Reason::PodOptedOut(SHARING)) => "sharing=disabled".into(),
            Choice::Leave(Reason::NamespaceOptedOut) => "namespace".into(),
            Choice::Leave(Reason::Training) => "training".into(),
            Choice::Leave(Reason::SeveralGpus { gpus: 2 }) => "several GPUs".into(),
            Choice::Leave(Reason::Nothing) => "nothing".into(),
            Choice::Share(_, Basis::Policy(name)) => name.to_string(),
            Choice::Share(_, Basis::Annotation(SHARING_MODE)) => "annotation".into(),
            Choice::Share(_, Basis::Annotation(SHARING)) => "consent".into(),
            Choice::Share(_, Basis::History(_)) => "history".into(),
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn of_all_combinations_of_rules_the_first_in_order_decides() {
        for set in 0..1_u32 << RULES.len() {
            let on = |rule: &str| {
                let at = RULES.iter().position(|known| *known == rule).expect("a rule");
                set >> at & 1 == 1
            };
            let first = RULES.into_iter().find(|rule| on(rule)).unwrap_or("nothing");
            assert_eq!(decider(&on), first, "set {set:b}");
        }
    }

    #[test]
    fn a_fixed_policy_of_strategy_auto_leaves_it_to_the_history_and_not_to_the_pod() {
        let auto = |allow_override| SharingPolicy {
            name: "auto".into(),
            priority: 1,
            allow_override,
            prescribes: None,
        };
        let mode = [(SHARING_MODE, "timeslicing")];
        let by_history = with(&mode, &[auto(false)], Some(QUIET));
        assert!(matches!(by_history, Choice::Share(_, Basis::History(_))), "{by_history:?}");
        assert_eq!(with(&mode, &[auto(false)], None), Choice::Leave(Reason::Nothing));
        let by_pod = with(&mode, &[auto(true)], Some(QUIET));
        assert!(matches!(by_pod, Choice::Share(_, Basis::Annotation(_))), "{by_pod:?}");
    }

    #[test]
    fn a_pod_may_opt_out_of_one_strategy() {
        let fixed = [policy("p", 1, false, Share::Mps { clients: 4 })];
        assert_eq!(
            with(&[(MPS_ENABLED, "false")], &fixed, None),
            Choice::Leave(Reason::PodOptedOut(MPS_ENABLED))
        );
        let consent = [(SHARING, "enabled"), (MPS_ENABLED, "false")];
        assert_eq!(
            with(&consent, &[], None),
            Choice::Share(Share::TimeSlicing { replicas: 4 }, Basis::Annotation(SHARING))
        );
        let neither =
            [(SHARING, "enabled"), (MPS_ENABLED, "false"), (TIME_SLICING_ENABLED, "false")];
        assert_eq!(
            with(&neither, &[], None),
            Choice::Leave(Reason::PodOptedOut(TIME_SLICING_ENABLED))
        );
    }

    #[test]
    fn the_type_of_workload_only_recommends_and_training_not_even_that() {
        let recommended = |kind: &str, memory_gib: u64| {
            let labels = labels(&[(WORKLOAD_TYPE, kind)]);
            let workload = Workload {
                gpus: 1,
                annotations: &Labels::default(),
                labels: &labels,
                namespace_labels: &Labels::default(),
                policies: &[],
                history: None,
            };
            if kind != "training" {
                assert_eq!(choose(&workload), Choice::Leave(Reason::Nothing), "{kind}");
            }
            recommend(&workload, memory_gib << 30)
        };
        assert_eq!(recommended("inference", 64), Some(Share::Mps { clients: 16 }));
        assert_eq!(recommended("batch", 64), Some(Share::TimeSlicing { replicas: 4 }));
        assert_eq!(recommended("inference", 8), Some(Share::MigAtLeast { memory_mib: 0 }));
        assert_eq!(recommended("training", 8), None);
        assert_eq!(recommended("painting", 64), None);
    }

    #[test]
    fn training_is_heard_wherever_it_is_declared() {
        let (typed, bare) = ((WORKLOAD_TYPE, "Training"), (WORKLOAD_TYPE_BARE, "training"));
        let places = [
            (vec![typed], vec![]),
            (vec![], vec![(WORKLOAD_TYPE, "training")]),
            (vec![bare, (WORKLOAD_TYPE, "inference")], vec![]),
        ];
        for (own, annotations) in &places {
            let choice = choose(&Workload {
                gpus: 1,
                annotations: &labels(annotations),
                labels: &labels(own),
                namespace_labels: &Labels::default(),
                policies: &[policy("p", 9, false, Share::Mps { clients: 4 })],
                history: Some(QUIET),
            });
            assert_eq!(choice, Choice::Leave(Reason::Training), "{own:?}");
        }
    }

    #[test]
    fn clients_are_capped_by_the_device() {
        assert_eq!(mps_clients(16, 8, 0), 16);
        assert_eq!(mps_clients(60, 9, 0), 48);
        assert_eq!(mps_clients(48, 7, 0), 16);
        assert_eq!(mps_clients(0, 7, 0), 1);
    }

    #[test]
    fn mps_clients_are_bounded_by_compute_capability() {
        assert_eq!(mps_clients_max(7, 0), 16);
        assert_eq!(mps_clients_max(7, 5), 48);
        assert_eq!(mps_clients_max(9, 0), 48);
    }
}
