//! What the pods that are bound already allow and prefer: pod affinity and anti-affinity, topology
//! spread and host ports, kept up to date pod by pod.
//!
//! Each demand of a kind of pod is a rule that counts the pods which it looks at, by domain of
//! its topology key. A pod that comes or goes changes the counts of the rules that look at it and
//! nothing else; the nodes of a domain are visited only when the verdict on the domain turns.
//!
//! Source of the semantics: kube-scheduler 1.36, `Filter` of the plugins InterPodAffinity,
//! PodTopologySpread and NodePorts.

mod rule;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gpu_autoscaler_model::PodTerm;

use crate::fit::{Obstacle, standing_preference};
use crate::fleet::{Fleet, Identity, Node, NodeIndex, Tenant};
use crate::request::PodKind;
use rule::{Looks, Rule, What};

/// Domains of a topology key; without a key, every node is one.
#[derive(Clone, Debug)]
struct Topology {
    key: Option<Arc<str>>,
    /// The domain of each node; [`NO_DOMAIN`] where it has no such label.
    domain_of: Vec<u32>,
    /// The nodes of each domain.
    nodes_of: Vec<Vec<u32>>,
}

const NO_DOMAIN: u32 = u32::MAX;

impl Topology {
    fn of(fleet: &Fleet, key: Option<&Arc<str>>) -> Self {
        let mut nodes_of: Vec<Vec<u32>> = Vec::new();
        let mut known: BTreeMap<&str, u32> = BTreeMap::new();
        let mut domain_of = Vec::with_capacity(fleet.nodes.len());
        // A position in the list of nodes is counted in 32 bits, and so are the domains.
        for (index, node) in fleet.nodes.iter().enumerate() {
            let value = match key {
                None => Some(&*node.name),
                Some(key) => node.labels.get(key),
            };
            let domain = value.map_or(NO_DOMAIN, |value| {
                *known.entry(value).or_insert_with(|| {
                    nodes_of.push(Vec::new());
                    (nodes_of.len() - 1) as u32
                })
            });
            if domain != NO_DOMAIN {
                nodes_of[domain as usize].push(index as u32);
            }
            domain_of.push(domain);
        }
        Self { key: key.cloned(), domain_of, nodes_of }
    }
}

/// What the neighbors are to one kind of pod.
#[derive(Clone, Debug)]
pub struct Watcher {
    rules: Vec<Rule>,
    /// For each node, how many rules keep the kind away.
    shut: Vec<u16>,
    /// For each node, the sum of the weights of what the kind prefers and finds there.
    preference: Vec<i32>,
    /// Whether a pod of the kind satisfies its own affinity.
    attracts_itself: bool,
    /// Pods that its affinity looks at, over all terms and domains.
    attracted: u64,
    /// Whether it was the first of its group when the verdicts were last given.
    was_first: bool,
}

impl Watcher {
    fn new(fleet: &Fleet, pod: &Tenant) -> Self {
        let constraints = &pod.constraints;
        let standing = fleet.nodes.iter().map(|node| standing_preference(node, constraints));
        let mut terms = constraints.pod_affinity.iter();
        Self {
            rules: Vec::new(),
            shut: vec![0; fleet.nodes.len()],
            preference: standing.collect(),
            attracts_itself: terms.all(|term| term_matches(term, &pod.identity)),
            attracted: 0,
            was_first: false,
        }
    }

    /// For each node, how many rules keep the kind away.
    pub fn shut(&self) -> &[u16] {
        &self.shut
    }

    /// For each node, how much the kind prefers it.
    pub fn preference(&self) -> &[i32] {
        &self.preference
    }

    fn count(&mut self, rule: usize, topologies: &[Topology], node: NodeIndex, came: bool) {
        let rule = &mut self.rules[rule];
        let domain = topologies[rule.topology].domain_of[node.0 as usize];
        if domain != NO_DOMAIN && rule.count(domain, node, came) && rule.attracts() {
            self.attracted = if came { self.attracted + 1 } else { self.attracted - 1 };
        }
    }

