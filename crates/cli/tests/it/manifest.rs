use expect_test::expect;

use crate::run;

/// As an earlier README wrote it.
const OLD: &str = "\
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
    amount: 50000.0
    period: 30d
  alerts:
    - threshold: 80
      channels:
        - type: slack
          config:
            webhook: https://hooks.slack.com/services/YOUR/WEBHOOK/URL
  enforcement:
    mode: throttle
    gracePeriod: 2h
    throttleConfig:
      maxSpotInstances: 5
      blockOnDemand: true
";

#[test]
fn an_older_manifest_is_converted_and_converting_again_changes_nothing() {
    let shown = run(&["convert", "-f", "-"], OLD);
    expect![[r#"
        apiVersion: gpu-autoscaler.io/v1alpha1
        kind: CostBudget
        metadata:
          name: ml-team-monthly-budget
        spec:
          alerts:
          - channels:
            - config:
                webhook_url: https://hooks.slack.com/services/YOUR/WEBHOOK/URL
              type: slack
            name: at-80
            thresholdPercent: 80
          enforcement:
            action: throttle
            gracePeriodMinutes: 120
            throttleConfig:
              blockOnDemand: true
              maxSpotInstances: 5
          monthlyLimit: 50000.0
          scope:
            namespaceSelector:
              matchLabels:
                team: ml-team
        ! note: CostBudget `ml-team-monthly-budget`: apiVersion `v1alpha1.gpuautoscaler.io` is now `gpu-autoscaler.io/v1alpha1`
        ! note: CostBudget `ml-team-monthly-budget`: spec.budget.amount is now spec.monthlyLimit
        ! note: CostBudget `ml-team-monthly-budget`: spec.scope.type "namespace" is dropped: the selectors say it
        ! note: CostBudget `ml-team-monthly-budget`: spec.alerts[0].threshold is now spec.alerts[0].thresholdPercent
        ! note: CostBudget `ml-team-monthly-budget`: spec.alerts[0] has no name; it is now `at-80`
        ! note: CostBudget `ml-team-monthly-budget`: spec.alerts[0].channels[0].config.webhook is now spec.alerts[0].channels[0].config.webhook_url
        ! note: CostBudget `ml-team-monthly-budget`: spec.enforcement.mode is now spec.enforcement.action
        ! note: CostBudget `ml-team-monthly-budget`: spec.enforcement.gracePeriod "2h" is now gracePeriodMinutes: 120
        = 0
    "#]].assert_eq(&shown);
    let yaml: String = shown
        .lines()
        .filter(|line| !line.starts_with(['!', '=']))
        .map(|line| format!("{line}\n"))
        .collect();
    assert_eq!(run(&["convert", "-f", "-"], &yaml), format!("{yaml}= 0\n"));
}

#[test]
fn lint_names_object_field_value_and_what_to_do() {
    let policy = "\
apiVersion: gpu-autoscaler.io/v1alpha1
kind: AutoscalingPolicy
metadata: {name: fleet}
spec:
  provider: aws
  scaleUpThreshold: 60
  minNodes: 10
  maxNodes: 5
  maxNode: 7
";
    expect![[r#"
        standard input: AutoscalingPolicy `fleet`: `spec.maxNode: 7` is no field of the schema; the server drops it
          hint: did you mean maxNodes?
        standard input: AutoscalingPolicy `fleet`: `spec.scaleUpThreshold: 60` must be a fraction from 0 to 1, such as 0.6 for 60 %
          hint: write 0.6
        standard input: AutoscalingPolicy `fleet`: `spec.minNodes: 10` is above `maxNodes: 5`
          hint: raise maxNodes or lower minNodes
        = 1
    "#]].assert_eq(&run(&["lint", "-f", "-"], policy));
    expect![[r#"
        []
        ! warning: standard input holds no object of gpu-autoscaler.io, 1 of others
        = 0
    "#]]
    .assert_eq(&run(&["lint", "-f", "-", "-o", "json"], "apiVersion: v1\nkind: Pod\n"));
}
