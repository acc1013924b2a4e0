//! Pods to come: drawn by chance, or read from a trace.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{GpuModel, GpuResource};

use crate::Chance;
use crate::curve::{Curve, Load};
use crate::node::SimNode;

/// A pod that will be created.
#[derive(Clone, Debug, PartialEq)]
pub struct Job {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Kind of the controller that owns it.
    pub owner_kind: &'static str,
    /// Name of that controller.
    pub owner: Arc<str>,
    /// What it requests.
    pub resource: GpuResource,
    /// How many of it.
    pub count: u32,
    /// GPU models that it may run on; empty for any.
    pub models: Vec<GpuModel>,
    /// How long its containers run.
    pub life: Duration,
    /// What it does with its GPUs.
    pub curve: Curve,
    /// What keeps its containers from running; `None` when nothing does.
    pub snag: Option<Snag>,
    /// How many pods of the same name follow it, each with a uid and a curve of its own.
    pub successors: u32,
}

/// What keeps a pod's containers from running, while it holds its GPUs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Snag {
    /// The image cannot be pulled.
    ImagePull,
    /// Its container ends as soon as it starts.
    CrashLoop,
}

impl Snag {
    /// In the kubelet's word.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ImagePull => "ImagePullBackOff",
            Self::CrashLoop => "CrashLoopBackOff",
        }
    }
}

/// When a pod is created.
#[derive(Clone, Debug, PartialEq)]
pub struct Arrival {
    /// Time since the start of the world.
    pub at: Duration,
    /// For how long its containers have been running at that time: zero for a new pod, more for
    /// one that the world starts with.
    pub age: Duration,
    /// The pod.
    pub job: Job,
}

/// Where pods come from.
#[derive(Clone, Debug, PartialEq)]
pub enum Workload {
    /// Drawn so that this share of the GPUs, slices and replicas is requested on average.
    Generated {
        /// Within 0..=1; more makes pods wait.
        occupancy: f64,
    },
    /// These, in order of time.
    Listed(Arc<[Arrival]>),
}

/// Pods in order of time.
#[derive(Clone, Debug)]
pub(crate) enum Source {
    Listed(VecDeque<Arrival>),
    Generated(Box<Generator>),
}

impl Source {
    pub(crate) fn new(workload: &Workload, seed: u64, nodes: &[SimNode]) -> Self {
        match workload {
            Workload::Listed(arrivals) => Self::Listed(arrivals.iter().cloned().collect()),
            Workload::Generated { occupancy } => {
                Self::Generated(Box::new(Generator::new(*occupancy, seed, nodes)))
            }
        }
    }

    /// The next pod; `None` when no more will come. Times never go back.
    pub(crate) fn next(&mut self) -> Option<Arrival> {
        match self {
            Self::Listed(arrivals) => arrivals.pop_front(),
            Self::Generated(generator) => Some(generator.next()),
        }
    }
}

/// Draws pods whose requests and running times are distributed as in the openb trace.
#[derive(Clone, Debug)]
pub(crate) struct Generator {
    chance: Chance,
    /// Mean time between arrivals at the busiest hour.
    mean_gap: Duration,
    at: Duration,
    /// GPUs that the world shall start with.
    initial: f64,
    drawn: u64,
    /// Resources other than whole GPUs that the cluster offers, weighted by how many.
    parts: Vec<(f64, GpuResource)>,
    /// Share of the cluster's slots that are such parts.
    parts_share: f64,
}

/// Quantiles of a GPU pod's running time, in seconds.
///
/// Source: `deletion_time - creation_time` of `openb_pod_list_default.csv` of Alibaba's
/// cluster-trace-gpu-v2023, its last quantile cut at five days.
const LIFE: [(f64, f64); 8] = [
    (0.0, 20.0),
    (0.10, 80.0),
    (0.25, 167.0),
    (0.50, 540.0),
    (0.75, 1_974.0),
    (0.90, 6_574.0),
    (0.99, 99_719.0),
    (1.0, 432_000.0),
];

/// How many pods of each GPU request there are in the same file; zero stands for a part of a GPU.
const REQUESTS: [(f64, u32); 5] = [(3_078.0, 0), (3_911.0, 1), (16.0, 2), (15.0, 4), (44.0, 8)];

/// Arrivals by hour of the day relative to the busiest, from midnight: office hours with a
/// shoulder in the evening.
const ARRIVALS: [f64; 24] = [
    0.35, 0.30, 0.25, 0.25, 0.25, 0.30, 0.35, 0.50, 0.75, 0.95, 1.0, 1.0, //
    0.90, 0.95, 1.0, 1.0, 0.95, 0.85, 0.75, 0.70, 0.65, 0.60, 0.50, 0.40,
];

