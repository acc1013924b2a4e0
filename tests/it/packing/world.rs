//! Random nodes, in the planner's words and as manifests, and the manifests of random pods.

use std::sync::Arc;

use gpu_autoscaler_model::{
    Constraints, HostPort, LabelSelector, Labels, NamespaceScope, NodeSelectorTerm, Operator,
    PodTerm, Requirement, SpreadConstraint, Taint, TaintEffect, Toleration,
};
use gpu_autoscaler_planner::fleet::{Amounts, Fleet, Gpu, GpuPicker, Node, Sharing};
use serde_json::{Value, json};

const ZONES: [&str; 3] = ["a", "b", "c"];
const REGIONS: [&str; 2] = ["north", "south"];
const ZONE: &str = "topology.kubernetes.io/zone";
const REGION: &str = "topology.kubernetes.io/region";
const BETA_ZONE: &str = "failure-domain.beta.kubernetes.io/zone";
const APPS: [&str; 4] = ["web", "db", "train", "infer"];
const TIERS: [&str; 3] = ["1", "5", "9"];
const TAINTS: [&str; 3] = ["dedicated", "spot", "old"];
const TAINT_VALUES: [&str; 2] = ["x", "y"];
const MIG: &str = "nvidia.com/mig-1g.5gb";

/// The source of everything random: SplitMix64.
pub struct World(u64);

