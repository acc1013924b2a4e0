//! What the HTTP API and the command line show, as JSON.
//!
//! Twins of the model's types: these names are a promise to users, those are not. Amounts of money
//! are decimals as text, because a JSON number is a float to most readers; shares are 0 to 1;
//! what is not known is `null`.

mod answers;
mod waiting;

pub use answers::{Explanation, List, Problem, Question, Rules, Verdict};
pub use waiting::Waiting;

use gpu_autoscaler_model as model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The state of the fleet at the last judgement.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Status {
    /// When it was judged, RFC 3339; `null` before the first time.
    pub at: Option<String>,
    /// Counts judgements since the start of the process.
    pub generation: u64,
    /// Whether some policy consents to act.
    pub acting: bool,
    /// Sums over the fleet.
    pub totals: Totals,
    /// Waste, worst first.
    pub findings: Vec<Finding>,
    /// Devices whose hardware needs a look.
    pub hardware: Vec<Hardware>,
    /// What is not known.
    pub unknown: Vec<Unknown>,
    /// Active pods that request GPUs.
    pub pods: Vec<Pod>,
    /// Namespaces with pods that hold GPUs.
    pub namespaces: Vec<Namespace>,
    /// Those of them that wait for a node.
    #[serde(default)]
    pub waiting: Vec<Waiting>,
    /// Nodes with GPUs.
    pub nodes: Vec<Node>,
    /// GPUs and GPU instances that are measured.
    pub devices: Vec<Device>,
}

/// Sums over the fleet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Totals {
    /// Nodes with GPUs.
    pub gpu_nodes: u32,
    /// Physical GPUs, where the node tells.
    pub gpus: u32,
    /// GPUs whose use is measured.
    pub gpus_measured: u32,
    /// GPUs, slices and replicas that active pods request.
    pub gpus_requested: u32,
    /// What the GPU nodes with a known price cost.
    pub cost_per_hour: Option<Amount>,
    /// GPU nodes without a known price.
    pub nodes_unpriced: u32,
    /// Mean share of compute of the measured pods, weighted by what they request, 0 to 1.
    pub activity: Option<f64>,
    /// Mean share of framebuffer, likewise, of those of which it is measured, 0 to 1.
    pub fb: Option<f64>,
    /// What GPUs that no pod holds cost; `null` unless every node and pod has a price.
    pub not_held_per_hour: Option<Amount>,
    /// Nodes with GPUs by how they are paid for.
    pub by_capacity_type: Vec<CapacityTotals>,
    /// Nodes that are underutilized; `null` when that is not known of any node.
    pub nodes_underutilized: Option<u32>,
    /// What following all recommendations would save.
    pub saving_per_hour: Option<Amount>,
    /// Findings whose saving is not known, because what they hold has no price.
    pub findings_unpriced: u32,
}

/// Sums over the GPU nodes of one capacity type.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CapacityTotals {
    /// `reserved`, `spot` or `on-demand`; `null` for nodes of which it is not known.
    pub capacity_type: Option<String>,
    /// Nodes.
    pub nodes: u32,
    /// What those with a known price cost.
    pub cost_per_hour: Option<Amount>,
}

/// Money.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Amount {
    /// A decimal, exact.
    pub amount: String,
    /// ISO 4217.
    pub currency: String,
}

impl From<model::Money> for Amount {
    fn from(money: model::Money) -> Self {
        Self { amount: money.exact(), currency: money.currency().to_string() }
    }
}

impl From<model::Rate> for Amount {
    fn from(rate: model::Rate) -> Self {
        rate.hourly().into()
    }
}

impl Amount {
    /// What a month of 720 hours of it costs; `None` when it does not fit.
    pub fn monthly(&self) -> Option<Self> {
        self.rate()?.monthly().map(Self::from)
    }

    /// What twelve such months cost; `None` when it does not fit.
    pub fn yearly(&self) -> Option<Self> {
        self.rate()?.yearly().map(Self::from)
    }

