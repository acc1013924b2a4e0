//! A pod of the world.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{
    ContainerState, GpuCount, Labels, MilliCpu, NodeName, ObjectKey, Owner, Pod, PodPhase,
    ResourceVersion, Resources, Timestamp, Uid,
};

use crate::node::mib;
use crate::workload::{Job, Snag};

/// Number of a pod, in order of creation; never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PodId(pub(crate) u64);

#[derive(Clone, Debug)]
pub(crate) struct SimPod {
    pub job: Job,
    pub key: ObjectKey,
    pub uid: Uid,
    pub owner_uid: Uid,
    pub created: Timestamp,
    /// Index of its node and its slots there, once bound.
    pub bound: Option<Binding>,
    /// When its containers started.
    pub running: Option<Timestamp>,
    pub phase: PodPhase,
    pub deleting: bool,
    pub version: u64,
}

#[derive(Clone, Debug)]
pub(crate) struct Binding {
    pub node: usize,
    pub slots: Vec<usize>,
    pub at: Timestamp,
}

impl SimPod {
    /// How long its containers have been running; `None` before they do and after they ended.
    pub(crate) fn runs_for(&self, at: Timestamp) -> Option<Duration> {
        let running = self.running.filter(|_| self.phase == PodPhase::Running)?;
        (running <= at).then(|| at.since(running))
    }

    /// Exact mean share of compute of the `nth` of its devices between two instants; what lies
    /// before its containers started counts as nothing.
    pub(crate) fn mean_activity(&self, nth: u32, from: Timestamp, to: Timestamp) -> f64 {
        let Some(running) = self.running.filter(|running| *running < to) else { return 0.0 };
        let clock_ms = running.as_millis().rem_euclid(86_400_000) as f64;
        let since = from.max(running);
        let mean = self.job.curve.mean(nth, clock_ms, since.since(running), to.since(running));
        if since > from {
            mean * to.since(since).as_secs_f64() / to.since(from).as_secs_f64()
        } else {
            mean
        }
    }

    /// Framebuffer that it holds on one device, of `fb_mib`.
    pub(crate) fn framebuffer_mib(&self, fb_mib: u64, at: Timestamp) -> u64 {
        let share = self.runs_for(at).map_or(0.0, |span| self.job.curve.framebuffer(span));
        // A share of `fb_mib`, so that it fits.
        (fb_mib as f64 * share) as u64
    }

    fn containers(&self) -> ContainerState {
        let looping = self.job.snag == Some(Snag::CrashLoop);
        ContainerState {
            image: Some(format!("registry.example/{}", self.job.owner_kind).into()),
            waiting: self.job.snag.map(|snag| snag.as_str().into()),
            restarts: if looping { 7 } else { 0 },
            last_end: self.bound.as_ref().filter(|_| looping).map(|binding| binding.at),
        }
    }

    /// The object as the API server has it.
    pub(crate) fn object(&self, node: Option<NodeName>) -> Pod {
        let unbound = self.bound.is_none() && self.phase == PodPhase::Pending;
        Pod {
            uid: self.uid.clone(),
            key: self.key.clone(),
            resource_version: ResourceVersion::new(self.version.to_string()),
            created: self.created,
            started: self.bound.as_ref().map(|binding| binding.at),
            node,
            phase: self.phase,
            deleting: self.deleting,
            deletion_due: None,
            containers: self.containers(),
            requests: Resources {
                cpu: MilliCpu::new(4_000 * u64::from(self.job.count)),
                memory: mib(16_384 * u64::from(self.job.count)),
                gpus: vec![GpuCount { resource: self.job.resource.clone(), count: self.job.count }],
                extended: Vec::new(),
            },
            labels: Labels::new([(Arc::from("app"), self.job.owner.clone())]),
            annotations: Labels::default(),
            owner: Some(Owner {
                kind: self.job.owner_kind.into(),
                name: self.job.owner.clone(),
                uid: self.owner_uid.clone(),
            }),
            priority: 0,
            gates: Vec::new(),
            constraints: Default::default(),
            unschedulable: unbound.then(|| Arc::from("Insufficient nvidia.com/gpu")),
        }
    }
}
