//! What is kept of the past, so that a restart decides the same.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::{GpuMillis, QuantileSketch, Timestamp};

/// Something that is kept of the past. A record replaces the one that was kept under its key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "record")]
pub enum HistoryRecord {
    /// What pods of one owner and image use.
    Usage(UsageProfile),
    /// What was asked for in one hour.
    Demand(DemandHour),
}

/// What starts pods that behave alike: their controller and their image.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ProfileKey {
    /// Namespace of the pods.
    pub namespace: Arc<str>,
    /// The topmost controller that the pod itself tells, as `Kind/name`: the Deployment of a
    /// ReplicaSet, by the pod's template hash. The pod itself where it has none.
    pub owner: Arc<str>,
    /// The image of the first container that requests GPUs; empty where it is not known.
    pub image: Arc<str>,
}

/// What pods of one owner and image use of each device that they hold.
///
/// About 11 KiB at most; 1 KiB is usual, since values lie close together.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UsageProfile {
    /// Whose.
    pub key: ProfileKey,
    /// Share of compute of one device, in millionths, weighted by seconds.
    pub activity_ppm: QuantileSketch,
    /// Framebuffer in use on one device, in MiB, weighted by seconds. It weighs less than
    /// `activity_ppm` where memory was not always measured.
    pub fb_mib: QuantileSketch,
    /// The most devices that one pod touched at all.
    pub touched_max: u32,
    /// Pods that were observed, each counted once for every stretch that it was observed in.
    pub pods: u64,
    /// For how long pods were observed in sum, in seconds. It halves with the weights.
    pub observed_secs: u64,
    /// Until when everything that was measured is counted.
    pub through: Timestamp,
}

impl UsageProfile {
    /// Of nothing yet.
    pub fn empty(key: ProfileKey, through: Timestamp) -> Self {
        Self {
            key,
            activity_ppm: QuantileSketch::default(),
            fb_mib: QuantileSketch::default(),
            touched_max: 0,
            pods: 0,
            observed_secs: 0,
            through,
        }
    }

    /// Counts all that `other` counts; the two may not speak of the same time.
    pub fn merge(&mut self, other: &Self) {
        self.activity_ppm.merge(&other.activity_ppm);
        self.fb_mib.merge(&other.fb_mib);
        self.touched_max = self.touched_max.max(other.touched_max);
        self.pods = self.pods.saturating_add(other.pods);
        self.observed_secs = self.observed_secs.saturating_add(other.observed_secs);
        self.through = self.through.max(other.through);
    }

    /// Halves every weight, so that what comes counts twice as much as what was.
    pub fn halve(&mut self) {
        self.activity_ppm.halve();
        self.fb_mib.halve();
        self.observed_secs /= 2;
    }
}

/// What one pool of nodes was asked for in one hour.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DemandHour {
    /// The pool: the node pool that its nodes' labels name, else their instance type. Empty for
    /// pods that wait for a node.
    pub pool: Arc<str>,
    /// The start of the hour.
    pub hour: Timestamp,
    /// GPUs, slices or replicas that pods requested, over time.
    pub requested: GpuMillis,
    /// The most at once.
    pub requested_max: u32,
    /// Milliseconds of the hour that were observed; what is missing is not known.
    pub observed_millis: u64,
    /// Until when.
    pub through: Timestamp,
}