    /// Reads it back as money per hour; `None` for text that no program of ours wrote.
    pub fn rate(&self) -> Option<model::Rate> {
        model::Rate::parse(&self.amount, self.currency.parse().ok()?).ok()
    }
}

/// A pod that wastes GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// `Idle`, `Underutilized`, `MemoryHeld`, `OverRequested` or `Stuck`.
    pub kind: String,
    /// Namespace of the pod.
    pub namespace: String,
    /// Name of the pod.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its node.
    pub node: String,
    /// Its controller, as `Kind/name`.
    pub owner: Option<String>,
    /// The devices that it holds.
    pub devices: Vec<String>,
    /// Those of them that it never touched, where others are used.
    pub untouched: Vec<String>,
    /// Their model.
    pub model: Option<String>,
    /// What was measured; `null` for a pod that never ran.
    pub usage: Option<Usage>,
    /// Why it does not run or end, in words.
    pub stuck: Option<String>,
    /// How bad it is.
    pub score: Score,
    /// Share of the devices that neither compute nor memory needs, 0 to 1.
    pub reclaimable: Option<f64>,
    /// What to do about it.
    pub recommendation: Recommendation,
    /// What following the recommendation saves.
    pub saving_per_hour: Option<Amount>,
    /// When it was first announced, or found.
    pub since: String,
}

/// What to do about a finding, with the numbers that led to it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Recommendation {
    /// `MigProfile`, `Share`, `FewerGpus`, `Stop`, `MeasureMemory`, `NothingSmaller` or
    /// `RaiseLoad`.
    pub advice: String,
    /// The same in words, with its numbers.
    pub text: String,
    /// The MIG profile to request.
    pub mig_profile: Option<String>,
    /// Replicas of a GPU of which to request one.
    pub replicas: Option<u32>,
    /// GPUs to request.
    pub gpus: Option<u32>,
    /// The part of what it holds that is given back, 0 to 1.
    pub freed: f64,
    /// Compute that is needed at the 99th percentile, as a share of one device, 0 to 1.
    pub needed_activity: Option<f64>,
    /// Framebuffer that is needed of one device at the 99th percentile, in bytes, without margin.
    pub needed_memory_bytes: Option<u64>,
    /// Whether framebuffer was constant: allocated in advance.
    pub preallocated: Option<bool>,
    /// Seconds for which pods of the same owner and image were observed before.
    pub history_secs: Option<u64>,
}

impl From<&model::Recommendation> for Recommendation {
    fn from(it: &model::Recommendation) -> Self {
        use model::Advice::{FewerGpus, MigProfile, Share};
        Self {
            advice: it.advice.as_str().to_owned(),
            text: it.advice.to_string(),
            mig_profile: match &it.advice {
                MigProfile { profile, .. } => Some(profile.to_string()),
                _ => None,
            },
            replicas: if let Share { replicas } = it.advice { Some(replicas) } else { None },
            gpus: if let FewerGpus { to, .. } = it.advice { Some(to) } else { None },
            freed: it.freed.as_ratio().as_f64(),
            needed_activity: it.need.map(|need| need.activity.as_f64()),
            needed_memory_bytes: it.need.and_then(|need| need.memory).map(model::Bytes::as_u64),
            preallocated: it.need.map(|need| need.preallocated),
            history_secs: it.need.map(|need| need.history_secs),
        }
    }
}

/// A device whose hardware needs a look.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hardware {
    /// `Throttled` or `Sick`.
    pub kind: String,
    /// Its node.
    pub node: String,
    /// Its UUID, and its instance.
    pub device: String,
    /// Its model.
    pub model: Option<String>,
    /// The pods that hold it, as `namespace/name`.
    pub holders: Vec<String>,
    /// What is wrong, in words.
    pub message: String,
    /// When it was first announced, or found.
    pub since: String,
}

impl From<&model::HardwareFinding> for Hardware {
    fn from(it: &model::HardwareFinding) -> Self {
        Self {
            kind: it.fault.kind().to_string(),
            node: it.node.to_string(),
            device: it.device.to_string(),
            model: it.model.as_ref().map(ToString::to_string),
            holders: it.holders.iter().map(ToString::to_string).collect(),
            message: it.fault.to_string(),
            since: it.since.to_string(),
        }
    }
}

