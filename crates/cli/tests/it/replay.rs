//! `replay`.

use expect_test::expect;

use crate::{run, run_narrow};

#[test]
fn a_recording_shows_what_was_found_and_when() {
    let shown = run_narrow(&["replay", "cluster.yaml", "trace.json"]);
    expect![[r#"
        === Replay, 2026-11-21T01:00:00Z to 2026-11-21T01:30:00Z ===
        2026-11-21T01:14:00Z  Event     ml-serve/embed-6d9f7c-x2x7p GpuUnderutilized
            GPU computed too little for 600 s: mean GPU_UTIL 47.0 % (p95 80.0 %),
            framebuffer 6.3 % (preallocated); waste score 69 of 100; nothing smaller
            fits: raise its load: saves $0.00/h
        2026-11-21T01:14:00Z  found     ml-serve/embed-6d9f7c-x2x7p Underutilized
            compute 47.0% (GPU_UTIL), memory 6.3%, score 69, saves $0.00 per hour
        2026-11-21T01:28:00Z  cleared   ml-serve/embed-6d9f7c-x2x7p Underutilized
            no longer so

        === Summary ===
        GPU nodes:          1
        GPUs:               8, 3 measured, 14 requested
        GPU utilization:    85.8% on average of pods that are measured, memory 6.3%
        Cost per hour:      $55.04
        Could save:         - per hour
        Judgements:       61
        Samples:          183, 0 of no node that is known
        Changes:          3
        Digest:           eaecad100a186a34
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&shown);
    assert_eq!(shown, run_narrow(&["replay", "trace.json", "cluster.yaml"]), "in any order");
}

#[test]
fn what_is_missing_of_a_recording_is_named() {
    let mut shown = String::new();
    for args in
        [&["cluster.yaml"][..], &["trace.json"], &["cluster.yaml", "metrics.prom"], &["absent"]]
    {
        let mut all = vec!["replay"];
        all.extend(args);
        shown.push_str(&format!("$ replay {}\n{}", args.join(" "), run(&all, "")));
    }
    expect![[r#"
        $ replay cluster.yaml
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        ! error: the recording has no samples; `gpu-autoscaler replay --help` says how to save some
        = 1
        $ replay trace.json
        ! error: the recording has no nodes; add `kubectl get nodes,pods,pdb -A -o yaml`
        = 1
        $ replay cluster.yaml metrics.prom
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        ! error: some samples have no time; use `gpu-autoscaler plan` for a single instant
        = 1
        $ replay absent
        ! error: open `absent`
        !   because: No such file or directory (os error 2)
        = 1
    "#]].assert_eq(&shown);
}
