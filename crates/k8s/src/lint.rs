//! Says what is wrong with our own resources before an API server sees them.
//!
//! Judges by the very schema and CEL rules that the server enforces, then by [`crate::sense`].

use gpu_autoscaler_model::{PolicyKind, Timestamp};
use kube::core::cel::Validator;
use serde_json::{Map, Value};

use crate::crd::FRACTION_MESSAGE;
use crate::manifest::{self, ManifestError};
use crate::{API_VERSION, convert, crd, sense};

/// Deepest nesting that is looked into; the schemas have eight levels.
const DEPTH_MAX: usize = 32;

/// Something wrong with one object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{object}: `{field}{}` {why}", shown(.value))]
pub struct Problem {
    /// Kind and name of the object.
    pub object: String,
    /// The field, as a path from the object's root.
    pub field: String,
    /// Its value as JSON, at most 64 characters; empty where it has none.
    pub value: String,
    /// What is wrong.
    pub why: String,
    /// What to do about it.
    pub hint: Option<String>,
}

fn shown(value: &str) -> String {
    if value.is_empty() { String::new() } else { format!(": {value}") }
}

/// What was read of a manifest, and what is wrong with it.
#[derive(Debug, Default)]
pub struct Linted {
    /// Objects of our group; others are passed over.
    pub ours: usize,
    /// Other objects.
    pub others: usize,
    /// Everything wrong with ours.
    pub problems: Vec<Problem>,
}

/// Looks at every object in `text`.
///
/// # Errors
/// [`ManifestError`] when the text as a whole cannot be read.
pub fn lint(text: &str) -> Result<Linted, ManifestError> {
    let objects = manifest::objects(text)?;
    let ours = objects.iter().filter(|object| is_ours(object)).count();
    let problems = objects.iter().flat_map(lint_object).collect();
    Ok(Linted { ours, others: objects.len() - ours, problems })
}

/// Whether `object` says that it is of our group, in whatever spelling.
pub fn is_ours(object: &Value) -> bool {
    let version = object["apiVersion"].as_str().unwrap_or("");
    version == API_VERSION || convert::is_older_version(version)
}

/// Everything wrong with `object`; nothing when it is not one of ours.
pub fn lint_object(object: &Value) -> Vec<Problem> {
    let version = object["apiVersion"].as_str().unwrap_or("");
    let kind_text = object["kind"].as_str().unwrap_or("");
    let mut found = Found { object: manifest::title(object), problems: Vec::new(), dropped: 0 };
    let ours = is_ours(object);
    let Some(kind) = PolicyKind::parse(kind_text).filter(|_| ours) else {
        if ours {
            let known = PolicyKind::ALL.map(PolicyKind::as_str);
            let hint = nearest(kind_text, known.into_iter()).map(|kind| format!("write {kind}"));
            found.add("kind", &object["kind"], "is no kind of this group", hint);
        }
        return found.problems;
    };
    if version != API_VERSION {
        let hint = Some("`gpu-autoscaler convert -f FILE` rewrites it".to_owned());
        found.add("apiVersion", &object["apiVersion"], format!("is not `{API_VERSION}`"), hint);
    }
    if object["metadata"]["name"].as_str().is_none_or(str::is_empty) {
        found.add("metadata.name", &Value::Null, "is missing", None);
    }
    if object["metadata"].get("namespace").is_some() {
        let why = "does nothing: the kind is cluster-scoped";
        let hint = Some("leave it out".to_owned());
        found.add("metadata.namespace", &object["metadata"]["namespace"], why, hint);
    }
    let schema = schema_of(kind);
    let before = found.problems.len();
    for field in object.as_object().into_iter().flat_map(Map::keys) {
        if !["apiVersion", "kind", "metadata", "spec", "status"].contains(&field.as_str()) {
            found.add(field, &object[field], "is no field of the object", None);
        }
    }
    match object.get("spec") {
        Some(spec) => walk("spec", spec, &schema["properties"]["spec"], &mut found, DEPTH_MAX),
        None => found.add("spec", &Value::Null, "is missing", None),
    }
    // As on the server: rules see only what the schema accepts.
    if found.problems.len() == before + found.dropped {
        rules(object, &schema, &mut found);
        let empty = Map::new();
        let spec = object["spec"].as_object().unwrap_or(&empty);
        for fault in sense::faults(kind, spec) {
            found.problems.push(Problem {
                object: found.object.clone(),
                field: fault.field,
                value: fault.value,
                why: fault.why,
                hint: Some(fault.hint.to_owned()),
            });
        }
    }
    found.problems
}

