//! The fleet as packing sees it: what each node and each of its GPUs has left.

use std::collections::BTreeMap;
use std::ops::Deref;
use std::sync::Arc;

use gpu_autoscaler_model::{Constraints, Labels, MigGeometry, MigOccupancy, Taint};

use crate::request::{PodKind, Request};

/// One thousandth of a GPU's compute, or of a GPU where its memory is the scarcer share.
pub const WHOLE_GPU_MILLI: u16 = 1000;

/// The most GPUs of one node that packing tells apart.
///
/// The largest machine on sale has 16; a set of GPUs is a bit mask of 32.
pub const GPUS_PER_NODE_MAX: usize = 32;

/// All nodes on which a pod may be placed, in the fixed order that breaks ties. A clone shares
/// every node that neither changes.
#[derive(Clone, Debug, Default)]
pub struct Fleet {
    /// The nodes; a [`NodeIndex`] is a position in this list.
    pub nodes: Vec<Arc<Node>>,
}

/// Position of a node in [`Fleet::nodes`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NodeIndex(pub u32);

/// What a node has of the resources that are not GPUs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Amounts {
    /// Processor, in thousandths of a core.
    pub cpu_milli: u64,
    /// Host memory, in bytes.
    pub memory_bytes: u64,
    /// Pods.
    pub pods: u32,
}

/// A node.
#[derive(Clone, Debug)]
pub struct Node {
    /// Its name.
    pub name: Arc<str>,
    /// Ready and not cordoned.
    pub schedulable: bool,
    /// All its labels.
    pub labels: Labels,
    /// Its taints.
    pub taints: Vec<Taint>,
    /// The model of its GPUs; empty where it has none or the model is not known.
    pub gpu_model: Arc<str>,
    /// What pods may have of it (allocatable, less the overhead of DaemonSets to come).
    pub allocatable: Amounts,
    /// What no pod has yet.
    pub free: Amounts,
    /// Its GPUs, in the order of their minor number; at most [`GPUS_PER_NODE_MAX`].
    pub gpus: Vec<Gpu>,
    /// Who picks the GPU of a pod that is bound here.
    pub picker: GpuPicker,
    /// What no pod has yet of every other extended resource.
    pub extended_free: BTreeMap<Arc<str>, u64>,
    /// The pods that are bound here, as far as others look at them.
    pub tenants: Vec<Tenant>,
}

/// A pod that is bound to a node, as far as others look at it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tenant {
    /// Who it is to others.
    pub identity: Arc<Identity>,
    /// What it demands: its anti-affinity keeps others away, its ports are taken.
    pub constraints: Arc<Constraints>,
    /// It is being deleted: topology spread does not count it any more.
    pub leaving: bool,
}

/// Who a pod is to others.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Identity {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its labels.
    pub labels: Labels,
}

impl Tenant {
    /// What a pod with these constraints is to others once it is bound.
    pub fn of(identity: &Arc<Identity>, constraints: &Arc<Constraints>) -> Self {
        let (identity, constraints) = (identity.clone(), constraints.clone());
        Self { identity, constraints, leaving: false }
    }
}

/// Who picks the GPU of a pod that is bound to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GpuPicker {
    /// The kubelet with a device plugin: of equal devices any may be taken, so only counts hold.
    Kubelet,
    /// The plan: a ResourceClaim or a partition names the device.
    Plan,
}

/// A GPU.
#[derive(Clone, Debug)]
pub struct Gpu {
    /// How pods may use it.
    pub sharing: Sharing,
    /// Framebuffer, in MiB; 0 where it is not known, and then no request by memory fits.
    pub memory_mib: u32,
    /// Framebuffer that no pod was granted, in MiB.
    pub memory_free_mib: u32,
    /// Compute that no pod was granted, in thousandths.
    pub compute_free_milli: u16,
    /// Replicas or client processes that no pod has; 0 where it is not shared by them.
    pub replicas_free: u16,
    /// The user whose processes its MPS server serves; `None` while it serves none.
    pub mps_user: Option<u32>,
    /// Which GPUs of the node NVLink joins to it: those of the same number. `None` where that is
    /// not known.
    pub clique: Option<u8>,
    /// What MIG instances take of it.
    pub mig: MigOccupancy,
}

/// How pods may use a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// By one pod at a time.
    Exclusive,
    /// By pods with any share of memory and compute, each on the GPU that the plan names.
    Fraction,
    /// By equal time-slicing replicas.
    TimeSlicing {
        /// How many.
        replicas: u16,
    },
    /// By client processes of an MPS server, which serves one user at a time. Where the kubelet
    /// picks, each is an equal replica.
    Mps {
        /// The most client processes; see [`mps_clients`](crate::sharing::mps_clients).
        replicas: u16,
    },
    /// By MIG instances.
    Mig(MigTable),
}