impl World {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    }

    pub fn below(&mut self, limit: usize) -> usize {
        ((u128::from(self.bits()) * limit as u128) >> 64) as usize
    }

    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    pub fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.below(list.len())]
    }

    /// Nodes, and their manifests.
    pub fn fleet(&mut self, nodes: usize) -> (Fleet, Vec<Value>) {
        let (nodes, manifests): (Vec<Node>, Vec<Value>) =
            (0..nodes).map(|index| self.node(index)).unzip();
        (Fleet::new(nodes), manifests)
    }

    fn node(&mut self, index: usize) -> (Node, Value) {
        let name = format!("node-{index:02}");
        let (cpu, memory_gib) = (self.pick(&[4, 8, 16_u64]), self.pick(&[8, 16, 32_u64]));
        let (pods, gpus, slices) = (
            self.pick(&[3, 6, 110_u32]),
            self.pick(&[0, 2, 4, 8_usize]),
            self.pick(&[0, 0, 7_u64]),
        );
        let mut labels = vec![("kubernetes.io/hostname", name.as_str())];
        if !self.one_in(6) {
            labels.push(("zone", self.pick(&ZONES)));
        }
        if !self.one_in(3) {
            labels.push(("tier", self.pick(&TIERS)));
        }
        // What volumes name; some nodes have the older label alone.
        if self.one_in(2) {
            labels.push((ZONE, self.pick(&ZONES)));
        }
        if self.one_in(4) {
            labels.push((REGION, self.pick(&REGIONS)));
        }
        if self.one_in(5) {
            labels.push((BETA_ZONE, self.pick(&ZONES)));
        }
        let labels = Labels::from_iter(labels);
        let mut taints = Vec::new();
        if self.one_in(4) {
            let effects = [TaintEffect::NoSchedule, TaintEffect::PreferNoSchedule];
            taints.push(Taint {
                key: self.pick(&TAINTS).into(),
                value: self.pick(&TAINT_VALUES).into(),
                effect: self.pick(&effects),
            });
        }
        let allocatable = Amounts { cpu_milli: cpu * 1000, memory_bytes: memory_gib << 30, pods };
        let manifest = json!({
            "apiVersion": "v1",
            "kind": "Node",
            "metadata": {
                "name": name, "labels": pairs(&labels),
                "annotations": { "kwok.x-k8s.io/node": "fake" },
            },
            "spec": { "taints": taints.iter().map(|taint| json!({
                "key": *taint.key, "value": *taint.value, "effect": effect(taint.effect),
            })).collect::<Vec<_>>() },
            "status": { "capacity": {
                "cpu": cpu.to_string(), "memory": format!("{memory_gib}Gi"),
                "pods": pods.to_string(), "nvidia.com/gpu": gpus.to_string(),
                MIG: slices.to_string(),
            } },
        });
        let node = Node {
            name: name.into(),
            schedulable: true,
            labels,
            taints,
            gpu_model: "".into(),
            allocatable,
            free: allocatable,
            gpus: vec![Gpu::new(Sharing::Exclusive, 0); gpus],
            picker: GpuPicker::Kubelet,
            extended_free: [(MIG.into(), slices)].into(),
            tenants: Vec::new(),
        };
        (node, manifest)
    }

    /// The manifest of a pod that uses `claims` of volumes and of `devices`.
    pub fn pod(&mut self, name: &str, claims: &[String], devices: &[String]) -> Value {
        let app: Arc<str> = self.pick(&APPS).into();
        let (cpu_milli, memory_mib) =
            (self.pick(&[100, 500, 2000_u64]), self.pick(&[64, 2048_u64]));
        let gpus = self.pick(&[0, 0, 1, 2, 5_u16]);
        let slices = if self.one_in(5) { 2 } else { 0_u64 };
        let constraints = self.constraints();
        let mut limits =
            json!({ "cpu": format!("{cpu_milli}m"), "memory": format!("{memory_mib}Mi") });
        if gpus > 0 {
            limits["nvidia.com/gpu"] = gpus.to_string().into();
        }
        if slices > 0 {
            limits[MIG] = slices.to_string().into();
        }
        let ports: Vec<Value> = constraints
            .host_ports
            .iter()
            .map(|port| {
                json!({
                    "containerPort": port.port, "hostPort": port.port, "hostIP": *port.ip,
                    "protocol": *port.protocol,
                })
            })
            .collect();
        let mut spec = spec(&constraints);
        spec["containers"] = json!([{
            "name": "main", "image": "registry.example/main:1", "ports": ports,
            "resources": { "requests": limits, "limits": limits },
        }]);
        spec["volumes"] = claims
            .iter()
            .map(|claim| json!({ "name": claim, "persistentVolumeClaim": { "claimName": claim } }))
            .collect();
        spec["resourceClaims"] = devices
            .iter()
            .map(|claim| json!({ "name": claim, "resourceClaimName": claim }))
            .collect();
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": { "name": name, "labels": { "app": *app } },
            "spec": spec,
        })
    }

    /// Some of `claims`, for one pod; mostly none.
    pub fn claims(&mut self, claims: &[String]) -> Vec<String> {
        let mut chosen = Vec::new();
        while chosen.len() < 3 && self.one_in(3) {
            chosen.push(claims[self.below(claims.len())].clone());
        }
        chosen.sort();
        chosen.dedup();
        chosen
    }

    /// `volume` with a source, and perhaps an affinity and the labels of zones.
    pub fn volume(&mut self, mut volume: Value) -> Value {
        let source = self.below(3);
        match source {
            0 => volume["spec"]["nfs"] = json!({ "server": "nfs.example", "path": "/" }),
            1 => volume["spec"]["local"] = json!({ "path": "/data" }),
            _ => {
                let handle = volume["metadata"]["name"].clone();
                volume["spec"]["csi"] =
                    json!({ "driver": "files.csi.example", "volumeHandle": handle });
            }
        }
        if source == 1 || self.one_in(2) {
            let terms: Vec<Value> = (0..1 + self.below(2))
                .map(|_| json!({ "matchExpressions": expressions(&self.node_term().labels) }))
                .collect();
            volume["spec"]["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": terms } });
        }
        for key in [ZONE, BETA_ZONE] {
            if self.one_in(4) {
                let values = self.pick(&["a", "b", "a__b", "b__c"]);
                volume["metadata"]["labels"][key] = values.into();
            }
        }
        if self.one_in(6) {
            volume["metadata"]["labels"][REGION] = self.pick(&REGIONS).into();
        }
        volume
    }

    fn constraints(&mut self) -> Constraints {
        let mut constraints = Constraints::default();
        if self.one_in(6) {
            constraints.node_selector.push(("zone".into(), self.pick(&ZONES).into()));
        }
        if self.one_in(4) {
            let terms = 1 + self.below(2);
            constraints.node_terms = Some((0..terms).map(|_| self.node_term()).collect());
        }
        for key in TAINTS {
            if self.one_in(2) {
                let value =
                    if self.one_in(2) { None } else { Some(self.pick(&TAINT_VALUES).into()) };
                let effect = if self.one_in(2) { None } else { Some(TaintEffect::NoSchedule) };
                constraints.tolerations.push(Toleration { key: key.into(), value, effect });
            }
        }
        if self.one_in(20) {
            let everything = Toleration { key: "".into(), value: None, effect: None };
            constraints.tolerations.push(everything);
        }
        if self.one_in(6) {
            constraints.pod_affinity.push(self.pod_term());
        }
        if self.one_in(6) {
            constraints.pod_anti_affinity.push(self.pod_term());
        }
        if self.one_in(5) {
            constraints.spread.push(SpreadConstraint {
                max_skew: 1 + self.below(2) as u32,
                topology_key: self.pick(&["zone", "kubernetes.io/hostname"]).into(),
                selector: Some(self.selector()),
                min_domains: if self.one_in(4) { Some(4) } else { None },
                honor_node_affinity: !self.one_in(3),
                honor_taints: self.one_in(3),
            });
        }
        if self.one_in(8) {
            constraints.host_ports.push(HostPort {
                ip: self.pick(&["0.0.0.0", "10.0.0.1", "10.0.0.2"]).into(),
                protocol: self.pick(&["TCP", "UDP"]).into(),
                port: self.pick(&[8080, 9090]),
            });
        }
        constraints
    }

    fn node_term(&mut self) -> NodeSelectorTerm {
        let mut term = NodeSelectorTerm::default();
        for _ in 0..1 + self.below(2) {
            let zones = || ZONES[..2].iter().map(|&zone| zone.into()).collect();
            let (key, operator) = match self.below(6) {
                0 => ("zone", Operator::In(zones())),
                1 => ("zone", Operator::NotIn(zones())),
                2 => ("tier", Operator::Exists),
                3 => ("tier", Operator::DoesNotExist),
                4 => ("tier", Operator::Gt(3)),
                _ => ("tier", Operator::Lt(6)),
            };
            term.labels.push(Requirement { key: key.into(), operator });
        }
        if self.one_in(6) {
            let name = format!("node-{:02}", self.below(24));
            let operator = if self.one_in(2) {
                Operator::In(vec![name.as_str().into()])
            } else {
                Operator::NotIn(vec![name.as_str().into()])
            };
            term.name.push(Requirement { key: "metadata.name".into(), operator });
        }
        term
    }

    fn selector(&mut self) -> LabelSelector {
        let app = || vec![Arc::from("web"), Arc::from("db")];
        let operator = match self.below(5) {
            0 => Operator::In(app()),
            1 => Operator::NotIn(app()),
            2 => Operator::Exists,
            _ => Operator::In(vec![self.pick(&APPS).into()]),
        };
        LabelSelector { requirements: vec![Requirement { key: "app".into(), operator }] }
    }

    fn pod_term(&mut self) -> PodTerm {
        let namespaces = match self.below(3) {
            0 => NamespaceScope::All,
            1 => NamespaceScope::These(vec!["elsewhere".into(), "default".into()]),
            _ => NamespaceScope::These(vec!["default".into()]),
        };
        PodTerm {
            selector: Some(self.selector()),
            namespaces,
            topology_key: self.pick(&["zone", "kubernetes.io/hostname", "tier"]).into(),
        }
    }
}

