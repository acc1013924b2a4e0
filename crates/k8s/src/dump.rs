//! What `kubectl get nodes,pods,pdb -A -o yaml` prints, into a `model::Delta`.
//!
//! JSON and YAML, one list or several documents, our own resources included. Objects of other
//! kinds are counted and left out.

mod yaml_object;

use std::collections::BTreeMap;
use std::fmt;
use std::io::Read;
use std::marker::PhantomData;

use gpu_autoscaler_model::{
    AnnouncedEvent, Change, Delta, DeviceKind, DeviceObject, DisruptionBudget, Node, Pod,
    PolicyKind, PolicyObject, StorageKind, StorageObject,
};
use serde::de::{Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::{Map, Value};

use crate::decode::{Decoder, Identity, Kind, ObjectError, Source, clip};
use crate::{API_VERSION, REPORTING_COMPONENT};
use yaml_object::Place;

/// Largest dump that is read: 10,000 pods print about 100 MB.
pub const DUMP_BYTES_MAX: usize = 1 << 30;

/// A dump, read.
#[derive(Debug, Default)]
pub struct Dump {
    /// Every object that could be read, in the order of the dump.
    pub delta: Delta,
    /// Every object that could not.
    pub faults: Vec<ObjectError>,
    /// Objects of kinds that are not read, by kind.
    pub other_kinds: BTreeMap<String, usize>,
}

/// Text that is no dump.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// Reading failed.
    #[error("cannot read the dump")]
    Io(#[source] std::io::Error),
    /// More than is read.
    #[error("the dump is larger than {limit} bytes; dump fewer namespaces at a time")]
    TooLarge {
        /// The most that is read, in bytes.
        limit: usize,
    },
    /// Nothing in it.
    #[error("the dump is empty; `kubectl get nodes,pods,pdb -A -o yaml` prints one")]
    Empty,
    /// It ends within an object or a list.
    #[error("the dump ends early, within document {document} ({why}); dump the cluster again")]
    Truncated {
        /// Which document, counted from 1.
        document: usize,
        /// How that shows.
        why: String,
    },
    /// Neither JSON nor YAML.
    #[error("document {document} of the dump is neither JSON nor YAML: {why}")]
    Malformed {
        /// Which document, counted from 1.
        document: usize,
        /// Where and why.
        why: String,
    },
}

/// Reads a dump.
///
/// # Errors
/// [`DumpError`] when the text as a whole cannot be read. A malformed object is no error: it is
/// named in [`Dump::faults`].
pub fn read(from: impl Read) -> Result<Dump, DumpError> {
    let mut text = Vec::new();
    let limit = DUMP_BYTES_MAX;
    from.take(limit as u64 + 1).read_to_end(&mut text).map_err(DumpError::Io)?;
    if text.len() > limit {
        return Err(DumpError::TooLarge { limit });
    }
    parse(&text)
}

/// Reads a dump that lies in memory.
///
/// # Errors
/// As [`read`].
pub fn parse(text: &[u8]) -> Result<Dump, DumpError> {
    let mut dump = Dump::default();
    let documents = match text.iter().find(|byte| !byte.is_ascii_whitespace()) {
        None => return Err(DumpError::Empty),
        Some(b'{') => parse_json(text, &mut dump)?,
        Some(_) => {
            begins_with_field(text)?;
            parse_yaml(text, &mut dump)?
        }
    };
    if documents == 0 { Err(DumpError::Empty) } else { Ok(dump) }
}

fn parse_json(text: &[u8], dump: &mut Dump) -> Result<usize, DumpError> {
    let mut documents = 0;
    for document in serde_json::Deserializer::from_slice(text).into_iter::<Document<Json>>() {
        documents += 1;
        let document = document.map_err(|error| {
            let why = error.to_string();
            if error.is_eof() {
                DumpError::Truncated { document: documents, why }
            } else {
                DumpError::Malformed { document: documents, why }
            }
        })?;
        // A JSON document that ends early never gets here.
        dump.take(document);
    }
    Ok(documents)
}

/// Refuses text that is no object from its first line on: whatever it is, more of it would be none.
fn begins_with_field(text: &[u8]) -> Result<(), DumpError> {
    let lines = text.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii);
    let first = lines
        .filter(|line| !line.is_empty() && !line.starts_with(b"#") && !line.starts_with(b"%"))
        .find(|line| !line.starts_with(b"---"));
    match first {
        Some(line) if !line.contains(&b':') && !line.starts_with(b"{") => {
            let shown = clip(&String::from_utf8_lossy(line), 64);
            let why = format!("`{shown}` is no field of an object");
            Err(DumpError::Malformed { document: 1, why })
        }
        _ => Ok(()),
    }
}

