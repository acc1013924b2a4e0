//! Packing's feasibility against the real kube-scheduler, on random pods and nodes.

mod devices;
mod dialogue;
mod volumes;
mod world;

use std::env;
use std::sync::Arc;

use gpu_autoscaler_k8s::decode::{Decoder, Source};
use gpu_autoscaler_model::{NodeName, Pod};
use gpu_autoscaler_planner::fit::{Obstacle, shortage, standing_obstacle};
use gpu_autoscaler_planner::fleet::{Assignment, Devices, Fleet, Node, NodeIndex};
use gpu_autoscaler_planner::neighbors::Neighbors;
use gpu_autoscaler_planner::observe;
use gpu_autoscaler_planner::request::{self, GpuRequest, PodKind};
use tests::control_plane::{ControlPlane, Options};

use devices::Claimable;
use dialogue::{Decision, Dialogue, PODS};
use volumes::Volumes;
use world::World;

/// Pods in `cargo test`; `TIMES` says otherwise.
const PODS_DEFAULT: usize = 150;
/// Nodes of the cluster.
const NODES: usize = 24;
/// Pods that are left bound: the oldest leaves when there are more.
const BOUND_MAX: usize = 60;

fn number(name: &str, default: u64) -> u64 {
    match env::var(name) {
        Ok(text) if !text.is_empty() => text.parse().expect("a number"),
        _ => default,
    }
}

/// For each node, what keeps the pod from it.
fn obstacles(fleet: &Fleet, kind: &PodKind) -> Vec<Option<Obstacle>> {
    if kind.constraints.claim_fault.is_some() {
        return vec![Some(Obstacle::Volume); fleet.nodes.len()];
    }
    let mut neighbors = Neighbors::of(fleet);
    neighbors.add_kind(fleet, kind);
    let on = |(index, node): (usize, &Arc<Node>)| {
        standing_obstacle(node, kind)
            .or_else(|| neighbors.obstacle(0, index))
            .or_else(|| shortage(node, &kind.request))
    };
    fleet.nodes.iter().enumerate().map(on).collect()
}

/// Whole GPUs that the kubelet would pick: any, so the first free ones.
fn devices(fleet: &Fleet, node: usize, kind: &PodKind) -> Devices {
    let GpuRequest::Whole { count } = kind.request.gpu else { return Devices::None };
    let free = fleet.nodes[node].gpus.iter().enumerate().filter(|(_, gpu)| gpu.is_free());
    let gpus = free.take(count.into()).fold(0, |set, (position, _)| set | 1 << position);
    Devices::Whole { gpus }
}

fn uses_device(pod: &Pod, claim: &str) -> bool {
    pod.constraints.device_claims.iter().any(|used| *used.name == *claim)
}

/// What `pod` asks for with its device claims looked up, and the fleet with what devices are free.
fn with_devices_of(
    pod: &Pod,
    plain: &request::Pod,
    claimable: &Claimable,
    fleet: &Fleet,
) -> (PodKind, Fleet) {
    let (mut asked, mut offering) = ([plain.clone()], fleet.clone());
    claimable.devices.look_up(&[pod], &mut asked, &mut offering);
    let [asked] = asked;
    (asked.kind, offering)
}

/// The device claims of `gone` that none of `bound` uses.
fn unused(gone: &Pod, bound: &[Bound]) -> Vec<String> {
    let uses = |claim: &str| bound.iter().any(|other| uses_device(&other.pod, claim));
    let held = gone.constraints.device_claims.iter().map(|claim| claim.name.to_string());
    held.filter(|claim| !uses(claim)).collect()
}

struct Bound {
    pod: Pod,
    kind: PodKind,
    place: Assignment,
}

