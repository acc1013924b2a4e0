//! The fleet of the benchmark: its objects as decoded from a cluster, texts that objects repeat
//! shared as the decoder shares them, and scrapes with texts of their own as exporters write them.

use std::sync::Arc;

use gpu_autoscaler_model::*;

use crate::Args;

/// GPUs of a node.
const GPUS: u32 = 8;

/// Pods of one owner.
const REPLICAS: u32 = 8;

/// Labels that feature discovery and the cloud put on a node of GPUs, most with equal values.
const NODE_LABELS: u32 = 60;

/// Names and values.
type Pairs = Vec<(Arc<str>, Arc<str>)>;

pub struct Fleet<'a> {
    args: &'a Args,
    nodes: Vec<NodeName>,
    node_labels: Pairs,
    namespaces: Vec<Arc<str>>,
    images: Vec<Arc<str>>,
    owners: Vec<(Owner, Pairs)>,
    constraints: Arc<Constraints>,
}

impl<'a> Fleet<'a> {
    pub fn new(args: &'a Args) -> Self {
        let pods = args.gpu_pods + args.other_pods + args.waiting_pods;
        let keys = ["app", "pod-template-hash", "team", "app.kubernetes.io/managed-by", "tier"];
        let keys = keys.map(Arc::<str>::from);
        let owner = |n: u32| {
            let (app, hash) = (format!("train-{n:05}"), format!("{:010x}", u64::from(n) * 7_919));
            let owner = Owner {
                kind: "ReplicaSet".into(),
                name: format!("{app}-{hash}").into(),
                uid: format!("5b1c7f3e-0000-4000-8000-{n:012}").into(),
            };
            let values = [app, hash, format!("team-{}", n % 50), "Helm".into(), "gpu".into()];
            (owner, keys.iter().cloned().zip(values.map(Arc::<str>::from)).collect())
        };
        Self {
            args,
            nodes: (0..args.nodes).map(|n| format!("node-{n:05}").into()).collect(),
            node_labels: (0..NODE_LABELS)
                .map(|n| (format!("nvidia.com/feature-{n}").into(), format!("{n}").into()))
                .collect(),
            namespaces: (0..50).map(|n| format!("team-{n}").into()).collect(),
            images: (0..50).map(|n| format!("registry.example.com/ml/train:{n}").into()).collect(),
            owners: (0..=pods / REPLICAS).map(owner).collect(),
            constraints: Arc::default(),
        }
    }

    /// Everything that exists.
    pub fn objects(&self) -> Delta {
        let args = self.args;
        let bound = args.gpu_pods + args.other_pods;
        Delta {
            nodes: (0..args.nodes).map(|n| Change::Upsert(self.node(n))).collect(),
            pods: (0..bound)
                .map(|n| self.pod(n))
                .chain((0..args.waiting_pods).map(|n| self.waiting_pod(n)))
                .map(Change::Upsert)
                .collect(),
            ..Delta::default()
        }
    }

    fn node(&self, n: u32) -> Node {
        let whole = GpuCount { resource: GpuResource::Whole, count: GPUS };
        let name = self.nodes[n as usize].clone();
        let own = [("kubernetes.io/hostname", name.to_string()), ("zone", format!("z{}", n % 3))];
        let own = own.map(|(key, value)| (Arc::from(key), Arc::from(value)));
        Node {
            name,
            uid: format!("uid-node-{n:05}").into(),
            created: Timestamp::EPOCH,
            labels: Labels::new(self.node_labels.iter().cloned().chain(own)),
            taints: vec![],
            ready: true,
            unschedulable: false,
            allocatable: Resources {
                cpu: MilliCpu::new(96_000),
                gpus: vec![whole],
                ..Resources::default()
            },
            pods_max: Some(110),
            instance_type: Some("p4d.24xlarge".into()),
            region: Some("us-east-1".into()),
            zone: None,
            capacity_type: Some(CapacityType::OnDemand),
            gpu_model: GpuModel::parse("NVIDIA A100-SXM4-40GB"),
            gpus: Some(GPUS),
            sharing: None,
        }
    }

