//! Rewrites our own resources from the spellings of earlier releases into the one that is served.
//!
//! Three dialects were published: `gpuautoscaler.io/v1alpha1`, `gpu-autoscaler.io/v1alpha1`, and
//! the README's `v1alpha1.gpuautoscaler.io` with other field names. One is served and stored.

use gpu_autoscaler_model::PolicyKind;
use serde_json::{Map, Value, json};

use crate::API_VERSION;
use crate::manifest::{self, ManifestError};

/// Older spellings of [`API_VERSION`].
const OLDER_VERSIONS: [&str; 3] =
    ["gpuautoscaler.io/v1alpha1", "v1alpha1.gpuautoscaler.io", "v1alpha1.gpu-autoscaler.io"];

/// Fields that hold a fraction, which some documents wrote as a percentage.
const FRACTIONS: [&str; 5] = [
    "scaleUpThreshold",
    "scaleDownThreshold",
    "spotInstancePercentage",
    "spotPercentage",
    "targetUtilization",
];

/// A manifest, rewritten.
#[derive(Clone, Debug, PartialEq)]
pub struct Converted {
    /// The objects, in order; those that are not ours are unchanged.
    pub objects: Vec<Value>,
    /// What was changed, one line each, with what a person should still look at.
    pub notes: Vec<String>,
}

impl Converted {
    /// As YAML documents. Comments of the original are not kept.
    pub fn to_yaml(&self) -> String {
        let documents = self
            .objects
            .iter()
            .map(|object| serde_saphyr::to_string(object).expect("a JSON value has a YAML form"));
        documents.collect::<Vec<_>>().join("---\n")
    }
}

/// Rewrites every object of ours in `text`. Converting twice changes nothing more.
///
/// # Errors
/// [`ManifestError`] when the text as a whole cannot be read.
pub fn convert(text: &str) -> Result<Converted, ManifestError> {
    let mut converted = Converted { objects: manifest::objects(text)?, notes: Vec::new() };
    for object in &mut converted.objects {
        let title = manifest::title(object);
        let mut notes = Vec::new();
        convert_object(object, &mut notes);
        converted.notes.extend(notes.into_iter().map(|note| format!("{title}: {note}")));
    }
    Ok(converted)
}

/// Whether `version` is one of the older spellings.
pub(crate) fn is_older_version(version: &str) -> bool {
    OLDER_VERSIONS.contains(&version)
}

fn convert_object(object: &mut Value, notes: &mut Vec<String>) {
    let version = object["apiVersion"].as_str().unwrap_or("").to_owned();
    let Some(kind) = object["kind"].as_str().and_then(PolicyKind::parse) else { return };
    if is_older_version(&version) {
        object["apiVersion"] = API_VERSION.into();
        notes.push(format!("apiVersion `{version}` is now `{API_VERSION}`"));
    } else if version != API_VERSION {
        return;
    }
    let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) else { return };
    match kind {
        PolicyKind::CostBudget => budget(spec, notes),
        PolicyKind::CostAttribution => attribution(spec, notes),
        PolicyKind::GpuSharingPolicy => sharing(spec, notes),
        PolicyKind::AutoscalingPolicy | PolicyKind::GpuNodeConfig => {}
    }
    fractions("spec", spec, notes);
}

fn budget(spec: &mut Map<String, Value>, notes: &mut Vec<String>) {
    if let Some(Value::Object(budget)) = spec.remove("budget") {
        if let Some(amount) = budget.get("amount") {
            spec.entry("monthlyLimit").or_insert_with(|| amount.clone());
            notes.push("spec.budget.amount is now spec.monthlyLimit".into());
        }
        match budget.get("period").and_then(Value::as_str) {
            None | Some("30d" | "1M" | "month" | "monthly") => {}
            Some(other) => notes.push(format!(
                "CHECK: spec.budget.period `{other}` is dropped: the limit is per month"
            )),
        }
    }
    if let Some(scope) = spec.get_mut("scope").and_then(Value::as_object_mut)
        && let Some(kind) = scope.remove("type")
    {
        notes.push(format!("spec.scope.type {kind} is dropped: the selectors say it"));
    }
    let alerts = spec.get_mut("alerts").and_then(Value::as_array_mut);
    for (index, alert) in alerts.into_iter().flatten().enumerate() {
        if let Some(alert) = alert.as_object_mut() {
            budget_alert(index, alert, notes);
        }
    }
    if let Some(enforcement) = spec.get_mut("enforcement").and_then(Value::as_object_mut) {
        rename(enforcement, "mode", "action", "spec.enforcement", notes);
        if let Some(period) = enforcement.remove("gracePeriod") {
            match period.as_str().and_then(minutes) {
                Some(minutes) => {
                    enforcement.insert("gracePeriodMinutes".into(), minutes.into());
                    notes.push(format!(
                        "spec.enforcement.gracePeriod {period} is now gracePeriodMinutes: {minutes}"
                    ));
                }
                None => notes.push(format!(
                    "CHECK: spec.enforcement.gracePeriod {period} is no duration; dropped"
                )),
            }
        }
    }
}

