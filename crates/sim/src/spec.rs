//! What a world is made of: the part that a test, the demo or a trace chooses.

use std::time::Duration;

use gpu_autoscaler_model::{CapacityType, FindingKind, Timestamp};

use crate::catalog::{self, Shape, Slice};
use crate::workload::Workload;
use crate::{Chance, Faults};

/// Everything that a [`crate::World`] depends on. Equal specifications make equal worlds.
#[derive(Clone, Debug)]
pub struct WorldSpec {
    /// Seeds every stream of chance.
    pub seed: u64,
    /// The first instant of virtual time.
    pub start: Timestamp,
    /// The machines, in the order in which the scheduler tries them.
    pub nodes: Vec<NodeSpec>,
    /// What runs on them.
    pub workload: Workload,
    /// What goes wrong.
    pub faults: Faults,
}

/// A machine of the simulated cluster.
#[derive(Clone, Debug, PartialEq)]
pub struct NodeSpec {
    /// Its name.
    pub name: String,
    /// What was rented.
    pub shape: Shape,
    /// How its GPUs are shared.
    pub layout: Layout,
    /// Who measures them.
    pub exporter: Option<ExporterSpec>,
    /// How it was bought.
    pub capacity_type: CapacityType,
    /// GPUs whose hardware is not well, by index.
    pub ailments: Vec<(u32, Ailment)>,
}

/// What is wrong with a GPU's hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ailment {
    /// Its clocks are held down by heat all the time.
    Hot,
    /// Its last XID is this one, of hardware.
    Xid(u32),
    /// Memory errors that could not be corrected.
    UncorrectedEcc(u64),
}

impl Ailment {
    /// The kind of finding that it is.
    pub const fn kind(self) -> FindingKind {
        match self {
            Self::Hot => FindingKind::Throttled,
            Self::Xid(_) | Self::UncorrectedEcc(_) => FindingKind::Sick,
        }
    }
}

/// How the GPUs of a node are shared. It holds for all GPUs of the node.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Layout {
    /// One pod per GPU.
    Whole,
    /// Every GPU is cut into these GPU instances.
    Mig(&'static [Slice]),
    /// Every GPU is offered as so many replicas, renamed to `nvidia.com/gpu.shared`.
    TimeSliced {
        /// How many.
        replicas: u32,
    },
}

/// A DCGM exporter as it is deployed on one node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExporterSpec {
    /// From one reading to the next.
    pub period: Duration,
    /// The best counter of compute activity that it is configured to report.
    pub counter: Counter,
    /// How it spells the label of the host.
    pub host_label: HostLabel,
    /// Adds a line per pod to shared GPUs (`--kubernetes-virtual-gpus`) and names pods by uid.
    pub virtual_gpus: bool,
}

/// Counters of compute activity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Counter {
    /// `DCGM_FI_PROF_SM_ACTIVE`: averaged over the exporter's period.
    SmActive,
    /// `DCGM_FI_PROF_GR_ENGINE_ACTIVE`: averaged over the exporter's period.
    GrEngineActive,
    /// `DCGM_FI_DEV_GPU_UTIL`: the last second before the reading, in whole percent. Absent
    /// under MIG.
    GpuUtil,
}

/// Spellings of the host label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostLabel {
    /// `Hostname`: in every release up to 4.8.
    Capital,
    /// `hostname`: on the main branch.
    Small,
}

impl HostLabel {
    /// As it stands in the text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Capital => "Hostname",
            Self::Small => "hostname",
        }
    }
}

/// Kinds of node in a generated cluster: how often each comes, in which layout, and how it is
/// measured. Read in a circle until the cluster has its GPUs.
struct Kind {
    shape: Shape,
    layout: Layout,
    capacity_type: CapacityType,
    counter: Option<Counter>,
    virtual_gpus: bool,
}

const fn kind(shape: Shape, layout: Layout, counter: Counter) -> Kind {
    let (capacity_type, counter) = (CapacityType::OnDemand, Some(counter));
    Kind { shape, layout, capacity_type, counter, virtual_gpus: false }
}

const WHOLE: Layout = Layout::Whole;
const SLICED: Layout = Layout::TimeSliced { replicas: 4 };
const BALANCED: Layout = Layout::Mig(&catalog::A100_BALANCED);

