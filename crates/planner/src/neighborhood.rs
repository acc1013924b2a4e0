//! What the pods that are bound already allow: pod affinity and anti-affinity, topology spread and
//! host ports.
//!
//! Source of the semantics: kube-scheduler 1.36, `Filter` of the plugins InterPodAffinity,
//! PodTopologySpread and NodePorts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpu_autoscaler_model::{LabelSelector, PodTerm, SpreadConstraint};

use crate::fit::{Obstacle, node_affinity_holds, taints_tolerated};
use crate::fleet::{Fleet, Identity, Node, Tenant};
use crate::request::PodKind;

/// For each node, the obstacle that the neighbors are to one kind of pod.
#[derive(Clone, Debug)]
pub struct Neighborhood {
    obstacles: Vec<Option<Obstacle>>,
}

/// A topology key and a value of it: a domain of nodes.
type Domain = (Arc<str>, Arc<str>);

impl Neighborhood {
    /// What the neighbors in `fleet` are to `pod`; `None` when they are no obstacle anywhere.
    pub fn of(fleet: &Fleet, pod: &PodKind) -> Option<Self> {
        let constraints = &pod.constraints;
        let looks_at_others = !constraints.pod_affinity.is_empty()
            || !constraints.pod_anti_affinity.is_empty()
            || !constraints.spread.is_empty()
            || !constraints.host_ports.is_empty();
        let repelled = repelled_domains(fleet, &pod.identity);
        if !looks_at_others && repelled.is_empty() {
            return None;
        }
        let affinity = Affinity::new(fleet, pod);
        let spread: Vec<Spread<'_>> = spread_of(fleet, pod);
        let obstacle = |node: &Node| {
            let repels = repelled.iter().any(|domain| is_in(node, domain));
            if repels || !affinity.allows(node, pod) || !spread.iter().all(|s| s.allows(node)) {
                return Some(Obstacle::Neighbors);
            }
            let port_taken =
                node.tenants.iter().flat_map(|tenant| &tenant.host_ports).any(|taken| {
                    constraints.host_ports.iter().any(|port| port.conflicts_with(taken))
                });
            port_taken.then_some(Obstacle::HostPort)
        };
        Some(Self { obstacles: fleet.nodes.iter().map(obstacle).collect() })
    }

    /// Whether the neighbors allow the node at this position.
    pub fn allows(&self, index: usize) -> bool {
        self.obstacles[index].is_none()
    }

    /// The obstacle that they are on the node at this position.
    pub fn obstacle(&self, index: usize) -> Option<Obstacle> {
        self.obstacles[index]
    }
}

fn is_in(node: &Node, (key, value): &Domain) -> bool {
    node.labels.get(key) == Some(value)
}

fn selects(selector: Option<&LabelSelector>, identity: &Identity) -> bool {
    let label = |key: &str| identity.labels.get(key).map(|value| value.as_ref());
    selector.is_some_and(|selector| selector.selects(label))
}

/// Whether `term` looks at a pod of this identity.
pub fn term_matches(term: &PodTerm, identity: &Identity) -> bool {
    term.namespaces.contains(&identity.namespace) && selects(term.selector.as_ref(), identity)
}

/// The domains from which a bound pod's anti-affinity keeps a pod of this identity.
fn repelled_domains(fleet: &Fleet, identity: &Identity) -> BTreeSet<Domain> {
    let mut domains = BTreeSet::new();
    for node in &fleet.nodes {
        for term in node.tenants.iter().flat_map(|tenant| &tenant.anti_affinity) {
            if term_matches(term, identity)
                && let Some(value) = node.labels.get(&term.topology_key)
            {
                domains.insert((term.topology_key.clone(), value.clone()));
            }
        }
    }
    domains
}

/// A pod's own affinity and anti-affinity.
struct Affinity {
    /// Domains with a pod that matches all terms of its affinity, by key of a term.
    attracting: BTreeSet<Domain>,
    /// Whether it is the first of a group that wants to be together with itself.
    first_of_its_group: bool,
    /// Domains with a pod that a term of its anti-affinity matches.
    repelling: BTreeSet<Domain>,
}