fn budget_alert(index: usize, alert: &mut Map<String, Value>, notes: &mut Vec<String>) {
    let at = format!("spec.alerts[{index}]");
    rename(alert, "threshold", "thresholdPercent", &at, notes);
    if !alert.contains_key("name") {
        let percent = alert.get("thresholdPercent").map_or_else(String::new, Value::to_string);
        let name = format!("at-{percent}").replace('.', "-");
        notes.push(format!("{at} has no name; it is now `{name}`"));
        alert.insert("name".into(), name.into());
    }
    let channels = alert.get_mut("channels").and_then(Value::as_array_mut);
    for (nth, channel) in channels.into_iter().flatten().enumerate() {
        if channel["type"] == "slack"
            && let Some(config) = channel.get_mut("config").and_then(Value::as_object_mut)
        {
            let at = format!("{at}.channels[{nth}].config");
            rename(config, "webhook", "webhook_url", &at, notes);
        }
    }
}

fn attribution(spec: &mut Map<String, Value>, notes: &mut Vec<String>) {
    if let Some(Value::Object(mut scope)) = spec.remove("scope") {
        scope.remove("type");
        for (field, value) in scope {
            notes.push(format!("spec.scope.{field} is now spec.{field}"));
            spec.entry(field).or_insert(value);
        }
    }
    if let Some(period) = spec.remove("reportingPeriod") {
        notes.push(format!(
            "spec.reportingPeriod {period} is dropped: the status has hours, days and months"
        ));
    }
}

fn sharing(spec: &mut Map<String, Value>, notes: &mut Vec<String>) {
    if spec.get("strategy").and_then(Value::as_str) == Some("time-slicing") {
        spec.insert("strategy".into(), "timeslicing".into());
        notes.push("spec.strategy `time-slicing` is now `timeslicing`".into());
    }
}

/// Percentages where fractions belong, at any depth.
fn fractions(at: &str, fields: &mut Map<String, Value>, notes: &mut Vec<String>) {
    for (name, value) in fields {
        let at = format!("{at}.{name}");
        match value {
            Value::Number(number) if FRACTIONS.contains(&name.as_str()) => {
                if let Some(percent) = number.as_f64().filter(|n| *n > 1.0 && *n <= 100.0) {
                    let fraction = percent / 100.0;
                    notes.push(format!("{at}: {percent} is now {fraction}"));
                    *value = json!(fraction);
                }
            }
            Value::Object(inner) => fractions(&at, inner, notes),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    if let Value::Object(inner) = item {
                        fractions(&format!("{at}[{index}]"), inner, notes);
                    }
                }
            }
            _ => {}
        }
    }
}

fn rename(
    fields: &mut Map<String, Value>,
    from: &str,
    to: &str,
    at: &str,
    notes: &mut Vec<String>,
) {
    if let Some(value) = fields.remove(from) {
        notes.push(format!("{at}.{from} is now {at}.{to}"));
        fields.entry(to).or_insert(value);
    }
}