/// Where MIG instances may lie. What a node reports stands above our tables.
#[derive(Clone, Debug)]
pub enum MigTable {
    /// As our tables have it for the model.
    Listed(&'static MigGeometry),
    /// As the node reports it (`nvmlDeviceGetGpuInstancePossiblePlacements`).
    Reported(Arc<MigGeometry>),
}

impl MigTable {
    /// The table of a GPU of `product`: the one that its node reports, else ours; `None` for a
    /// model without MIG of which nothing is reported.
    pub fn of(product: &str, reported: Option<Arc<MigGeometry>>) -> Option<Self> {
        reported.map(Self::Reported).or_else(|| MigGeometry::for_product(product).map(Self::Listed))
    }
}

impl Deref for MigTable {
    type Target = MigGeometry;

    fn deref(&self) -> &MigGeometry {
        match self {
            Self::Listed(geometry) => geometry,
            Self::Reported(geometry) => geometry,
        }
    }
}

impl PartialEq for MigTable {
    fn eq(&self, other: &Self) -> bool {
        // Nearly always the same table; comparing its text takes long.
        std::ptr::eq::<MigGeometry>(&**self, &**other) || **self == **other
    }
}

impl Eq for MigTable {}

/// How strongly pods on one GPU are kept apart; a stronger kind satisfies a weaker demand.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isolation {
    /// Nothing is asked.
    #[default]
    None,
    /// Processes that keep to their limits by a library or by agreement.
    Cooperative,
    /// The driver holds the limits: an MPS server.
    Driver,
    /// The hardware does: a MIG instance, or a whole GPU.
    Hardware,
}

impl Gpu {
    /// A free GPU of `memory_mib` MiB.
    pub fn new(sharing: Sharing, memory_mib: u32) -> Self {
        let replicas_free = match sharing {
            Sharing::TimeSlicing { replicas } | Sharing::Mps { replicas } => replicas,
            Sharing::Exclusive | Sharing::Fraction | Sharing::Mig(_) => 0,
        };
        Self {
            sharing,
            memory_mib,
            memory_free_mib: memory_mib,
            compute_free_milli: WHOLE_GPU_MILLI,
            replicas_free,
            mps_user: None,
            clique: None,
            mig: MigOccupancy::default(),
        }
    }

    /// Whether nothing of it was granted.
    pub fn is_free(&self) -> bool {
        self.compute_free_milli == WHOLE_GPU_MILLI
            && self.memory_free_mib == self.memory_mib
            && self.mig == MigOccupancy::default()
            && match self.sharing {
                Sharing::TimeSlicing { replicas } | Sharing::Mps { replicas } => {
                    self.replicas_free == replicas
                }
                Sharing::Exclusive | Sharing::Fraction | Sharing::Mig(_) => true,
            }
    }

    /// Whether a choice between the two makes no difference.
    pub fn is_in_state_of(&self, other: &Self) -> bool {
        self.compute_free_milli == other.compute_free_milli
            && self.memory_free_mib == other.memory_free_mib
            && self.replicas_free == other.replicas_free
            && self.mps_user == other.mps_user
            && self.clique == other.clique
            && self.mig == other.mig
            && self.memory_mib == other.memory_mib
            && self.sharing == other.sharing
    }

    /// What a pod on it may rely on, in thousandths of the GPU: the scarcer of memory and compute.
    pub fn free_milli(&self) -> u16 {
        match &self.sharing {
            Sharing::Exclusive => {
                if self.is_free() {
                    WHOLE_GPU_MILLI
                } else {
                    0
                }
            }
            Sharing::Fraction => {
                if self.memory_mib == 0 {
                    return self.compute_free_milli;
                }
                let by_memory = u64::from(self.memory_free_mib) * u64::from(WHOLE_GPU_MILLI)
                    / u64::from(self.memory_mib);
                // `memory_free_mib <= memory_mib`, so the quotient is at most 1000.
                self.compute_free_milli.min(by_memory as u16)
            }
            Sharing::TimeSlicing { replicas } | Sharing::Mps { replicas } => {
                let whole = u32::from(WHOLE_GPU_MILLI);
                // `replicas_free <= replicas`, so the quotient is at most 1000.
                (u32::from(self.replicas_free) * whole / u32::from((*replicas).max(1))) as u16
            }
            Sharing::Mig(geometry) => {
                let taken = self.mig.slices.count_ones() as u16;
                let slices = u16::from(geometry.memory_slices);
                (slices - taken.min(slices)) * WHOLE_GPU_MILLI / slices
            }
        }
    }