/// Waste score out of 100.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Score {
    /// The sum of the parts.
    pub total: f64,
    /// Compute that was not used, out of 60.
    pub compute: f64,
    /// Memory that was not used, out of 40.
    pub memory: Option<f64>,
}

impl From<model::WasteScore> for Score {
    fn from(score: model::WasteScore) -> Self {
        Self { total: score.total(), compute: score.compute, memory: score.memory }
    }
}

/// What a pod made of its devices within the window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// Seconds that were observed.
    pub observed_secs: u64,
    /// Samples over all devices.
    pub samples: u32,
    /// Mean share of compute, 0 to 1.
    pub activity_mean: f64,
    /// Its 95th percentile.
    pub activity_p95: f64,
    /// Its 99th percentile.
    pub activity_p99: f64,
    /// Its highest value.
    pub activity_max: f64,
    /// The counter: `SM_ACTIVE`, `GR_ENGINE_ACTIVE` or `GPU_UTIL`.
    pub activity_source: String,
    /// Mean share of framebuffer, 0 to 1.
    pub fb_mean: Option<f64>,
    /// Its 95th percentile.
    pub fb_p95: Option<f64>,
    /// 99th percentile of framebuffer in use on one device, in bytes.
    pub fb_p99_bytes: Option<u64>,
    /// Highest framebuffer in use on one device, in bytes.
    pub fb_max_bytes: Option<u64>,
    /// Whether framebuffer was constant on every device: allocated in advance.
    pub preallocated: bool,
    /// Devices that computed anything.
    pub touched: u32,
}

impl From<&model::PodUsage> for Usage {
    fn from(usage: &model::PodUsage) -> Self {
        Self {
            observed_secs: usage.observed_secs,
            samples: usage.samples,
            activity_mean: usage.activity_mean.as_f64(),
            activity_p95: usage.activity_p95.as_f64(),
            activity_p99: usage.activity_p99.as_f64(),
            activity_max: usage.activity_max.as_f64(),
            activity_source: usage.activity_source.to_string(),
            fb_mean: usage.fb_mean.map(model::Ratio::as_f64),
            fb_p95: usage.fb_p95.map(model::Ratio::as_f64),
            fb_p99_bytes: usage.fb_p99.map(model::Bytes::as_u64),
            fb_max_bytes: usage.fb_max.map(model::Bytes::as_u64),
            preallocated: usage.preallocated,
            touched: usage.touched,
        }
    }
}

/// GPUs whose use is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Unknown {
    /// The node.
    pub node: String,
    /// How many.
    pub gpus: u32,
    /// Namespace of the pod that holds them.
    pub namespace: Option<String>,
    /// Name of the pod that holds them.
    pub pod: Option<String>,
    /// Why, in one word.
    pub reason: String,
    /// Why, in words.
    pub message: String,
}

impl From<&model::UnknownGpus> for Unknown {
    fn from(unknown: &model::UnknownGpus) -> Self {
        Self {
            node: unknown.node.to_string(),
            gpus: unknown.count,
            namespace: unknown.pod.as_ref().map(|pod| pod.namespace.to_string()),
            pod: unknown.pod.as_ref().map(|pod| pod.name.to_string()),
            reason: unknown.why.as_str().to_owned(),
            message: unknown.why.to_string(),
        }
    }
}

/// An active pod that requests GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// Its node, once bound.
    pub node: Option<String>,
    /// GPUs, slices or replicas that it requests.
    pub gpus: u32,
    /// The devices that it was seen to hold.
    pub devices: Vec<String>,
    /// Their model.
    pub model: Option<String>,
    /// What it makes of them.
    pub usage: Option<Usage>,
    /// What they cost; `null` before it is bound, and where no price is known.
    pub cost_per_hour: Option<Amount>,
    /// How much of them is wasted, a finding or not.
    pub score: Option<Score>,
}