fn schema_of(kind: PolicyKind) -> Value {
    let definition = serde_json::to_value(crd::definition(kind)).expect("plain data");
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"].clone()
}

struct Found {
    object: String,
    problems: Vec<Problem>,
    /// Problems that the server does not refuse: unknown fields, which it drops.
    dropped: usize,
}

impl Found {
    fn add(&mut self, field: &str, value: &Value, why: impl Into<String>, hint: Option<String>) {
        let value = if value.is_null() { String::new() } else { value.to_string() };
        self.problems.push(Problem {
            object: self.object.clone(),
            field: field.to_owned(),
            value: crate::decode::clip(&value, 64),
            why: why.into(),
            hint,
        });
    }
}

/// How a value of another type was probably meant.
fn as_meant(value: &Value, expected: &str) -> Option<String> {
    match (value, expected) {
        (Value::String(text), "number" | "integer" | "boolean") => {
            let text = text.trim();
            let meant = match expected {
                "number" => text.parse::<f64>().is_ok_and(f64::is_finite),
                "integer" => text.parse::<i64>().is_ok(),
                _ => text.parse::<bool>().is_ok(),
            };
            meant.then(|| format!("write {text}, without quotes"))
        }
        (Value::Number(_) | Value::Bool(_), "string") => {
            Some(format!("write \"{value}\", with quotes"))
        }
        (Value::Number(_), "integer") => Some("write a whole number".to_owned()),
        (Value::String(_) | Value::Number(_) | Value::Bool(_), "array") => {
            Some(format!("write a list, [{value}]"))
        }
        _ => None,
    }
}

/// The part of OpenAPI that our schemas use.
fn walk(at: &str, value: &Value, schema: &Value, found: &mut Found, depth: usize) {
    if depth == 0 {
        return found.add(at, value, format!("is nested deeper than {DEPTH_MAX} levels"), None);
    }
    if value.is_null() {
        if schema["nullable"] != true {
            found.add(at, value, "is null", Some("leave the field out".to_owned()));
        }
        return;
    }
    let expected = schema["type"].as_str().unwrap_or("");
    let fits = match expected {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !fits {
        let hint = as_meant(value, expected);
        return found.add(at, value, format!("is not of type {expected}"), hint);
    }
    match value {
        Value::Object(fields) => walk_object(at, fields, schema, found, depth),
        Value::Array(items) => {
            bounds(at, value, items.len() as f64, ["minItems", "maxItems"], "items", schema, found);
            for (index, item) in items.iter().enumerate() {
                walk(&format!("{at}[{index}]"), item, &schema["items"], found, depth - 1);
            }
            list_keys(at, items, schema, found);
        }
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or(f64::NAN);
            bounds(at, value, number, ["minimum", "maximum"], "", schema, found);
        }
        Value::String(text) => {
            let length = text.chars().count() as f64;
            bounds(at, value, length, ["minLength", "maxLength"], "characters", schema, found);
            if let Some(known) = schema["enum"].as_array().filter(|known| !known.contains(value)) {
                let known: Vec<&str> = known.iter().filter_map(Value::as_str).collect();
                let hint = nearest(text, known.iter().copied()).map(|near| format!("write {near}"));
                found.add(at, value, format!("is none of {}", known.join(", ")), hint);
            }
            if schema["format"] == "date-time" && text.parse::<Timestamp>().is_err() {
                let hint = Some("write it as 2026-11-01T00:00:00Z".to_owned());
                found.add(at, value, "is no RFC 3339 time", hint);
            }
        }
        _ => {}
    }
}

