//! Specs that the API server takes although they make no sense.
//!
//! The schema and its CEL rules judge each field alone; what contradicts itself across fields is
//! found here, in the words that `status` and `lint` show.

use std::fmt;

use gpu_autoscaler_model::{MigProfile, PolicyKind, Timestamp};
use serde_json::{Map, Value};

type Spec = Map<String, Value>;

/// What makes no sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SenseFault {
    /// The field, as a path from the object's root.
    pub field: String,
    /// Its value, as JSON.
    pub value: String,
    /// Why it makes no sense.
    pub why: String,
    /// What to do about it.
    pub hint: &'static str,
}

impl fmt::Display for SenseFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}: {}` {}; {}", self.field, self.value, self.why, self.hint)
    }
}

/// Everything in `spec` that makes no sense, in the order of the rules.
pub fn faults(kind: PolicyKind, spec: &Spec) -> Vec<SenseFault> {
    let mut found = Vec::new();
    match kind {
        PolicyKind::AutoscalingPolicy => autoscaling(spec, &mut found),
        PolicyKind::GpuSharingPolicy => sharing(spec, &mut found),
        PolicyKind::GpuNodeConfig => node_config(spec, &mut found),
        PolicyKind::CostBudget => budget(spec, &mut found),
        PolicyKind::CostAttribution => attribution(spec, &mut found),
    }
    found
}

fn fault(
    field: impl Into<String>,
    value: impl fmt::Display,
    why: impl Into<String>,
    hint: &'static str,
) -> SenseFault {
    SenseFault { field: field.into(), value: value.to_string(), why: why.into(), hint }
}

fn autoscaling(spec: &Spec, found: &mut Vec<SenseFault>) {
    let nodes_max = number(spec, "maxNodes").unwrap_or(100.0);
    if let Some(min) = number(spec, "minNodes").filter(|min| *min > nodes_max) {
        let why = format!("is above `maxNodes: {nodes_max}`");
        found.push(fault("spec.minNodes", min, why, "raise maxNodes or lower minNodes"));
    }
    let up = number(spec, "scaleUpThreshold").unwrap_or(0.8);
    let down = number(spec, "scaleDownThreshold").unwrap_or(0.2);
    if down >= up {
        let why =
            format!("is not below `scaleUpThreshold: {up}`: nodes would come and go for ever");
        found.push(fault("spec.scaleDownThreshold", down, why, "leave a gap between the two"));
    }
    let no_spot = spec.get("enableSpotInstances") == Some(&Value::Bool(false));
    let mut sizes = 0.0;
    for (index, pool) in objects(spec, "nodePools").enumerate() {
        let at = format!("spec.nodePools[{index}]");
        let min = number(pool, "minSize").unwrap_or(0.0);
        let max = number(pool, "maxSize").unwrap_or(100.0);
        sizes += min;
        if min > max {
            let why = format!("is above `maxSize: {max}`");
            found.push(fault(format!("{at}.minSize"), min, why, "raise maxSize or lower minSize"));
        }
        if no_spot && text(pool, "capacityType") == Some("spot") {
            let why = "contradicts `enableSpotInstances: false`";
            let hint = "set capacityType to on-demand or allow spot instances";
            found.push(fault(format!("{at}.capacityType"), "spot", why, hint));
        }
    }
    if sizes > nodes_max {
        let why = format!("add up to {sizes}, above `maxNodes: {nodes_max}`");
        let hint = "raise maxNodes or lower the pools' minSize";
        found.push(fault("spec.nodePools[*].minSize", sizes, why, hint));
    }
}

fn sharing(spec: &Spec, found: &mut Vec<SenseFault>) {
    let strategy = text(spec, "strategy").unwrap_or("auto");
    for (field, of) in
        [("migConfig", "mig"), ("mpsConfig", "mps"), ("timeSlicingConfig", "timeslicing")]
    {
        if spec.contains_key(field) && strategy != of && strategy != "auto" {
            let why = format!("does nothing with `strategy: {strategy}`");
            found.push(fault(
                format!("spec.{field}"),
                "{…}",
                why,
                "remove it or set that strategy",
            ));
        }
    }
    if let Some(mig) = object(spec, "migConfig") {
        let profile = text(mig, "profile");
        mig_profile("spec.migConfig.profile", profile, found);
        if mig.get("autoSelectProfile") == Some(&Value::Bool(false)) && profile.is_none() {
            let why = "leaves no profile at all";
            let hint = "name a profile or set it to true";
            found.push(fault("spec.migConfig.autoSelectProfile", false, why, hint));
        }
    }
    let replicas = object(spec, "timeSlicingConfig").and_then(|c| number(c, "replicasPerGPU"));
    if replicas == Some(1.0) {
        let why = "shares a GPU among one pod";
        let hint = "set at least 2, or `strategy: exclusive`";
        found.push(fault("spec.timeSlicingConfig.replicasPerGPU", 1, why, hint));
    }
}

fn node_config(spec: &Spec, found: &mut Vec<SenseFault>) {
    let on = |name: &str| spec.get(name) == Some(&Value::Bool(true));
    if on("mpsEnabled") && on("timeSlicingEnabled") {
        let why = "excludes `timeSlicingEnabled: true`: the device plugin shares by one means only";
        found.push(fault("spec.mpsEnabled", true, why, "choose one of the two"));
    }
    if on("mpsEnabled") && on("migEnabled") {
        let why = "excludes `migEnabled: true`: the device plugin offers no MPS on GPU instances";
        found.push(fault("spec.mpsEnabled", true, why, "choose one of the two"));
    }
    let profiles = spec.get("migProfiles").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    if on("migEnabled") && profiles.is_empty() {
        let why = "names no profile in `migProfiles`";
        found.push(fault("spec.migEnabled", true, why, "list at least one, such as 1g.5gb"));
    }
    for (index, profile) in profiles.iter().enumerate() {
        mig_profile(&format!("spec.migProfiles[{index}]"), profile.as_str(), found);
    }
}

fn mig_profile(field: &str, profile: Option<&str>, found: &mut Vec<SenseFault>) {
    if let Some(text) = profile.filter(|text| text.parse::<MigProfile>().is_err()) {
        let why = "is no MIG profile";
        found.push(fault(field, text, why, "write it as NVIDIA does, such as 1g.10gb"));
    }
}

fn budget(spec: &Spec, found: &mut Vec<SenseFault>) {
    if number(spec, "monthlyLimit") == Some(0.0) {
        let why = "is exceeded from the first second";
        found.push(fault("spec.monthlyLimit", 0, why, "set the amount per month"));
    }
    if let Some(start) = text(spec, "startDate").filter(|t| t.parse::<Timestamp>().is_err()) {
        let hint = "write it as 2026-11-01T00:00:00Z";
        found.push(fault("spec.startDate", start, "is no RFC 3339 time", hint));
    }
    for (index, alert) in objects(spec, "alerts").enumerate() {
        for (nth, channel) in objects(alert, "channels").enumerate() {
            channel_address(&format!("spec.alerts[{index}].channels[{nth}]"), channel, found);
        }
    }
    if let Some(enforcement) = object(spec, "enforcement") {
        let action = text(enforcement, "action").unwrap_or("alert");
        if action != "throttle" && enforcement.contains_key("throttleConfig") {
            let why = format!("does nothing with `action: {action}`");
            let hint = "remove it or set `action: throttle`";
            found.push(fault("spec.enforcement.throttleConfig", "{…}", why, hint));
        }
    }
}

/// Each type of channel needs one address, in `config` or by reference to a Secret.
fn channel_address(field: &str, channel: &Spec, found: &mut Vec<SenseFault>) {
    let needed = match text(channel, "type") {
        Some("slack") => "webhook_url",
        Some("pagerduty") => "routing_key",
        Some("webhook") => "url",
        Some("email") => "to",
        _ => return,
    };
    let has = |map: &str| object(channel, map).is_some_and(|map| map.contains_key(needed));
    if !has("config") && !has("configSecretRefs") {
        let why = format!("has no `{needed}`: nobody would be told");
        let hint = "add it under config, or under configSecretRefs to keep it in a Secret";
        found.push(fault(field, text(channel, "type").unwrap_or(""), why, hint));
    }
}

fn attribution(spec: &Spec, found: &mut Vec<SenseFault>) {
    const SELECTORS: [&str; 8] = [
        "namespace",
        "namespaceSelector",
        "labels",
        "experimentID",
        "team",
        "project",
        "costCenter",
        "tags",
    ];
    let empty = |value: &Value| match value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Object(map) => map.is_empty(),
        _ => false,
    };
    if SELECTORS.iter().all(|name| spec.get(*name).is_none_or(empty)) {
        let why = "selects nothing";
        let hint = "set at least one of namespace, labels, team, project, costCenter, experimentID";
        found.push(fault("spec", "{}", why, hint));
    }
}

fn number(of: &Spec, name: &str) -> Option<f64> {
    of.get(name)?.as_f64()
}

fn text<'a>(of: &'a Spec, name: &str) -> Option<&'a str> {
    of.get(name)?.as_str()
}

fn object<'a>(of: &'a Spec, name: &str) -> Option<&'a Spec> {
    of.get(name)?.as_object()
}

fn objects<'a>(of: &'a Spec, name: &str) -> impl Iterator<Item = &'a Spec> {
    of.get(name).and_then(Value::as_array).into_iter().flatten().filter_map(Value::as_object)
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};
    use serde_json::json;

    use super::*;

    fn check(kind: PolicyKind, spec: Value, expected: Expect) {
        let Value::Object(spec) = spec else { panic!("a spec is an object") };
        let told: String = faults(kind, &spec).iter().map(|fault| format!("{fault}\n")).collect();
        expected.assert_eq(&told);
    }

    #[test]
    fn an_empty_spec_makes_sense_where_it_selects_nothing_in_particular() {
        for kind in [
            PolicyKind::AutoscalingPolicy,
            PolicyKind::GpuSharingPolicy,
            PolicyKind::GpuNodeConfig,
            PolicyKind::CostBudget,
        ] {
            check(kind, json!({}), expect![""]);
        }
    }

    #[test]
    fn sizes_and_thresholds_that_cross_are_told() {
        check(
            PolicyKind::AutoscalingPolicy,
            json!({
                "minNodes": 9, "maxNodes": 4, "scaleUpThreshold": 0.3, "scaleDownThreshold": 0.3,
                "enableSpotInstances": false,
                "nodePools": [{"minSize": 5, "maxSize": 2, "capacityType": "spot"}],
            }),
            expect![[r#"
                `spec.minNodes: 9` is above `maxNodes: 4`; raise maxNodes or lower minNodes
                `spec.scaleDownThreshold: 0.3` is not below `scaleUpThreshold: 0.3`: nodes would come and go for ever; leave a gap between the two
                `spec.nodePools[0].minSize: 5` is above `maxSize: 2`; raise maxSize or lower minSize
                `spec.nodePools[0].capacityType: spot` contradicts `enableSpotInstances: false`; set capacityType to on-demand or allow spot instances
                `spec.nodePools[*].minSize: 5` add up to 5, above `maxNodes: 4`; raise maxNodes or lower the pools' minSize
            "#]],
        );
    }

    #[test]
    fn sharing_that_shares_nothing_is_told() {
        check(
            PolicyKind::GpuSharingPolicy,
            json!({
                "strategy": "timeslicing", "timeSlicingConfig": {"replicasPerGPU": 1},
                "migConfig": {"profile": "1g-5gb", "autoSelectProfile": false},
            }),
            expect![[r#"
                `spec.migConfig: {…}` does nothing with `strategy: timeslicing`; remove it or set that strategy
                `spec.migConfig.profile: 1g-5gb` is no MIG profile; write it as NVIDIA does, such as 1g.10gb
                `spec.timeSlicingConfig.replicasPerGPU: 1` shares a GPU among one pod; set at least 2, or `strategy: exclusive`
            "#]],
        );
        check(
            PolicyKind::GpuNodeConfig,
            json!({"mpsEnabled": true, "timeSlicingEnabled": true, "migEnabled": true}),
            expect![[r#"
                `spec.mpsEnabled: true` excludes `timeSlicingEnabled: true`: the device plugin shares by one means only; choose one of the two
                `spec.mpsEnabled: true` excludes `migEnabled: true`: the device plugin offers no MPS on GPU instances; choose one of the two
                `spec.migEnabled: true` names no profile in `migProfiles`; list at least one, such as 1g.5gb
            "#]],
        );
    }

    #[test]
    fn a_budget_that_tells_nobody_is_told() {
        check(
            PolicyKind::CostBudget,
            json!({
                "monthlyLimit": 0, "startDate": "first of May",
                "alerts": [{"channels": [{"type": "slack", "config": {"webhook": "x"}}]}],
                "enforcement": {"action": "block", "throttleConfig": {}},
            }),
            expect![[r#"
                `spec.monthlyLimit: 0` is exceeded from the first second; set the amount per month
                `spec.startDate: first of May` is no RFC 3339 time; write it as 2026-11-01T00:00:00Z
                `spec.alerts[0].channels[0]: slack` has no `webhook_url`: nobody would be told; add it under config, or under configSecretRefs to keep it in a Secret
                `spec.enforcement.throttleConfig: {…}` does nothing with `action: block`; remove it or set `action: throttle`
            "#]],
        );
        check(
            PolicyKind::CostAttribution,
            json!({"team": "", "labels": {}}),
            expect![[r#"
                `spec: {}` selects nothing; set at least one of namespace, labels, team, project, costCenter, experimentID
            "#]],
        );
    }
}