impl From<&model::PodView> for Pod {
    fn from(pod: &model::PodView) -> Self {
        Self {
            namespace: pod.pod.namespace.to_string(),
            pod: pod.pod.name.to_string(),
            uid: pod.uid.to_string(),
            node: pod.node.as_ref().map(ToString::to_string),
            gpus: pod.gpus,
            devices: pod.devices.iter().map(ToString::to_string).collect(),
            model: pod.model.as_ref().map(ToString::to_string),
            usage: pod.usage.as_ref().map(Usage::from),
            cost_per_hour: pod.rate.map(Amount::from),
            score: pod.score.map(Score::from),
        }
    }
}

/// What the pods of a namespace hold, and what they make of it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Namespace {
    /// Its name.
    pub namespace: String,
    /// Pods that hold GPUs.
    pub pods: u32,
    /// Those of which the use is known.
    pub pods_measured: u32,
    /// GPUs, slices and replicas that they hold.
    pub gpus: u32,
    /// Mean share of compute of the measured pods, weighted by what they request, 0 to 1.
    pub activity: Option<f64>,
    /// Mean share of framebuffer, likewise, of those of which it is measured, 0 to 1.
    pub fb: Option<f64>,
    /// What they hold costs.
    pub cost_per_hour: Option<Amount>,
    /// Pods whose part has no price.
    pub pods_unpriced: u32,
    /// Findings that stand.
    pub findings: u32,
    /// What following their recommendations would save.
    pub saving_per_hour: Option<Amount>,
    /// Findings whose saving is not known.
    pub findings_unpriced: u32,
}

impl From<&model::NamespaceView> for Namespace {
    fn from(it: &model::NamespaceView) -> Self {
        Self {
            namespace: it.namespace.to_string(),
            pods: it.pods,
            pods_measured: it.pods_measured,
            gpus: it.gpus,
            activity: it.activity.map(model::Ratio::as_f64),
            fb: it.fb.map(model::Ratio::as_f64),
            cost_per_hour: it.rate.map(Amount::from),
            pods_unpriced: it.pods_unpriced,
            findings: it.findings,
            saving_per_hour: it.saving.map(Amount::from),
            findings_unpriced: it.findings_unpriced,
        }
    }
}

/// A node with GPUs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Node {
    /// Its name.
    pub node: String,
    /// The model of its GPUs.
    pub model: Option<String>,
    /// Its instance type.
    pub instance_type: Option<String>,
    /// How it is paid for: `reserved`, `spot` or `on-demand`.
    pub capacity_type: Option<String>,
    /// Physical GPUs.
    pub gpus: Option<u32>,
    /// When any of its devices was last measured, RFC 3339.
    pub measured_at: Option<String>,
    /// Whether that is recent enough to be believed.
    pub exporter_up: bool,
    /// Mean share of compute of all its devices, 0 to 1; `null` unless all are measured.
    pub activity: Option<f64>,
    /// Whether that is too little; `null` when it is not known.
    pub underutilized: Option<bool>,
    /// Its price.
    pub cost_per_hour: Option<Amount>,
}

impl From<&model::NodeView> for Node {
    fn from(node: &model::NodeView) -> Self {
        Self {
            node: node.name.to_string(),
            model: node.model.as_ref().map(ToString::to_string),
            instance_type: node.instance_type.as_ref().map(ToString::to_string),
            capacity_type: node.capacity_type.map(|it| it.to_string()),
            gpus: node.gpus,
            measured_at: node.measured.map(|at| at.to_string()),
            exporter_up: node.exporter_up,
            activity: node.activity.map(model::Ratio::as_f64),
            underutilized: node.underutilized,
            cost_per_hour: node.rate.map(Amount::from),
        }
    }
}

/// A GPU or GPU instance as it was last measured.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Device {
    /// Its node.
    pub node: String,
    /// Its UUID, and its instance.
    pub device: String,
    /// Its model.
    pub model: Option<String>,
    /// The pods that hold it, as `namespace/name`.
    pub holders: Vec<String>,
    /// Share of compute, 0 to 1.
    pub activity: Option<f64>,
    /// The counter.
    pub activity_source: Option<String>,
    /// Share of framebuffer in use, 0 to 1.
    pub fb: Option<f64>,
    /// Power of the whole device, in watts.
    pub watts: Option<f64>,
    /// Temperature of the whole device, in degrees Celsius.
    pub celsius: Option<i16>,
    /// When that was, RFC 3339.
    pub at: String,
}