#[test]
fn feasibility_agrees_with_kube_scheduler() {
    let seed = number("SEED", 1);
    let pods = number("TIMES", PODS_DEFAULT as u64);
    println!("seed={seed} pods={pods} nodes={NODES}");
    let Some(cluster) = ControlPlane::start_or_skip(&Options::default()) else { return };
    let mut world = World::new(seed);
    let (mut fleet, manifests) = world.fleet(NODES);
    cluster.create_nodes(&manifests).expect("kwok makes them Ready");
    let mut dialogue = Dialogue::start(&cluster).expect("kubectl proxy");
    let mut volumes =
        Volumes::create(&mut dialogue, &mut world, pods as usize).expect("volumes are bound");
    let mut claimable =
        Claimable::create(&mut dialogue, &mut world, NODES).expect("devices are offered");
    let mut decoder = Decoder::default();
    let mut bound: Vec<Bound> = Vec::new();
    let (mut placed, mut refused) = (0, 0);
    let (mut claiming, mut with_devices) = ([0, 0], [0, 0]);
    let mut disagreements = Vec::new();
    for number in 0..pods {
        let name = format!("pod-{number}");
        let claims = world.claims(&volumes.claims);
        let wanted = claimable.choose(&mut world);
        let manifest = world.pod(&name, &claims, &wanted);
        claimable.look_up(&mut dialogue).expect("the API server answers");
        volumes.look_up(&mut dialogue, &claims).expect("the API server answers");
        let created = dialogue.create(PODS, &manifest).expect("the API server takes it");
        let mut pod = decoder.pod(Source::Value(&created)).expect("its own pods are read");
        let plain = observe::pod(&pod, &volumes.storage);
        let (asked, offering) = with_devices_of(&pod, &plain, &claimable, &fleet);
        // What is bound holds no devices by number: those of claims are looked up each time.
        let kind = plain.kind;
        let uncovered = &asked.constraints.uncovered;
        assert!(uncovered.is_empty(), "SEED={seed}: {name}: {uncovered:?}");
        let expected = obstacles(&offering, &asked);
        let zone_of = |name: &str| {
            let node = fleet.nodes.iter().find(|node| *node.name == *name)?;
            node.labels.get("zone").map(str::to_owned)
        };
        let provision = |dialogue: &mut Dialogue| Volumes::provision(dialogue, &claims, zone_of);
        let decision = dialogue.decision(&name, provision).expect("the API server answers");
        let is_bound = usize::from(matches!(decision, Decision::Bound(_)));
        claiming[is_bound] += usize::from(!claims.is_empty());
        with_devices[is_bound] += usize::from(!wanted.is_empty());
        match decision {
            Decision::Bound(node) => {
                placed += 1;
                let index = fleet.nodes.iter().position(|n| *n.name == *node).expect("a node");
                if let Some(why) = expected[index] {
                    disagreements
                        .push(format!("{name} is bound to {node} despite {why:?}: {kind:?}"));
                    dialogue.delete(&name).expect("deleted");
                    continue;
                }
                let devices = devices(&fleet, index, &kind);
                let place = Assignment { node: NodeIndex(index as u32), devices };
                fleet.bind(&kind, place);
                pod.node = Some(NodeName::new(node));
                volumes.storage.note_pod(None, Some(&pod));
                claimable.devices.note_pod(None, Some(&pod));
                bound.push(Bound { pod, kind, place });
            }
            Decision::Refused(message) => {
                refused += 1;
                if let Some(index) = expected.iter().position(Option::is_none) {
                    let node = &fleet.nodes[index].name;
                    disagreements
                        .push(format!("{name} would fit on {node}, but: {message}: {kind:?}"));
                }
                dialogue.delete(&name).expect("deleted");
            }
        }
        if bound.len() > BOUND_MAX {
            let gone = bound.remove(world.below(BOUND_MAX));
            dialogue.delete(&gone.pod.key.name).expect("deleted");
            volumes.storage.note_pod(Some(&gone.pod), None);
            claimable.devices.note_pod(Some(&gone.pod), None);
            let unused = unused(&gone.pod, &bound);
            Claimable::given_back(&mut dialogue, &unused).expect("the controller gives back");
            fleet.unbind(&gone.kind, gone.place);
        }
    }
    println!("{placed} bound, {refused} refused, {} disagreements", disagreements.len());
    println!("with volume claims: {} bound, {} refused", claiming[1], claiming[0]);
    println!("with device claims: {} bound, {} refused", with_devices[1], with_devices[0]);
    assert!(disagreements.is_empty(), "SEED={seed}:\n{}", disagreements.join("\n"));
    // Both answers must occur often, or the comparison says nothing; of a few pods all may fit.
    let few = pods < 50;
    assert!(few || placed * 5 > pods && refused * 20 > pods, "{placed} bound, {refused} refused");
}
