//! `status`, `optimize`, `report`, `explain` and `cost` of a dump, on 80 columns.

use std::collections::BTreeSet;

use expect_test::expect;
use serde_json::Value;

use crate::{run, run_narrow, run_with};

const DUMP: [&str; 6] =
    ["-f", "cluster.yaml", "-m", "metrics.prom", "--at", "2026-11-22T00:00:00Z"];

fn of_dump(command: &[&str]) -> Vec<String> {
    command.iter().chain(&DUMP).map(|text| (*text).to_owned()).collect()
}

fn narrow(command: &[&str]) -> String {
    let args = of_dump(command);
    run_narrow(&args.iter().map(String::as_str).collect::<Vec<_>>())
}

/// Standard output alone, as JSON.
fn json(command: &[&str]) -> Value {
    let mut args = of_dump(command);
    args.extend(["-o".to_owned(), "json".to_owned()]);
    let shown = run(&args.iter().map(String::as_str).collect::<Vec<_>>(), "");
    let text: String = shown.lines().filter(|line| !line.starts_with(['!', '='])).collect();
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}:\n{shown}"))
}

#[test]
fn status_fits_a_terminal() {
    expect![[r#"
        === GPU Cluster Status ===
        Source:             `cluster.yaml`
        Judged at:          2026-11-22T00:00:00Z
        Basis:              one reading, taken to have lasted for the window
        Partial:            what is missing is named on standard error
        Total GPUs with workloads: 6

        NAMESPACE  POD                 NODE        GPUS  GPU UTIL  MEM UTIL
        ml-serve   embed-6d9f7c-x2x7p  gpu-node-a     1      9.0%      6.3%
        ml-train   llama-ft-0          gpu-node-a     2     96.0%         -
        research   dark                gpu-node-a     1         -         -
        research   jupyter-bob-0       gpu-node-a     2      0.0%         -
        research   waits               -              8         -         -

        === Waste ===
        KIND           NAMESPACE  POD              GPUS  COMPUTE  MEMORY  SCORE  SAVES/H
        Idle           research   jupyter-bob-0       2     0.0%       -     60   $13.76
        Underutilized  ml-serve   embed-6d9…x2x7p     1     9.0%    6.3%     92    $6.02

        === Waiting ===
        NAMESPACE  POD    GPUS  FITS ON  PACKING SAYS
        research   waits     8  -        0 of 1 nodes fit: 1 too little GPU; it would f…

        === Unknown ===
        NODE        GPUS  POD            WHY
        gpu-node-a     1  research/dark  no exporter reports it
        gpu-node-a     2  -              no exporter reports it

        === Summary ===
        GPU nodes:          1
        GPUs:               8, 5 measured, 14 requested
        GPU utilization:    40.2% on average of pods that are measured, memory 6.3%
        Cost per hour:      $55.04
        Could save:         $19.78 per hour

        On average less than half is used: `gpu-autoscaler optimize` says what to do.
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["status"]));
}