/// `2h`, `90m`, `1h30m` in whole minutes.
fn minutes(text: &str) -> Option<u64> {
    let (mut total, mut number) = (0_u64, String::new());
    for letter in text.chars() {
        if letter.is_ascii_digit() {
            number.push(letter);
            continue;
        }
        let value: u64 = number.parse().ok()?;
        number.clear();
        let unit = match letter {
            'd' => 24 * 60,
            'h' => 60,
            'm' => 1,
            _ => return None,
        };
        total = total.checked_add(value.checked_mul(unit)?)?;
    }
    (number.is_empty() && !text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    const README_BUDGET: &str = "
apiVersion: v1alpha1.gpuautoscaler.io
kind: CostBudget
metadata:
  name: ml-team-monthly-budget
spec:
  scope:
    type: namespace
    namespaceSelector:
      matchLabels:
        team: ml-team
  budget:
    amount: 50000.0  # a comment
    period: 30d
  alerts:
    - threshold: 80
      channels:
        - type: slack
          config:
            webhook: https://hooks.slack.com/services/YOUR/WEBHOOK/URL
    - threshold: 100
      channels:
        - type: email
          config:
            to: ml-team-leads@company.com
  enforcement:
    mode: throttle
    gracePeriod: 2h
    throttleConfig:
      maxSpotInstances: 5
      blockOnDemand: true
---
apiVersion: v1alpha1.gpuautoscaler.io
kind: CostAttribution
metadata:
  name: ml-team-attribution
spec:
  scope:
    type: namespace
    namespaceSelector:
      matchLabels:
        team: ml-team
  trackBy: [namespace, 'label:experiment-id']
  reportingPeriod: 24h
";

    #[test]
    fn the_published_readme_becomes_what_the_schema_takes() {
        let converted = convert(README_BUDGET).expect("yaml");
        expect![[r#"
            CostBudget `ml-team-monthly-budget`: apiVersion `v1alpha1.gpuautoscaler.io` is now `gpu-autoscaler.io/v1alpha1`
            CostBudget `ml-team-monthly-budget`: spec.budget.amount is now spec.monthlyLimit
            CostBudget `ml-team-monthly-budget`: spec.scope.type "namespace" is dropped: the selectors say it
            CostBudget `ml-team-monthly-budget`: spec.alerts[0].threshold is now spec.alerts[0].thresholdPercent
            CostBudget `ml-team-monthly-budget`: spec.alerts[0] has no name; it is now `at-80`
            CostBudget `ml-team-monthly-budget`: spec.alerts[0].channels[0].config.webhook is now spec.alerts[0].channels[0].config.webhook_url
            CostBudget `ml-team-monthly-budget`: spec.alerts[1].threshold is now spec.alerts[1].thresholdPercent
            CostBudget `ml-team-monthly-budget`: spec.alerts[1] has no name; it is now `at-100`
            CostBudget `ml-team-monthly-budget`: spec.enforcement.mode is now spec.enforcement.action
            CostBudget `ml-team-monthly-budget`: spec.enforcement.gracePeriod "2h" is now gracePeriodMinutes: 120
            CostAttribution `ml-team-attribution`: apiVersion `v1alpha1.gpuautoscaler.io` is now `gpu-autoscaler.io/v1alpha1`
            CostAttribution `ml-team-attribution`: spec.scope.namespaceSelector is now spec.namespaceSelector
            CostAttribution `ml-team-attribution`: spec.reportingPeriod "24h" is dropped: the status has hours, days and months"#]]
        .assert_eq(&converted.notes.join("\n"));
        let again = convert(&converted.to_yaml()).expect("yaml");
        assert_eq!((again.objects, again.notes.len()), (converted.objects.clone(), 0));
        #[cfg(feature = "client")]
        for object in &converted.objects {
            assert_eq!(crate::lint::lint_object(object), []);
        }
    }

    #[test]
    fn percentages_become_fractions_and_foreign_objects_stay() {
        let text = "
{apiVersion: gpuautoscaler.io/v1alpha1, kind: AutoscalingPolicy, metadata: {name: a}, spec: {provider: aws, scaleUpThreshold: 80, scaleDownThreshold: 0.2, nodePools: [{name: p, capacityType: spot, spotPercentage: 100}]}}
---
{apiVersion: apps/v1, kind: Deployment, metadata: {name: b}, spec: {scaleUpThreshold: 80}}
";
        let converted = convert(text).expect("yaml");
        let spec = &converted.objects[0]["spec"];
        assert_eq!(
            (&spec["scaleUpThreshold"], &spec["scaleDownThreshold"]),
            (&json!(0.8), &json!(0.2))
        );
        assert_eq!(spec["nodePools"][0]["spotPercentage"], json!(1.0));
        assert_eq!(converted.objects[1]["spec"]["scaleUpThreshold"], json!(80));
    }

    #[test]
    fn durations_are_read_in_minutes() {
        assert_eq!(minutes("2h"), Some(120));
        assert_eq!(minutes("1d1h30m"), Some(1530));
        for bad in ["", "2", "h", "2x", "-2h", "99999999999999999999h"] {
            assert_eq!(minutes(bad), None, "{bad}");
        }
    }
}
