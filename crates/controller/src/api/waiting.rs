//! Pods that wait for a node.

use gpu_autoscaler_model as model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A GPU pod that waits for a node: what the scheduler says, and what packing says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Waiting {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// Its uid.
    pub uid: String,
    /// GPUs, slices or replicas that it requests, those included that its device claims ask for;
    /// `null` where what a claim asks for is not known.
    pub gpus: Option<u32>,
    /// What each of its device claims asks for, in words.
    #[serde(default)]
    pub device_claims: Vec<String>,
    /// Why the scheduler could not place it, in the scheduler's words.
    pub scheduler_says: Option<String>,
    /// The node on which it would fit, when all that wait are placed together.
    pub fits_on: Option<String>,
    /// Why packing names no node, in one word: `Invalid`, `LeftToScheduler`,
    /// `VolumeClaim`, `NoNode`, `Postponed`, `NoRoom` or `Gang`.
    pub reason: Option<String>,
    /// The same in one sentence, with the value and the limit.
    pub message: Option<String>,
    /// What would make it fit.
    pub hint: Option<String>,
}

impl From<&model::WaitingView> for Waiting {
    fn from(waiting: &model::WaitingView) -> Self {
        let (fits_on, no_fit) = match &waiting.fit {
            model::Fit::On { node } => (Some(node.to_string()), None),
            model::Fit::Nowhere(no_fit) => (None, Some(no_fit)),
        };
        Self {
            namespace: waiting.pod.namespace.to_string(),
            pod: waiting.pod.name.to_string(),
            uid: waiting.uid.to_string(),
            gpus: waiting.gpus,
            device_claims: waiting.device_claims.iter().map(ToString::to_string).collect(),
            scheduler_says: waiting.scheduler_says.as_ref().map(ToString::to_string),
            fits_on,
            reason: no_fit.map(|no_fit| no_fit.reason.as_str().to_owned()),
            message: no_fit.map(|no_fit| no_fit.message.to_string()),
            hint: no_fit.and_then(|no_fit| no_fit.hint.as_ref()).map(ToString::to_string),
        }
    }
}