fn walk_object(
    at: &str,
    fields: &Map<String, Value>,
    schema: &Value,
    found: &mut Found,
    depth: usize,
) {
    for name in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        if !fields.contains_key(name) {
            let known = schema["properties"][name]["enum"].as_array();
            let known = known.map(|known| known.iter().filter_map(Value::as_str));
            let hint =
                known.map(|known| format!("one of {}", known.collect::<Vec<_>>().join(", ")));
            found.add(&format!("{at}.{name}"), &Value::Null, "is missing", hint);
        }
    }
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        match schema["properties"].get(name) {
            Some(schema) => walk(&at, value, schema, found, depth - 1),
            None if schema["additionalProperties"].is_object() => {
                walk(&at, value, &schema["additionalProperties"], found, depth - 1);
            }
            None => {
                let known = schema["properties"].as_object().into_iter().flat_map(Map::keys);
                let hint = nearest(name, known.map(String::as_str))
                    .map(|near| format!("did you mean {near}?"));
                found.add(&at, value, "is no field of the schema; the server drops it", hint);
                found.dropped += 1;
            }
        }
    }
}

/// Both bounds of a number, a length or a count.
fn bounds(
    at: &str,
    value: &Value,
    measured: f64,
    [min, max]: [&str; 2],
    of: &str,
    schema: &Value,
    found: &mut Found,
) {
    let told = |than: &str, limit: f64| match of {
        "" => format!("is {than} {limit}"),
        of if than == "below" => format!("has {measured} {of}, fewer than {limit}"),
        of => format!("has {measured} {of}, more than {limit}"),
    };
    if let Some(min) = schema[min].as_f64().filter(|min| measured < *min) {
        found.add(at, value, told("below", min), None);
    }
    if let Some(max) = schema[max].as_f64().filter(|max| measured > *max) {
        found.add(at, value, told("above", max), None);
    }
}

/// Items of a list that is merged by key must differ in it.
fn list_keys(at: &str, items: &[Value], schema: &Value, found: &mut Found) {
    let Some(key) = schema["x-kubernetes-list-map-keys"][0].as_str() else { return };
    for (index, item) in items.iter().enumerate() {
        let name = &item[key];
        if !name.is_null() && items[..index].iter().any(|earlier| earlier[key] == *name) {
            let hint = Some(format!("give each item its own {key}"));
            found.add(&format!("{at}[{index}].{key}"), name, "occurs twice", hint);
        }
    }
}

fn rules(object: &Value, schema: &Value, found: &mut Found) {
    let floats = with_floats(object, schema);
    let Err(errors) = Validator::new().validate(schema, &floats, None) else { return };
    for error in errors.into_vec() {
        let pointer = format!("/{}", error.field_path.replace(['.', '['], "/"));
        let value = object.pointer(&pointer.replace(']', "")).cloned().unwrap_or_default();
        let percent = value.as_f64().filter(|value| *value > 1.0 && *value <= 100.0);
        let hint = percent
            .filter(|_| error.message == FRACTION_MESSAGE)
            .map(|percent| format!("write {}", percent / 100.0));
        let why = error.message;
        found.add(&error.field_path, &value, why, hint);
    }
}

/// `value` with every number as a float where the schema says `number`: the server reads `1` and
/// `1.0` alike there, and so must the rules.
fn with_floats(value: &Value, schema: &Value) -> Value {
    match value {
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(name, value)| {
                    let of = schema["properties"].get(name);
                    let of = of.unwrap_or(&schema["additionalProperties"]);
                    (name.clone(), with_floats(value, of))
                })
                .collect(),
        ),
        Value::Array(items) => {
            items.iter().map(|item| with_floats(item, &schema["items"])).collect()
        }
        Value::Number(number) if schema["type"] == "number" => {
            number.as_f64().map_or_else(|| value.clone(), Value::from)
        }
        other => other.clone(),
    }
}

/// The one of `known` that `text` was probably meant to be.
fn nearest<'a>(text: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let text = text.to_ascii_lowercase();
    known
        .map(|known| (distance(&text, &known.to_ascii_lowercase()), known))
        .filter(|(distance, known)| *distance <= 1 + known.len() / 4)
        .min()
        .map(|(_, known)| known)
}