    /// The isolation that it gives each of its pods.
    pub fn isolation(&self) -> Isolation {
        match self.sharing {
            Sharing::Exclusive | Sharing::Mig(_) => Isolation::Hardware,
            Sharing::Mps { .. } => Isolation::Driver,
            Sharing::Fraction => Isolation::Cooperative,
            Sharing::TimeSlicing { .. } => Isolation::None,
        }
    }
}

/// The devices of a node that a pod is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Devices {
    /// None was asked for.
    None,
    /// Whole GPUs, one bit for each position in [`Node::gpus`].
    Whole {
        /// The set.
        gpus: u32,
    },
    /// A share of one GPU.
    Share {
        /// Its position in [`Node::gpus`].
        gpu: u8,
        /// Compute granted, in thousandths.
        compute_milli: u16,
        /// Framebuffer granted, in MiB.
        memory_mib: u32,
    },
    /// One replica of each of a set of shared GPUs, or several of one.
    Replicas {
        /// Position of the GPU in [`Node::gpus`].
        gpu: u8,
        /// How many of its replicas.
        count: u16,
    },
    /// Client processes of the MPS server of one GPU.
    Clients {
        /// Its position in [`Node::gpus`].
        gpu: u8,
        /// How many processes.
        processes: u16,
        /// Whose.
        user: u32,
    },
    /// A MIG instance.
    Mig {
        /// Position of the GPU in [`Node::gpus`].
        gpu: u8,
        /// Position in [`MigGeometry::profiles`].
        profile: u8,
        /// First memory slice.
        start: u8,
    },
}

impl Node {
    /// Whether processor, host memory, pods and extended resources suffice for `request`.
    pub fn holds_all_but_gpus(&self, request: &Request) -> bool {
        self.free.pods > 0
            && self.free.cpu_milli >= request.cpu_milli
            && self.free.memory_bytes >= request.memory_bytes
            && self.holds_extended(request)
    }

    /// Whether extended resources suffice for `request`.
    pub fn holds_extended(&self, request: &Request) -> bool {
        let free = |name| self.extended_free.get(name).copied().unwrap_or(0);
        request.extended.iter().all(|(name, count)| free(name) >= *count)
    }

    /// Fully free GPUs.
    pub fn gpus_free(&self) -> u32 {
        // At most `GPUS_PER_NODE_MAX`.
        self.gpus.iter().filter(|gpu| gpu.is_free()).count() as u32
    }

    /// Free thousandths of GPU over all its GPUs.
    pub fn gpu_free_milli(&self) -> u32 {
        self.gpus.iter().map(|gpu| u32::from(gpu.free_milli())).sum()
    }

    /// Takes what `request` was granted.
    ///
    /// # Panics
    /// When it was not free: the grant was not found by [`crate::fit`] on this very state.
    pub fn take(&mut self, request: &Request, devices: Devices) {
        let short = "a grant is found on the state that it is taken from";
        let free = &mut self.free;
        free.cpu_milli = free.cpu_milli.checked_sub(request.cpu_milli).expect(short);
        free.memory_bytes = free.memory_bytes.checked_sub(request.memory_bytes).expect(short);
        free.pods = free.pods.checked_sub(1).expect(short);
        for (name, count) in &request.extended {
            let free = self.extended_free.get_mut(name).expect(short);
            *free = free.checked_sub(*count).expect(short);
        }
        match devices {
            Devices::None => {}
            Devices::Whole { gpus } => {
                for gpu in positions(gpus) {
                    let gpu = &mut self.gpus[gpu];
                    assert!(gpu.is_free(), "{short}");
                    gpu.compute_free_milli = 0;
                    gpu.memory_free_mib = 0;
                    gpu.replicas_free = 0;
                }
            }
            Devices::Share { gpu, compute_milli, memory_mib } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                gpu.compute_free_milli =
                    gpu.compute_free_milli.checked_sub(compute_milli).expect(short);
                gpu.memory_free_mib = gpu.memory_free_mib.checked_sub(memory_mib).expect(short);
            }
            Devices::Replicas { gpu, count } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                gpu.replicas_free = gpu.replicas_free.checked_sub(count).expect(short);
            }
            Devices::Clients { gpu, processes, user } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                assert!(gpu.mps_user.is_none_or(|of| of == user), "{short}");
                gpu.mps_user = Some(user);
                gpu.replicas_free = gpu.replicas_free.checked_sub(processes).expect(short);
            }
            Devices::Mig { gpu, profile, start } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                let Sharing::Mig(geometry) = &gpu.sharing else { panic!("{short}") };
                let profile = &geometry.profiles[usize::from(profile)];
                assert!(geometry.may_place(gpu.mig, profile, start), "{short}");
                gpu.mig = gpu.mig.with(profile, start);
            }
        }
    }

    /// Gives back what [`Node::take`] took with the same arguments.
    pub fn give_back(&mut self, request: &Request, devices: Devices) {
        self.free.cpu_milli += request.cpu_milli;
        self.free.memory_bytes += request.memory_bytes;
        self.free.pods += 1;
        for (name, count) in &request.extended {
            *self.extended_free.entry(name.clone()).or_default() += count;
        }
        match devices {
            Devices::None => {}
            Devices::Whole { gpus } => {
                for gpu in positions(gpus) {
                    let gpu = &mut self.gpus[gpu];
                    let clique = gpu.clique;
                    *gpu = Gpu { clique, ..Gpu::new(gpu.sharing.clone(), gpu.memory_mib) };
                }
            }
            Devices::Share { gpu, compute_milli, memory_mib } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                gpu.compute_free_milli += compute_milli;
                gpu.memory_free_mib += memory_mib;
            }
            Devices::Replicas { gpu, count } => {
                self.gpus[usize::from(gpu)].replicas_free += count;
            }
            Devices::Clients { gpu, processes, .. } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                gpu.replicas_free += processes;
                if gpu.sharing == (Sharing::Mps { replicas: gpu.replicas_free }) {
                    // The last process is gone, and with it the server's user.
                    gpu.mps_user = None;
                }
            }
            Devices::Mig { gpu, profile, start } => {
                let gpu = &mut self.gpus[usize::from(gpu)];
                if let Sharing::Mig(geometry) = &gpu.sharing {
                    gpu.mig = gpu.mig.without(&geometry.profiles[usize::from(profile)], start);
                }
            }
        }
    }
}

