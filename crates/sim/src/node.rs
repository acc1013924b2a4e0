//! A node of the world: its object, its devices and who holds them.

use std::sync::Arc;
use std::time::Duration;

use gpu_autoscaler_model::{
    Bytes, Device, GpuCount, GpuInstance, GpuModel, GpuResource, GpuUuid, InstanceType, Labels,
    MilliCpu, Node, NodeName, NodeSharing, Resources, SharingStrategy, Timestamp, Uid,
};

use crate::spec::{Layout, NodeSpec};
use crate::{Chance, PodId};

/// The region in which all simulated machines are rented.
pub const REGION: &str = "us-east-1";

/// A part of a node that one pod can hold.
#[derive(Clone, Debug)]
pub(crate) struct Slot {
    /// As what it is requested.
    pub resource: GpuResource,
    /// Index of its GPU on the node.
    pub gpu: u32,
    /// The device or GPU instance.
    pub device: Device,
    /// Which replica of a shared GPU it is.
    pub replica: u32,
    /// Its share of the GPU's compute, in MIG slices out of seven; 7 for a whole GPU.
    pub slices: u32,
    /// Its framebuffer, in MiB.
    pub fb_mib: u64,
    /// Who has it.
    pub holder: Option<PodId>,
}

/// A node, its devices, and the state of its exporter.
#[derive(Clone, Debug)]
pub(crate) struct SimNode {
    pub spec: NodeSpec,
    pub object: Node,
    pub slots: Vec<Slot>,
    /// How far its clock is ahead, in milliseconds.
    pub skew_ms: i64,
    /// When the exporter died; it stays dead until the world heals.
    pub dead_since: Option<Timestamp>,
    /// When its exporter read the devices last.
    pub collected: Option<Timestamp>,
    /// Measurement noise of its exporter.
    pub noise: Chance,
    /// Where its exporter is scraped.
    pub target: Arc<str>,
}

impl SimNode {
    pub(crate) fn new(spec: &NodeSpec, seed: u64, start: Timestamp) -> Self {
        let mut chance = Chance::stream(seed, &format!("node/{}", spec.name));
        let slots = draw_slots(spec, &mut chance);
        let object = Node {
            name: NodeName::new(spec.name.as_str()),
            uid: Uid::new(draw_uuid(&mut chance)),
            created: start.before(chance.span(Duration::ZERO, Duration::from_secs(30 * 86_400))),
            labels: labels(spec),
            taints: Vec::new(),
            ready: true,
            unschedulable: false,
            allocatable: Resources {
                cpu: MilliCpu::new(spec.shape.cpu_milli),
                memory: mib(spec.shape.memory_mib),
                gpus: count_resources(&slots),
                extended: Vec::new(),
            },
            pods_max: Some(110),
            instance_type: spec.shape.instance_type.map(InstanceType::from),
            region: Some(REGION.into()),
            zone: Some(format!("{REGION}a").into()),
            capacity_type: Some(spec.capacity_type),
            gpu_model: GpuModel::parse(spec.shape.product),
            gpus: Some(spec.shape.gpus),
            sharing: sharing(spec.layout),
        };
        Self {
            spec: spec.clone(),
            object,
            slots,
            skew_ms: 0,
            dead_since: None,
            collected: None,
            noise: chance,
            target: format!("http://{}:9400/metrics", spec.name).into(),
        }
    }

    /// Indices of the first free slots of `resource`; `None` when fewer than `count` are free.
    ///
    /// All of them are of the one node, as the kubelet demands.
    pub(crate) fn free_slots(&self, resource: &GpuResource, count: usize) -> Option<Vec<usize>> {
        let free = self.slots.iter().enumerate();
        let free = free.filter(|(_, slot)| slot.holder.is_none() && slot.resource == *resource);
        let found: Vec<usize> = free.map(|(index, _)| index).take(count).collect();
        (found.len() == count).then_some(found)
    }

    /// Whether what a pod does on a shared GPU of this node is told apart.
    pub(crate) fn tells_parts_apart(&self) -> bool {
        self.spec.exporter.is_some_and(|exporter| exporter.virtual_gpus)
    }
}

/// MiB as bytes.
///
/// # Panics
/// When the product does not fit in 64 bits, which no machine of the catalog or of a trace does:
/// the readers of traces check the range.
pub(crate) fn mib(mib: u64) -> Bytes {
    Bytes::from_mib(mib).expect("memory of machines is checked where it is read")
}