#[test]
fn optimize_says_what_to_do_why_and_how() {
    expect![[r#"
        === GPU Optimization ===
        Source:             `cluster.yaml`
        Judged at:          2026-11-22T00:00:00Z
        Basis:              one reading, taken to have lasted for the window
        Partial:            what is missing is named on standard error

        NAMESPACE  POD                 SCORE  GPU UTIL  MEM UTIL  MONTHLY COST     SAVES
        research   jupyter-bob-0          60      0.0%         -      $9907.20  $9907.20
        ml-serve   embed-6d9f7c-x2x7p     92      9.0%      6.3%      $4953.60  $4334.40

        === What to do ===
        1. research/jupyter-bob-0 (Idle)
           do      stop it
           why     in 540 s observed, GPU_UTIL 0.0% on average (0.0% at p95),
                   framebuffer not measured; needs 0.0% of one GPU at p99
           saves   $9907.20 a month ($13.76 per hour): 100.0% of the $13.76 per hour
                   that its GPUs cost
           apply   kubectl -n research delete pod jupyter-bob-0
        2. ml-serve/embed-6d9f7c-x2x7p (Underutilized)
           do      request MIG profile 1g.10gb (10 GiB, 1/8 of a GPU)
           why     in 540 s observed, GPU_UTIL 9.0% on average (9.0% at p95),
                   framebuffer 6.3% and constant; needs 9.0% of one GPU and 5247 MiB at
                   p99
           saves   $4334.40 a month ($6.02 per hour): 87.5% of the $6.88 per hour that
                   its GPUs cost
           apply   by hand, in the manifest: no one command changes its owner

        === Summary ===
        Total monthly cost: $39628.80 ($55.04 per hour)
        Potential savings:  $14241.60 per month ($19.78 per hour)
        Annual savings:     $170899.20

        Nothing was changed: this release recommends and does not act.
        Next steps:
          gpu-autoscaler explain NAMESPACE/POD   every number, where it is from, and why
          gpu-autoscaler report                  by namespace, and what is not known
          gpu-autoscaler optimize -o json        the same for programs
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["optimize"]));
}

#[test]
fn report_has_its_four_parts() {
    expect![[r#"
        === GPU Report ===
        Source:             `cluster.yaml`
        Judged at:          2026-11-22T00:00:00Z
        Basis:              one reading, taken to have lasted for the window
        Partial:            what is missing is named on standard error

        === 1 Executive Summary ===
        GPU nodes:          1
        GPUs:               8, 5 measured, 14 requested
        GPU utilization:    40.2% on average of pods that are measured, memory 6.3%
        Total monthly cost: $39628.80 ($55.04 per hour)
        Potential savings:  $14241.60 per month ($19.78 per hour)
        Annual savings:     $170899.20
        Cost trend:         not known: this release keeps no ledger
        Key recommendations:
          - research/jupyter-bob-0: stop it; saves $9907.20 a month
          - ml-serve/embed-6d9f7c-x2x7p: request MIG profile 1g.10gb (10 GiB, 1/8 of a
            GPU); saves $4334.40 a month

        === 2 Utilization ===
        By namespace:
        NAMESPACE  PODS  GPUS  COMPUTE  MEMORY  COST/H  COST/MONTH  SAVES/H
        research      2     3     0.0%       -  $20.64   $14860.80   $13.76
        ml-train      1     2    96.0%       -  $13.76    $9907.20        -
        ml-serve      1     1     9.0%    6.3%   $6.88    $4953.60    $6.02

        Top consumers:
        NAMESPACE  POD                 GPUS  COMPUTE  MEMORY  COST/H
        research   jupyter-bob-0          2     0.0%       -  $13.76
        ml-train   llama-ft-0             2    96.0%       -  $13.76
        research   dark                   1        -       -   $6.88
        ml-serve   embed-6d9f7c-x2x7p     1     9.0%    6.3%   $6.88

        Underutilized:
        KIND           NAMESPACE  POD              GPUS  COMPUTE  MEMORY  SCORE  SAVES/H
        Idle           research   jupyter-bob-0       2     0.0%       -     60   $13.76
        Underutilized  ml-serve   embed-6d9…x2x7p     1     9.0%    6.3%     92    $6.02

        Not known:
        NODE        GPUS  POD            WHY
        gpu-node-a     1  research/dark  no exporter reports it
        gpu-node-a     2  -              no exporter reports it

        === 3 Cost ===
        CAPACITY   NODES  PER HOUR  PER MONTH
        reserved       0         -          -
        spot           0         -          -
        on-demand      1    $55.04  $39628.80
        GPUs that no pod holds cost $13.76 per hour.

        === 4 Opportunities ===
        ADVICE      PODS  SAVES/H  SAVES/MONTH  UNPRICED
        Stop           1   $13.76     $9907.20         0
        MigProfile     1    $6.02     $4334.40         0
        What to do about each pod: gpu-autoscaler optimize
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["report"]));
}

