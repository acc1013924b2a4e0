//! What a pod demands of its node beyond resources.
//!
//! What packing does not cover exactly is listed by its path
//! ([`NOT_COVERED`](gpu_autoscaler_model::NOT_COVERED)), never guessed. What such a pod still is
//! to its neighbors is read as well: anti-affinity with a selector of namespaces counts for all of
//! them, so that a place which it keeps free is at worst not offered.

use std::sync::Arc;

use gpu_autoscaler_model::{
    ClaimName, Constraints, DEVICE_CLAIM_UNKNOWN, HostPort, LabelSelector, Labels, NamespaceScope,
    NodeSelectorTerm, Operator, PodTerm, Requirement, SpreadConstraint, TaintEffect, Toleration,
};

use crate::intern::Interner;
use crate::wire;

/// The scheduler that a pod has when it names none.
const DEFAULT_SCHEDULER: &str = "default-scheduler";

/// A demand that cannot be put into the words of `model`: its path in the pod's spec.
struct Uncovered(&'static str);

/// What `term` demands, or `None` when an operator or field of it is not known.
pub(super) fn node_term(
    term: &wire::NodeSelectorTerm,
    texts: &mut Interner<str>,
) -> Option<NodeSelectorTerm> {
    Reading { texts, uncovered: Vec::new() }.node_term(term).ok()
}

/// What the pod demands.
pub(super) fn of_pod(
    pod: &wire::Pod,
    namespace: &Arc<str>,
    labels: &Labels,
    texts: &mut Interner<str>,
) -> Constraints {
    let spec = &pod.spec;
    let mut read = Reading { texts, uncovered: uncovered(spec) };
    let affinity = spec.affinity.as_ref();
    let node_affinity = affinity.and_then(|all| all.node_affinity.as_ref());
    let (pod_affinity, toward) =
        read.pod_affinity(affinity.and_then(|all| all.pod_affinity.as_ref()), namespace);
    let (pod_anti_affinity, away) =
        read.pod_affinity(affinity.and_then(|all| all.pod_anti_affinity.as_ref()), namespace);
    let selector = spec.node_selector.iter().flatten();
    let mut constraints = Constraints {
        node_selector: selector.map(|(k, v)| (read.texts.get(k), read.texts.get(v))).collect(),
        node_terms: node_affinity
            .and_then(|all| all.required.as_ref())
            .map(|all| read.node_terms(all.node_selector_terms.as_deref().unwrap_or_default())),
        claims: read.claims(spec, &pod.metadata.name),
        device_claims: read.device_claims(pod),
        volume_terms: Vec::new(),
        claim_fault: None,
        tolerations: read.tolerations(spec.tolerations.as_deref().unwrap_or_default()),
        pod_affinity,
        pod_anti_affinity,
        spread: read.spread(spec.topology_spread_constraints.as_deref(), labels),
        host_ports: read.host_ports(spec),
        preferred_nodes: read.preferred_nodes(node_affinity),
        preferred_pods: toward
            .into_iter()
            .chain(away.into_iter().map(|(weight, term)| (-weight, term)))
            .collect(),
        uncovered: Vec::new(),
    };
    let mut paths = std::mem::take(&mut read.uncovered);
    paths.sort_unstable();
    paths.dedup();
    constraints.uncovered = paths.into_iter().map(|path| read.texts.get(path)).collect();
    constraints
}

/// Paths of what is not even read.
fn uncovered(spec: &wire::PodSpec) -> Vec<&'static str> {
    let mut paths = Vec::new();
    let mut list = |path: &'static str, demanded: bool| {
        if demanded {
            paths.push(path);
        }
    };
    let scheduler = spec.scheduler_name.as_deref().filter(|name| !name.is_empty());
    list("spec.schedulerName", scheduler.is_some_and(|name| name != DEFAULT_SCHEDULER));
    let mut gates = spec.scheduling_gates.iter().flatten();
    list("spec.schedulingGates", gates.any(|gate| !gate.name.starts_with(super::OUR_PREFIX)));
    list("spec.schedulingGroup", spec.scheduling_group.is_some());
    list("spec.workloadRef", spec.workload_ref.is_some());
    list("spec.hostUsers", spec.host_network == Some(true) && spec.host_users == Some(false));
    let mut containers = spec.containers.iter().chain(&spec.init_containers).flatten();
    let restarts_all = |container: &wire::Container| {
        let mut rules = container.restart_policy_rules.iter().flatten();
        rules.any(|rule| rule.action.as_deref() == Some("RestartAllContainers"))
    };
    list("spec.containers[].restartPolicyRules", containers.any(restarts_all));
    for volume in spec.volumes.iter().flatten() {
        list("spec.volumes[].awsElasticBlockStore", volume.aws_elastic_block_store.is_some());
        list("spec.volumes[].azureDisk", volume.azure_disk.is_some());
        list("spec.volumes[].gcePersistentDisk", volume.gce_persistent_disk.is_some());
        list("spec.volumes[].iscsi", volume.iscsi.is_some());
        list("spec.volumes[].rbd", volume.rbd.is_some());
    }
    paths
}

