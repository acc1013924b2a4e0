//! A pod that asks to be admitted, and the answer.

use std::sync::Arc;

use crate::{Labels, ObjectKey, Resources};

/// What admission knows of a pod that is about to be created. It has no uid yet, and no name when
/// its controller asks for a generated one.
#[derive(Clone, Debug, PartialEq)]
pub struct PodRequest {
    /// Namespace and name, or the prefix of the name.
    pub key: ObjectKey,
    /// What it requests.
    pub requests: Resources,
    /// Its labels.
    pub labels: Labels,
    /// Its annotations of the prefix `gpu-autoscaler.io/`.
    pub annotations: Labels,
    /// The scheduler that it names.
    pub scheduler: Arc<str>,
}

/// The answer. A pod is never refused: what is not changed is let through as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Let it through as it is.
    Unchanged(LeftAlone),
}

/// Why a pod is let through as it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LeftAlone {
    /// It requests no GPU.
    NoGpu,
    /// Its annotation `gpu-autoscaler.io/optimize: "false"` or `sharing: disabled` says so.
    OptedOut,
    /// Another scheduler places it.
    ForeignScheduler,
    /// No policy consents to change pods.
    NoPolicy,
    /// A policy consents, but none names a sharing strategy for it.
    NoStrategy,
}