#[test]
fn explain_shows_each_number_with_its_source() {
    expect![[r#"
        === pod ml-serve/embed-6d9f7c-x2x7p on gpu-node-a ===
        Source: `cluster.yaml`

          GPUs                         1  requests of the pod; H100-80GB-HBM3
          devices                      1  seen on GPU-2: the exporter's labels `pod` and
                                          `UUID`
          observed                 540 s  of a window of 600 s, gaps above 90 s left
                                          out; 7 samples
          compute, mean             9.0%  DCGM_FI_DEV_GPU_UTIL: share of time with any
                                          kernel running, however small; over time and
                                          devices
          compute, p95              9.0%  the same; 95th percentile
          compute, p99              9.0%  the same; 99th percentile
          compute, highest          9.0%  the same; highest sample
          devices touched              1  those that computed anything
          memory, mean              6.3%  DCGM_FI_DEV_FB_USED / (USED + FREE + RESERVED)
          memory, p95               6.3%  the same; 95th percentile
          memory, highest       5120 MiB  DCGM_FI_DEV_FB_USED, highest of one device;
                                          constant: where it is allocated in advance it
                                          says nothing of what is needed
          waste score               92.1  60 x (1 - mean compute) = 54.6, plus 40 x (1 -
                                          mean memory) = 37.5
          reclaimable              91.0%  1 - the larger of p95 compute and p95 memory;
                                          not known without memory
          needs, compute            9.0%  p99 of the window, and of 180 s of pods of its
                                          owner and image
          needs, memory         5247 MiB  p99 of the window, and of 180 s of pods of its
                                          owner and image
          given back               87.5%  of what it holds, when one follows: request
                                          MIG profile 1g.10gb (10 GiB, 1/8 of a GPU)
          node per hour           $55.04  price of p5.48xlarge, on-demand for 8 GPUs
          pod per hour             $6.88  the node's price x the part of its GPUs that
                                          the pod requests
          saves per hour           $6.02  pod per hour x what is given back; $4334.40 a
                                          month of 720 h

        Rules, the first that holds decides:
          OverRequested           1 of 1  if some but not all of its devices were
                                          touched, now or by its like before
          no waste                  9.0%  else if mean compute is at least 50%
          no waste                  92.1  else if the waste score is 50 or less
          Underutilized             9.0%  else if the highest compute is above 1%
          MemoryHeld                6.3%  else if mean memory is at least 50%
          Idle                            else

        Outcome: Underutilized since 2026-11-22T00:00:00Z: in 540 s observed, GPU_UTIL
                 9.0% on average (9.0% at p95), framebuffer 6.3% and constant; needs
                 9.0% of one GPU and 5247 MiB at p99. Recommended: request MIG profile
                 1g.10gb (10 GiB, 1/8 of a GPU).
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["explain", "ml-serve/embed-6d9f7c-x2x7p"]));
    expect![[r#"
        === node gpu-node-a ===
        Source: `cluster.yaml`

          GPUs                                 8  labels and capacity of the node;
                                                  H100-80GB-HBM3
          pods                                 4  ml-serve/embed-6d9f7c-x2x7p,
                                                  ml-train/llama-ft-0, research/dark,
                                                  research/jupyter-bob-0
          requested                            6  GPUs, slices and replicas, by those
                                                  pods
          compute, mean                        -  over all devices, by the window of
                                                  their pods; - unless all are measured
          last measured     2026-11-22T00:00:00Z  its exporter is alive
          node per hour                   $55.04  price of p5.48xlarge, on-demand for 8
                                                  GPUs

        Outcome: not known: no exporter reports it
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["explain", "node/gpu-node-a"]));
}

