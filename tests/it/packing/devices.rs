//! Devices on the real control plane (dynamic resource allocation): slices of some nodes, two
//! classes, and claims that pods share.

use std::io;
use std::time::{Duration, Instant};

use gpu_autoscaler_k8s::decode::{Decoder, Source};
use gpu_autoscaler_model::{Change, DeviceKind};
use gpu_autoscaler_planner::devices::Devices;
use serde_json::{Value, json};

use super::dialogue::{Dialogue, invalid};
use super::world::World;

const DRIVER: &str = "gpu.nvidia.com";
const API: &str = "/apis/resource.k8s.io/v1";
const CLAIMS: &str = "/apis/resource.k8s.io/v1/namespaces/default/resourceclaims";

/// Claims of each class.
const CLAIMS_OF_CLASS: usize = 8;
/// The claim controller answers in milliseconds; a machine under load takes seconds.
const GIVEN_BACK_WITHIN: Duration = Duration::from_secs(60);

/// The claims that pods may use, and what is known of all devices.
pub struct Claimable {
    pub gpus: Vec<String>,
    pub slices: Vec<String>,
    pub devices: Devices,
}

fn equals(attribute: &str, value: &str) -> String {
    format!("device.attributes['{DRIVER}'].{attribute} == '{value}'")
}

fn class(name: &str, kind: &str) -> Value {
    let cel = format!("device.driver == '{DRIVER}' && {}", equals("type", kind));
    json!({
        "metadata": { "name": name }, "spec": { "selectors": [{ "cel": { "expression": cel } }] },
    })
}

/// The devices of `node`: some GPUs of two products, some MIG instances of two profiles.
fn slice(world: &mut World, node: &str) -> Value {
    let mut devices = Vec::new();
    let (gpus, slices) = (1 + world.below(3), world.below(4));
    for number in 0..gpus {
        devices.push(json!({ "name": format!("gpu-{number}"), "attributes": {
            "type": { "string": "gpu" }, "productName": { "string": world.pick(&["A100", "T4"]) },
        } }));
    }
    for number in 0..slices {
        devices.push(json!({ "name": format!("mig-{number}"), "attributes": {
            "type": { "string": "mig" }, "profile": { "string": world.pick(&["1g.5gb", "2g.10gb"]) },
        } }));
    }
    json!({ "metadata": { "name": format!("slice-{node}") }, "spec": {
        "driver": DRIVER, "nodeName": node, "devices": devices,
        "pool": { "name": node, "generation": 1, "resourceSliceCount": 1 },
    } })
}

fn claim(world: &mut World, name: &str, class: &str, choices: (&str, [&str; 2])) -> Value {
    let (attribute, values) = choices;
    let count = 1 + world.below(2);
    let mut exactly = json!({
        "deviceClassName": class, "allocationMode": "ExactCount", "count": count,
    });
    if world.one_in(2) {
        let cel = equals(attribute, world.pick(&values));
        exactly["selectors"] = json!([{ "cel": { "expression": cel } }]);
    }
    json!({ "metadata": { "name": name }, "spec": {
        "devices": { "requests": [{ "name": "main", "exactly": exactly }] },
    } })
}

impl Claimable {
    /// Makes all of it; three of four nodes offer devices.
    pub fn create(dialogue: &mut Dialogue, world: &mut World, nodes: usize) -> io::Result<Self> {
        let mut this = Self { gpus: Vec::new(), slices: Vec::new(), devices: Devices::default() };
        for (name, kind) in [("gpu.nvidia.com", "gpu"), ("mig.nvidia.com", "mig")] {
            let class = dialogue.create(&format!("{API}/deviceclasses"), &class(name, kind))?;
            this.note(DeviceKind::Class, &class);
        }
        for index in (0..nodes).filter(|index| index % 4 > 0) {
            let slice = slice(world, &format!("node-{index:02}"));
            let slice = dialogue.create(&format!("{API}/resourceslices"), &slice)?;
            this.note(DeviceKind::Slice, &slice);
        }
        for number in 0..CLAIMS_OF_CLASS {
            let (gpu, mig) = (format!("gpu-{number}"), format!("mig-{number}"));
            let products = ("productName", ["A100", "T4"]);
            dialogue.create(CLAIMS, &claim(world, &gpu, "gpu.nvidia.com", products))?;
            let profiles = ("profile", ["1g.5gb", "2g.10gb"]);
            dialogue.create(CLAIMS, &claim(world, &mig, "mig.nvidia.com", profiles))?;
            this.gpus.push(gpu);
            this.slices.push(mig);
        }
        Ok(this)
    }

    fn note(&mut self, kind: DeviceKind, object: &Value) {
        let object = Decoder::default().device(kind, Source::Value(object));
        self.devices.note(&Change::Upsert(object.expect("the API server's own objects are read")));
    }

    /// Claims for one pod, mostly none; never two of one class, which could ask for one device.
    pub fn choose(&self, world: &mut World) -> Vec<String> {
        let mut chosen = Vec::new();
        for of_class in [&self.gpus, &self.slices] {
            if world.one_in(6) {
                chosen.push(of_class[world.below(of_class.len())].clone());
            }
        }
        chosen
    }

    /// Looks up all claims: those of other pods say which devices are taken.
    pub fn look_up(&mut self, dialogue: &mut Dialogue) -> io::Result<()> {
        let list = dialogue.get(CLAIMS)?;
        for claim in list["items"].as_array().into_iter().flatten() {
            self.note(DeviceKind::Claim, claim);
        }
        Ok(())
    }

    /// Waits until claims without a user have given their devices back.
    pub fn given_back(dialogue: &mut Dialogue, unused: &[String]) -> io::Result<()> {
        let end = Instant::now() + GIVEN_BACK_WITHIN;
        for name in unused {
            while !dialogue.get(&format!("{CLAIMS}/{name}"))?["status"]["allocation"].is_null() {
                if Instant::now() > end {
                    return Err(invalid(format!("claim {name} keeps its devices")));
                }
                std::thread::yield_now();
            }
        }
        Ok(())
    }
}
