//! What a pod requests, from what its containers request.

use std::collections::BTreeMap;

use gpu_autoscaler_model::{GpuCount, GpuResource, NodeSharing, Resources};

use crate::intern::Interner;
use crate::quantity::{Quantity, QuantityText};
use crate::wire::{Container, ContainerResources, PodSpec};

/// A field's path, and what is wrong with its value.
type FieldFault = (String, String);

/// Amounts by resource name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amounts(BTreeMap<String, Quantity>);

impl Amounts {
    /// From an object's map.
    ///
    /// # Errors
    /// The resource whose amount cannot be read or is negative, and why.
    pub(crate) fn read(map: Option<BTreeMap<String, QuantityText>>) -> Result<Self, FieldFault> {
        let mut amounts = BTreeMap::new();
        for (name, QuantityText(text)) in map.into_iter().flatten() {
            amounts.insert(name.clone(), read_amount(&text).map_err(|why| (name, why))?);
        }
        Ok(Self(amounts))
    }

    /// A plain count such as `pods`.
    pub(crate) fn count(&self, name: &str) -> Option<u64> {
        self.0.get(name)?.as_count()
    }

    /// Physical GPUs as the device plugin counts them, replicas divided out under either name.
    pub(crate) fn whole_gpus(&self, sharing: Option<NodeSharing>) -> Option<u32> {
        let listed = u32::try_from(self.count("nvidia.com/gpu")?).ok()?;
        let Some(NodeSharing { replicas, .. }) = sharing else { return Some(listed) };
        let (whole, shared) = match self.0.get("nvidia.com/gpu.shared") {
            Some(renamed) => (listed, u32::try_from(renamed.as_count()?).ok()?),
            None => (0, listed),
        };
        (shared % replicas == 0).then(|| whole + shared / replicas)
    }

    fn add(&mut self, other: &Self) -> Result<(), FieldFault> {
        for (name, amount) in &other.0 {
            let sum = self.0.entry(name.clone()).or_insert(Quantity::ZERO);
            *sum = sum
                .checked_add(*amount)
                .ok_or_else(|| (name.clone(), "the sum is beyond 1.7e29".to_owned()))?;
        }
        Ok(())
    }

    fn raise_to(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            let most = self.0.entry(name.clone()).or_insert(Quantity::ZERO);
            *most = (*most).max(*amount);
        }
    }

    /// In the words of `model`.
    ///
    /// # Errors
    /// The resource whose amount is no count or does not fit, and why.
    pub(crate) fn into_resources(self, texts: &mut Interner<str>) -> Result<Resources, FieldFault> {
        let mut read = Resources::default();
        for (name, amount) in self.0 {
            let too_large = |what: &str| (name.clone(), format!("does not fit in {what}"));
            match name.as_str() {
                "cpu" => {
                    read.cpu = amount.as_milli_cpu().ok_or_else(|| too_large("milli-CPU"))?;
                }
                "memory" => read.memory = amount.as_bytes().ok_or_else(|| too_large("bytes"))?,
                _ if is_counted_in_bytes(&name) => {
                    let bytes = amount.as_bytes().ok_or_else(|| too_large("bytes"))?.as_u64();
                    if bytes > 0 {
                        read.extended.push((texts.get(&name), bytes));
                    }
                }
                _ if is_extended(&name) => {
                    let count =
                        amount.as_count().ok_or_else(|| (name.clone(), NO_COUNT.to_owned()))?;
                    add_extended(&mut read, &name, count, texts)
                        .ok_or_else(|| too_large("a count of GPUs"))?;
                }
                _ => {}
            }
        }
        read.gpus.sort_by(|a, b| a.resource.cmp(&b.resource));
        Ok(read)
    }
}

const NO_COUNT: &str = "is no whole count of devices";

fn read_amount(text: &str) -> Result<Quantity, String> {
    let amount: Quantity =
        text.parse().map_err(|error: crate::quantity::ParseQuantityError| error.to_string())?;
    if amount < Quantity::ZERO {
        return Err(format!("`{}` is negative", crate::decode::clip(text, 64)));
    }
    Ok(amount)
}

/// Resources of Kubernetes' own that the scheduler counts beside processor and memory.
fn is_counted_in_bytes(name: &str) -> bool {
    name == "ephemeral-storage" || name.starts_with("hugepages-")
}

