use std::env;
use std::path::Path;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use gpu_autoscaler_analysis::Thresholds;
use serde_json::Value;
use tower::ServiceExt as _;

use super::*;
use crate::sample_view;

async fn ask(path: &str) -> (u16, Value) {
    ask_of(sample_view::full(), path).await
}

async fn ask_of(view: View, path: &str) -> (u16, Value) {
    let (_sender, view) = watch::channel(Arc::new(view));
    let router = router(view, Thresholds::published());
    let request = Request::get(path).body(Body::empty()).expect("a request");
    let answer = router.oneshot(request).await.expect("infallible");
    let code = answer.status().as_u16();
    let body = to_bytes(answer.into_body(), 1 << 20).await.expect("in memory");
    (code, serde_json::from_slice(&body).unwrap_or_else(|error| panic!("{path}: {error}")))
}

/// Validates `answer` as the description has it for `code` of the route `template`.
fn validate(template: &str, code: u16, answer: &Value) {
    let document = openapi::document();
    let content = &document["paths"][template]["get"]["responses"][code.to_string()]["content"];
    let mut schema = content["application/json"]["schema"].clone();
    assert!(schema.is_object(), "{template} answers {code}, which is not described");
    // References of an OpenAPI document begin at its root.
    schema["components"] = document["components"].clone();
    let validator = jsonschema::draft202012::new(&strict(schema)).expect("a schema");
    let errors: Vec<String> = validator
        .iter_errors(answer)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{template} {code}: {}\n{answer:#}", errors.join("\n"));
}

/// The same schema with every object closed: what is served and not described is a fault too.
fn strict(mut schema: Value) -> Value {
    fn close(schema: &mut Value) {
        match schema {
            Value::Object(map) => {
                if map.contains_key("properties") {
                    map.insert("additionalProperties".to_owned(), Value::Bool(false));
                }
                map.values_mut().for_each(close);
            }
            Value::Array(items) => items.iter_mut().for_each(close),
            _ => {}
        }
    }
    close(&mut schema);
    schema
}

#[tokio::test]
async fn every_route_answers_as_described() {
    for route in &ROUTES {
        let path = route.path.replace("{namespace}", "ml").replace("{pod}", "idle");
        let (code, answer) = ask(&path).await;
        assert_eq!(code, 200, "{path}: {answer}");
        validate(route.path, 200, &answer);
        let (code, answer) = ask(&format!("{path}?colour=red")).await;
        assert_eq!(code, 400, "{path}");
        validate(route.path, 400, &answer);
        assert!(answer["error"].as_str().expect("text").contains("`colour`"));
    }
}

#[tokio::test]
async fn parameters_narrow_the_answer() {
    let pods = |answer: &Value| -> Vec<String> {
        let items = answer["items"].as_array().expect("a list");
        items.iter().map(|item| item["pod"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!(pods(&ask("/api/v1/findings").await.1), ["idle"]);
    assert_eq!(pods(&ask("/api/v1/findings?namespace=ml&kind=Idle&minScore=50").await.1), ["idle"]);
    for none in ["namespace=web", "kind=Underutilized", "minScore=99.5"] {
        let answer = ask(&format!("/api/v1/findings?{none}")).await.1;
        assert!(pods(&answer).is_empty(), "{none}: {answer}");
    }
    assert!(pods(&ask("/api/v1/pods?namespace=m%6C").await.1).contains(&"busy".to_owned()));
    for bad in ["minScore=101", "minScore=NaN", "minScore=much"] {
        assert_eq!(ask(&format!("/api/v1/findings?{bad}")).await.0, 400, "{bad}");
    }
}

#[tokio::test]
async fn a_pod_is_explained_whatever_became_of_it() {
    let verdict = |name: &str| {
        let path = format!("/api/v1/explain/ml/{name}");
        async move { ask(&path).await.1["verdict"].clone() }
    };
    assert_eq!(verdict("idle").await, "waste");
    assert_eq!(verdict("busy").await, "noWaste");
    let (_, idle) = ask("/api/v1/explain/ml/idle").await;
    let questions = idle["questions"].as_array().expect("a list");
    assert_eq!(questions.len(), 6, "{questions:?}");
    assert_eq!(questions[1]["condition"], "mean compute is at least 50%");
    assert_eq!(questions[5]["outcome"], "Idle");
    assert_eq!(verdict("dark").await, "unknown");
    assert_eq!(verdict("waits").await, "notDecided");
    let (code, answer) = ask("/api/v1/explain/ml/nobody").await;
    assert_eq!(code, 404);
    validate("/api/v1/explain/{namespace}/{pod}", 404, &answer);
    let (code, answer) = ask("/api/v2/status").await;
    assert_eq!((code, &answer["error"]), (404, &Value::from("no such route")));
}

#[tokio::test]
async fn the_description_is_served_and_committed() {
    let (code, served) = ask(openapi::PATH).await;
    assert_eq!((code, &served), (200, &openapi::document()));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/openapi.v1.json");
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        std::fs::write(&path, openapi::text()).expect("written");
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == openapi::text(), "{} is stale: run with UPDATE_EXPECT=1", path.display());
}

/// DCGM exporter's text of one GPU.
fn exposition(utilization: u32, fb_used_mib: u32) -> String {
    let labels = "gpu=\"0\",UUID=\"GPU-0\",Hostname=\"n1\",namespace=\"ml\",pod=\"idle\",\
                  container=\"main\"";
    format!(
        "# HELP DCGM_FI_DEV_GPU_UTIL GPU utilization (in %).\n\
         # TYPE DCGM_FI_DEV_GPU_UTIL gauge\n\
         DCGM_FI_DEV_GPU_UTIL{{{labels}}} {utilization}\n\
         DCGM_FI_DEV_FB_USED{{{labels}}} {fb_used_mib}\n\
         DCGM_FI_DEV_FB_FREE{{{labels}}} {}\n",
        24_000 - fb_used_mib
    )
}

#[tokio::test]
async fn two_exporters_of_one_gpu_count_once_and_where_they_disagree_nothing_is_known() {
    let of = |second: (u32, u32)| {
        sample_view::of_two_exporters([&exposition(0, 2_400), &exposition(second.0, second.1)])
    };
    let alike = of((0, 2_400));
    let metrics = |view: &View| {
        let (_, view) = watch::channel(Arc::new(view.clone()));
        crate::metrics::Metrics::new(view).text()
    };
    assert!(metrics(&alike).contains("gpu_autoscaler_cluster_utilization 0.0\n"));
    let (_, status) = ask_of(alike, "/api/v1/status").await;
    assert_eq!(status["findings"][0]["kind"], "Idle");
    assert_eq!(status["findings"][0]["usage"]["samples"], 20, "the first is out of the window");
    assert_eq!(status["unknown"], Value::Array(vec![]));
    assert_eq!(
        (&status["devices"][1], &status["totals"]["gpusMeasured"]),
        (&Value::Null, &1.into())
    );

    // Busy to one of them; the same compute with other memory.
    for differs in [(90, 2_400), (0, 20_000)] {
        let view = of(differs);
        let text = metrics(&view);
        assert!(!text.contains("\ngpu_autoscaler_cluster_utilization "), "{text}");
        assert!(text.contains("gpu_autoscaler_waste_findings{kind=\"Idle\"} 0.0"), "{text}");
        let (_, status) = ask_of(view, "/api/v1/status").await;
        assert_eq!(status["findings"], Value::Array(vec![]));
        let unknown = &status["unknown"][0];
        assert_eq!((&unknown["pod"], &unknown["reason"]), (&"idle".into(), &"Disagreement".into()));
        assert_eq!(unknown["message"], "exporters disagree: 10.0.0.1:9400, n1:9500");
        assert_eq!(status["totals"]["gpusMeasured"], 0);
    }
}