fn parse_yaml(mut text: &[u8], dump: &mut Dump) -> Result<usize, DumpError> {
    let last_line = text.iter().filter(|byte| **byte == b'\n').count() as u64;
    let mut documents = 0;
    for document in serde_saphyr::read_with_options::<_, Document<Yaml>>(&mut text, yaml_options())
    {
        documents += 1;
        let document = document.map_err(|error| {
            let why = clip(error.without_snippet().to_string().lines().next().unwrap_or(""), 256);
            let at_end = error.location().is_some_and(|at| at.line() + 1 >= last_line);
            if at_end || matches!(error.without_snippet(), serde_saphyr::Error::Eof { .. }) {
                DumpError::Truncated { document: documents, why }
            } else {
                DumpError::Malformed { document: documents, why }
            }
        })?;
        if document.ends_early() {
            let why = "its list has items but no `kind`, which kubectl prints after them".into();
            return Err(DumpError::Truncated { document: documents, why });
        }
        dump.take(document);
    }
    Ok(documents)
}

/// Limits for a large list of plain objects; kubectl never prints an alias.
fn yaml_options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(DUMP_BYTES_MAX),
            max_events: 200_000_000,
            max_nodes: 200_000_000,
            max_total_scalar_bytes: DUMP_BYTES_MAX,
            max_documents: 1_000_000,
            max_aliases: 1_000,
            max_depth: 100,
        },
        // No field that is read is a float: text that looks like one beyond all bounds is kept.
        non_finite_float_policy: serde_saphyr::options::NonFiniteFloatPolicy::AsString,
        with_snippet: false,
    }
}

impl Dump {
    fn take<F>(&mut self, document: Document<F>) {
        match document.items {
            Some(items) => {
                let list_kind = document.fields.get("kind").and_then(Value::as_str).unwrap_or("");
                let kind = list_kind.strip_suffix("List").unwrap_or("");
                let version = document.fields.get("apiVersion").and_then(Value::as_str);
                for item in items {
                    match item {
                        Item::Read(object) => self.take_object(object),
                        Item::Kindless(value, _) => {
                            self.take_object(Object::read(version.unwrap_or(""), kind, &value));
                        }
                    }
                }
            }
            None => self.take_object(Object::of(&Value::Object(document.fields))),
        }
    }

    fn take_object(&mut self, object: Object) {
        let delta = &mut self.delta;
        match object {
            Object::Node(node) => delta.nodes.push(Change::Upsert(*node)),
            Object::Pod(pod) => delta.pods.push(Change::Upsert(*pod)),
            Object::Budget(budget) => delta.budgets.push(Change::Upsert(budget)),
            Object::Event(event) => delta.events.push(Change::Upsert(event)),
            Object::Storage(object) => delta.storage.push(Change::Upsert(object)),
            Object::Device(object) => delta.devices.push(Change::Upsert(object)),
            Object::Policy(policy) => delta.policies.push(Change::Upsert(policy)),
            Object::Other(kind) => *self.other_kinds.entry(kind).or_insert(0) += 1,
            Object::Fault(fault) => self.faults.push(fault),
        }
    }
}

/// JSON: what a value is stands in the text.
struct Json;

