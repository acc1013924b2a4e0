//! Answers about parts of the fleet, beside [`Status`](super::Status), which is all of it.

use gpu_autoscaler_analysis::{Measured, Rule, Thresholds};
use gpu_autoscaler_model as model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Finding, Pod, Unknown, Waiting};

/// Some of what was judged together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "{T}List")]
pub struct List<T> {
    /// When it was judged, RFC 3339; `null` before the first time.
    pub at: Option<String>,
    /// Counts judgements since the start of the process: equal numbers are of one judgement.
    pub generation: u64,
    /// In the order of the status.
    pub items: Vec<T>,
}

impl<T> List<T> {
    /// `items` of `view`.
    pub fn of(view: &model::View, items: impl Iterator<Item = T>) -> Self {
        let at = view.judged.map(|at| at.to_string());
        Self { at, generation: view.generation, items: items.collect() }
    }
}

/// What is known of one pod, and by which rules it was judged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Explanation {
    /// When it was judged, RFC 3339; `null` before the first time.
    pub at: Option<String>,
    /// The outcome.
    pub verdict: Verdict,
    /// Why nothing was decided, where nothing was.
    pub refusal: Option<String>,
    /// The pod, while it is active.
    pub pod: Option<Pod>,
    /// Where it would fit, while it waits for a node.
    pub waiting: Option<Waiting>,
    /// Its waste.
    pub findings: Vec<Finding>,
    /// Why the use of its GPUs is not known, where it is not.
    pub unknown: Vec<Unknown>,
    /// What counts as waste.
    pub rules: Rules,
    /// What was asked of what was measured, in this order; the first that held decided. Empty
    /// where nothing was measured.
    #[serde(default)]
    pub questions: Vec<Question>,
}

/// A question about what was measured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Question {
    /// The kind of waste that it means when it holds; `null` for no waste.
    pub outcome: Option<String>,
    /// When it holds, in words; `null` for the last, which always does.
    pub condition: Option<String>,
    /// What was measured of that, in words; `null` where nothing was.
    pub measured: Option<String>,
}

impl Question {
    fn of(rule: Rule, usage: &model::PodUsage, devices: u32, limits: &Thresholds) -> Self {
        let words = |measured| match measured {
            Measured::Devices { touched, of } => Some(format!("{touched} of {of}")),
            Measured::Share(share) => share.map(|share| format!("{:.1}%", share.as_percent())),
            Measured::Score(score) => Some(format!("{score:.1}")),
        };
        Self {
            outcome: rule.outcome().map(|kind| kind.to_string()),
            condition: rule.condition(limits),
            measured: rule.measured(usage, devices).and_then(words),
        }
    }
}

/// The outcome of judging a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// It wastes GPUs.
    Waste,
    /// It is measured, and nothing of it counts as waste.
    NoWaste,
    /// The use of its GPUs is not known.
    Unknown,
    /// It holds no GPU, or none yet.
    NotDecided,
}

impl Explanation {
    /// Of the pod `key`, judged by `limits`; `None` when it is no GPU pod that is known.
    pub fn of(view: &model::View, limits: &Thresholds, key: &model::ObjectKey) -> Option<Self> {
        let pod = view.pods.iter().find(|pod| pod.pod == *key);
        let refusal = view.refusals.iter().find(|refusal| refusal.pod == *key);
        let waiting = view.waiting.iter().find(|waiting| waiting.pod == *key);
        if pod.is_none() && refusal.is_none() && waiting.is_none() {
            return None;
        }
        // Pods that ask for devices by claims alone are known by their waiting.
        let waits = waiting.map(|waiting| model::RefusalReason::Unscheduled {
            says: waiting.scheduler_says.clone(),
        });
        let refusal = refusal.map(|refusal| &refusal.why).or(waits.as_ref());
        let findings: Vec<Finding> =
            view.findings.iter().filter(|f| f.pod == *key).map(Finding::from).collect();
        let of_pod = |unknown: &&model::UnknownGpus| unknown.pod.as_ref() == Some(key);
        let unknown: Vec<Unknown> = view.unknown.iter().filter(of_pod).map(Unknown::from).collect();
        let measured = pod.and_then(|pod| Some((pod.usage.as_ref()?, pod.devices.len())));
        let questions = measured.map_or_else(Vec::new, |(usage, devices)| {
            let devices = u32::try_from(devices).unwrap_or(u32::MAX);
            Rule::ALL.map(|rule| Question::of(rule, usage, devices, limits)).into()
        });
        let verdict = if refusal.is_some() {
            Verdict::NotDecided
        } else if !findings.is_empty() {
            Verdict::Waste
        } else if pod.is_some_and(|pod| pod.usage.is_some()) {
            Verdict::NoWaste
        } else {
            Verdict::Unknown
        };
        Some(Self {
            at: view.judged.map(|at| at.to_string()),
            verdict,
            refusal: refusal.map(ToString::to_string),
            pod: pod.map(Pod::from),
            waiting: waiting.map(Waiting::from),
            findings,
            unknown,
            rules: Rules::from(limits),
            questions,
        })
    }
}

/// What counts as waste.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// How far back is looked, in seconds.
    pub window_secs: u64,
    /// How much of that must have been observed, in seconds.
    pub observed_secs_min: u64,
    /// The longest time between two samples that counts as observed, in seconds.
    pub sample_gap_secs_max: u64,
    /// Pods that started more recently are left alone, in seconds.
    pub pod_age_secs_min: u64,
    /// Mean share of compute from which on a pod is busy, 0 to 1.
    pub busy_from: f64,
    /// Highest share of compute up to which a pod is idle, 0 to 1.
    pub idle_up_to: f64,
    /// Mean share of framebuffer from which on an idle pod holds memory, 0 to 1.
    pub memory_held_from: f64,
    /// Waste score above which it is a finding.
    pub score_above: f64,
}

impl From<&Thresholds> for Rules {
    fn from(waste: &Thresholds) -> Self {
        Self {
            window_secs: waste.window.as_secs(),
            observed_secs_min: waste.observed_min.as_secs(),
            sample_gap_secs_max: waste.gap_max.as_secs(),
            pod_age_secs_min: waste.pod_age_min.as_secs(),
            busy_from: waste.busy_from.as_f64(),
            idle_up_to: waste.idle_up_to.as_f64(),
            memory_held_from: waste.memory_held_from.as_f64(),
            score_above: waste.score_above,
        }
    }
}

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Problem {
    /// What is wrong, with the value that is.
    pub error: String,
    /// What to do about it.
    pub hint: Option<String>,
}