/// What kinds of work whole GPUs are requested for, and how often.
const WHOLE: [(f64, Load); 11] = [
    (30.0, Load::Training),
    (8.0, Load::Full),
    (8.0, Load::SlowStart),
    (3.0, Load::Stalled),
    (16.0, Load::BusyInference),
    (8.0, Load::DailyInference),
    (6.0, Load::QuietInference),
    (3.0, Load::FivePercent),
    (6.0, Load::IdleNotebook),
    (4.0, Load::HeldMemory),
    (5.0, Load::SmallShare),
];

/// The same for several GPUs at once.
const SEVERAL: [(f64, Load); 4] =
    [(60.0, Load::Training), (15.0, Load::Full), (15.0, Load::OneOfMany), (10.0, Load::Stalled)];

/// The same for requests of less than a GPU.
const PART: [(f64, Load); 5] = [
    (50.0, Load::SmallShare),
    (12.0, Load::QuietInference),
    (10.0, Load::FivePercent),
    (15.0, Load::IdleNotebook),
    (5.0, Load::HeldMemory),
];

/// Longest time that the world's first pods are drawn from.
const OLDEST: Duration = Duration::from_secs(2 * 86_400);

impl Generator {
    fn new(occupancy: f64, seed: u64, nodes: &[SimNode]) -> Self {
        let slots = nodes.iter().flat_map(|node| &node.slots);
        let mut parts: Vec<(f64, GpuResource)> = Vec::new();
        let (mut all, mut cut) = (0.0, 0.0);
        for slot in slots {
            all += 1.0;
            if slot.resource == GpuResource::Whole {
                continue;
            }
            cut += 1.0;
            match parts.iter_mut().find(|(_, resource)| *resource == slot.resource) {
                Some((count, _)) => *count += 1.0,
                None => parts.push((1.0, slot.resource.clone())),
            }
        }
        let mut generator = Self {
            chance: Chance::stream(seed, "workload/measure"),
            mean_gap: Duration::ZERO,
            at: Duration::ZERO,
            initial: all * occupancy,
            drawn: 0,
            parts,
            parts_share: if all > 0.0 { cut / all } else { 0.0 },
        };
        // Little's law: what is held on average is the rate of arrivals times what each holds.
        const MEASURED: u32 = 4_000;
        let held: f64 = (0..MEASURED)
            .map(|_| {
                let job = generator.draw_job();
                f64::from(job.count) * job.life.as_secs_f64()
            })
            .sum();
        let day_mean = ARRIVALS.iter().sum::<f64>() / 24.0;
        let rate = all * occupancy / (held / f64::from(MEASURED)) / day_mean;
        generator.mean_gap = if rate > 0.0 {
            Duration::from_secs_f64(1.0 / rate)
        } else {
            // A cluster without GPUs: nothing ever comes.
            Duration::from_secs(u64::from(u32::MAX))
        };
        generator.chance = Chance::stream(seed, "workload");
        generator.drawn = 0;
        generator
    }

    fn next(&mut self) -> Arrival {
        if self.initial > 0.0 {
            return self.next_initial();
        }
        loop {
            self.at += self.chance.wait(self.mean_gap);
            // Within 0..24: a remainder of a day over an hour.
            let hour = (self.at.as_secs() % 86_400 / 3_600) as usize;
            if self.chance.happens(ARRIVALS[hour]) {
                return Arrival { at: self.at, age: Duration::ZERO, job: self.draw_job() };
            }
        }
    }

    /// A pod that runs already: the longer a job, the likelier one finds it running, at any point
    /// of its life with equal chance.
    fn next_initial(&mut self) -> Arrival {
        loop {
            let job = self.draw_job();
            let life = job.life.min(OLDEST);
            if self.chance.happens(life.as_secs_f64() / OLDEST.as_secs_f64()) {
                let age = self.chance.span(Duration::ZERO, life);
                self.initial -= f64::from(job.count);
                return Arrival { at: Duration::ZERO, age, job };
            }
        }
    }

    fn draw_job(&mut self) -> Job {
        let requested = *self.chance.pick(&REQUESTS);
        let wants_part = self.chance.happens(2.0 * self.parts_share);
        let resource = if requested == 0 && wants_part && !self.parts.is_empty() {
            self.chance.pick(&self.parts).clone()
        } else {
            GpuResource::Whole
        };
        let count = requested.max(1);
        let loads: &[(f64, Load)] = match requested {
            0 => &PART,
            1 => &WHOLE,
            _ => &SEVERAL,
        };
        let load = *self.chance.pick(loads);
        let curve = Curve::draw(load, count, &mut self.chance);
        self.drawn += 1;
        let life = draw_life(load, &mut self.chance);
        name_job(load, self.drawn, resource, count, life, curve, &mut self.chance)
    }
}