    /// Adds a rule: nodes without its topology key are shut for good where it demands one.
    fn add_rule(&mut self, rule: Rule, topologies: &[Topology]) {
        if matches!(rule.what, What::Attraction | What::Spread(_)) {
            let domains = &topologies[rule.topology].domain_of;
            let missing = domains.iter().enumerate().filter(|(_, d)| **d == NO_DOMAIN);
            missing.for_each(|(node, _)| self.shut[node] += 1);
        }
        self.rules.push(rule);
    }

    /// Gives verdict anew on the domains whose counts changed.
    fn settle(&mut self, topologies: &[Topology]) {
        // As in kube-scheduler: when no pod in the cluster matches and it would match itself, the
        // first of a group may start one.
        let first = self.attracts_itself && self.attracted == 0;
        let turned = first != self.was_first;
        self.was_first = first;
        for rule in &mut self.rules {
            let topology = &topologies[rule.topology];
            let weight = if let What::Wish(weight) = rule.what { Some(weight) } else { None };
            let (shut, preference) = (&mut self.shut, &mut self.preference);
            rule.settle(first, turned, |domain, holds| {
                for &node in &topology.nodes_of[domain as usize] {
                    let node = node as usize;
                    match (weight, holds) {
                        (Some(weight), true) => preference[node] += weight,
                        (Some(weight), false) => preference[node] -= weight,
                        (None, true) => shut[node] += 1,
                        (None, false) => shut[node] -= 1,
                    }
                }
            });
        }
    }

    fn obstacle(&self, topologies: &[Topology], node: usize) -> Option<Obstacle> {
        if self.shut[node] == 0 {
            return None;
        }
        let shuts = |rule: &&Rule| match topologies[rule.topology].domain_of[node] {
            NO_DOMAIN => matches!(rule.what, What::Attraction | What::Spread(_)),
            domain => rule.what.is_demand() && rule.holds(domain),
        };
        self.rules.iter().filter(shuts).map(|rule| rule.obstacle()).min()
    }
}

/// What the neighbors in a fleet are to each of a list of kinds.
#[derive(Clone, Debug, Default)]
pub struct Neighbors {
    topologies: Vec<Topology>,
    /// For each kind, what one pod of it is to others.
    tenants: Vec<Tenant>,
    /// For each kind, what others are to it; `None` when nothing is.
    watchers: Vec<Option<Box<Watcher>>>,
    /// For each kind, the kinds and rules that look at it.
    looked_at_by: Vec<Vec<(usize, usize)>>,
    /// Pods of the fleet that keep others away or have ports.
    repellers: Census,
    /// All pods of the fleet; built when the first rule asks for them.
    residents: Option<Census>,
    /// Every pod of a kind that came or went since the first kind was added.
    moves: Vec<Move>,
}

#[derive(Clone, Copy, Debug)]
struct Move {
    kind: usize,
    node: NodeIndex,
    came: bool,
}

/// Equal pods of a fleet, with the node of each.
#[derive(Clone, Debug, Default)]
struct Census {
    nodes: BTreeMap<Tenant, Vec<NodeIndex>>,
    /// How many of the moves the fleet reflected when it was taken.
    moves: usize,
}

impl Census {
    fn of(fleet: &Fleet, moves: usize, counted: impl Fn(&Tenant) -> bool) -> Self {
        let mut nodes: BTreeMap<Tenant, Vec<NodeIndex>> = BTreeMap::new();
        for (index, node) in fleet.nodes.iter().enumerate() {
            // A position in the list of nodes, which is counted in 32 bits.
            let index = NodeIndex(index as u32);
            for tenant in node.tenants.iter().filter(|tenant| counted(tenant)) {
                match nodes.get_mut(tenant) {
                    Some(nodes) => nodes.push(index),
                    None => drop(nodes.insert(tenant.clone(), vec![index])),
                }
            }
        }
        Self { nodes, moves }
    }
}

