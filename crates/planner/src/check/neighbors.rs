//! Faults between neighbors, pair by pair on the fleet as it would be with the plan carried out.
//!
//! Topology spread holds at the moment of a placement and not afterwards, so that no final state
//! proves or refutes it; it is not checked here.

use std::sync::Arc;

use gpu_autoscaler_model::{HostPort, PodTerm};

use super::{Fault, FaultKind};
use crate::fleet::{Assignment, Fleet, Identity};
use crate::request::Pod;

/// A pod on a node, of the plan or bound before.
struct Resident<'a> {
    name: Arc<str>,
    node: usize,
    identity: &'a Identity,
    affinity: &'a [PodTerm],
    anti_affinity: &'a [PodTerm],
    ports: &'a [HostPort],
    planned: bool,
}

fn residents<'a>(
    pods: &'a [Pod],
    before: &'a Fleet,
    placed: &[Option<Assignment>],
) -> Vec<Resident<'a>> {
    let mut all = Vec::new();
    for (node, state) in before.nodes.iter().enumerate() {
        for tenant in &state.tenants {
            all.push(Resident {
                name: format!("a pod bound to {}", state.name).into(),
                node,
                identity: &tenant.identity,
                affinity: &[],
                anti_affinity: &tenant.constraints.pod_anti_affinity,
                ports: &tenant.constraints.host_ports,
                planned: false,
            });
        }
    }
    for (pod, place) in pods.iter().zip(placed) {
        let Some(place) = place else { continue };
        let node = place.node.0 as usize;
        if node < before.nodes.len() {
            all.push(Resident {
                name: pod.name.clone(),
                node,
                identity: &pod.kind.identity,
                affinity: &pod.kind.constraints.pod_affinity,
                anti_affinity: &pod.kind.constraints.pod_anti_affinity,
                ports: &pod.kind.constraints.host_ports,
                planned: true,
            });
        }
    }
    all
}

fn looks_at(term: &PodTerm, identity: &Identity) -> bool {
    let Some(selector) = &term.selector else { return false };
    let value = |key: &Arc<str>| identity.labels.get(key);
    term.namespaces.contains(&identity.namespace)
        && selector.requirements.iter().all(|r| r.operator.holds(value(&r.key)))
}

pub(super) fn faults(pods: &[Pod], before: &Fleet, placed: &[Option<Assignment>]) -> Vec<Fault> {
    let residents = residents(pods, before, placed);
    let same_domain = |key: &Arc<str>, a: usize, b: usize| {
        let value = before.nodes[a].labels.get(key);
        value.is_some() && value == before.nodes[b].labels.get(key)
    };
    let social = |r: &Resident<'_>| {
        !(r.affinity.is_empty() && r.anti_affinity.is_empty() && r.ports.is_empty())
    };
    let mut faults = Vec::new();
    for (index, one) in residents.iter().enumerate().filter(|(_, one)| social(one)) {
        let object = &before.nodes[one.node].name;
        let mut fault = |kind| {
            faults.push(Fault { object: object.clone(), pod: Some(one.name.clone()), kind });
        };
        for (_, other) in residents.iter().enumerate().filter(|(other, _)| *other != index) {
            // Of two that were bound before, the plan is not guilty.
            if !one.planned && !other.planned {
                continue;
            }
            let forbidden = |term: &PodTerm| {
                looks_at(term, other.identity)
                    && same_domain(&term.topology_key, one.node, other.node)
            };
            if one.anti_affinity.iter().any(forbidden) {
                fault(FaultKind::AntiAffinity { neighbor: other.name.clone() });
            }
            let taken = one.ports.iter().find(|port| {
                one.node == other.node && other.ports.iter().any(|p| p.conflicts_with(port))
            });
            if let Some(port) = taken {
                fault(FaultKind::HostPort { port: port.port });
            }
        }
        // With itself among the neighbors, for the first of a group stands alone for a moment.
        let satisfied = one.affinity.iter().all(|term| {
            residents.iter().any(|other| {
                one.affinity.iter().all(|term| looks_at(term, other.identity))
                    && same_domain(&term.topology_key, one.node, other.node)
            })
        });
        if !satisfied {
            fault(FaultKind::Affinity);
        }
    }
    faults
}
