//! The JSON API under `/api/v1`: one table of routes serves it and describes it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawPathParams, RawQuery};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use gpu_autoscaler_analysis::Thresholds;
use gpu_autoscaler_model::{ObjectKey, View};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use tokio::sync::watch;

use crate::api::{Explanation, Finding, Hardware, List, Node, Pod, Problem, Status};
use crate::openapi;

/// A route: what it is for, what it takes, what it gives.
#[derive(Debug)]
pub struct Route {
    /// With parameters in braces.
    pub path: &'static str,
    /// One word for programs that are generated from the description.
    pub id: &'static str,
    /// One sentence.
    pub summary: &'static str,
    /// In the path and in the query.
    pub parameters: &'static [Parameter],
    /// The schema of the answer.
    pub answer: fn(&mut SchemaGenerator) -> Schema,
    serve: fn(&View, &Thresholds, &Asked) -> Result<Response, Refused>,
}

/// A parameter of a route.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameter {
    /// Its name.
    pub name: &'static str,
    /// Whether it is part of the path, and so required; else it narrows the answer.
    pub in_path: bool,
    /// What may be given.
    pub form: Form,
    /// One sentence.
    pub meaning: &'static str,
}

/// What may be given for a parameter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Form {
    /// Any text.
    Text,
    /// A number from 0 up to this.
    Number {
        /// The highest.
        max: f64,
    },
}

const NAMESPACE: Parameter = Parameter {
    name: "namespace",
    in_path: false,
    form: Form::Text,
    meaning: "Only of pods in this namespace.",
};

/// All routes, in the order of the description.
pub const ROUTES: [Route; 6] = [
    Route {
        path: "/api/v1/status",
        id: "getStatus",
        summary: "The state of the fleet at the last judgement.",
        parameters: &[],
        answer: schema::<Status>,
        serve: |view, _, _| Ok(json(StatusCode::OK, &Status::from(view))),
    },
    Route {
        path: "/api/v1/nodes",
        id: "listNodes",
        summary: "Nodes with GPUs.",
        parameters: &[],
        answer: schema::<List<Node>>,
        serve: |view, _, _| Ok(list(view, view.nodes.iter().map(Node::from))),
    },
    Route {
        path: "/api/v1/pods",
        id: "listPods",
        summary: "Active pods that request GPUs.",
        parameters: &[NAMESPACE],
        answer: schema::<List<Pod>>,
        serve: |view, _, asked| {
            let pods = view.pods.iter().filter(|pod| asked.takes(NAMESPACE, &pod.pod.namespace));
            Ok(list(view, pods.map(Pod::from)))
        },
    },
    Route {
        path: "/api/v1/findings",
        id: "listFindings",
        summary: "Waste, worst first.",
        parameters: &[
            NAMESPACE,
            Parameter {
                name: "kind",
                in_path: false,
                form: Form::Text,
                meaning: "Only of this kind, such as `Idle`.",
            },
            Parameter {
                name: "minScore",
                in_path: false,
                form: Form::Number { max: 100.0 },
                meaning: "Only with at least this waste score.",
            },
        ],
        answer: schema::<List<Finding>>,
        serve: |view, _, asked| {
            let findings = view.findings.iter().filter(|finding| {
                asked.takes(NAMESPACE, &finding.pod.namespace)
                    && asked.text("kind").is_none_or(|kind| kind == finding.kind.as_str())
                    && asked.number("minScore").is_none_or(|min| finding.score.total() >= min)
            });
            Ok(list(view, findings.map(Finding::from)))
        },
    },
    Route {
        path: "/api/v1/hardware",
        id: "listHardware",
        summary: "Devices whose hardware needs a look.",
        parameters: &[],
        answer: schema::<List<Hardware>>,
        serve: |view, _, _| Ok(list(view, view.hardware.iter().map(Hardware::from))),
    },
    Route {
        path: "/api/v1/explain/{namespace}/{pod}",
        id: "explainPod",
        summary: "What is known of one pod, and by which rules it was judged.",
        parameters: &[
            Parameter { in_path: true, meaning: "Namespace of the pod.", ..NAMESPACE },
            Parameter { name: "pod", in_path: true, meaning: "Name of the pod.", ..NAMESPACE },
        ],
        answer: schema::<Explanation>,
        serve: |view, limits, asked| {
            let part = |name| asked.text(name).unwrap_or_default();
            let key = ObjectKey::new(part("namespace"), part("pod"));
            let explanation = Explanation::of(view, limits, &key).ok_or_else(|| Refused {
                code: StatusCode::NOT_FOUND,
                error: format!("pod `{key}`: not known"),
                hint: "only pods that request GPUs are known; see /api/v1/pods".to_owned(),
            })?;
            Ok(json(StatusCode::OK, &explanation))
        },
    },
];