/// YAML: what a value is must be asked for.
struct Yaml;

/// How one object is read from a format.
trait Format {
    fn object<'de, D: Deserializer<'de>>(from: D, place: Place) -> Result<Value, D::Error>;
}

impl Format for Json {
    fn object<'de, D: Deserializer<'de>>(from: D, _: Place) -> Result<Value, D::Error> {
        Value::deserialize(from)
    }
}

impl Format for Yaml {
    fn object<'de, D: Deserializer<'de>>(from: D, place: Place) -> Result<Value, D::Error> {
        place.deserialize(from)
    }
}

/// A document: a list whose items are read one after another, or one object.
struct Document<F> {
    items: Option<Vec<Item<F>>>,
    fields: Map<String, Value>,
}

impl<F> Document<F> {
    fn ends_early(&self) -> bool {
        self.items.is_some() && !self.fields.contains_key("kind")
    }
}

impl<'de, F: Format> Deserialize<'de> for Document<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Fields<F>(PhantomData<F>);
        impl<'de, F: Format> Visitor<'de> for Fields<F> {
            type Value = Document<F>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a Kubernetes object or a list of them")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Document<F>, A::Error> {
                let mut document = Document { items: None, fields: Map::new() };
                while let Some(field) = map.next_key::<String>()? {
                    if field == "items" {
                        document.items = Some(map.next_value::<Option<_>>()?.unwrap_or_default());
                    } else {
                        let value = map.next_value_seed(Field::<F>::below(&field))?;
                        document.fields.insert(field, value);
                    }
                }
                Ok(document)
            }
        }
        from.deserialize_map(Fields(PhantomData))
    }
}

/// One field of an object that may turn out to be a list.
struct Field<F> {
    place: Place,
    format: PhantomData<F>,
}

impl<F> Field<F> {
    fn below(field: &str) -> Self {
        Self { place: Place::Object.below(field), format: PhantomData }
    }
}

impl<'de, F: Format> DeserializeSeed<'de> for Field<F> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Value, D::Error> {
        F::object(from, self.place)
    }
}

/// An item of a list. It is decoded at once, so that no more than one is held whole.
enum Item<F> {
    Read(Object),
    /// The API server leaves the kind out of the items of a typed list.
    Kindless(Value, PhantomData<F>),
}

impl<'de, F: Format> Deserialize<'de> for Item<F> {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let value = F::object(from, Place::Object)?;
        Ok(match value.get("kind") {
            Some(_) => Self::Read(Object::of(&value)),
            None => Self::Kindless(value, PhantomData),
        })
    }
}

enum Object {
    Node(Box<Node>),
    Pod(Box<Pod>),
    Budget(DisruptionBudget),
    Event(AnnouncedEvent),
    Storage(StorageObject),
    Device(DeviceObject),
    Policy(PolicyObject),
    Other(String),
    Fault(ObjectError),
}

impl Object {
    fn of(value: &Value) -> Self {
        let text = |field| value.get(field).and_then(Value::as_str).unwrap_or("");
        Self::read(text("apiVersion"), text("kind"), value)
    }

    fn read(version: &str, kind: &str, value: &Value) -> Self {
        let mut decoder = Decoder::default();
        let from = Source::Value(value);
        let storage = StorageKind::ALL
            .into_iter()
            .find(|of| of.as_str() == kind && matches!(version, "v1" | "storage.k8s.io/v1"));
        if let Some(kind) = storage {
            return decoder.storage(kind, from).map_or_else(Self::Fault, Self::Storage);
        }
        let device = DeviceKind::ALL.into_iter().find(|of| of.as_str() == kind);
        if let Some(kind) = device.filter(|_| version == "resource.k8s.io/v1") {
            return decoder.device(kind, from).map_or_else(Self::Fault, Self::Device);
        }
        let read = match (version, kind) {
            ("v1", "Node") => decoder.node(from).map(|node| Self::Node(Box::new(node))),
            ("v1", "Pod") => decoder.pod(from).map(|pod| Self::Pod(Box::new(pod))),
            ("policy/v1", "PodDisruptionBudget") => decoder.budget(from).map(Self::Budget),
            ("v1", "Event") if value["reportingComponent"] == REPORTING_COMPONENT => {
                decoder.event(from).map(Self::Event)
            }
            _ => match PolicyKind::parse(kind) {
                Some(kind) if version == API_VERSION => {
                    decoder.policy(kind, from).map(Self::Policy)
                }
                Some(kind) => Err(older_version(kind, version, from)),
                None => return Self::Other(clip(kind, 64)),
            },
        };
        read.unwrap_or_else(Self::Fault)
    }
}

