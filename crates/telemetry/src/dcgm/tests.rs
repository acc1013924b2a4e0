use std::path::Path;

use expect_test::{Expect, expect};

use super::*;
use crate::exposition::parse;

fn origin() -> Origin {
    Origin { at: Timestamp::EPOCH, node: None, exporter: "e:9400".into() }
}

/// Reads the text and prints one line a sample, then what was dropped.
fn check(text: &str, expected: Expect) {
    expected.assert_eq(&render(text));
}

fn render(text: &str) -> String {
    let (samples, dropped) = samples(parse(text.as_bytes()).filter_map(Result::ok), &origin());
    let mut out = String::new();
    for s in samples {
        let show = |text: Option<String>| text.unwrap_or_else(|| "?".into());
        out.push_str(&format!(
            "{} {} {} {:?} {} fb {}/{} {}\n",
            s.node,
            s.device,
            show(s.holder.map(|h| h.pod.to_string())),
            s.scope,
            show(s.activity.map(|a| format!("{} {}", a.source, a.ratio))),
            show(s.fb_used.map(|b| b.as_mib().to_string())),
            show(s.fb_total.map(|b| b.as_mib().to_string())),
            show(s.hardware.power.map(|p| format!("{} W", p.as_watts()))),
        ));
    }
    for d in dropped {
        out.push_str(&format!("dropped {d}\n"));
    }
    out
}

fn shared(file: &str) -> Option<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/dcgm").join(file);
    match std::fs::read_to_string(&path) {
        Ok(text) => Some(text),
        Err(_) => {
            eprintln!("skipped: {} is absent", path.display());
            assert!(std::env::var_os("REQUIRE_ALL").is_none(), "REQUIRE_ALL is set");
            None
        }
    }
}