    /// The pod of number `n`: the first ones hold a GPU each.
    pub fn pod(&self, n: u32) -> Pod {
        let gpus = vec![GpuCount { resource: GpuResource::Whole, count: 1 }];
        let gpus = if n < self.args.gpu_pods { gpus } else { vec![] };
        let (owner, labels) = &self.owners[(n / REPLICAS) as usize];
        let namespace = self.namespaces[(n / REPLICAS) as usize % self.namespaces.len()].clone();
        let image = self.images[(n / REPLICAS) as usize % self.images.len()].clone();
        let containers = ContainerState {
            image: (!gpus.is_empty()).then_some(image),
            ..ContainerState::default()
        };
        Pod {
            uid: format!("8a1c7f3e-0000-4000-8000-{n:012}").into(),
            key: ObjectKey { namespace, name: format!("{}-{n:05}", owner.name).into() },
            resource_version: format!("{}", 100_000_000 + n).into(),
            created: Timestamp::EPOCH,
            started: Some(Timestamp::EPOCH),
            node: Some(self.nodes[(n / GPUS % self.args.nodes) as usize].clone()),
            phase: PodPhase::Running,
            deleting: false,
            deletion_due: None,
            containers,
            requests: Resources { gpus, ..Resources::default() },
            labels: Labels::new(labels.iter().cloned()),
            annotations: Labels::default(),
            owner: Some(owner.clone()),
            priority: 0,
            gates: vec![],
            constraints: self.constraints.clone(),
            unschedulable: None,
        }
    }

    /// Every other kind asks for a zone, every fourth keeps away from its like.
    fn waiting_pod(&self, n: u32) -> Pod {
        let kind = n % self.args.waiting_kinds;
        let mut pod = self.pod(self.args.gpu_pods + self.args.other_pods + n);
        pod.node = None;
        pod.phase = PodPhase::Pending;
        pod.requests.gpus =
            vec![GpuCount { resource: GpuResource::Whole, count: [1, 2, 4, 8][kind as usize % 4] }];
        pod.requests.cpu = MilliCpu::new(u64::from(1 + kind) * 100);
        pod.labels = [("app", format!("app-{kind}"))].into_iter().collect();
        let mut constraints = Constraints::default();
        if kind.is_multiple_of(2) {
            constraints.node_selector.push(("zone".into(), format!("z{}", kind % 3).into()));
        }
        if kind.is_multiple_of(4) {
            let operator = Operator::In(vec![format!("app-{kind}").into()]);
            let requirements = vec![Requirement { key: "app".into(), operator }];
            constraints.pod_anti_affinity.push(PodTerm {
                selector: Some(LabelSelector { requirements }),
                namespaces: NamespaceScope::All,
                topology_key: "kubernetes.io/hostname".into(),
            });
        }
        pod.constraints = constraints.into();
        pod
    }

    /// One sample of every GPU; every fourth pod is idle.
    pub fn scrape(&self, at: Timestamp) -> Delta {
        let samples = (0..self.args.nodes * GPUS).map(|n| self.sample(n, at));
        Delta { samples: samples.collect(), ..Delta::default() }
    }

    fn sample(&self, n: u32, at: Timestamp) -> GpuSample {
        let busy = if n.is_multiple_of(4) { 0.0 } else { 0.8 };
        let holder = (n < self.args.gpu_pods).then(|| {
            let of = n / REPLICAS;
            let owner = &self.owners[of as usize].0;
            let pod = format!("{}-{n:05}", owner.name);
            let pod = ObjectKey::new(format!("team-{}", of as usize % self.namespaces.len()), pod);
            Holder { pod, uid: None, container: "main".into() }
        });
        GpuSample {
            at,
            exporter: format!("10.{}.{}.7:9400", n / GPUS / 250, n / GPUS % 250).into(),
            node: format!("node-{:05}", n / GPUS).into(),
            device: Device { uuid: format!("GPU-{n:036}").into(), instance: None },
            model: GpuModel::parse("NVIDIA A100-SXM4-40GB"),
            holder,
            scope: SampleScope::Exclusive,
            activity: Ratio::new(busy)
                .map(|ratio| Activity { ratio, source: ActivitySource::SmActive }),
            fb_used: Bytes::from_mib(4_000),
            fb_total: Bytes::from_mib(40_000),
            fb_free: Bytes::from_mib(36_000),
            fb_reserved: None,
            hardware: HardwareReading {
                power: Milliwatts::from_watts(230.0),
                temperature_celsius: Some(51),
                memory_temperature_celsius: Some(60),
                sm_clock: Some(Megahertz::new(1_410)),
                memory_clock: Some(Megahertz::new(1_215)),
                throttle: Some(ThrottleReasons::default()),
                xid: Some(0),
                ecc_corrected: Some(0),
                ecc_uncorrected: Some(0),
                row_remap_failed: Some(false),
            },
        }
    }
}