/// One pod being read.
struct Reading<'a> {
    texts: &'a mut Interner<str>,
    uncovered: Vec<&'static str>,
}

impl Reading<'_> {
    /// What was read, or `None` after its path is listed.
    fn covered<T>(&mut self, read: Result<T, Uncovered>) -> Option<T> {
        match read {
            Ok(read) => Some(read),
            Err(Uncovered(path)) => {
                self.uncovered.push(path);
                None
            }
        }
    }

    /// The claims of its volumes; that of an ephemeral one is named after the pod and the volume.
    fn claims(&mut self, spec: &wire::PodSpec, pod: &str) -> Vec<ClaimName> {
        let mut claims = Vec::new();
        for volume in spec.volumes.iter().flatten() {
            if let Some(of) = &volume.persistent_volume_claim {
                let name = self.texts.get(&of.claim_name);
                claims.push(ClaimName { name, ephemeral: false });
            } else if volume.ephemeral.is_some() {
                let name = format!("{pod}-{}", volume.name.as_deref().unwrap_or(""));
                claims.push(ClaimName { name: self.texts.get(&name), ephemeral: true });
            }
        }
        claims.sort();
        claims.dedup();
        claims
    }

    /// Its claims on devices; the name of one that is made from a template stands in its status.
    fn device_claims(&mut self, pod: &wire::Pod) -> Vec<ClaimName> {
        let mut claims = Vec::new();
        for entry in pod.spec.resource_claims.iter().flatten() {
            if let Some(name) = &entry.resource_claim_name {
                claims.push(ClaimName { name: self.texts.get(name), ephemeral: false });
                continue;
            }
            let mut made = pod.status.resource_claim_statuses.iter().flatten();
            match made.find(|made| made.name == entry.name) {
                // Not made yet.
                None => self.uncovered.push(DEVICE_CLAIM_UNKNOWN),
                Some(made) => claims.extend(
                    made.resource_claim_name
                        .as_ref()
                        .map(|name| ClaimName { name: self.texts.get(name), ephemeral: true }),
                ),
            }
        }
        claims.sort();
        claims.dedup();
        claims
    }

    fn node_terms(&mut self, terms: &[wire::NodeSelectorTerm]) -> Vec<NodeSelectorTerm> {
        let read = |term| {
            let term = self.node_term(term);
            self.covered(term)
        };
        terms.iter().filter_map(read).collect()
    }

    fn node_term(&mut self, term: &wire::NodeSelectorTerm) -> Result<NodeSelectorTerm, Uncovered> {
        let path = Uncovered("spec.affinity.nodeAffinity");
        let fields = term.match_fields.as_deref().unwrap_or_default();
        if fields.iter().any(|field| field.key != "metadata.name") {
            return Err(path);
        }
        let labels = self.requirements(term.match_expressions.as_deref().unwrap_or_default());
        let name = self.requirements(fields);
        Ok(NodeSelectorTerm {
            labels: labels.ok_or(Uncovered("spec.affinity.nodeAffinity"))?,
            name: name.ok_or(path)?,
        })
    }

    fn preferred_nodes(
        &mut self,
        affinity: Option<&wire::NodeAffinity>,
    ) -> Vec<(i32, NodeSelectorTerm)> {
        let all = affinity.and_then(|all| all.preferred.as_deref()).unwrap_or_default();
        // A preference that cannot be read is none: it keeps the pod from no node.
        all.iter()
            .filter_map(|one| Some((one.weight, self.node_term(&one.preference).ok()?)))
            .collect()
    }

    /// All of `expressions`; `None` when one has an operator or a number that is not known.
    fn requirements(&mut self, expressions: &[wire::Expression]) -> Option<Vec<Requirement>> {
        expressions.iter().map(|expression| self.requirement(expression)).collect()
    }

    fn requirement(&mut self, expression: &wire::Expression) -> Option<Requirement> {
        let given = expression.values.as_deref().unwrap_or_default();
        let operator = match expression.operator.as_str() {
            "In" => Operator::In(given.iter().map(|value| self.texts.get(value)).collect()),
            "NotIn" => Operator::NotIn(given.iter().map(|value| self.texts.get(value)).collect()),
            "Exists" => Operator::Exists,
            "DoesNotExist" => Operator::DoesNotExist,
            "Gt" => Operator::Gt(given.first()?.parse().ok()?),
            "Lt" => Operator::Lt(given.first()?.parse().ok()?),
            _ => return None,
        };
        Some(Requirement { key: self.texts.get(&expression.key), operator })
    }

    fn selector(&mut self, selector: &wire::LabelSelector) -> Option<LabelSelector> {
        let mut requirements: Vec<Requirement> = selector
            .match_labels
            .iter()
            .flatten()
            .map(|(key, value)| self.equals(key, value))
            .collect();
        let expressions = selector.match_expressions.as_deref().unwrap_or_default();
        requirements.extend(self.requirements(expressions)?);
        Some(LabelSelector { requirements })
    }

    fn equals(&mut self, key: &str, value: &str) -> Requirement {
        let operator = Operator::In(vec![self.texts.get(value)]);
        Requirement { key: self.texts.get(key), operator }
    }

    /// Required terms, and preferred ones with their weight.
    fn pod_affinity(
        &mut self,
        affinity: Option<&wire::PodAffinity>,
        namespace: &Arc<str>,
    ) -> (Vec<PodTerm>, Vec<(i32, PodTerm)>) {
        let required = affinity.and_then(|all| all.required.as_deref()).unwrap_or_default();
        let preferred = affinity.and_then(|all| all.preferred.as_deref()).unwrap_or_default();
        let mut terms = Vec::new();
        for term in required {
            let (read, exact) = self.pod_term(term, namespace);
            terms.push(read);
            if !exact {
                self.uncovered.push("spec.affinity.*.namespaceSelector");
            }
        }
        let weighted = |one: &wire::WeightedPodTerm| {
            let (read, exact) = self.pod_term(&one.pod_affinity_term, namespace);
            exact.then_some((one.weight, read))
        };
        (terms, preferred.iter().filter_map(weighted).collect())
    }

    /// A term, and whether it is exactly what the pod demands.
    fn pod_term(&mut self, term: &wire::PodTerm, namespace: &Arc<str>) -> (PodTerm, bool) {
        let selector = term.label_selector.as_ref().map(|selector| self.selector(selector));
        let is_empty = |selector: &wire::LabelSelector| {
            selector.match_labels.iter().flatten().next().is_none()
                && selector.match_expressions.iter().flatten().next().is_none()
        };
        let named = term.namespaces.as_deref().unwrap_or_default();
        let (namespaces, exact) = match &term.namespace_selector {
            Some(selector) => (NamespaceScope::All, is_empty(selector)),
            None if named.is_empty() => (NamespaceScope::These(vec![namespace.clone()]), true),
            None => {
                let list = named.iter().map(|name| self.texts.get(name)).collect();
                (NamespaceScope::These(list), true)
            }
        };
        let exact = exact && !matches!(selector, Some(None));
        let term = PodTerm {
            // One that cannot be read looks at every pod.
            selector: selector.map(Option::unwrap_or_default),
            namespaces,
            topology_key: self.texts.get(&term.topology_key),
        };
        (term, exact)
    }

    fn tolerations(&mut self, tolerations: &[wire::Toleration]) -> Vec<Toleration> {
        let mut read = Vec::with_capacity(tolerations.len());
        for toleration in tolerations {
            let value = match toleration.operator.as_deref() {
                None | Some("" | "Equal") => {
                    Some(self.texts.get(toleration.value.as_deref().unwrap_or("")))
                }
                Some("Exists") => None,
                Some(_) => {
                    self.uncovered.push("spec.tolerations[].operator");
                    continue;
                }
            };
            let effect = match toleration.effect.as_deref() {
                None | Some("") => None,
                Some("NoSchedule") => Some(TaintEffect::NoSchedule),
                Some("PreferNoSchedule") => Some(TaintEffect::PreferNoSchedule),
                Some("NoExecute") => Some(TaintEffect::NoExecute),
                // Of an effect that no taint has.
                Some(_) => continue,
            };
            let key = self.texts.get(toleration.key.as_deref().unwrap_or(""));
            read.push(Toleration { key, value, effect });
        }
        read
    }

    fn spread(
        &mut self,
        spread: Option<&[wire::SpreadConstraint]>,
        labels: &Labels,
    ) -> Vec<SpreadConstraint> {
        let required = |one: &&wire::SpreadConstraint| one.when_unsatisfiable == "DoNotSchedule";
        let mut read = Vec::new();
        for one in spread.unwrap_or_default().iter().filter(required) {
            let selector = match &one.label_selector {
                None => None,
                Some(selector) => {
                    let path = Uncovered("spec.topologySpreadConstraints[].labelSelector");
                    let selector = self.selector(selector).ok_or(path);
                    let Some(mut selector) = self.covered(selector) else { continue };
                    // From 1.34 on the server has done so; twice is the same.
                    for key in one.match_label_keys.iter().flatten() {
                        if let Some(value) = labels.get(key) {
                            selector.requirements.push(self.equals(key, value));
                        }
                    }
                    selector.requirements.sort();
                    selector.requirements.dedup();
                    Some(selector)
                }
            };
            read.push(SpreadConstraint {
                // The server takes none below 1.
                max_skew: u32::try_from(one.max_skew).unwrap_or(1),
                topology_key: self.texts.get(&one.topology_key),
                selector,
                min_domains: one.min_domains.and_then(|min| u32::try_from(min).ok()),
                honor_node_affinity: one.node_affinity_policy.as_deref() != Some("Ignore"),
                honor_taints: one.node_taints_policy.as_deref() == Some("Honor"),
            });
        }
        read
    }

    /// Ports of what runs as long as the pod: containers and sidecars.
    fn host_ports(&mut self, spec: &wire::PodSpec) -> Vec<HostPort> {
        let sidecars = spec.init_containers.iter().flatten();
        let sidecars = sidecars.filter(|c| c.restart_policy.as_deref() == Some("Always"));
        let mut ports = Vec::new();
        for port in sidecars.chain(spec.containers.iter().flatten()).flat_map(|c| &c.ports) {
            for port in port {
                let Some(number) = port.host_port.filter(|number| *number > 0) else { continue };
                ports.push(HostPort {
                    ip: self.texts.get(port.host_ip.as_deref().unwrap_or("")),
                    protocol: self.texts.get(port.protocol.as_deref().unwrap_or("TCP")),
                    port: number,
                });
            }
        }
        ports
    }
}

#[cfg(test)]
mod tests;
