//! The description of the JSON API, in OpenAPI 3.1: its schemas are those of JSON Schema 2020-12,
//! which is what the twins of [`crate::api`] give of themselves.

use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};

use crate::api::Problem;
use crate::routes::{Form, Parameter, ROUTES};

/// Where it is served.
pub const PATH: &str = "/api/v1/openapi.json";

/// The description.
///
/// Source: <https://spec.openapis.org/oas/v3.1.1.html>.
pub fn document() -> Value {
    let mut settings = SchemaSettings::draft2020_12();
    settings.definitions_path = "/components/schemas".into();
    let mut generator = settings.into_generator();
    let problem = generator.subschema_for::<Problem>();
    let mut paths = Map::new();
    for route in &ROUTES {
        let schema = (route.answer)(&mut generator);
        let mut answers = json!({
            "200": {"description": route.summary, "content": {"application/json": {"schema": schema}}},
            "400": refusal("A parameter is not known or out of range.", &problem),
        });
        if route.parameters.iter().any(|parameter| parameter.in_path) {
            answers["404"] = refusal("There is no such object.", &problem);
        }
        let parameters: Vec<Value> = route.parameters.iter().map(describe).collect();
        let operation = json!({
            "operationId": route.id,
            "summary": route.summary,
            "parameters": parameters,
            "responses": answers,
        });
        paths.insert(route.path.to_owned(), json!({"get": operation}));
    }
    json!({
        "openapi": "3.1.1",
        "info": {
            "title": "GPU Autoscaler",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "What the controller sees. Nothing can be changed here. Amounts of \
                money are decimals as text, shares are 0 to 1, what is not known is `null`.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {"schemas": generator.take_definitions(true)},
    })
}

/// The same as text, as it is served and committed.
pub fn text() -> String {
    let mut text = serde_json::to_string_pretty(&document()).expect("its keys are texts");
    text.push('\n');
    text
}

fn refusal(why: &str, problem: &schemars::Schema) -> Value {
    json!({"description": why, "content": {"application/json": {"schema": problem}}})
}

fn describe(parameter: &Parameter) -> Value {
    let schema = match parameter.form {
        Form::Text => json!({"type": "string"}),
        Form::Number { max } => json!({"type": "number", "minimum": 0, "maximum": max}),
    };
    json!({
        "name": parameter.name,
        "in": if parameter.in_path { "path" } else { "query" },
        "required": parameter.in_path,
        "description": parameter.meaning,
        "schema": schema,
    })
}