/// 152 GPUs a round.
const ROUND: [Kind; 31] = {
    use Counter::{GpuUtil, GrEngineActive, SmActive};
    use catalog::{
        G4DN_12XLARGE, G5_12XLARGE, G5_XLARGE, G6_12XLARGE, P3_8XLARGE, P4D_24XLARGE, P5_48XLARGE,
        P5E_48XLARGE,
    };
    [
        kind(P5_48XLARGE, WHOLE, SmActive),
        kind(P4D_24XLARGE, WHOLE, GrEngineActive),
        kind(G5_12XLARGE, WHOLE, GrEngineActive),
        kind(G6_12XLARGE, WHOLE, GrEngineActive),
        Kind { counter: None, ..kind(G4DN_12XLARGE, WHOLE, GpuUtil) },
        kind(G4DN_12XLARGE, SLICED, GrEngineActive),
        Kind { virtual_gpus: true, ..kind(G4DN_12XLARGE, SLICED, GpuUtil) },
        kind(P4D_24XLARGE, BALANCED, GrEngineActive),
        kind(P5E_48XLARGE, WHOLE, SmActive),
        kind(P3_8XLARGE, WHOLE, GrEngineActive),
        Kind { capacity_type: CapacityType::Spot, ..kind(G5_12XLARGE, WHOLE, GrEngineActive) },
        kind(G5_XLARGE, WHOLE, GpuUtil),
        kind(G5_XLARGE, WHOLE, GrEngineActive),
        kind(G6_12XLARGE, WHOLE, SmActive),
        kind(P4D_24XLARGE, WHOLE, SmActive),
        kind(P3_8XLARGE, WHOLE, GpuUtil),
        kind(G5_12XLARGE, WHOLE, GrEngineActive),
        kind(G5_XLARGE, WHOLE, GrEngineActive),
        kind(G6_12XLARGE, WHOLE, GrEngineActive),
        kind(P5_48XLARGE, WHOLE, GrEngineActive),
        kind(G5_12XLARGE, WHOLE, GrEngineActive),
        kind(G5_XLARGE, WHOLE, GrEngineActive),
        kind(P4D_24XLARGE, WHOLE, GrEngineActive),
        kind(G6_12XLARGE, WHOLE, GrEngineActive),
        kind(G5_XLARGE, WHOLE, GrEngineActive),
        kind(P3_8XLARGE, WHOLE, GrEngineActive),
        kind(P4D_24XLARGE, WHOLE, GrEngineActive),
        kind(G5_12XLARGE, WHOLE, GrEngineActive),
        kind(G4DN_12XLARGE, WHOLE, GrEngineActive),
        kind(G6_12XLARGE, WHOLE, GrEngineActive),
        kind(P5_48XLARGE, WHOLE, SmActive),
    ]
};

/// A mixed cluster of at least `gpus` GPUs: several models, MIG, time-slicing with and without
/// lines per pod, an instance type without a list price, and a node that nobody measures.
pub fn mixed_cluster(seed: u64, gpus: u32) -> Vec<NodeSpec> {
    let mut count = 0;
    let enough = ROUND.iter().cycle().take_while(|kind| {
        let missing = count < gpus;
        count += kind.shape.gpus;
        missing
    });
    build(seed, enough)
}

/// The same by number of nodes.
pub(crate) fn kinds(seed: u64, nodes: usize) -> Vec<NodeSpec> {
    build(seed, ROUND.iter().cycle().take(nodes))
}

fn build<'k>(seed: u64, kinds: impl Iterator<Item = &'k Kind>) -> Vec<NodeSpec> {
    let mut chance = Chance::stream(seed, "cluster");
    kinds
        .enumerate()
        .map(|(index, kind)| NodeSpec {
            name: node_name(&kind.shape, index),
            shape: kind.shape,
            layout: kind.layout,
            exporter: kind.counter.map(|c| draw_exporter(c, kind.virtual_gpus, &mut chance)),
            capacity_type: kind.capacity_type,
            ailments: Vec::new(),
        })
        .collect()
}

/// A name such as `p4d-07`.
pub(crate) fn node_name(shape: &Shape, index: usize) -> String {
    let family = shape.instance_type.and_then(|name| name.split('.').next());
    format!("{}-{index:02}", family.unwrap_or("gpu"))
}

/// An exporter with a period and spelling by chance.
pub(crate) fn draw_exporter(
    counter: Counter,
    virtual_gpus: bool,
    chance: &mut Chance,
) -> ExporterSpec {
    let released = chance.happens(0.5);
    ExporterSpec {
        period: Duration::from_secs(*chance.pick(&[(1.0, 10), (1.0, 15), (3.0, 30)])),
        counter,
        host_label: if released { HostLabel::Capital } else { HostLabel::Small },
        virtual_gpus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mixed_cluster_has_every_kind_of_node_that_makes_trouble() {
        let nodes = mixed_cluster(1, 100);
        assert!((100..108).contains(&nodes.iter().map(|n| n.shape.gpus).sum::<u32>()));
        assert!(nodes.iter().any(|n| n.exporter.is_none()));
        assert!(nodes.iter().any(|n| matches!(n.layout, Layout::Mig(_))));
        assert!(nodes.iter().any(|n| n.exporter.is_some_and(|e| e.virtual_gpus)));
        assert!(nodes.iter().any(|n| n.shape.instance_type == Some("p5e.48xlarge")));
        let mut names: Vec<_> = nodes.iter().map(|n| &n.name).collect();
        names.sort();
        names.dedup();
        assert_eq!(names.len(), nodes.len());
        assert_eq!(nodes, mixed_cluster(1, 100));
    }
}