impl Affinity {
    fn new(fleet: &Fleet, pod: &PodKind) -> Self {
        let terms = &pod.constraints.pod_affinity;
        let matches_all =
            |identity: &Identity| terms.iter().all(|term| term_matches(term, identity));
        let mut attracting = BTreeSet::new();
        let mut repelling = BTreeSet::new();
        let domain = |node: &Node, term: &PodTerm| {
            let value = node.labels.get(&term.topology_key)?;
            Some((term.topology_key.clone(), value.clone()))
        };
        for node in &fleet.nodes {
            for Tenant { identity, .. } in &node.tenants {
                if !terms.is_empty() && matches_all(identity) {
                    attracting.extend(terms.iter().filter_map(|term| domain(node, term)));
                }
                let anti = &pod.constraints.pod_anti_affinity;
                let matched = anti.iter().filter(|term| term_matches(term, identity));
                repelling.extend(matched.filter_map(|term| domain(node, term)));
            }
        }
        // As in kube-scheduler: when no pod in the cluster matches and it would match itself, the
        // first of a group may start one.
        let first_of_its_group = attracting.is_empty() && matches_all(&pod.identity);
        Self { attracting, first_of_its_group, repelling }
    }

    fn allows(&self, node: &Node, pod: &PodKind) -> bool {
        if self.repelling.iter().any(|domain| is_in(node, domain)) {
            return false;
        }
        pod.constraints.pod_affinity.iter().all(|term| {
            let Some(value) = node.labels.get(&term.topology_key) else { return false };
            self.first_of_its_group
                || self.attracting.contains(&(term.topology_key.clone(), value.clone()))
        })
    }
}

/// A spread constraint with the pods counted.
struct Spread<'a> {
    constraint: &'a SpreadConstraint,
    /// Matching pods in each domain that counts.
    matching: BTreeMap<Arc<str>, u32>,
    /// Matching pods in the emptiest domain.
    least: u32,
    /// Whether the pod itself will be counted.
    matches_itself: bool,
}

fn spread_of<'a>(fleet: &Fleet, pod: &'a PodKind) -> Vec<Spread<'a>> {
    let constraints = &pod.constraints;
    let has_all_keys = |node: &Node| {
        constraints.spread.iter().all(|spread| node.labels.contains_key(&spread.topology_key))
    };
    let count = |constraint: &'a SpreadConstraint| {
        let mut matching: BTreeMap<Arc<str>, u32> = BTreeMap::new();
        for node in fleet.nodes.iter().filter(|node| has_all_keys(node)) {
            if (constraint.honor_node_affinity && !node_affinity_holds(node, constraints))
                || (constraint.honor_taints && !taints_tolerated(node, constraints))
            {
                continue;
            }
            let of = |tenant: &&Tenant| {
                tenant.identity.namespace == pod.identity.namespace
                    && selects(constraint.selector.as_ref(), &tenant.identity)
            };
            // A node runs at most a few hundred pods.
            let here = node.tenants.iter().filter(of).count() as u32;
            if let Some(value) = node.labels.get(&constraint.topology_key) {
                *matching.entry(value.clone()).or_default() += here;
            }
        }
        let too_few = constraint.min_domains.is_some_and(|min| (matching.len() as u32) < min);
        let least = if too_few { 0 } else { matching.values().copied().min().unwrap_or(0) };
        let matches_itself = selects(constraint.selector.as_ref(), &pod.identity);
        Spread { constraint, matching, least, matches_itself }
    };
    constraints.spread.iter().map(count).collect()
}

impl Spread<'_> {
    fn allows(&self, node: &Node) -> bool {
        let Some(value) = node.labels.get(&self.constraint.topology_key) else { return false };
        let here = self.matching.get(value).copied().unwrap_or(0);
        let then = here + u32::from(self.matches_itself);
        then.saturating_sub(self.least) <= self.constraint.max_skew
    }
}