/// A UUID of version 4 in its text form.
pub(crate) fn draw_uuid(chance: &mut Chance) -> String {
    let (high, low) = (chance.bits(), chance.bits());
    format!(
        "{:08x}-{:04x}-4{:03x}-{:04x}-{:012x}",
        high >> 32,
        (high >> 16) & 0xffff,
        high & 0xfff,
        0x8000 | (low >> 48) & 0x3fff,
        low & 0xffff_ffff_ffff,
    )
}

fn draw_slots(spec: &NodeSpec, chance: &mut Chance) -> Vec<Slot> {
    let mut slots = Vec::new();
    for gpu in 0..spec.shape.gpus {
        let uuid = GpuUuid::new(format!("GPU-{}", draw_uuid(chance)));
        let whole = Slot {
            resource: GpuResource::Whole,
            gpu,
            device: Device { uuid: uuid.clone(), instance: None },
            replica: 0,
            slices: 7,
            fb_mib: spec.shape.fb_mib,
            holder: None,
        };
        match spec.layout {
            Layout::Whole => slots.push(whole),
            Layout::TimeSliced { replicas } => {
                let resource = GpuResource::Shared;
                slots.extend((0..replicas).map(|replica| Slot {
                    resource: resource.clone(),
                    replica,
                    ..whole.clone()
                }));
            }
            Layout::Mig(layout) => {
                for &(profile, id, slices, fb_mib) in layout {
                    let profile: gpu_autoscaler_model::MigProfile =
                        profile.parse().expect("the catalog names profiles that exist");
                    let instance = GpuInstance { id, profile: profile.clone() };
                    slots.push(Slot {
                        resource: GpuResource::Mig(profile),
                        device: Device { uuid: uuid.clone(), instance: Some(instance) },
                        slices,
                        fb_mib,
                        ..whole.clone()
                    });
                }
            }
        }
    }
    slots
}

fn count_resources(slots: &[Slot]) -> Vec<GpuCount> {
    let mut counts: Vec<GpuCount> = Vec::new();
    for slot in slots {
        match counts.iter_mut().find(|c| c.resource == slot.resource) {
            Some(known) => known.count += 1,
            None => counts.push(GpuCount { resource: slot.resource.clone(), count: 1 }),
        }
    }
    counts.sort_by(|a, b| a.resource.cmp(&b.resource));
    counts
}

fn sharing(layout: Layout) -> Option<NodeSharing> {
    match layout {
        Layout::TimeSliced { replicas } => {
            Some(NodeSharing { strategy: SharingStrategy::TimeSlicing, replicas })
        }
        Layout::Whole | Layout::Mig(_) => None,
    }
}

/// The labels that the cloud and NVIDIA's GPU feature discovery put on such a node.
///
/// Source: GPU feature discovery's list of labels; with `renameByDefault` the product carries no
/// suffix `-SHARED`.
fn labels(spec: &NodeSpec) -> Labels {
    let shape = &spec.shape;
    let replicas = match spec.layout {
        Layout::TimeSliced { replicas } => replicas,
        Layout::Whole | Layout::Mig(_) => 1,
    };
    let mut labels = vec![
        ("kubernetes.io/hostname", spec.name.clone()),
        ("topology.kubernetes.io/region", REGION.to_owned()),
        ("topology.kubernetes.io/zone", format!("{REGION}a")),
        ("karpenter.sh/capacity-type", spec.capacity_type.as_str().to_owned()),
        ("nvidia.com/gpu.present", "true".to_owned()),
        ("nvidia.com/gpu.count", shape.gpus.to_string()),
        ("nvidia.com/gpu.product", shape.product.replace(' ', "-")),
        ("nvidia.com/gpu.memory", shape.fb_mib.to_string()),
        ("nvidia.com/gpu.replicas", replicas.to_string()),
    ];
    if let Some(instance_type) = shape.instance_type {
        labels.push(("node.kubernetes.io/instance-type", instance_type.to_owned()));
    }
    match spec.layout {
        Layout::Whole => {}
        Layout::Mig(_) => labels.push(("nvidia.com/mig.strategy", "mixed".to_owned())),
        Layout::TimeSliced { .. } => {
            labels.push(("nvidia.com/gpu.sharing-strategy", "time-slicing".to_owned()));
        }
    }
    Labels::new(labels.into_iter().map(|(key, value)| (Arc::from(key), Arc::from(value))))
}