/// How long a job of this kind runs: batch work as in the trace, services for days, notebooks
/// until somebody remembers them.
pub(crate) fn draw_life(load: Load, chance: &mut Chance) -> Duration {
    let hours = |low: f64, high: f64, chance: &mut Chance| {
        Duration::from_secs_f64(3_600.0 * chance.within(low, high))
    };
    match load {
        Load::Training | Load::Full | Load::SlowStart | Load::OneOfMany | Load::SmallShare => {
            trace_life(chance.unit())
        }
        Load::BusyInference | Load::QuietInference | Load::DailyInference => {
            hours(4.0, 60.0, chance)
        }
        Load::FivePercent | Load::HeldMemory => hours(1.0, 20.0, chance),
        Load::IdleNotebook | Load::Stalled => hours(2.0, 16.0, chance),
    }
}

/// The running time at quantile `q`, geometric between the quantiles of the trace.
fn trace_life(q: f64) -> Duration {
    let above = LIFE.iter().position(|&(at, _)| q < at).unwrap_or(LIFE.len() - 1).max(1);
    let ((q0, low), (q1, high)) = (LIFE[above - 1], LIFE[above]);
    let part = (q - q0) / (q1 - q0);
    Duration::from_secs_f64(low * (high / low).powf(part))
}

const TEAMS: [&str; 6] = ["ml-train", "ml-serve", "research", "vision", "speech", "batch"];
const WORDS: [&str; 12] = [
    "llama",
    "whisper",
    "resnet",
    "bert",
    "diffusion",
    "ranker",
    "embed",
    "gnn",
    "protein",
    "asr",
    "segment",
    "tts",
];

/// Names a job the way its kind of controller names its pods.
pub(crate) fn name_job(
    load: Load,
    number: u64,
    resource: GpuResource,
    count: u32,
    life: Duration,
    curve: Curve,
    chance: &mut Chance,
) -> Job {
    let word = WORDS[chance.below(WORDS.len())];
    let namespace = TEAMS[chance.below(TEAMS.len())];
    let suffix = format!("{:05x}", chance.bits() & 0xf_ffff);
    let (owner_kind, owner, name, successors) = match load {
        Load::IdleNotebook | Load::HeldMemory | Load::FivePercent => {
            let owner = format!("notebook-{word}-{number}");
            let name = format!("{owner}-0");
            // Drawn for notebooks alone: a StatefulSet is what reuses a name.
            ("StatefulSet", owner, name, chance.below(3))
        }
        Load::BusyInference | Load::QuietInference | Load::DailyInference => {
            let owner = format!("{word}-api-{:08x}", chance.bits() >> 32);
            let name = format!("{owner}-{suffix}");
            ("ReplicaSet", owner, name, 0)
        }
        _ => {
            let owner = format!("{word}-run-{number}");
            let name = format!("{owner}-{suffix}");
            ("Job", owner, name, 0)
        }
    };
    Job {
        namespace: namespace.into(),
        name: name.into(),
        owner_kind,
        owner: owner.into(),
        resource,
        count,
        models: Vec::new(),
        life,
        curve,
        snag: None,
        // At most two.
        successors: successors as u32,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_times_have_the_quantiles_of_the_trace() {
        for (q, secs) in LIFE {
            let life = trace_life(q.min(0.999_999)).as_secs_f64();
            assert!((life / secs - 1.0).abs() < 0.01, "{q}: {life} s");
        }
        assert_eq!(trace_life(0.375).as_secs(), 300, "geometric mean of 167 and 540");
    }

    #[test]
    fn requests_are_distributed_as_in_the_trace() {
        let nodes: Vec<SimNode> = crate::mixed_cluster(1, 150)
            .iter()
            .map(|spec| SimNode::new(spec, 1, gpu_autoscaler_model::Timestamp::EPOCH))
            .collect();
        let mut generator = Generator::new(0.8, 1, &nodes);
        let jobs: Vec<Job> = (0..5_000).map(|_| generator.draw_job()).collect();
        let share = |holds: &dyn Fn(&Job) -> bool| {
            jobs.iter().filter(|job| holds(job)).count() as f64 / 5_000.0
        };
        assert!((share(&|job| job.count == 8) - 44.0 / 7_064.0).abs() < 0.004);
        assert!(share(&|job| job.count == 1) > 0.97);
        assert!(share(&|job| job.resource != GpuResource::Whole) > 0.05);
        let arrivals: Vec<Arrival> = (0..2_000).map(|_| generator.next()).collect();
        assert!(arrivals.is_sorted_by_key(|arrival| arrival.at));
        assert!(arrivals.iter().all(|arrival| arrival.age <= arrival.job.life));
    }
}
