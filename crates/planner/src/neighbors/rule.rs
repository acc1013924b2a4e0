//! One demand of a kind of pod on its neighbors, counted by domain.

use std::sync::Arc;

use gpu_autoscaler_model::{Constraints, LabelSelector, PodTerm, SpreadConstraint};

use super::{NO_DOMAIN, term_matches};
use crate::fit::{Obstacle, node_affinity_holds, taints_tolerated};
use crate::fleet::{Fleet, Identity, NodeIndex, Tenant};
use crate::request::PodKind;

/// Which pods a rule looks at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Looks {
    /// Those that the term selects.
    Term(PodTerm),
    /// Those that every term of this pod affinity selects.
    AllTerms(Arc<Constraints>),
    /// Those whose anti-affinity by this key keeps a pod of this identity away.
    AwayFrom { identity: Arc<Identity>, key: Arc<str> },
    /// Those that have one of these ports of the host.
    Ports(Arc<Constraints>),
    /// Those of the namespace that are selected and stay.
    Spread { namespace: Arc<str>, selector: Option<LabelSelector> },
}

/// What a count means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// A domain with a pod is shut.
    Bar,
    /// A domain without a pod is shut, but for the first of a group.
    Attraction,
    /// A domain that is ahead of the emptiest by too much is shut.
    Spread(Box<Spread>),
    /// A domain with a pod is preferred by this weight.
    Wish(i32),
}

impl What {
    pub(super) const fn is_demand(&self) -> bool {
        !matches!(self, Self::Wish(_))
    }
}

/// A topology spread constraint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Spread {
    max_skew: u32,
    min_domains: Option<u32>,
    /// Whether the pod itself will be counted.
    matches_itself: bool,
    /// For each node, whether its pods count.
    eligible: Vec<bool>,
    /// For each domain, whether one of its nodes is eligible.
    counted: Vec<bool>,
    /// Pods in the emptiest domain when the verdicts were last given.
    least: u32,
}

impl Spread {
    pub(super) fn of(fleet: &Fleet, pod: &PodKind, spread: &SpreadConstraint) -> Self {
        let constraints = &pod.constraints;
        let eligible = fleet.nodes.iter().map(|node| {
            let keys = constraints.spread.iter().map(|spread| &spread.topology_key);
            keys.into_iter().all(|key| node.labels.get(key).is_some())
                && (!spread.honor_node_affinity || node_affinity_holds(node, constraints))
                && (!spread.honor_taints || taints_tolerated(node, constraints))
        });
        let label = |key: &str| pod.identity.labels.get(key);
        Self {
            max_skew: spread.max_skew,
            min_domains: spread.min_domains,
            matches_itself: spread.selector.as_ref().is_some_and(|s| s.selects(label)),
            eligible: eligible.collect(),
            counted: Vec::new(),
            least: 0,
        }
    }

    /// Notes which domains have a node that counts.
    pub(super) fn note_domains(&mut self, domain_of: &[u32]) {
        let domains = domain_of.iter().filter(|d| **d != NO_DOMAIN).max();
        self.counted = vec![false; domains.map_or(0, |most| *most as usize + 1)];
        for (domain, _) in domain_of.iter().zip(&self.eligible).filter(|(_, eligible)| **eligible) {
            if *domain != NO_DOMAIN {
                self.counted[*domain as usize] = true;
            }
        }
    }

    /// Pods in the emptiest domain; with fewer domains than demanded, one that is not there is
    /// the emptiest.
    fn least(&self, counts: &[u32]) -> u32 {
        let counted = || counts.iter().zip(&self.counted).filter(|(_, counted)| **counted);
        // At most as many domains as nodes, which are counted in 32 bits.
        if self.min_domains.is_some_and(|min| (counted().count() as u32) < min) {
            return 0;
        }
        counted().map(|(count, _)| *count).min().unwrap_or(0)
    }
}

