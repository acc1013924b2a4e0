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

/// What a record is kept under.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HistoryKey {
    /// Of a usage profile.
    Usage(ProfileKey),
    /// Of an hour's demand.
    Demand {
        /// See [`DemandHour::pool`].
        pool: Arc<str>,
        /// See [`DemandHour::hour`].
        hour: Timestamp,
    },
}

impl HistoryRecord {
    /// What it is kept under.
    pub fn key(&self) -> HistoryKey {
        match self {
            Self::Usage(usage) => HistoryKey::Usage(usage.key.clone()),
            Self::Demand(demand) => {
                HistoryKey::Demand { pool: Arc::clone(&demand.pool), hour: demand.hour }
            }
        }
    }
}

/// Framebuffer of one device at most, in MiB: 16 TiB, which no device comes near.
const FB_MIB_MAX: u64 = 1 << 24;

/// GPUs of one pool at most; no fleet comes near.
const GPUS_MAX: u32 = 100_000_000;

impl HistoryRecord {
    /// Whether it can be: for records that come from outside of the process.
    ///
    /// # Errors
    /// What cannot be, with the value and the limit.
    pub fn check(&self) -> Result<(), String> {
        match self {
            Self::Usage(usage) => usage.check(),
            Self::Demand(demand) => demand.check(),
        }
    }
}

impl UsageProfile {
    fn check(&self) -> Result<(), String> {
        if !self.activity_ppm.is_at_most(1_000_000) {
            return Err("a share of compute is above 1000000 millionths".to_owned());
        }
        if !self.fb_mib.is_at_most(FB_MIB_MAX) {
            return Err(format!("framebuffer is above {FB_MIB_MAX} MiB"));
        }
        // Each device of a pod weighs at most the seconds for which the pod was observed, and no
        // node has as many; halving rounds down.
        let observed = self.observed_secs;
        for weight in [self.fb_mib.weight(), self.activity_ppm.weight()] {
            if weight > observed.saturating_add(1).saturating_mul(1024) {
                return Err(format!("{weight} s were measured in {observed} s"));
            }
        }
        Ok(())
    }
}

impl DemandHour {
    fn check(&self) -> Result<(), String> {
        let Self { hour, requested, requested_max, observed_millis, .. } = self;
        if *hour != hour.hour() {
            return Err(format!("{hour} is not the start of an hour"));
        }
        if *observed_millis > 3_600_000 {
            return Err(format!("{observed_millis} ms of an hour were observed"));
        }
        let most = u128::from(*requested_max) * u128::from(*observed_millis);
        if *requested_max > GPUS_MAX || requested.as_u128() > most {
            let requested = requested.as_u128();
            return Err(format!("{requested} GPU ms at {requested_max} GPUs at most"));
        }
        Ok(())
    }
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