/// Whether `term` looks at a pod of this identity.
pub(crate) fn term_matches(term: &PodTerm, identity: &Identity) -> bool {
    term.namespaces.contains(&identity.namespace)
        && term.selector.as_ref().is_some_and(|s| s.selects(|key| identity.labels.get(key)))
}

/// The topology keys by which `tenant` keeps pods of this identity away.
fn keys_against<'a>(
    tenant: &'a Tenant,
    identity: &'a Identity,
) -> impl Iterator<Item = &'a Arc<str>> {
    let terms = tenant.constraints.pod_anti_affinity.iter();
    terms.filter(|term| term_matches(term, identity)).map(|term| &term.topology_key)
}

impl Neighbors {
    /// Nothing is known of any kind; pods of `fleet` count.
    pub fn of(fleet: &Fleet) -> Self {
        let repels = |tenant: &Tenant| {
            let constraints = &tenant.constraints;
            !(constraints.pod_anti_affinity.is_empty() && constraints.host_ports.is_empty())
        };
        Self { repellers: Census::of(fleet, 0, repels), ..Self::default() }
    }

    /// Adds a kind; its number is that of the kinds before it. `fleet` is as it is now, with every
    /// pod that came.
    pub fn add_kind(&mut self, fleet: &Fleet, pod: &PodKind) {
        let kind = self.tenants.len();
        self.tenants.push(Tenant::of(&pod.identity, &pod.constraints));
        self.watchers.push(None);
        self.looked_at_by.push(Vec::new());
        for rule in self.own_rules(fleet, pod) {
            self.add_rule(fleet, kind, rule);
        }
        let bound = self.repellers.nodes.keys().chain(&self.tenants);
        let keys: BTreeSet<Arc<str>> =
            bound.flat_map(|tenant| keys_against(tenant, &pod.identity)).cloned().collect();
        for key in keys {
            self.bar(fleet, kind, key);
        }
        self.let_others_look(fleet, kind);
        let prefers = |node: &Arc<Node>| standing_preference(node, &pod.constraints) != 0;
        if self.watchers[kind].is_none() && fleet.nodes.iter().any(prefers) {
            self.watchers[kind] = Some(Box::new(Watcher::new(fleet, &self.tenants[kind])));
        }
    }

    /// Lets the kinds before `kind` see it: their rules count its pods from now on.
    fn let_others_look(&mut self, fleet: &Fleet, kind: usize) {
        for other in 0..kind {
            let identity = self.tenants[other].identity.clone();
            let keys: BTreeSet<Arc<str>> =
                keys_against(&self.tenants[kind], &identity).cloned().collect();
            for key in keys {
                self.bar(fleet, other, key);
            }
            let Some(watcher) = &self.watchers[other] else { continue };
            for (number, rule) in watcher.rules.iter().enumerate() {
                if rule.looks_at(&self.tenants[kind]) {
                    self.looked_at_by[kind].push((other, number));
                }
            }
        }
        self.looked_at_by[kind].sort_unstable();
        self.looked_at_by[kind].dedup();
    }

    /// Makes sure that the anti-affinity of others by `key` is counted against `kind`.
    fn bar(&mut self, fleet: &Fleet, kind: usize, key: Arc<str>) {
        let identity = self.tenants[kind].identity.clone();
        let looks = Looks::AwayFrom { identity, key: key.clone() };
        let known = self.watchers[kind].iter().flat_map(|w| &w.rules).any(|r| r.looks == looks);
        if !known {
            let topology = self.topology(fleet, Some(&key));
            let domains = self.topologies[topology].nodes_of.len();
            self.add_rule(fleet, kind, Rule::new(topology, domains, looks, What::Bar));
        }
    }