/// One demand of a kind of pod on its neighbors.
#[derive(Clone, Debug)]
pub(super) struct Rule {
    pub(super) topology: usize,
    pub(super) looks: Looks,
    pub(super) what: What,
    /// Pods that it looks at, by domain.
    counts: Vec<u32>,
    /// Whether it held, by domain, when the verdicts were last given: shut, or preferred.
    held: Vec<bool>,
    /// Domains whose count changed since.
    touched: Vec<u32>,
    all_touched: bool,
}

impl Rule {
    pub(super) fn new(topology: usize, domains: usize, looks: Looks, what: What) -> Self {
        Self {
            topology,
            looks,
            what,
            counts: vec![0; domains],
            held: vec![false; domains],
            touched: Vec::new(),
            all_touched: true,
        }
    }

    pub(super) const fn attracts(&self) -> bool {
        matches!(self.what, What::Attraction)
    }

    pub(super) fn obstacle(&self) -> Obstacle {
        match self.looks {
            Looks::Ports(_) => Obstacle::HostPort,
            _ => Obstacle::Neighbors,
        }
    }

    pub(super) fn looks_at(&self, tenant: &Tenant) -> bool {
        let identity = &tenant.identity;
        match &self.looks {
            Looks::Term(term) => term_matches(term, identity),
            Looks::AllTerms(of) => of.pod_affinity.iter().all(|term| term_matches(term, identity)),
            Looks::AwayFrom { identity, key } => {
                super::keys_against(tenant, identity).any(|against| against == key)
            }
            Looks::Ports(of) => {
                let taken = &tenant.constraints.host_ports;
                taken.iter().any(|port| of.host_ports.iter().any(|p| p.conflicts_with(port)))
            }
            Looks::Spread { namespace, selector } => {
                !tenant.leaving
                    && identity.namespace == *namespace
                    && selector.as_ref().is_some_and(|s| s.selects(|key| identity.labels.get(key)))
            }
        }
    }

    /// Counts a pod that came to `node` or went from it; whether it counts there.
    pub(super) fn count(&mut self, domain: u32, node: NodeIndex, came: bool) -> bool {
        if let What::Spread(spread) = &self.what
            && !spread.eligible[node.0 as usize]
        {
            return false;
        }
        let count = &mut self.counts[domain as usize];
        *count = if came { *count + 1 } else { *count - 1 };
        if self.touched.len() >= self.counts.len() {
            self.touch_all();
        } else if !self.all_touched {
            self.touched.push(domain);
        }
        true
    }

    pub(super) fn touch_all(&mut self) {
        self.all_touched = true;
        self.touched.clear();
    }

    /// Whether it held in the domain when the verdicts were last given.
    pub(super) fn holds(&self, domain: u32) -> bool {
        self.held[domain as usize]
    }

    /// Gives verdict on the domains that were touched, and calls `turn` for each that turned.
    /// `first`: whether the kind is the first of its group, and `turned`, whether that is new.
    pub(super) fn settle(&mut self, first: bool, turned: bool, mut turn: impl FnMut(u32, bool)) {
        let mut all = self.all_touched || (turned && self.attracts());
        if let What::Spread(spread) = &mut self.what
            && (all || !self.touched.is_empty())
        {
            let least = spread.least(&self.counts);
            all |= least != spread.least;
            spread.least = least;
        }
        let (what, counts, held) = (&self.what, &self.counts, &mut self.held);
        let mut visit = |domain: u32| {
            let count = counts[domain as usize];
            let now = match what {
                What::Bar | What::Wish(_) => count > 0,
                What::Attraction => !first && count == 0,
                What::Spread(spread) => {
                    let then = count + u32::from(spread.matches_itself);
                    then.saturating_sub(spread.least) > spread.max_skew
                }
            };
            if held[domain as usize] != now {
                held[domain as usize] = now;
                turn(domain, now);
            }
        };
        if all {
            // As many domains as `counts` has, which are counted in 32 bits.
            (0..counts.len() as u32).for_each(&mut visit);
        } else {
            self.touched.iter().for_each(|&domain| visit(domain));
        }
        self.touched.clear();
        self.all_touched = false;
    }
}