impl From<&model::DeviceView> for Device {
    fn from(device: &model::DeviceView) -> Self {
        Self {
            node: device.node.to_string(),
            device: device.device.to_string(),
            model: device.model.as_ref().map(ToString::to_string),
            holders: device.holders.iter().map(ToString::to_string).collect(),
            activity: device.activity.map(|a| a.ratio.as_f64()),
            activity_source: device.activity.map(|a| a.source.to_string()),
            fb: device.fb.map(model::Ratio::as_f64),
            watts: device.hardware.power.map(model::Milliwatts::as_watts),
            celsius: device.hardware.temperature_celsius,
            at: device.at.to_string(),
        }
    }
}

impl From<&model::Finding> for Finding {
    fn from(finding: &model::Finding) -> Self {
        Self {
            kind: finding.kind.to_string(),
            namespace: finding.pod.namespace.to_string(),
            pod: finding.pod.name.to_string(),
            uid: finding.pod_uid.to_string(),
            node: finding.node.to_string(),
            owner: finding.owner.as_ref().map(|owner| format!("{}/{}", owner.kind, owner.name)),
            devices: finding.devices.iter().map(ToString::to_string).collect(),
            model: finding.model.as_ref().map(ToString::to_string),
            untouched: finding.untouched.iter().map(ToString::to_string).collect(),
            usage: finding.usage.as_ref().map(Usage::from),
            stuck: finding.stuck.as_ref().map(ToString::to_string),
            score: finding.score.into(),
            reclaimable: finding.reclaimable.map(model::Ratio::as_f64),
            recommendation: (&finding.recommendation).into(),
            saving_per_hour: finding.recommendation.saving.map(Amount::from),
            since: finding.since.to_string(),
        }
    }
}

impl From<&model::CapacityTotals> for CapacityTotals {
    fn from(totals: &model::CapacityTotals) -> Self {
        Self {
            capacity_type: totals.capacity_type.map(|it| it.to_string()),
            nodes: totals.nodes,
            cost_per_hour: totals.cost.map(Amount::from),
        }
    }
}

impl From<&model::Totals> for Totals {
    fn from(totals: &model::Totals) -> Self {
        Self {
            gpu_nodes: totals.gpu_nodes,
            gpus: totals.gpus,
            gpus_measured: totals.gpus_measured,
            gpus_requested: totals.gpus_requested,
            cost_per_hour: totals.cost.map(Amount::from),
            nodes_unpriced: totals.nodes_unpriced,
            activity: totals.activity.map(model::Ratio::as_f64),
            fb: totals.fb.map(model::Ratio::as_f64),
            not_held_per_hour: totals.not_held.map(Amount::from),
            by_capacity_type: totals.by_capacity_type.iter().map(CapacityTotals::from).collect(),
            nodes_underutilized: totals.nodes_underutilized,
            saving_per_hour: totals.saving.map(Amount::from),
            findings_unpriced: totals.findings_unpriced,
        }
    }
}

impl From<&model::View> for Status {
    fn from(view: &model::View) -> Self {
        Self {
            at: view.judged.map(|at| at.to_string()),
            generation: view.generation,
            acting: view.acting,
            totals: (&view.totals).into(),
            findings: view.findings.iter().map(Finding::from).collect(),
            hardware: view.hardware.iter().map(Hardware::from).collect(),
            unknown: view.unknown.iter().map(Unknown::from).collect(),
            pods: view.pods.iter().map(Pod::from).collect(),
            namespaces: view.namespaces.iter().map(Namespace::from).collect(),
            waiting: view.waiting.iter().map(Waiting::from).collect(),
            nodes: view.nodes.iter().map(Node::from).collect(),
            devices: view.devices.iter().map(Device::from).collect(),
        }
    }
}