/// Levenshtein distance.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 64 || b.len() > 64 {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let cost = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = cost.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn check(text: &str, expected: Expect) {
        let told: String = lint(text)
            .expect("yaml")
            .problems
            .iter()
            .map(|problem| match &problem.hint {
                Some(hint) => format!("{problem}\n  hint: {hint}\n"),
                None => format!("{problem}\n"),
            })
            .collect();
        expected.assert_eq(&told);
    }

    #[test]
    fn the_published_policy_is_without_problems() {
        check(
            "
apiVersion: gpu-autoscaler.io/v1alpha1
kind: AutoscalingPolicy
metadata: {name: production-autoscaling}
spec:
  enabled: true
  provider: aws
  scaleUpThreshold: 0.8
  scaleDownThreshold: 0.2
  scaleUpCooldownSeconds: 180
  scaleDownCooldownSeconds: 600
  pendingPodTimeoutSeconds: 120
  minNodes: 0
  maxNodes: 100
  spotInstancePercentage: 1
  enableSpotInstances: true
  enableMultiTierScaling: true
  enablePredictiveScaling: false
  nodePools:
    - name: spot-pool
      minSize: 0
      maxSize: 50
      gpuType: nvidia-tesla-v100
      instanceTypes: [p3.2xlarge, p3.8xlarge]
      capacityType: spot
      spotPercentage: 1.0
      priority: 10
      labels: {gpu-autoscaler.io/capacity-type: spot}
      availabilityZones: [us-west-2a, us-west-2b, us-west-2c]
",
            expect![""],
        );
    }

    #[test]
    fn percentages_are_refused_with_the_fraction_as_hint() {
        check(
            "
apiVersion: gpu-autoscaler.io/v1alpha1
kind: AutoscalingPolicy
metadata: {name: a}
spec: {provider: aws, spotInstancePercentage: 60, scaleUpThreshold: -1}
",
            expect![[r#"
                AutoscalingPolicy `a`: `spec.scaleUpThreshold: -1` must be a fraction from 0 to 1, such as 0.6 for 60 %
                AutoscalingPolicy `a`: `spec.spotInstancePercentage: 60` must be a fraction from 0 to 1, such as 0.6 for 60 %
                  hint: write 0.6
                AutoscalingPolicy `a`: `spec.scaleDownThreshold: 0.2` is not below `scaleUpThreshold: -1`: nodes would come and go for ever
                  hint: leave a gap between the two
            "#]],
        );
    }

    #[test]
    fn what_the_schema_refuses_is_named_with_field_value_and_hint() {
        check(
            "
apiVersion: gpuautoscaler.io/v1alpha1
kind: AutoscalingPolicy
metadata: {name: a, namespace: team}
spec:
  provider: amazon
  maxNode: 5
  minNodes: -1
  scaleUpThreshold: '0.8'
  nodePools: [{name: p, capacityType: spott}, {name: p, capacityType: spot, minSize: 1.5}, {}]
---
apiVersion: gpu-autoscaler.io/v1alpha1
kind: AutoScalingPolicy
---
apiVersion: v1
kind: ConfigMap
",
            expect![[r#"
                AutoscalingPolicy `a`: `apiVersion: "gpuautoscaler.io/v1alpha1"` is not `gpu-autoscaler.io/v1alpha1`
                  hint: `gpu-autoscaler convert -f FILE` rewrites it
                AutoscalingPolicy `a`: `metadata.namespace: "team"` does nothing: the kind is cluster-scoped
                  hint: leave it out
                AutoscalingPolicy `a`: `spec.maxNode: 5` is no field of the schema; the server drops it
                  hint: did you mean maxNodes?
                AutoscalingPolicy `a`: `spec.minNodes: -1` is below 0
                AutoscalingPolicy `a`: `spec.nodePools[0].capacityType: "spott"` is none of spot, on-demand, reserved
                  hint: write spot
                AutoscalingPolicy `a`: `spec.nodePools[1].minSize: 1.5` is not of type integer
                  hint: write a whole number
                AutoscalingPolicy `a`: `spec.nodePools[2].capacityType` is missing
                  hint: one of spot, on-demand, reserved
                AutoscalingPolicy `a`: `spec.nodePools[2].name` is missing
                AutoscalingPolicy `a`: `spec.nodePools[1].name: "p"` occurs twice
                  hint: give each item its own name
                AutoscalingPolicy `a`: `spec.provider: "amazon"` is none of aws, gcp, azure, custom
                AutoscalingPolicy `a`: `spec.scaleUpThreshold: "0.8"` is not of type number
                  hint: write 0.8, without quotes
                AutoScalingPolicy without a name: `kind: "AutoScalingPolicy"` is no kind of this group
                  hint: write AutoscalingPolicy
            "#]],
        );
    }
}