    /// The rules that a pod brings along.
    fn own_rules(&mut self, fleet: &Fleet, pod: &PodKind) -> Vec<Rule> {
        let constraints = &pod.constraints;
        let mut rules = Vec::new();
        let mut add = |key: Option<&Arc<str>>, looks, what| {
            let topology = self.topology(fleet, key);
            rules.push(Rule::new(topology, self.topologies[topology].nodes_of.len(), looks, what));
        };
        for term in &constraints.pod_anti_affinity {
            add(Some(&term.topology_key), Looks::Term(term.clone()), What::Bar);
        }
        for term in &constraints.pod_affinity {
            let looks = Looks::AllTerms(constraints.clone());
            add(Some(&term.topology_key), looks, What::Attraction);
        }
        for (weight, term) in &constraints.preferred_pods {
            add(Some(&term.topology_key), Looks::Term(term.clone()), What::Wish(*weight));
        }
        if !constraints.host_ports.is_empty() {
            add(None, Looks::Ports(constraints.clone()), What::Bar);
        }
        for spread in &constraints.spread {
            let namespace = pod.identity.namespace.clone();
            let looks = Looks::Spread { namespace, selector: spread.selector.clone() };
            let what = What::Spread(Box::new(rule::Spread::of(fleet, pod, spread)));
            add(Some(&spread.topology_key), looks, what);
        }
        rules
    }

    fn topology(&mut self, fleet: &Fleet, key: Option<&Arc<str>>) -> usize {
        let known = self.topologies.iter().position(|topology| topology.key.as_ref() == key);
        known.unwrap_or_else(|| {
            self.topologies.push(Topology::of(fleet, key));
            self.topologies.len() - 1
        })
    }

    /// Adds a rule of `kind` with everything counted that came until now.
    fn add_rule(&mut self, fleet: &Fleet, kind: usize, mut rule: Rule) {
        if let What::Spread(spread) = &mut rule.what {
            spread.note_domains(&self.topologies[rule.topology].domain_of);
        }
        let new = || Box::new(Watcher::new(fleet, &self.tenants[kind]));
        let mut watcher = self.watchers[kind].take().unwrap_or_else(new);
        let number = watcher.rules.len();
        watcher.add_rule(rule, &self.topologies);
        let census = match &watcher.rules[number].looks {
            Looks::AwayFrom { .. } | Looks::Ports(_) => &self.repellers,
            _ => {
                let moves = self.moves.len();
                self.residents.get_or_insert_with(|| Census::of(fleet, moves, |_| true))
            }
        };
        for (tenant, nodes) in &census.nodes {
            if watcher.rules[number].looks_at(tenant) {
                nodes.iter().for_each(|&n| watcher.count(number, &self.topologies, n, true));
            }
        }
        for (mover, tenant) in self.tenants.iter().enumerate() {
            if watcher.rules[number].looks_at(tenant) {
                self.looked_at_by[mover].push((kind, number));
                for step in self.moves[census.moves..].iter().filter(|step| step.kind == mover) {
                    watcher.count(number, &self.topologies, step.node, step.came);
                }
            }
        }
        watcher.rules[number].touch_all();
        self.watchers[kind] = Some(watcher);
    }

    /// Notes that a pod of `kind` came to `node`, or went from it.
    pub fn note(&mut self, kind: usize, node: NodeIndex, came: bool) {
        self.moves.push(Move { kind, node, came });
        for &(other, rule) in &self.looked_at_by[kind] {
            if let Some(watcher) = &mut self.watchers[other] {
                watcher.count(rule, &self.topologies, node, came);
            }
        }
    }

    /// What the neighbors are to `kind` now; `None` when they are nothing to it anywhere.
    pub fn to(&mut self, kind: usize) -> Option<&Watcher> {
        let watcher = self.watchers[kind].as_deref_mut()?;
        watcher.settle(&self.topologies);
        Some(watcher)
    }

    /// The obstacle that the neighbors on the node at this position are to `kind`.
    pub fn obstacle(&mut self, kind: usize, node: usize) -> Option<Obstacle> {
        let watcher = self.watchers[kind].as_deref_mut()?;
        watcher.settle(&self.topologies);
        watcher.obstacle(&self.topologies, node)
    }
}

#[cfg(test)]
mod tests;