/// Extended resources are those with a domain that is not Kubernetes' own.
fn is_extended(name: &str) -> bool {
    name.split_once('/')
        .is_some_and(|(domain, _)| domain != "kubernetes.io" && !domain.ends_with(".kubernetes.io"))
}

/// Adds `count` of `name`; `None` when GPUs of one kind do not fit in 32 bits.
fn add_extended(
    read: &mut Resources,
    name: &str,
    count: u64,
    texts: &mut Interner<str>,
) -> Option<()> {
    if count == 0 {
        return Some(());
    }
    let Some(resource) = GpuResource::parse(name) else {
        read.extended.push((texts.get(name), count));
        return Some(());
    };
    let count = u32::try_from(count).ok()?;
    // Two spellings of one resource meet here.
    match read.gpus.iter_mut().find(|gpu| gpu.resource == resource) {
        Some(gpu) => gpu.count = gpu.count.checked_add(count)?,
        None => read.gpus.push(GpuCount { resource, count }),
    }
    Some(())
}

/// What the scheduler reserves for the pod.
///
/// Source: `PodRequests` of `k8s.io/component-helpers/resource`: the larger of each init
/// container's and the sum of all containers', where an init container that restarts always (a
/// sidecar) adds to every later one and to the sum; what the pod itself requests replaces that
/// for cpu, memory and huge pages; overhead comes on top.
///
/// # Errors
/// The path of the field that cannot be read, and why.
pub(crate) fn of_pod(spec: &PodSpec, texts: &mut Interner<str>) -> Result<Resources, FieldFault> {
    let mut running = Amounts::default();
    for (index, container) in spec.containers.iter().flatten().enumerate() {
        let field = format!("spec.containers[{index}]");
        let amounts = of_container(&container.resources, &field)?;
        running.add(&amounts).map_err(|fault| within(&field, fault))?;
    }
    let mut sidecars = Amounts::default();
    let mut starting = Amounts::default();
    for (index, container) in spec.init_containers.iter().flatten().enumerate() {
        let field = format!("spec.initContainers[{index}]");
        let mut amounts = of_container(&container.resources, &field)?;
        if is_sidecar(container) {
            running.add(&amounts).map_err(|fault| within(&field, fault))?;
            sidecars.add(&amounts).map_err(|fault| within(&field, fault))?;
            starting.raise_to(&sidecars);
        } else {
            amounts.add(&sidecars).map_err(|fault| within(&field, fault))?;
            starting.raise_to(&amounts);
        }
    }
    running.raise_to(&starting);
    if let Some(own) = &spec.resources {
        for (name, amount) in of_container(own, "spec")?.0 {
            if name == "cpu" || name == "memory" || name.starts_with("hugepages-") {
                running.0.insert(name, amount);
            }
        }
    }
    let overhead =
        Amounts::read(spec.overhead.clone()).map_err(|fault| within("spec.overhead", fault))?;
    running.add(&overhead).map_err(|fault| within("spec.overhead", fault))?;
    let resources = running.into_resources(texts);
    resources.map_err(|fault| within("spec.containers[*].resources.requests", fault))
}

fn within(field: &str, (name, why): FieldFault) -> FieldFault {
    (format!("{field}.{name}"), why)
}

fn is_sidecar(container: &Container) -> bool {
    container.restart_policy.as_deref() == Some("Always")
}

