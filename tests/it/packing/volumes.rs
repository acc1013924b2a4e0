//! Claims, volumes and classes on the real control plane. Some claims are bound to volumes with
//! random affinity and zones; the volumes of others are made where their first pod goes, and there
//! the test plays the CSI provisioner.

use std::io;
use std::time::{Duration, Instant};

use gpu_autoscaler_k8s::decode::{Decoder, Source};
use gpu_autoscaler_model::{Change, StorageKind};
use gpu_autoscaler_planner::storage::Storage;
use serde_json::{Value, json};

use super::dialogue::{Dialogue, invalid};
use super::world::World;

const CLAIMS: &str = "/api/v1/namespaces/default/persistentvolumeclaims";
const VOLUMES: &str = "/api/v1/persistentvolumes";
const STORAGE: &str = "/apis/storage.k8s.io/v1";
const DRIVER: &str = "disk.csi.example";
const SELECTED_NODE: &str = "volume.kubernetes.io/selected-node";

/// Claims that have a volume from the start.
const BOUND: usize = 16;
/// Claims that never get one.
const HOPELESS: usize = 2;
/// The volume controller answers in milliseconds; a machine under load takes seconds.
const BOUND_WITHIN: Duration = Duration::from_secs(60);

/// The claims that pods may use, and what is known of them.
pub struct Volumes {
    pub claims: Vec<String>,
    pub storage: Storage,
}

fn class(name: &str, mode: &str, topologies: Value) -> Value {
    json!({
        "metadata": { "name": name }, "provisioner": DRIVER, "volumeBindingMode": mode,
        "allowedTopologies": topologies,
    })
}

fn claim(world: &mut World, name: &str, class: &str, volume: Option<&str>) -> Value {
    let mode = if world.one_in(3) { "ReadWriteOncePod" } else { "ReadWriteMany" };
    let mut claim = json!({ "metadata": { "name": name }, "spec": {
        "accessModes": [mode], "storageClassName": class,
        "resources": { "requests": { "storage": "1Gi" } },
    } });
    if let Some(volume) = volume {
        claim["spec"]["volumeName"] = volume.into();
    }
    claim
}

/// A volume for `claim` as the API server has it.
fn volume(name: &str, claim: &Value) -> Value {
    json!({ "metadata": { "name": name }, "spec": {
        "accessModes": claim["spec"]["accessModes"],
        "storageClassName": claim["spec"]["storageClassName"],
        "capacity": { "storage": "1Gi" },
        "claimRef": {
            "namespace": "default", "name": claim["metadata"]["name"],
            "uid": claim["metadata"]["uid"],
        },
    } })
}

fn is_bound(claim: &Value) -> bool {
    claim["status"]["phase"] == "Bound"
        && claim["metadata"]["annotations"].get("pv.kubernetes.io/bind-completed").is_some()
}

impl Volumes {
    /// Makes all of it, for a run of `pods` pods.
    pub fn create(dialogue: &mut Dialogue, world: &mut World, pods: usize) -> io::Result<Self> {
        let mut this = Self { claims: Vec::new(), storage: Storage::default() };
        let node = json!({ "metadata": { "name": "node-00" }, "spec": { "drivers": [] } });
        this.add(dialogue, StorageKind::Node, &format!("{STORAGE}/csinodes"), &node)?;
        let somewhere = json!([
            { "matchLabelExpressions": [{ "key": "zone", "values": ["a", "b"] }] },
            { "matchLabelExpressions": [
                { "key": "tier", "values": ["5", "9"] }, { "key": "zone", "values": ["c"] },
            ] },
        ]);
        for class in [
            class("anywhere", "WaitForFirstConsumer", Value::Null),
            class("somewhere", "WaitForFirstConsumer", somewhere),
            class("at-once", "Immediate", Value::Null),
        ] {
            let path = format!("{STORAGE}/storageclasses");
            this.add(dialogue, StorageKind::Class, &path, &class)?;
        }
        for number in 0..BOUND {
            let (name, of) = (format!("bound-{number}"), format!("volume-{number}"));
            let claim = dialogue.create(CLAIMS, &claim(world, &name, "", Some(&of)))?;
            let volume = world.volume(volume(&of, &claim));
            dialogue.create(VOLUMES, &volume)?;
            this.claims.push(name);
        }
        // A volume that is made takes the scheduler about a second.
        for number in 0..(pods / 20).clamp(4, 40) {
            let name = format!("made-{number}");
            let class = world.pick(&["anywhere", "somewhere"]);
            dialogue.create(CLAIMS, &claim(world, &name, class, None))?;
            this.claims.push(name);
        }
        for number in 0..HOPELESS {
            let name = format!("hopeless-{number}");
            dialogue.create(CLAIMS, &claim(world, &name, "at-once", None))?;
            this.claims.push(name);
        }
        let end = Instant::now() + BOUND_WITHIN;
        for number in 0..BOUND {
            while !is_bound(&dialogue.get(&format!("{CLAIMS}/bound-{number}"))?) {
                if Instant::now() > end {
                    return Err(invalid(format!("bound-{number} is not bound")));
                }
                std::thread::yield_now();
            }
        }
        Ok(this)
    }

    fn add(
        &mut self,
        dialogue: &mut Dialogue,
        kind: StorageKind,
        path: &str,
        body: &Value,
    ) -> io::Result<()> {
        let object = dialogue.create(path, body)?;
        self.note(kind, &object);
        Ok(())
    }

    fn note(&mut self, kind: StorageKind, object: &Value) {
        let object = Decoder::default().storage(kind, Source::Value(object));
        self.storage.note(&Change::Upsert(object.expect("the API server's own objects are read")));
    }

    /// Looks up these claims and their volumes.
    pub fn look_up(&mut self, dialogue: &mut Dialogue, claims: &[String]) -> io::Result<()> {
        for name in claims {
            let claim = dialogue.get(&format!("{CLAIMS}/{name}"))?;
            self.note(StorageKind::Claim, &claim);
            if let Some(volume) = claim["spec"]["volumeName"].as_str() {
                let volume = dialogue.get(&format!("{VOLUMES}/{volume}"))?;
                self.note(StorageKind::Volume, &volume);
            }
        }
        Ok(())
    }

    /// Makes the volumes that the scheduler has chosen a node for, in the zone of that node.
    pub fn provision(
        dialogue: &mut Dialogue,
        claims: &[String],
        zone_of: impl Fn(&str) -> Option<String>,
    ) -> io::Result<()> {
        for name in claims.iter().filter(|name| name.starts_with("made-")) {
            let claim = dialogue.get(&format!("{CLAIMS}/{name}"))?;
            let node = claim["metadata"]["annotations"][SELECTED_NODE].as_str();
            let (Some(node), None) = (node, claim["spec"]["volumeName"].as_str()) else { continue };
            let mut volume = volume(&format!("volume-{name}"), &claim);
            volume["spec"]["csi"] = json!({ "driver": DRIVER, "volumeHandle": name });
            if let Some(zone) = zone_of(node) {
                volume["spec"]["nodeAffinity"] = json!({ "required": { "nodeSelectorTerms": [
                    { "matchExpressions": [{ "key": "zone", "operator": "In", "values": [zone] }] },
                ] } });
            }
            // It may be there already while its binding is under way.
            dialogue.create_or_keep(VOLUMES, &volume)?;
        }
        Ok(())
    }
}
