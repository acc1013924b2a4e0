//! Claims on devices, the slices that offer them, and their classes.

use std::sync::Arc;

use gpu_autoscaler_model::{
    AttributeValue, DeviceAllocation, DeviceClaim, DeviceClass, DeviceId, DeviceKind, DeviceObject,
    DeviceRequest, DeviceSelector, DeviceSlice, DeviceTest, NodeName, ObjectKey, OfferedDevice,
    Uid,
};

use super::{Decoder, Fault, Kind, ObjectError, Source, constraints};
use crate::intern::Interner;
use crate::wire;

/// Pods that may use one allocated claim.
const CONSUMERS_MAX: usize = 256;

impl Decoder {
    /// A claim on devices, a slice, or a class.
    ///
    /// # Errors
    /// [`ObjectError`] for a field that is missing or malformed.
    pub fn device(
        &mut self,
        kind: DeviceKind,
        from: Source<'_>,
    ) -> Result<DeviceObject, ObjectError> {
        let at = Fault { kind: Kind::Device(kind), from };
        let texts = &mut self.texts;
        Ok(match kind {
            DeviceKind::Claim => {
                let object: wire::DeviceClaim = at.read()?;
                let uid = at.uid(&object.metadata.uid)?;
                DeviceObject::Claim(claim(object, uid, texts))
            }
            DeviceKind::Slice => {
                let object: wire::DeviceSlice = at.read()?;
                let uid = at.uid(&object.metadata.uid)?;
                DeviceObject::Slice(slice(object.spec, uid, texts))
            }
            DeviceKind::Class => {
                let object: wire::DeviceClass = at.read()?;
                DeviceObject::Class(DeviceClass {
                    uid: at.uid(&object.metadata.uid)?,
                    name: texts.get(&object.metadata.name),
                    selectors: selectors(object.spec.selectors.as_deref(), texts),
                    extended_resource: object
                        .spec
                        .extended_resource_name
                        .map(|name| texts.get(&name)),
                })
            }
        })
    }
}

fn claim(object: wire::DeviceClaim, uid: Uid, texts: &mut Interner<str>) -> DeviceClaim {
    let meta = &object.metadata;
    let owner = meta.controller();
    let devices = &object.spec.devices;
    let requests = devices.requests.as_deref().unwrap_or_default();
    let is_plain = devices.constraints.iter().flatten().next().is_none();
    let requests: Option<Vec<DeviceRequest>> =
        requests.iter().map(|one| request(one, texts)).collect();
    let consumers = object.status.reserved_for.iter().flatten().count();
    let allocation = object.status.allocation.map(|one| {
        let results = one.devices.results.unwrap_or_default();
        let nodes: Option<Option<Vec<_>>> = one.node_selector.map(|selector| {
            let terms = selector.node_selector_terms.unwrap_or_default();
            terms.iter().map(|term| constraints::node_term(term, texts)).collect()
        });
        DeviceAllocation {
            exact: consumers < CONSUMERS_MAX
                && !matches!(nodes, Some(None))
                && results.iter().all(|one| one.binding_conditions.iter().flatten().count() == 0),
            devices: results
                .iter()
                .map(|one| DeviceId {
                    driver: texts.get(&one.driver),
                    pool: texts.get(&one.pool),
                    device: texts.get(&one.device),
                })
                .collect(),
            nodes: nodes.flatten(),
        }
    });
    DeviceClaim {
        uid,
        key: ObjectKey::new(
            texts.get(meta.namespace.as_deref().unwrap_or("")),
            texts.get(&meta.name),
        ),
        owner: owner.map(|owner| Uid::new(texts.get(&owner.uid))),
        deleting: meta.deletion_timestamp.is_some(),
        requests: requests.filter(|_| is_plain),
        allocation,
    }
}

/// A request, or `None` when it is more than a count of devices that pass selectors.
fn request(one: &wire::DeviceRequest, texts: &mut Interner<str>) -> Option<DeviceRequest> {
    let exactly = one.exactly.as_ref()?;
    let counts = matches!(exactly.allocation_mode.as_deref(), None | Some("ExactCount"));
    let is_plain = counts
        && exactly.admin_access != Some(true)
        && exactly.tolerations.iter().flatten().next().is_none()
        && exactly.capacity.is_none();
    is_plain.then_some(())?;
    Some(DeviceRequest {
        class: texts.get(&exactly.device_class_name),
        selectors: selectors(exactly.selectors.as_deref(), texts)?,
        count: exactly.count.unwrap_or(1),
    })
}