/// The positions of the bits that are set, ascending.
pub fn positions(set: u32) -> impl Iterator<Item = usize> {
    (0..GPUS_PER_NODE_MAX).filter(move |&position| set >> position & 1 == 1)
}

impl Fleet {
    /// A fleet of these nodes.
    pub fn new(nodes: Vec<Node>) -> Self {
        Self { nodes: nodes.into_iter().map(Arc::new).collect() }
    }

    /// Framebuffer of the GPU in the middle of those that are shared by fractions, in MiB; 0 where
    /// it is not known. A share by memory counts as its part of such a GPU.
    pub fn share_memory_mib(&self) -> u32 {
        let gpus = self.nodes.iter().flat_map(|node| &node.gpus);
        let shared = gpus.filter(|gpu| gpu.sharing == Sharing::Fraction && gpu.memory_mib > 0);
        let mut known: Vec<u32> = shared.map(|gpu| gpu.memory_mib).collect();
        known.sort_unstable();
        known.get(known.len() / 2).copied().unwrap_or(0)
    }

    /// Puts a node in the place of the one of its name, in a fleet that is sorted by name.
    pub fn upsert(&mut self, node: Node) {
        match self.nodes.binary_search_by(|other| other.name.cmp(&node.name)) {
            Ok(at) => self.nodes[at] = Arc::new(node),
            Err(at) => self.nodes.insert(at, Arc::new(node)),
        }
    }

    /// Removes the node of this name, if there is one, from a fleet that is sorted by name.
    pub fn remove(&mut self, name: &str) {
        if let Ok(at) = self.nodes.binary_search_by(|other| (*other.name).cmp(name)) {
            self.nodes.remove(at);
        }
    }

    /// The node at `index`.
    pub fn node(&self, index: NodeIndex) -> &Node {
        &self.nodes[index.0 as usize]
    }

    /// The node at `index`, to be changed in this fleet alone.
    pub fn node_mut(&mut self, index: NodeIndex) -> &mut Node {
        Arc::make_mut(&mut self.nodes[index.0 as usize])
    }

    /// Binds a pod of `kind` to `place`, which was found for it on this very fleet.
    pub fn bind(&mut self, kind: &PodKind, place: Assignment) {
        let node = self.node_mut(place.node);
        node.take(&kind.request, place.devices);
        node.tenants.push(Tenant::of(&kind.identity, &kind.constraints));
    }

    /// Takes away a pod that [`Fleet::bind`] bound with the same arguments.
    pub fn unbind(&mut self, kind: &PodKind, place: Assignment) {
        let node = self.node_mut(place.node);
        node.give_back(&kind.request, place.devices);
        let is_it = |tenant: &Tenant| {
            tenant.identity == kind.identity && tenant.constraints == kind.constraints
        };
        // The last to come is the first to go, where several are equal.
        if let Some(position) = node.tenants.iter().rposition(is_it) {
            node.tenants.remove(position);
        }
    }
}

/// A node, and the devices on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Assignment {
    /// The node.
    pub node: NodeIndex,
    /// The devices on it.
    pub devices: Devices,
}