#[test]
fn the_best_activity_counter_wins_and_is_named() {
    check(
        "DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"n\"} 90\n\
         DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=\"GPU-1\",Hostname=\"n\"} 0.8\n\
         DCGM_FI_PROF_SM_ACTIVE{UUID=\"GPU-1\",Hostname=\"n\"} 0.25\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-2\",hostname=\"n\"} 90\n\
         DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-3\",hostname=\"n\"} 61.5\n",
        expect![[r#"
            n GPU-1 ? Exclusive SM_ACTIVE 25.0 % fb ?/? ?
            n GPU-2 ? Exclusive GPU_UTIL 90.0 % fb ?/? ?
            n GPU-3 ? Exclusive ? fb ?/? 61.5 W
        "#]],
    );
}

#[test]
fn values_that_cannot_be_are_unknown_not_large() {
    check(
        "DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"n\"} 101\n\
         DCGM_FI_DEV_FB_USED{UUID=\"GPU-1\",Hostname=\"n\"} 9223372036854775794\n\
         DCGM_FI_DEV_FB_FREE{UUID=\"GPU-1\",Hostname=\"n\"} 1e300\n\
         DCGM_FI_DEV_POWER_USAGE{UUID=\"GPU-1\",Hostname=\"n\"} -1\n\
         DCGM_FI_PROF_SM_ACTIVE{UUID=\"GPU-1\",Hostname=\"n\"} NaN\n\
         DCGM_FI_PROF_GR_ENGINE_ACTIVE{UUID=\"GPU-1\",Hostname=\"n\"} 140737488355328.0\n\
         DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-1\",Hostname=\"n\"} +Inf\n",
        expect![[r#"
            n GPU-1 ? Exclusive ? fb ?/? ?
            dropped `DCGM_FI_DEV_POWER_USAGE` of GPU-1: -1 cannot be
            dropped `DCGM_FI_PROF_SM_ACTIVE` of GPU-1: NaN cannot be
            dropped `DCGM_FI_DEV_GPU_TEMP` of GPU-1: inf cannot be
            dropped `DCGM_FI_DEV_GPU_UTIL` of GPU-1: 101 cannot be
        "#]],
    );
}

#[test]
fn a_series_that_contradicts_itself_is_unknown() {
    check(
        "DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"n\"} 10\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"n\",x=\"y\"} 10\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-2\",Hostname=\"n\"} 10\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-2\",Hostname=\"n\"} 11\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-2\",Hostname=\"n\"} 11\n",
        expect![[r#"
            n GPU-1 ? Exclusive GPU_UTIL 10.0 % fb ?/? ?
            n GPU-2 ? Exclusive ? fb ?/? ?
            dropped `DCGM_FI_DEV_GPU_UTIL` of GPU-2: both 10 and 11
        "#]],
    );
}

#[test]
fn series_that_name_no_device_or_node_are_noted() {
    check(
        "DCGM_FI_DEV_GPU_UTIL{Hostname=\"n\"} 1\nDCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\"} 1\n\
         DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",Hostname=\"n\",GPU_I_ID=\"7\"} 1\n\
         some_other_metric{Hostname=\"n\"} 1\n",
        expect![[r#"
            dropped `DCGM_FI_DEV_GPU_UTIL`: no `UUID` label
            dropped `DCGM_FI_DEV_GPU_UTIL` of GPU-1: no label names the node
            dropped `DCGM_FI_DEV_GPU_UTIL` of GPU-1: `GPU_I_ID` and `GPU_I_PROFILE` do not match
        "#]],
    );
}

#[test]
fn prometheus_keeps_the_holder_under_exported_labels() {
    check(
        "DCGM_FI_DEV_GPU_UTIL{UUID=\"GPU-1\",node=\"n1\",Hostname=\"exporter-abc\",\
         namespace=\"monitoring\",pod=\"exporter-abc\",exported_namespace=\"ml\",\
         exported_pod=\"train-0\",exported_container=\"main\"} 5\n",
        expect![[r#"
            n1 GPU-1 ml/train-0 Exclusive GPU_UTIL 5.0 % fb ?/? ?
        "#]],
    );
}

#[test]
fn labels_of_the_scraped_target_are_no_holder_and_no_part_of_a_shared_device() {
    // Prometheus Operator: every series of the target carries the exporter's own pod.
    let line = |gpu: &str, pod: &str, value: u32| {
        let exported = match pod {
            "" => String::new(),
            pod => format!(",exported_namespace=\"ml\",exported_pod=\"{pod}\",vgpu=\"0\""),
        };
        format!(
            "DCGM_FI_DEV_GPU_UTIL{{UUID=\"{gpu}\",Hostname=\"n1\",namespace=\"gpu-operator\",\
             pod=\"exporter-abc\"{exported}}} {value}\n"
        )
    };
    let text = [line("GPU-1", "", 12), line("GPU-1", "a", 12), line("GPU-1", "b", 0)].concat();
    check(
        &(text + &line("GPU-2", "", 0)),
        expect![[r#"
            n1 GPU-1 ? SharedDevice GPU_UTIL 12.0 % fb ?/? ?
            n1 GPU-1 ml/a SharedPart GPU_UTIL 12.0 % fb ?/? ?
            n1 GPU-1 ml/b SharedPart GPU_UTIL 0.0 % fb ?/? ?
            n1 GPU-2 ? Exclusive GPU_UTIL 0.0 % fb ?/? ?
        "#]],
    );
}

#[test]
fn a_shared_device_tells_pods_apart_only_by_process_counters() {
    let Some(text) = shared("t4-timeslice-virtual-gpus.prom") else { return };
    check(
        &text,
        expect![[r#"
            gpu-node-c GPU-49b64a08-72e6-cc3a-babc-ed2057ee05cd ? SharedDevice GPU_UTIL 62.0 % fb 6021/? ?
            gpu-node-c GPU-49b64a08-72e6-cc3a-babc-ed2057ee05cd dev/nb-a-0 SharedPart GPU_UTIL 44.0 % fb 3071/? ?
            gpu-node-c GPU-49b64a08-72e6-cc3a-babc-ed2057ee05cd dev/nb-b-0 SharedPart GPU_UTIL 15.0 % fb 2011/? ?
            gpu-node-c GPU-49b64a08-72e6-cc3a-babc-ed2057ee05cd ml-serve/tiny-5c9 SharedPart GPU_UTIL 3.0 % fb 911/? ?
        "#]],
    );
}

#[test]
fn mig_instances_are_samples_of_their_own() {
    let Some(text) = shared("a100-mig-mixed.prom") else { return };
    check(
        &text,
        expect![[r#"
        gpu-node-b GPU-34b9b5df-9e77-69b1-0f42-05b4907a70c3/1 (3g.20gb) ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 0/20551 213.648 W
        gpu-node-b GPU-34b9b5df-9e77-69b1-0f42-05b4907a70c3/5 (2g.10gb) batch/asr-77fd Exclusive GR_ENGINE_ACTIVE 88.0 % fb 7911/10311 214.323 W
        gpu-node-b GPU-34b9b5df-9e77-69b1-0f42-05b4907a70c3/7 (1g.5gb) ml-serve/bert-0 Exclusive GR_ENGINE_ACTIVE 61.0 % fb 812/5447 213.896 W
        gpu-node-b GPU-34b9b5df-9e77-69b1-0f42-05b4907a70c3/8 (1g.5gb) ml-serve/bert-1 Exclusive GR_ENGINE_ACTIVE 2.0 % fb 813/5447 214.177 W
        gpu-node-b GPU-930d6eaf-14f4-733f-3e7d-1bfbc7a2ea20 ml-train/cv-0 Exclusive GR_ENGINE_ACTIVE 85.0 % fb 33111/40909 342.1 W
    "#]],
    );
}

#[test]
fn eight_gpus_and_their_holders_are_read() {
    let Some(text) = shared("h100-8gpu-pods.prom") else { return };
    check(
        &text,
        expect![[r#"
        gpu-node-a GPU-3d9c1724-11e2-0b8f-6b0d-549b6f03675a ml-serve/embed-6d9f7c-x2x7p Exclusive GR_ENGINE_ACTIVE 9.3 % fb 5120/81559 131.4 W
        gpu-node-a GPU-4a23d596-2217-bead-dbc4-96cb8e81973e ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 0/81559 69.8 W
        gpu-node-a GPU-5f557203-3018-50c5-a38f-d547923a7369 ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 0/81559 69.8 W
        gpu-node-a GPU-6513270e-269e-0d37-f2a7-4de452e6b438 ml-train/llama-ft-0 Exclusive GR_ENGINE_ACTIVE 97.2 % fb 71234/81559 648.2 W
        gpu-node-a GPU-9531985d-5d9d-c9f8-1818-e811892f902b ml-train/llama-ft-0 Exclusive GR_ENGINE_ACTIVE 97.2 % fb 71234/81559 648.2 W
        gpu-node-a GPU-95e60af5-93bd-04cf-0fd6-30f1f29d0da9 research/jupyter-bob-0 Exclusive GR_ENGINE_ACTIVE 0.0 % fb 1843/81559 71.3 W
        gpu-node-a GPU-d0eda82f-8f6d-0558-4ef8-aa3892276658 ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 0/81559 69.8 W
        gpu-node-a GPU-f28c105d-1fb1-7c23-90c1-92cfd3ac94af research/jupyter-bob-0 Exclusive GR_ENGINE_ACTIVE 0.0 % fb 1843/81559 71.3 W
    "#]],
    );
}

#[test]
fn real_scrapes_with_titles_between_are_read() {
    let dir = "real-fake-gpu-operator/";
    let Some(text) = shared(&format!("{dir}2.9_mig_metrics_4_Active_Workloads.prom")) else {
        return;
    };
    check(
        &text,
        expect![[r#"
        nvidia-dcgm-exporter-tl46n GPU-473571f2-fb37-ef7e-50fe-9885b74a23cd/5 (2g.10gb) ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 13/9856 112.252 W
        nvidia-dcgm-exporter-tl46n GPU-473571f2-fb37-ef7e-50fe-9885b74a23cd/7 (1g.5gb) ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 6/4863 112.252 W
        nvidia-dcgm-exporter-tl46n GPU-473571f2-fb37-ef7e-50fe-9885b74a23cd/8 (1g.5gb) ? Exclusive GR_ENGINE_ACTIVE 40.8 % fb 4384/4864 106.463 W
        nvidia-dcgm-exporter-tl46n GPU-473571f2-fb37-ef7e-50fe-9885b74a23cd/9 (1g.5gb) ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 6/4863 106.463 W
    "#]],
    );
    let Some(text) = shared(&format!("{dir}2.9_fraction_metrics_1_workload.prom")) else { return };
    check(
        &text,
        expect![[r#"
        nvidia-dcgm-exporter-s228n GPU-5f587dd4-6505-0873-c6db-8324dbfe5ba9 ? Exclusive GR_ENGINE_ACTIVE 0.0 % fb 5/14960 17.035 W
        nvidia-dcgm-exporter-s228n GPU-7a2e92f2-be71-d37e-a744-541600ffc722 runai-reservation/runai-reservation-gpu-qa-mig-worker-gpu-1-kvltw Exclusive GR_ENGINE_ACTIVE 0.0 % fb 128/14959 28.722 W
    "#]],
    );
}

#[test]
fn the_condition_of_a_device_is_read_in_its_units() {
    let text = "DCGM_FI_DEV_GPU_TEMP{UUID=\"GPU-1\",Hostname=\"n\"} 81\n\
         DCGM_FI_DEV_MEMORY_TEMP{UUID=\"GPU-1\",Hostname=\"n\"} 9223372036854775794\n\
         DCGM_FI_DEV_SM_CLOCK{UUID=\"GPU-1\",Hostname=\"n\"} 1980\n\
         DCGM_FI_DEV_MEM_CLOCK{UUID=\"GPU-1\",Hostname=\"n\"} 2619\n\
         DCGM_FI_DEV_CLOCK_THROTTLE_REASONS{UUID=\"GPU-1\",Hostname=\"n\"} 72\n\
         DCGM_FI_DEV_ECC_SBE_VOL_TOTAL{UUID=\"GPU-1\",Hostname=\"n\"} 12\n\
         DCGM_FI_DEV_ECC_DBE_VOL_TOTAL{UUID=\"GPU-1\",Hostname=\"n\"} 1\n\
         DCGM_FI_DEV_ROW_REMAP_FAILURE{UUID=\"GPU-1\",Hostname=\"n\"} 0\n\
         DCGM_FI_DEV_XID_ERRORS{UUID=\"GPU-1\",Hostname=\"n\"} 48\n";
    let (samples, dropped) = samples(parse(text.as_bytes()).filter_map(Result::ok), &origin());
    assert_eq!(dropped, []);
    let read = samples[0].hardware;
    assert_eq!((read.temperature_celsius, read.memory_temperature_celsius), (Some(81), None));
    assert_eq!(read.sm_clock, Some(Megahertz::new(1980)));
    assert_eq!(read.memory_clock, Some(Megahertz::new(2619)));
    let slowed = ThrottleReasons::HW_SLOWDOWN.union(ThrottleReasons::HW_THERMAL);
    assert_eq!(read.throttle, Some(slowed));
    assert_eq!((read.ecc_corrected, read.ecc_uncorrected), (Some(12), Some(1)));
    assert_eq!((read.row_remap_failed, read.xid), (Some(false), Some(48)));
}