/// A container's requests; a limit without a request is a request, as the API server has it.
fn of_container(resources: &ContainerResources, field: &str) -> Result<Amounts, FieldFault> {
    let mut amounts = Amounts::read(resources.limits.clone())
        .map_err(|fault| within(&format!("{field}.resources.limits"), fault))?;
    let requests = Amounts::read(resources.requests.clone())
        .map_err(|fault| within(&format!("{field}.resources.requests"), fault))?;
    amounts.0.extend(requests.0);
    Ok(amounts)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use gpu_autoscaler_model::{Bytes, MilliCpu};
    use serde_json::json;

    use super::*;

    fn requests(spec: serde_json::Value) -> Result<Resources, FieldFault> {
        let spec: PodSpec = serde_json::from_value(spec).expect("well formed");
        of_pod(&spec, &mut Interner::<str>::default())
    }

    fn cpu(name: &str, cpu: &str) -> serde_json::Value {
        json!({"name": name, "resources": {"requests": {"cpu": cpu}}})
    }

    fn milli(milli: u64) -> MilliCpu {
        MilliCpu::new(milli)
    }

    #[test]
    fn the_larger_of_init_and_running_counts() {
        let spec = json!({
            "initContainers": [cpu("a", "3"), cpu("b", "1")],
            "containers": [cpu("c", "1"), cpu("d", "500m")],
        });
        assert_eq!(requests(spec).expect("valid").cpu, milli(3000));
    }

    #[test]
    fn a_sidecar_adds_to_the_sum_and_to_every_later_init_container() {
        let mut sidecar = cpu("proxy", "1");
        sidecar["restartPolicy"] = "Always".into();
        let spec = json!({
            "initContainers": [cpu("before", "3"), sidecar, cpu("after", "3")],
            "containers": [cpu("main", "2")],
        });
        assert_eq!(requests(spec).expect("valid").cpu, milli(4000), "1 + 3 while `after` runs");
    }

    #[test]
    fn overhead_comes_on_top_and_pod_level_requests_replace() {
        let spec = json!({
            "containers": [cpu("main", "2")],
            "resources": {"requests": {"cpu": "1", "memory": 1024}},
            "overhead": {"cpu": "250m", "memory": "1Ki"},
        });
        let read = requests(spec).expect("valid");
        assert_eq!((read.cpu, read.memory), (milli(1250), Bytes::new(2048)));
    }

    #[test]
    fn gpus_are_sorted_summed_and_never_zero() {
        let gpu = |limits: serde_json::Value| json!({"name": "x", "resources": {"limits": limits}});
        let spec = json!({"containers": [
            gpu(json!({"nvidia.com/mig-1g.5gb": "1", "nvidia.com/gpu": 0})),
            gpu(json!({"nvidia.com/gpu.shared": "1", "nvidia.com/gpu-shared": "1"})),
            gpu(json!({"rdma/hca": "2", "pods": "1", "example.kubernetes.io/x": "1"})),
        ]});
        let read = requests(spec).expect("valid");
        let gpus: Vec<_> = read.gpus.iter().map(|g| (g.resource.to_string(), g.count)).collect();
        let expected =
            [("nvidia.com/gpu.shared".to_owned(), 2), ("nvidia.com/mig-1g.5gb".to_owned(), 1)];
        assert_eq!(gpus, expected);
        assert_eq!(read.extended, [(Arc::from("rdma/hca"), 2)]);
    }

    #[test]
    fn a_malformed_amount_is_named_with_its_path() {
        let spec = json!({"containers": [cpu("a", "1"), cpu("b", "12x")]});
        let (field, why) = requests(spec).expect_err("malformed");
        assert_eq!(field, "spec.containers[1].resources.requests.cpu");
        assert!(why.contains("`12x`"), "{why}");
        let spec = json!({"containers": [
            {"name": "a", "resources": {"limits": {"nvidia.com/gpu": "500m"}}},
        ]});
        let (field, why) = requests(spec).expect_err("half a GPU");
        assert_eq!(field, "spec.containers[*].resources.requests.nvidia.com/gpu");
        assert_eq!(why, NO_COUNT);
        assert!(requests(json!({"overhead": {"cpu": "-1"}})).is_err(), "negative");
    }

    #[test]
    fn replicas_are_divided_out_under_either_name() {
        let amounts = |pairs: &[(&str, &str)]| {
            let map = pairs.iter().map(|(k, v)| ((*k).to_owned(), QuantityText((*v).to_owned())));
            Amounts::read(Some(map.collect())).expect("valid")
        };
        let strategy = gpu_autoscaler_model::SharingStrategy::TimeSlicing;
        let shared = Some(NodeSharing { strategy, replicas: 4 });
        assert_eq!(amounts(&[("nvidia.com/gpu", "8")]).whole_gpus(None), Some(8));
        assert_eq!(amounts(&[("nvidia.com/gpu", "8")]).whole_gpus(shared), Some(2));
        assert_eq!(amounts(&[("nvidia.com/gpu", "7")]).whole_gpus(shared), None);
        let renamed = amounts(&[("nvidia.com/gpu", "0"), ("nvidia.com/gpu.shared", "8")]);
        assert_eq!(renamed.whole_gpus(shared), Some(2));
        assert_eq!(amounts(&[]).whole_gpus(None), None);
    }
}