fn older_version(kind: PolicyKind, version: &str, from: Source<'_>) -> ObjectError {
    ObjectError {
        kind: Kind::Policy(kind),
        key: Identity::of(from).key,
        field: "apiVersion".into(),
        fault: format!(
            "`{}` is not `{API_VERSION}`; `gpu-autoscaler convert -f FILE` rewrites it",
            clip(version, 64)
        ),
    }
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const YAML: &str = r#"
apiVersion: v1
items:
- apiVersion: v1
  kind: Node
  metadata:
    creationTimestamp: "2026-11-22T05:00:00Z"
    labels:
      nvidia.com/gpu.product: NVIDIA-H100-80GB-HBM3
      commit: 12e5678
    name: gpu-0
    uid: n-0
  status:
    allocatable: {cpu: "8", nvidia.com/gpu: "2"}
    capacity: {cpu: 8, nvidia.com/gpu: 2}
- apiVersion: v1
  kind: Pod
  metadata: {name: a, namespace: team, uid: p-0, resourceVersion: "1", creationTimestamp: "2026-11-22T05:00:00Z"}
  spec:
    containers: [{name: c, resources: {limits: {nvidia.com/gpu: "1"}}}]
- apiVersion: v1
  kind: Pod
  metadata: {name: b, namespace: team, uid: p-1, resourceVersion: "1", creationTimestamp: "yesterday"}
- apiVersion: policy/v1
  kind: PodDisruptionBudget
  metadata: {name: d, namespace: team, uid: d-0, generation: 1}
  status: {disruptionsAllowed: 1, observedGeneration: 1}
- {apiVersion: v1, kind: ConfigMap, metadata: {name: other}}
kind: List
metadata:
  resourceVersion: ""
---
apiVersion: gpu-autoscaler.io/v1alpha1
kind: AutoscalingPolicy
metadata: {name: prod, uid: c-0, resourceVersion: "5", generation: 1}
spec: {provider: aws, enabled: true}
---
apiVersion: v1alpha1.gpuautoscaler.io
kind: CostBudget
metadata: {name: old}
"#;

    fn summary(dump: &Dump) -> String {
        let mut text = format!(
            "{} nodes, {} pods, {} budgets, {} events, {} policies; other {:?}\n",
            dump.delta.nodes.len(),
            dump.delta.pods.len(),
            dump.delta.budgets.len(),
            dump.delta.events.len(),
            dump.delta.policies.len(),
            dump.other_kinds,
        );
        for fault in &dump.faults {
            text.push_str(&format!("{fault}\n"));
        }
        text
    }

    #[test]
    fn a_list_and_more_documents_are_read_and_malformed_objects_are_named() {
        let dump = parse(YAML.as_bytes()).expect("a dump");
        expect![[r#"
            1 nodes, 1 pods, 1 budgets, 0 events, 1 policies; other {"ConfigMap": 1}
            Pod `team/b`: field `metadata.creationTimestamp`: `yesterday` is no RFC 3339 time such as `2026-11-22T05:00:00Z`
            CostBudget `old`: field `apiVersion`: `v1alpha1.gpuautoscaler.io` is not `gpu-autoscaler.io/v1alpha1`; `gpu-autoscaler convert -f FILE` rewrites it
        "#]]
        .assert_eq(&summary(&dump));
        let Change::Upsert(node) = &dump.delta.nodes[0] else { panic!("an upsert") };
        assert_eq!(node.labels.get("commit"), Some("12e5678"), "text, not a number");
    }

    #[test]
    fn json_of_kubectl_and_of_the_api_server_is_read() {
        let pod = r#"{"metadata": {"name": "a", "namespace": "t", "uid": "p", "resourceVersion": "1",
            "creationTimestamp": "2026-11-22T05:00:00Z"}}"#;
        let raw = format!(r#"{{"kind": "PodList", "apiVersion": "v1", "items": [{pod}, {pod}]}}"#);
        assert_eq!(parse(raw.as_bytes()).expect("a list").delta.pods.len(), 2);
        let last = format!(r#"{{"items": [{pod}], "kind": "PodList", "apiVersion": "v1"}}"#);
        let two = format!("{last}\n{raw}");
        assert_eq!(parse(two.as_bytes()).expect("two lists").delta.pods.len(), 3);
        let event = r#"{"apiVersion": "v1", "kind": "Event", "metadata": {"name": "e", "uid": "u"},
            "reportingComponent": "COMPONENT"}"#;
        let ours = event.replace("COMPONENT", REPORTING_COMPONENT);
        let ours = ours.replacen('{', r#"{"eventTime": "2026-11-22T05:00:00.250000Z","#, 1);
        let read = parse(ours.as_bytes()).expect("ours").delta.events;
        let [Change::Upsert(read)] = read.as_slice() else { panic!("{read:?}") };
        assert_eq!(read.at.expect("told").to_string(), "2026-11-22T05:00:00.25Z");
        assert_eq!(parse(event.as_bytes()).expect("not ours").delta.events.len(), 0);
    }

    #[test]
    fn wherever_a_dump_is_cut_it_is_called_truncated_or_malformed_never_complete() {
        let list_end = YAML.find("kind: List").expect("a list");
        for cut in (1..list_end).filter(|cut| YAML.is_char_boundary(*cut)) {
            if YAML[..cut].trim().is_empty() {
                continue;
            }
            match parse(&YAML.as_bytes()[..cut]) {
                Err(DumpError::Truncated { .. } | DumpError::Malformed { .. }) => {}
                Err(DumpError::Empty) => panic!("cut at {cut}: not empty"),
                Err(error) => panic!("cut at {cut}: {error}"),
                // Before the list has items, what is left is an object of no kind.
                Ok(dump) => assert!(dump.delta.is_empty(), "cut at {cut}"),
            }
        }
        let json = r#"{"kind": "PodList", "apiVersion": "v1", "items": []}"#;
        for cut in 1..json.len() {
            let error = parse(&json.as_bytes()[..cut]).expect_err("cut");
            assert!(matches!(error, DumpError::Truncated { .. }), "cut at {cut}: {error}");
        }
    }

    #[test]
    fn what_is_no_dump_is_named() {
        let told = |text: &str| parse(text.as_bytes()).expect_err("no dump").to_string() + "\n";
        expect![[r#"
            the dump is empty; `kubectl get nodes,pods,pdb -A -o yaml` prints one
            the dump is empty; `kubectl get nodes,pods,pdb -A -o yaml` prints one
            document 1 of the dump is neither JSON nor YAML: invalid type: integer `5`, expected a sequence at line 1 column 11
        "#]]
        .assert_eq(&[told(" \n"), told("---\n---\n"), told(r#"{"items": 5}"#)].concat());
    }

    #[test]
    fn an_alias_bomb_is_refused_within_the_limits() {
        let mut bomb = String::from("a0: &a0 [x,x,x,x,x,x,x,x,x]\n");
        for level in 1..30 {
            let below = format!("*a{},", level - 1).repeat(9);
            bomb.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        assert!(parse(bomb.as_bytes()).is_err());
    }
}