/// Serves [`ROUTES`] from the last view, which was judged by `limits`, and their description.
pub fn router(view: watch::Receiver<Arc<View>>, limits: Thresholds) -> Router {
    let router = ROUTES.iter().fold(Router::new(), |router, route| {
        let view = view.clone();
        let answer = move |path: RawPathParams, RawQuery(query): RawQuery| {
            let asked = Asked::read(route.parameters, &path, query.as_deref().unwrap_or_default());
            let view = view.borrow().clone();
            let answer = asked.and_then(|asked| (route.serve)(&view, &limits, &asked));
            async move { answer.unwrap_or_else(Refused::into_response) }
        };
        router.route(route.path, get(answer))
    });
    let description: Arc<str> = openapi::text().into();
    let description = move || {
        let text = description.to_string();
        async move { ([(header::CONTENT_TYPE, "application/json")], text) }
    };
    let nothing = || async {
        let error = "no such route".to_owned();
        let hint = format!("{} lists them", openapi::PATH);
        Refused { code: StatusCode::NOT_FOUND, error, hint }.into_response()
    };
    router.route(openapi::PATH, get(description)).route("/api/{*rest}", any(nothing))
}

/// What was asked, as far as the route knows such parameters.
struct Asked {
    texts: BTreeMap<&'static str, String>,
    numbers: BTreeMap<&'static str, f64>,
}

impl Asked {
    fn read(known: &[Parameter], path: &RawPathParams, query: &str) -> Result<Self, Refused> {
        let mut asked = Self { texts: BTreeMap::new(), numbers: BTreeMap::new() };
        let in_path = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned(), true));
        let in_query = form_pairs(query).map(|(name, value)| (name, value, false));
        for (name, value, in_path) in in_path.chain(in_query) {
            let parameter = known.iter().find(|p| p.name == name && p.in_path == in_path);
            let parameter = parameter.ok_or_else(|| unknown_parameter(&name, known))?;
            match parameter.form {
                Form::Text => drop(asked.texts.insert(parameter.name, value)),
                Form::Number { max } => {
                    let number = value.parse().ok().filter(|number| (0.0..=max).contains(number));
                    let number = number.ok_or_else(|| Refused {
                        code: StatusCode::BAD_REQUEST,
                        error: format!("parameter `{name}`: `{value}` is no number of 0 to {max}"),
                        hint: parameter.meaning.to_owned(),
                    })?;
                    asked.numbers.insert(parameter.name, number);
                }
            }
        }
        Ok(asked)
    }

    fn text(&self, name: &str) -> Option<&str> {
        self.texts.get(name).map(String::as_str)
    }

    fn number(&self, name: &str) -> Option<f64> {
        self.numbers.get(name).copied()
    }

    /// Whether `value` is what was asked for, or nothing was.
    fn takes(&self, parameter: Parameter, value: &str) -> bool {
        self.text(parameter.name).is_none_or(|asked| asked == value)
    }
}

/// The pairs of a query, decoded.
fn form_pairs(query: &str) -> impl Iterator<Item = (String, String)> {
    let url = reqwest::Url::parse(&format!("http://query/?{query}")).ok();
    let pairs: Vec<(String, String)> = url
        .iter()
        .flat_map(|url| url.query_pairs())
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect();
    pairs.into_iter()
}

fn unknown_parameter(name: &str, known: &[Parameter]) -> Refused {
    let known: Vec<&str> = known.iter().filter(|p| !p.in_path).map(|p| p.name).collect();
    let hint = match known.as_slice() {
        [] => "this route takes none".to_owned(),
        known => format!("this route takes `{}`", known.join("`, `")),
    };
    let error = format!("parameter `{name}`: not known");
    Refused { code: StatusCode::BAD_REQUEST, error, hint }
}

/// A request that is not answered.
struct Refused {
    code: StatusCode,
    error: String,
    hint: String,
}

impl Refused {
    fn into_response(self) -> Response {
        json(self.code, &Problem { error: self.error, hint: Some(self.hint) })
    }
}

fn schema<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

fn list<T: Serialize>(view: &View, items: impl Iterator<Item = T>) -> Response {
    json(StatusCode::OK, &List::of(view, items))
}

fn json(code: StatusCode, answer: &impl Serialize) -> Response {
    (code, axum::Json(answer)).into_response()
}

#[cfg(test)]
mod tests;
