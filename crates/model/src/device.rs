//! Claims on devices and the slices that offer them (dynamic resource allocation), as far as they
//! keep a pod from nodes.
//!
//! Source of the semantics: kube-scheduler 1.36, plugin DynamicResources, and the allocator of
//! `k8s.io/dynamic-resource-allocation` 0.36.

use std::fmt;
use std::sync::Arc;

use crate::{NodeName, NodeSelectorTerm, ObjectKey, Uid};

/// An object of `resource.k8s.io/v1`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceObject {
    /// A ResourceClaim.
    Claim(DeviceClaim),
    /// A ResourceSlice.
    Slice(DeviceSlice),
    /// A DeviceClass.
    Class(DeviceClass),
}

/// Kinds of [`DeviceObject`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DeviceKind {
    /// ResourceClaim.
    Claim,
    /// ResourceSlice.
    Slice,
    /// DeviceClass.
    Class,
}

impl DeviceKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Claim, Self::Slice, Self::Class];

    /// As Kubernetes spells it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Claim => "ResourceClaim",
            Self::Slice => "ResourceSlice",
            Self::Class => "DeviceClass",
        }
    }
}

/// A ResourceClaim.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClaim {
    /// Its uid.
    pub uid: Uid,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The controller that owns it: the pod that it was made for from a template.
    pub owner: Option<Uid>,
    /// It is being deleted.
    pub deleting: bool,
    /// What it asks for; `None` when that is not covered exactly.
    pub requests: Option<Vec<DeviceRequest>>,
    /// What it has.
    pub allocation: Option<DeviceAllocation>,
}

/// So many devices of one kind (`exactly` with `allocationMode: ExactCount`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceRequest {
    /// The name of the class.
    pub class: Arc<str>,
    /// Its own selectors, in order; a device must pass all of them.
    pub selectors: Vec<DeviceSelector>,
    /// How many.
    pub count: u64,
}

/// What a claim has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceAllocation {
    /// The devices.
    pub devices: Vec<DeviceId>,
    /// The nodes where they can be used: one of these must match; `None` for all nodes.
    pub nodes: Option<Vec<NodeSelectorTerm>>,
    /// What of it packing covers exactly: no device waits for conditions, the nodes can be read,
    /// and one more pod may use it.
    pub exact: bool,
}

/// A device of the cluster.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceId {
    /// Its driver.
    pub driver: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// Its name in the pool.
    pub device: Arc<str>,
}

/// A ResourceSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSlice {
    /// Its uid.
    pub uid: Uid,
    /// The driver of its devices.
    pub driver: Arc<str>,
    /// Its pool.
    pub pool: Arc<str>,
    /// The slices of its pool.
    pub pool_slices: u64,
    /// The node of its devices; `None` when they are of several.
    pub node: Option<NodeName>,
    /// Its devices.
    pub devices: Vec<OfferedDevice>,
}

/// A device of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfferedDevice {
    /// Its name in the pool.
    pub name: Arc<str>,
    /// Its attributes by `domain/name`, sorted.
    pub attributes: Vec<(Arc<str>, AttributeValue)>,
    /// One claim has all of it and nothing else decides: no counters that it shares with others,
    /// no taints, no conditions, no node of its own.
    pub plain: bool,
}

/// The value of an attribute.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum AttributeValue {
    /// A text.
    Text(Arc<str>),
    /// A whole number.
    Integer(i64),
    /// True or false.
    Bool(bool),
    /// A version, or something that is not known: not compared here.
    Other,
}

/// A DeviceClass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceClass {
    /// Its uid.
    pub uid: Uid,
    /// Its name.
    pub name: Arc<str>,
    /// Its selectors; `None` when one is not covered exactly.
    pub selectors: Option<Vec<DeviceSelector>>,
    /// The extended resource that its devices serve as well.
    pub extended_resource: Option<Arc<str>>,
}

/// A CEL expression of the covered form: comparisons joined by `&&`, all of which must hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceSelector(pub Vec<DeviceTest>);

/// One comparison.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeviceTest {
    /// `device.driver == "..."`.
    Driver(Arc<str>),
    /// `device.attributes["domain"].name == ...`.
    Attribute {
        /// `domain/name`.
        name: Arc<str>,
        /// The value, never [`AttributeValue::Other`].
        value: AttributeValue,
    },
}

impl DeviceTest {
    /// Whether a device of `driver` passes; `None` where the expression fails: the attribute is
    /// not there, or of another type.
    pub fn holds(&self, driver: &str, device: &OfferedDevice) -> Option<bool> {
        match self {
            Self::Driver(name) => Some(**name == *driver),
            Self::Attribute { name, value } => {
                let at = device.attributes.binary_search_by(|(key, _)| key.cmp(name)).ok()?;
                let found = &device.attributes[at].1;
                (std::mem::discriminant(found) == std::mem::discriminant(value))
                    .then(|| found == value)
            }
        }
    }
}

impl DeviceSelector {
    /// Whether a device of `driver` passes; `None` where the expression fails. As in CEL, a part
    /// that is false decides even beside one that fails.
    pub fn holds(&self, driver: &str, device: &OfferedDevice) -> Option<bool> {
        let mut all = Some(true);
        for test in &self.0 {
            match test.holds(driver, device) {
                Some(false) => return Some(false),
                Some(true) => {}
                None => all = None,
            }
        }
        all
    }
}

impl DeviceObject {
    /// Its uid.
    pub const fn uid(&self) -> &Uid {
        match self {
            Self::Claim(claim) => &claim.uid,
            Self::Slice(slice) => &slice.uid,
            Self::Class(class) => &class.uid,
        }
    }
}

impl fmt::Display for DeviceTest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Driver(name) => write!(f, "driver={name}"),
            Self::Attribute { name, value } => match value {
                AttributeValue::Text(text) => write!(f, "{name}={text}"),
                AttributeValue::Integer(number) => write!(f, "{name}={number}"),
                AttributeValue::Bool(set) => write!(f, "{name}={set}"),
                AttributeValue::Other => write!(f, "{name}=?"),
            },
        }
    }
}