#[test]
fn explain_says_why_nothing_was_decided() {
    let mut shown = String::new();
    for object in ["dark", "waits", "llama-ft-0", "Idle/research/jupyter-bob-0", "nobody"] {
        shown.push_str(&format!(
            "$ explain {object}\n{}",
            narrow(&["explain", object, "-o", "summary"])
        ));
    }
    expect![[r#"
        $ explain dark
        === pod research/dark on gpu-node-a ===
        Source: `cluster.yaml`

        Outcome: not known, and so neither idle nor busy: no exporter reports it
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
        $ explain waits
        === pod research/waits on no node yet ===
        Source: `cluster.yaml`

        Outcome: not decided: not scheduled: 0/1 nodes are available: 1 Insufficient
                 nvidia.com/gpu.
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
        $ explain llama-ft-0
        === pod ml-train/llama-ft-0 on gpu-node-a ===
        Source: `cluster.yaml`

        Outcome: no waste: it is measured, and no rule accuses it
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
        $ explain Idle/research/jupyter-bob-0
        === pod research/jupyter-bob-0 on gpu-node-a ===
        Source: `cluster.yaml`

        Outcome: Idle since 2026-11-22T00:00:00Z: in 540 s observed, GPU_UTIL 0.0% on
                 average (0.0% at p95), framebuffer not measured; needs 0.0% of one GPU
                 at p99. Recommended: stop it. To do so: kubectl -n research delete pod
                 jupyter-bob-0
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
        $ explain nobody
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        ! error: no GPU pod and no GPU node `nobody` in `cluster.yaml`
        ! hint: `gpu-autoscaler status` lists GPU pods, `report` lists GPU nodes; other objects are not looked at
        = 1
    "#]].assert_eq(&shown);
}

#[test]
fn cost_says_what_is_known_and_what_is_not() {
    expect![[r#"
        === GPU COST REPORT ===
        Source:             `cluster.yaml`
        Judged at:          2026-11-22T00:00:00Z
        Basis:              one reading, taken to have lasted for the window
        Partial:            what is missing is named on standard error
        Scope:              namespace ml-serve
        Spent:              not known: this release keeps no ledger

        COST SUMMARY, of what its pods hold
          Current rate: $6.88 per hour
          Monthly:      $4953.60

        COST BREAKDOWN, of what pods hold
        NAMESPACE  PODS  GPUS  COMPUTE  MEMORY  COST/H  COST/MONTH  SAVES/H
        ml-serve      1     1     9.0%    6.3%   $6.88    $4953.60    $6.02
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        ! warning: what was spent in the last 168.0 h is not known: this release keeps no ledger; the rates are those of now
        = 3
    "#]].assert_eq(&narrow(&["cost", "--namespace", "ml-serve", "--last", "7d"]));
    expect![[r#"
        ! error: return on investment compares bills before and after; this release keeps no ledger
        ! hint: `gpu-autoscaler optimize` says what could be saved from now on, by measured use
        = 1
    "#]]
    .assert_eq(&run(&["cost", "roi", "--last", "30d"], ""));
    expect![[r#"
        ! error: team `ml`: costs are attributed by namespace only in this release
        ! hint: use --namespace, or leave --team out
        = 1
    "#]]
    .assert_eq(&run(&["cost", "--team", "ml"], ""));
}

#[test]
fn report_as_rows_for_a_spreadsheet() {
    expect![[r#"
        section,subject,metric,value,unit
        summary,fleet,gpu_nodes,1,1
        summary,fleet,gpus,8,1
        summary,fleet,gpus_measured,5,1
        summary,fleet,gpus_requested,14,1
        summary,fleet,nodes_unpriced,0,1
        summary,fleet,findings_unpriced,0,1
        summary,fleet,compute_mean,0.402000,ratio
        summary,fleet,memory_mean,0.062776,ratio
        summary,fleet,cost,55.04,USD/h
        summary,fleet,saving,19.78,USD/h
        utilization,research,gpus,3,1
        utilization,research,compute_mean,0.000000,ratio
        utilization,research,memory_mean,,ratio
        cost,research,cost,20.64,USD/h
        opportunities,research,saving,13.76,USD/h
        utilization,ml-train,gpus,2,1
        utilization,ml-train,compute_mean,0.960000,ratio
        utilization,ml-train,memory_mean,,ratio
        cost,ml-train,cost,13.76,USD/h
        opportunities,ml-train,saving,,
        utilization,ml-serve,gpus,1,1
        utilization,ml-serve,compute_mean,0.090000,ratio
        utilization,ml-serve,memory_mean,0.062776,ratio
        cost,ml-serve,cost,6.88,USD/h
        opportunities,ml-serve,saving,6.02,USD/h
        cost,reserved,nodes,0,1
        cost,reserved,cost,,
        cost,spot,nodes,0,1
        cost,spot,cost,,
        cost,on-demand,nodes,1,1
        cost,on-demand,cost,55.04,USD/h
        opportunities,research/jupyter-bob-0,Stop,13.76,USD/h
        opportunities,ml-serve/embed-6d9f7c-x2x7p,MigProfile,6.02,USD/h
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&narrow(&["report", "--format", "csv"]));
}

#[test]
fn all_savings_are_the_same_sum() {
    let (status, optimize, report) = (json(&["status"]), json(&["optimize"]), json(&["report"]));
    let saving = &status["totals"]["savingPerHour"];
    assert!(saving["amount"].is_string(), "{saving}");
    assert_eq!(*saving, optimize["totals"]["savingPerHour"]);
    assert_eq!(*saving, report["executiveSummary"]["totals"]["savingPerHour"]);
    let nanos = |amount: &Value| -> i128 {
        let text = amount["amount"].as_str().expect("a decimal");
        let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{rest:0<9}").parse().expect("digits")
    };
    let sum = |items: &Value| -> i128 {
        let items = items.as_array().expect("a list");
        items.iter().map(|one| &one["savingPerHour"]).filter(|it| !it.is_null()).map(nanos).sum()
    };
    assert_eq!(sum(&optimize["recommendations"]), nanos(saving));
    assert_eq!(sum(&report["opportunities"]["byAdvice"]), nanos(saving));
    assert_eq!(sum(&report["utilization"]["namespaces"]), nanos(saving));
    let monthly = &report["executiveSummary"]["savingPerMonth"];
    assert_eq!(nanos(monthly), nanos(saving) * 720, "a month has 720 hours");
}

#[test]
fn no_line_is_wider_than_the_terminal() {
    for command in
        [&["status"][..], &["optimize"], &["report"], &["explain", "llama-ft-0"], &["cost"]]
    {
        let shown = narrow(command);
        let wide: Vec<&str> = shown
            .lines()
            .filter(|line| !line.starts_with('!') && line.chars().count() > 80)
            .collect();
        // A command to paste is never broken.
        let wide: Vec<_> = wide.iter().filter(|line| !line.contains("kubectl")).collect();
        assert_eq!(wide, Vec::<&&str>::new(), "{command:?}");
    }
}

#[test]
fn formats_of_earlier_releases_are_taken() {
    let lines = |args: &[&str]| {
        let shown = narrow(args);
        assert!(shown.ends_with("= 3\n"), "{args:?}: {shown}");
        shown.lines().count()
    };
    let table = lines(&["status", "--format", "table"]);
    assert!(lines(&["status", "--format", "summary"]) < table);
    assert_eq!(lines(&["status", "--format", "detailed"]), table);
    assert_eq!(lines(&["report", "--format", "text"]), lines(&["report"]));
    lines(&["cost", "--format", "detailed"]);
    lines(&["cost", "report", "--format", "table"]);
}

#[test]
fn a_namespace_narrows_everything_but_the_sums() {
    let all = json(&["status"]);
    let one = json(&["status", "--namespace", "ml-serve"]);
    assert_eq!(all["totals"], one["totals"]);
    let spaces = |status: &Value| -> BTreeSet<String> {
        let pods = status["pods"].as_array().expect("a list").iter();
        pods.map(|pod| pod["namespace"].to_string()).collect()
    };
    assert!(spaces(&all).len() > 1);
    assert_eq!(spaces(&one), BTreeSet::from(["\"ml-serve\"".to_owned()]));
}

#[test]
fn without_a_cluster_there_is_a_next_step() {
    expect![[r#"
        ! error: no `--kubeconfig`, nothing usable in `KUBECONFIG` or `~/.kube/config`, and not in a pod
        !   because: failed to read kubeconfig from '"/nonexistent/.kube/config"': No such file or directory (os error 2)
        ! hint: name a cluster with --kubeconfig FILE, judge a dump with -f FILE, or ask a controller with --server URL; `gpu-autoscaler demo` needs none of them
        = 1
    "#]].assert_eq(&run(&["status"], ""));
    expect![[r#"
        ! error: kubeconfig `absent` cannot be used
        !   because: failed to read kubeconfig from '"absent"': No such file or directory (os error 2)
        ! hint: name a cluster with --kubeconfig FILE, judge a dump with -f FILE, or ask a controller with --server URL; `gpu-autoscaler demo` needs none of them
        = 1
    "#]].assert_eq(&run(&["status", "--kubeconfig", "absent"], ""));
    expect![[r#"
        ! error: the kubeconfig has no context `prod`; it has `lab`
        ! hint: name a cluster with --kubeconfig FILE, judge a dump with -f FILE, or ask a controller with --server URL; `gpu-autoscaler demo` needs none of them
        = 1
    "#]]
        .assert_eq(&run(&["status", "--kubeconfig", "kubeconfig.yaml", "--context", "prod"], ""));
    expect![[r#"
        ! error: list Nodes of cluster `lab` at http://127.0.0.1:1/
        !   because: the API server cannot be reached for `/api/v1/nodes?watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=290`: ServiceError: client error (Connect): tcp connect error: Connection refused (os error 111)
        ! hint: `gpu-autoscaler doctor` says what is wrong with the way to the cluster
        = 1
    "#]].assert_eq(&run(&["optimize", "--kubeconfig", "kubeconfig.yaml"], ""));
    expect![[r#"
        ok       kubeconfig             cluster `lab` at http://127.0.0.1:1/
        failed   API server             http://127.0.0.1:1/: the API server cannot be reached for
                                        `/version`: ServiceError: client error (Connect): tcp connect error:
                                        Connection refused (os error 111)
               next:                    is the address right, and is the VPN or the tunnel up?
        skipped  server version         not looked at: the API server does not answer
        skipped  clock                  not looked at: the API server does not answer
        skipped  release                not looked at: the API server does not answer
        skipped  definitions            not looked at: the API server does not answer
        skipped  rights                 not looked at: the API server does not answer
        skipped  objects                not looked at: the API server does not answer
        skipped  GPU nodes              not looked at: the API server does not answer
        skipped  prices                 not looked at: the API server does not answer
        failed   metrics                1 of 1 sources fail: http://127.0.0.1:1/metrics does not answer:
                                        error sending request: client error (Connect): tcp connect error:
                                        Connection refused (os error 111)
               next:                    from outside of the cluster: kubectl -n gpu-autoscaler-system
                                        port-forward svc/gpu-autoscaler-prometheus 9090, then
                                        --prometheus-url http://127.0.0.1:9090
        skipped  counters               not looked at: there are no samples
        skipped  nodes measured         not looked at: there are no samples
        skipped  pods named             not looked at: there are no samples
        skipped  sample clocks          not looked at: there are no samples
        skipped  age                    not looked at: there are no samples

        16 checks: 1 ok, 0 warnings, 2 failed, 13 skipped
        = 1
    "#]].assert_eq(&run(
        &["doctor", "--kubeconfig", "kubeconfig.yaml", "--exporter", "http://127.0.0.1:1/metrics"],
        "",
    ));
}

#[test]
fn a_server_of_the_environment_is_asked() {
    let environment = [("GPU_AUTOSCALER_SERVER", "http://127.0.0.1:1")];
    let shown = run_with(&["report"], &environment, "");
    assert!(shown.contains("http://127.0.0.1:1/api/v1/status does not answer"), "{shown}");
    let conflict = run(&["report", "--server", "http://127.0.0.1:1", "-f", "cluster.yaml"], "");
    assert!(conflict.ends_with("= 2\n"), "{conflict}");
}