fn slice(spec: wire::DeviceSliceSpec, uid: Uid, texts: &mut Interner<str>) -> DeviceSlice {
    let driver = texts.get(&spec.driver);
    let devices = spec.devices.into_iter().flatten();
    DeviceSlice {
        uid,
        pool: texts.get(&spec.pool.name),
        pool_slices: spec.pool.resource_slice_count,
        node: spec.node_name.map(|name| NodeName::new(texts.get(&name))),
        devices: devices.map(|device| offered(device, &driver, texts)).collect(),
        driver,
    }
}

fn offered(device: wire::OfferedDevice, driver: &str, texts: &mut Interner<str>) -> OfferedDevice {
    let some = |list: &Option<Vec<serde::de::IgnoredAny>>| list.iter().flatten().count() > 0;
    let plain = !some(&device.consumes_counters)
        && !some(&device.taints)
        && !some(&device.binding_conditions)
        && device.allow_multiple_allocations != Some(true)
        && device.binds_to_node != Some(true)
        && device.node_name.is_none()
        && device.node_selector.is_none()
        && device.all_nodes.is_none();
    let mut attributes: Vec<(Arc<str>, AttributeValue)> = Vec::new();
    for (name, value) in device.attributes.into_iter().flatten() {
        // A name without a domain is of the driver's.
        let name = if name.contains('/') { name } else { format!("{driver}/{name}") };
        let value = match value {
            wire::DeviceAttribute { string: Some(text), .. } => {
                AttributeValue::Text(texts.get(&text))
            }
            wire::DeviceAttribute { int: Some(number), .. } => AttributeValue::Integer(number),
            wire::DeviceAttribute { bool: Some(set), .. } => AttributeValue::Bool(set),
            _ => AttributeValue::Other,
        };
        attributes.push((texts.get(&name), value));
    }
    attributes.sort();
    OfferedDevice { name: texts.get(&device.name), attributes, plain }
}

/// All selectors, or `None` when one has not the covered form.
fn selectors(
    selectors: Option<&[wire::DeviceSelector]>,
    texts: &mut Interner<str>,
) -> Option<Vec<DeviceSelector>> {
    let read = |one: &wire::DeviceSelector| expression(&one.cel.as_ref()?.expression, texts);
    selectors.unwrap_or_default().iter().map(read).collect()
}

/// A CEL expression of comparisons joined by `&&`; `None` for every other.
fn expression(text: &str, texts: &mut Interner<str>) -> Option<DeviceSelector> {
    // Operators and quotes within a text would need a parser; such an expression is not covered.
    let mut tests = Vec::new();
    for part in text.split("&&") {
        let (left, right) = part.split_once("==")?;
        let value = literal(right.trim(), texts)?;
        let left = left.trim();
        if left == "device.driver" {
            let AttributeValue::Text(name) = value else { return None };
            tests.push(DeviceTest::Driver(name));
            continue;
        }
        let rest = left.strip_prefix("device.attributes[")?;
        let (domain, name) = rest.split_once("].")?;
        let AttributeValue::Text(domain) = literal(domain.trim(), texts)? else { return None };
        let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
        if name.is_empty() || !name.chars().all(is_name) {
            return None;
        }
        let name = texts.get(&format!("{domain}/{name}"));
        tests.push(DeviceTest::Attribute { name, value });
    }
    tests.sort();
    tests.dedup();
    Some(DeviceSelector(tests))
}

fn literal(text: &str, texts: &mut Interner<str>) -> Option<AttributeValue> {
    for quote in ['"', '\''] {
        if let Some(rest) = text.strip_prefix(quote) {
            let inner = rest.strip_suffix(quote)?;
            let plain = !inner.contains(['"', '\'', '\\']);
            return plain.then(|| AttributeValue::Text(texts.get(inner)));
        }
    }
    match text {
        "true" => Some(AttributeValue::Bool(true)),
        "false" => Some(AttributeValue::Bool(false)),
        // CEL reads a leading `+` or zeros otherwise than Rust.
        _ => text
            .parse::<i64>()
            .ok()
            .filter(|number| number.to_string() == text)
            .map(AttributeValue::Integer),
    }
}

#[cfg(test)]
mod tests;