fn pairs(labels: &Labels) -> Value {
    labels.iter().map(|(key, value)| (key.to_string(), Value::from(value))).collect()
}

fn effect(effect: TaintEffect) -> &'static str {
    match effect {
        TaintEffect::NoSchedule => "NoSchedule",
        TaintEffect::PreferNoSchedule => "PreferNoSchedule",
        TaintEffect::NoExecute => "NoExecute",
    }
}

fn expression(requirement: &Requirement) -> Value {
    let list = |values: &[Arc<str>]| values.iter().map(|v| v.to_string()).collect::<Vec<_>>();
    let (operator, values) = match &requirement.operator {
        Operator::In(values) => ("In", list(values)),
        Operator::NotIn(values) => ("NotIn", list(values)),
        Operator::Exists => ("Exists", Vec::new()),
        Operator::DoesNotExist => ("DoesNotExist", Vec::new()),
        Operator::Gt(limit) => ("Gt", vec![limit.to_string()]),
        Operator::Lt(limit) => ("Lt", vec![limit.to_string()]),
    };
    json!({ "key": *requirement.key, "operator": operator, "values": values })
}

fn expressions(requirements: &[Requirement]) -> Vec<Value> {
    requirements.iter().map(expression).collect()
}

fn pod_term(term: &PodTerm) -> Value {
    let selector = term.selector.as_ref().map(|s| expressions(&s.requirements));
    let mut value = json!({
        "labelSelector": { "matchExpressions": selector },
        "topologyKey": *term.topology_key,
    });
    match &term.namespaces {
        NamespaceScope::All => value["namespaceSelector"] = json!({}),
        NamespaceScope::These(list) => {
            value["namespaces"] = list.iter().map(|n| Value::from(&**n)).collect();
        }
    }
    value
}

