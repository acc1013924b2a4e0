//! How much may be spent on GPUs, who is told, and what is done about it.

use std::collections::BTreeMap;

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::parts::{Conditions, LabelSelector, defaults};

/// How much may be spent on GPUs, who is told, and what is done about it.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "gpu-autoscaler.io",
    version = "v1alpha1",
    kind = "CostBudget",
    plural = "costbudgets",
    shortname = "cb",
    category = "gpu-autoscaler",
    doc = "How much may be spent on GPUs, who is told, and what is done about it.",
    status = "CostBudgetStatus",
    derive = "PartialEq",
    printcolumn(name = "Monthly Limit", type_ = "number", json_path = ".spec.monthlyLimit"),
    printcolumn(name = "Current Spend", type_ = "number", json_path = ".status.currentSpend"),
    printcolumn(name = "Percentage", type_ = "number", json_path = ".status.percentageUsed"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.budgetStatus"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct CostBudgetSpec {
    /// The consent to act. Unless it is true, spending is reported but nothing is enforced.
    #[serde(default)]
    pub enabled: bool,
    /// With `enabled`: decide and report, but change nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// Limit per month, in the currency of the prices.
    #[schemars(range(min = 0))]
    pub monthly_limit: f64,
    /// Whose spending counts.
    pub scope: BudgetScope,
    /// Who is told, and when.
    #[serde(default)]
    #[schemars(
        length(max = 32),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub alerts: Vec<BudgetAlert>,
    /// What is done when the limit is exceeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enforcement: Option<BudgetEnforcement>,
    /// Start of the first period; the first of the month when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("format" = "date-time"))]
    pub start_date: Option<String>,
}

/// Whose spending counts. Everything when nothing is named.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct BudgetScope {
    /// Namespaces; all when empty.
    #[serde(default)]
    pub namespaces: Vec<String>,
    /// Labels that the pods' namespaces must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
    /// Labels that pods must have.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// The label `experiment-id` that pods must have.
    #[serde(default, rename = "experimentID", skip_serializing_if = "Option::is_none")]
    pub experiment_id: Option<String>,
    /// The label `team` that pods must have one of.
    #[serde(default)]
    pub teams: Vec<String>,
}

/// Who is told at which share of the limit.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetAlert {
    /// Its name, unique in the budget.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// Share of the limit, in percent; above 100 where the limit may be exceeded.
    #[schemars(range(min = 0, max = 1000))]
    pub threshold_percent: f64,
    /// Where to.
    #[schemars(length(min = 1, max = 16))]
    pub channels: Vec<AlertChannel>,
    /// How bad it is.
    #[serde(default = "warning")]
    pub severity: AlertSeverity,
}

/// Where an alert goes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AlertChannel {
    /// Which kind.
    #[serde(rename = "type")]
    pub kind: AlertChannelKind,
    /// Its settings: `webhook_url` (slack), `routing_key` (pagerduty), `url` and `auth_header`
    /// (webhook), `to` (email).
    #[serde(default)]
    pub config: BTreeMap<String, String>,
    /// The same settings, kept in Secrets.
    #[serde(default)]
    pub config_secret_refs: BTreeMap<String, SecretKey>,
}

/// Kinds of channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertChannelKind {
    /// By mail.
    Email,
    /// To Slack.
    Slack,
    /// To PagerDuty.
    PagerDuty,
    /// To an HTTP address.
    Webhook,
}

/// One key of a Secret in the controller's namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SecretKey {
    /// The Secret.
    pub name: String,
    /// The key.
    pub key: String,
}

/// How bad an alert is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AlertSeverity {
    /// For the record.
    Info,
    /// Somebody should look.
    Warning,
    /// Somebody must act.
    Critical,
}

/// What is done when the limit is exceeded.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BudgetEnforcement {
    /// What.
    #[serde(default = "alert")]
    pub action: BudgetAction,
    /// How long after the limit was exceeded, in minutes.
    #[serde(default = "grace")]
    #[schemars(range(min = 0))]
    pub grace_period_minutes: i32,
    /// For `throttle`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttle_config: Option<ThrottleConfig>,
}

/// What is done when the limit is exceeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetAction {
    /// Nothing but telling.
    Alert,
    /// Fewer and cheaper nodes are added.
    Throttle,
    /// No GPU pod of the scope is admitted.
    Block,
}

/// How scaling is throttled.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ThrottleConfig {
    /// The most spot instances.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub max_spot_instances: Option<i32>,
    /// No new spot instance.
    #[serde(default)]
    pub block_spot_creation: bool,
    /// No new on-demand instance.
    #[serde(default)]
    pub block_on_demand: bool,
    /// On-demand instances rather than spot.
    #[serde(default)]
    pub prefer_on_demand: bool,
}

defaults! {
    warning: AlertSeverity = AlertSeverity::Warning;
    alert: BudgetAction = BudgetAction::Alert;
    grace: i32 = 60;
}

/// What was spent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct CostBudgetStatus {
    /// Spent in this period.
    pub current_spend: Option<f64>,
    /// Of the limit, in percent.
    pub percentage_used: Option<f64>,
    /// `ok`, `warning` or `exceeded`.
    pub budget_status: Option<BudgetState>,
    /// Spent at the end of the period if it goes on like this.
    pub projected_monthly_spend: Option<f64>,
    /// Until the period ends.
    pub days_remaining: Option<i32>,
    /// Alerts of this period.
    pub alerts_fired: Option<Vec<FiredAlert>>,
    /// Whether something is enforced now.
    pub enforcement_active: Option<bool>,
    /// Since when the limit is exceeded.
    #[schemars(extend("format" = "date-time"))]
    pub exceeded_since: Option<String>,
    /// When this status was written.
    #[schemars(extend("format" = "date-time"))]
    pub last_updated: Option<String>,
    /// Where the money went.
    pub breakdown: Option<SpendBreakdown>,
    /// The generation that this status speaks of.
    pub observed_generation: Option<i64>,
    /// Conditions.
    pub conditions: Conditions,
}

/// How a budget stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum BudgetState {
    /// Below 80 %.
    Ok,
    /// From 80 %.
    Warning,
    /// From 100 %.
    Exceeded,
}

/// An alert that was sent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FiredAlert {
    /// Which.
    pub alert_name: Option<String>,
    /// When.
    #[schemars(extend("format" = "date-time"))]
    pub timestamp: Option<String>,
    /// At which share of the limit, in percent.
    pub threshold: Option<f64>,
    /// Whether somebody has seen it.
    pub acknowledged: Option<bool>,
}

/// Where the money went.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SpendBreakdown {
    /// By namespace.
    pub by_namespace: Option<BTreeMap<String, f64>>,
    /// By label.
    pub by_label: Option<BTreeMap<String, f64>>,
    /// By instance type.
    pub by_instance_type: Option<BTreeMap<String, f64>>,
    /// By capacity type.
    pub spot_vs_on_demand: Option<BTreeMap<String, f64>>,
}
