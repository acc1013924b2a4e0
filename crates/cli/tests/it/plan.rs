use std::collections::BTreeMap;

use expect_test::expect;
use serde_json::Value;

use crate::run;

const AT: &str = "2026-11-22T00:00:00Z";

fn plan(more: &[&str], input: &str) -> String {
    let mut args = vec!["plan", "--at", AT];
    args.extend(more);
    run(&args, input)
}

#[test]
fn a_dump_with_metrics_is_judged() {
    let shown = plan(&["-f", "cluster.yaml", "-m", "metrics.prom"], "");
    expect![[r#"
        === Waste ===
        KIND           NAMESPACE  POD                 GPUS  COMPUTE  MEMORY  SCORE  SAVES/H
        Idle           research   jupyter-bob-0          2     0.0%       -     60   $13.76
        Underutilized  ml-serve   embed-6d9f7c-x2x7p     1     9.0%    6.3%     92    $6.02

        === Not decided ===
        NAMESPACE  POD    WHY
        research   waits  not scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.
        research   done   ended (Succeeded): it holds nothing

        === Waiting ===
        NAMESPACE  POD    GPUS  FITS ON  PACKING SAYS
        research   waits     8  -        0 of 1 nodes fit: 1 too little GPU; it would fit with 8 GPUs free on one node, where now at most 2 are

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
        Pods:             2 with waste, 2 without, 2 not decided
        Basis:            one snapshot, taken to have lasted for 10 minutes
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&shown);
}

#[test]
fn a_dump_alone_tells_what_is_missing() {
    let shown = plan(&["-f", "cluster.yaml", "--format", "table"], "");
    expect![[r#"
        No waste can be found without metrics: give them with --metrics.

        === Not decided ===
        NAMESPACE  POD    WHY
        research   waits  not scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.
        research   done   ended (Succeeded): it holds nothing

        === Waiting ===
        NAMESPACE  POD    GPUS  FITS ON  PACKING SAYS
        research   waits     8  -        0 of 1 nodes fit: 1 too little GPU; it would fit with 8 GPUs free on one node, where now at most 2 are

        === Unknown ===
        NODE        GPUS  POD                          WHY
        gpu-node-a     1  ml-serve/embed-6d9f7c-x2x7p  no exporter reports it
        gpu-node-a     1  research/dark                no exporter reports it
        gpu-node-a     2  -                            no exporter reports it
        gpu-node-a     2  ml-train/llama-ft-0          no exporter reports it
        gpu-node-a     2  research/jupyter-bob-0       no exporter reports it

        === Summary ===
        GPU nodes:          1
        GPUs:               8, 0 measured, 14 requested
        GPU utilization:    - on average of pods that are measured, memory -
        Cost per hour:      $55.04
        Could save:         - per hour
        Pods:             0 with waste, 4 without, 2 not decided
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&shown);
}

#[test]
fn a_price_sheet_replaces_the_list() {
    let sheet = "instance_type,region,capacity_type,price_per_hour,currency\n\
                 p5.48xlarge,,on-demand,8,EUR\n";
    let shown = plan(&["-f", "cluster.yaml", "--prices", "-", "-o", "json"], sheet);
    let json = shown.lines().filter(|l| !l.starts_with(['!', '='])).collect::<String>();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["totals"]["costPerHour"]["currency"], "EUR");
}

#[test]
fn every_gpu_pod_occurs_exactly_once() {
    let shown = plan(&["-f", "cluster.yaml", "-m", "metrics.prom", "-o", "json"], "");
    let json = shown.lines().filter(|l| !l.starts_with(['!', '='])).collect::<String>();
    let json: Value = serde_json::from_str(&json).expect("JSON");
    let mut seen: BTreeMap<String, u32> = BTreeMap::new();
    for part in ["placed", "found", "refused"] {
        for pod in json[part].as_array().expect("a list") {
            let name = pod["pod"].as_str().expect("a name").to_owned();
            *seen.entry(name).or_default() += 1;
        }
    }
    let pods = ["dark", "done", "embed-6d9f7c-x2x7p", "jupyter-bob-0", "llama-ft-0", "waits"];
    assert_eq!(seen, pods.map(|pod| (pod.to_owned(), 1)).into());
}

#[test]
fn yaml_and_csv_carry_the_same_pods() {
    let csv = plan(&["-f", "cluster.yaml", "-m", "metrics.prom", "-o", "csv"], "");
    expect![[r#"
        result,namespace,pod,node,reason,saving_per_hour
        found,research,jupyter-bob-0,gpu-node-a,Idle,13.76
        found,ml-serve,embed-6d9f7c-x2x7p,gpu-node-a,Underutilized,6.02
        placed,ml-train,llama-ft-0,gpu-node-a,used,
        placed,research,dark,gpu-node-a,unknown,
        refused,research,waits,,not scheduled: 0/1 nodes are available: 1 Insufficient nvidia.com/gpu.,
        refused,research,done,,ended (Succeeded): it holds nothing,
        ! warning: left out: Pod `research/odd`: field `spec.containers[0].resources.limits.nvidia.com/gpu`: `many` is no quantity such as `500m`, `1.5Gi` or `2e3`
        = 3
    "#]].assert_eq(&csv);
    let yaml = plan(&["-f", "cluster.yaml", "-m", "metrics.prom", "-o", "yaml"], "");
    assert!(yaml.contains("pod: llama-ft-0"), "{yaml}");
}

#[test]
fn what_cannot_be_read_is_named() {
    let mut shown = String::new();
    for (args, input) in [
        (&["-f", "absent.yaml"][..], ""),
        (&["-f", "-"], ""),
        (&["-f", "-"], "{\"kind\":\"List\",\"items\":[{\"kind\":\"Node\""),
        (&["-f", "-"], "just words"),
        (&["-f", "cluster.yaml", "-m", "-"], "no metrics here\n"),
        (&["-f", "cluster.yaml", "--prices", "-"], "wrong,header\n"),
        (&["-f", "cluster.yaml", "-o", "xml"], ""),
        (&[], ""),
    ] {
        shown.push_str(&format!("$ plan {}\n{}", args.join(" "), plan(args, input)));
    }
    expect![[r#"
        $ plan -f absent.yaml
        ! error: open `absent.yaml`
        !   because: No such file or directory (os error 2)
        = 1
        $ plan -f -
        ! error: read standard input
        !   because: the dump is empty; `kubectl get nodes,pods,pdb -A -o yaml` prints one
        = 1
        $ plan -f -
        ! error: read standard input
        !   because: the dump ends early, within document 1 (EOF while parsing an object at line 1 column 38); dump the cluster again
        = 1
        $ plan -f -
        ! error: read standard input
        !   because: document 1 of the dump is neither JSON nor YAML: `just words` is no field of an object
        = 1
        $ plan -f cluster.yaml -m -
        ! error: standard input has no series of a DCGM exporter such as `DCGM_FI_DEV_GPU_UTIL` (1 lines dropped)
        = 1
        $ plan -f cluster.yaml --prices -
        ! error: read standard input
        !   because: price sheet, line 1: the first line must be `instance_type,region,capacity_type,price_per_hour,currency`, not `wrong,header`
        = 1
        $ plan -f cluster.yaml -o xml
        ! error: invalid value 'xml' for '--output <FORMAT>'
        !   [possible values: table, wide, summary, json, yaml, csv]
        ! 
        !   tip: a similar value exists: 'yaml'
        ! 
        ! For more information, try '--help'.
        = 2
        $ plan 
        ! error: the following required arguments were not provided:
        !   --filename <FILE>
        ! 
        ! Usage: gpu-autoscaler plan --filename <FILE> --at <TIME>
        ! 
        ! For more information, try '--help'.
        = 2
    "#]].assert_eq(&shown);
}

#[test]
fn a_controller_that_is_not_there_is_a_hint() {
    let shown = run(&["status", "--server", "http://127.0.0.1:1"], "");
    expect![[r#"
        ! error: http://127.0.0.1:1/api/v1/status does not answer
        !   because: error sending request
        !   because: client error (Connect)
        !   because: tcp connect error
        !   because: Connection refused (os error 111)
        ! hint: is the controller running, and is its port forwarded? kubectl -n gpu-autoscaler-system port-forward deploy/gpu-autoscaler-controller 8080
        = 1
    "#]].assert_eq(&shown);
}