/// The part of a pod's spec that says what it demands.
fn spec(constraints: &Constraints) -> Value {
    let mut affinity = json!({});
    if let Some(terms) = &constraints.node_terms {
        let terms: Vec<Value> = terms
            .iter()
            .map(|term| {
                json!({
                    "matchExpressions": expressions(&term.labels),
                    "matchFields": expressions(&term.name),
                })
            })
            .collect();
        affinity["nodeAffinity"] = json!({ "requiredDuringSchedulingIgnoredDuringExecution": { "nodeSelectorTerms": terms } });
    }
    let both = [
        ("podAffinity", &constraints.pod_affinity),
        ("podAntiAffinity", &constraints.pod_anti_affinity),
    ];
    for (key, terms) in both {
        if !terms.is_empty() {
            let terms: Vec<Value> = terms.iter().map(pod_term).collect();
            affinity[key] = json!({ "requiredDuringSchedulingIgnoredDuringExecution": terms });
        }
    }
    let tolerations: Vec<Value> = constraints
        .tolerations
        .iter()
        .map(|toleration| {
            let mut value = match &toleration.value {
                None => json!({ "operator": "Exists" }),
                Some(value) => json!({ "operator": "Equal", "value": **value }),
            };
            if !toleration.key.is_empty() {
                value["key"] = (*toleration.key).into();
            }
            if let Some(of) = toleration.effect {
                value["effect"] = effect(of).into();
            }
            value
        })
        .collect();
    let policy = |honor| if honor { "Honor" } else { "Ignore" };
    let spread: Vec<Value> = constraints
        .spread
        .iter()
        .map(|spread| {
            let selector = spread.selector.as_ref().map(|s| expressions(&s.requirements));
            json!({
                "maxSkew": spread.max_skew, "topologyKey": *spread.topology_key,
                "whenUnsatisfiable": "DoNotSchedule", "minDomains": spread.min_domains,
                "labelSelector": { "matchExpressions": selector },
                "nodeAffinityPolicy": policy(spread.honor_node_affinity),
                "nodeTaintsPolicy": policy(spread.honor_taints),
            })
        })
        .collect();
    let selector: serde_json::Map<String, Value> = constraints
        .node_selector
        .iter()
        .map(|(key, value)| (key.to_string(), Value::from(&**value)))
        .collect();
    json!({
        "affinity": affinity, "tolerations": tolerations, "nodeSelector": selector,
        "topologySpreadConstraints": spread, "terminationGracePeriodSeconds": 0,
        "automountServiceAccountToken": false,
    })
}
