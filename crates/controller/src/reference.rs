//! `docs/api-reference.md`, printed from what the program serves and defines.

use std::fmt::Write as _;
use std::path::Path;
use std::{env, fs};

use gpu_autoscaler_k8s::{API_VERSION, crd};
use gpu_autoscaler_model::PolicyKind;
use serde_json::Value;

use crate::openapi;

#[test]
fn the_api_reference_is_fresh() {
    let page = format!("{HEAD}{}{}", http(&openapi::document()), resources());
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/api-reference.md");
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        fs::write(&path, &page).expect("written");
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == page, "{} is stale: run with UPDATE_EXPECT=1", path.display());
}

const HEAD: &str = "# API reference\n\n\
    <!-- Printed from crates/controller and crates/k8s; \
    `UPDATE_EXPECT=1 cargo test -p gpu-autoscaler-controller reference` rewrites it. -->\n\n\
    ## HTTP\n\n\
    The controller serves JSON at port 8080; nothing can be changed there.\n\
    The same is described for programs in \
    [schema/openapi.v1.json](schema/openapi.v1.json), served at `/api/v1/openapi.json`.\n\
    Amounts of money are decimals as text, shares are 0 to 1, what is not known is `null`.\n\
    Port 8081 has `/healthz` (the loop is alive) and `/readyz` (a line for each part that has to \
    work); metrics are in [metrics.md](metrics.md).\n";

fn http(document: &Value) -> String {
    let mut page = String::new();
    for (path, operations) in document["paths"].as_object().expect("paths") {
        let operation = &operations["get"];
        let answer = &operation["responses"]["200"]["content"]["application/json"]["schema"];
        let _ = write!(page, "\n### `GET {path}`\n\n{}\n", text(&operation["summary"]));
        let _ = writeln!(page, "Answers with {}.", kind(answer));
        let parameters = operation["parameters"].as_array().expect("parameters");
        if !parameters.is_empty() {
            page.push_str("\n| parameter | in | type | meaning |\n|---|---|---|---|\n");
        }
        for parameter in parameters {
            let (name, place) = (text(&parameter["name"]), text(&parameter["in"]));
            let (of, meaning) = (kind(&parameter["schema"]), text(&parameter["description"]));
            let _ = writeln!(page, "| `{name}` | {place} | {of} | {meaning} |");
        }
    }
    for (name, schema) in document["components"]["schemas"].as_object().expect("schemas") {
        let _ = write!(page, "\n### {name}\n\n{}\n", text(&schema["description"]));
        let Some(fields) = schema["properties"].as_object() else { continue };
        page.push_str("\n| field | type | meaning |\n|---|---|---|\n");
        for (field, schema) in fields {
            let meaning = text(&schema["description"]).replace('\n', " ");
            let _ = writeln!(page, "| `{field}` | {} | {meaning} |", kind(schema));
        }
    }
    page
}

fn resources() -> String {
    let mut page = format!(
        "\n## Custom resources\n\nGroup and version `{API_VERSION}`, all of them cluster-scoped.\n"
    );
    for kind in PolicyKind::ALL {
        let definition = crd::definition(kind);
        let names = &definition.spec.names;
        let short = names.short_names.clone().unwrap_or_default().join("`, `");
        let _ = write!(page, "\n### {}\n\n`{}`, short `{short}`.\n", names.kind, names.plural);
        page.push_str("\n| field | type | default | meaning |\n|---|---|---|---|\n");
        let schema = definition.spec.versions[0].schema.as_ref().expect("a schema");
        let schema = serde_json::to_value(schema).expect("plain data");
        for part in ["spec", "status"] {
            rows(part, &schema["openAPIV3Schema"]["properties"][part], &mut page);
        }
    }
    page
}

/// A row for every field under `path`.
fn rows(path: &str, schema: &Value, page: &mut String) {
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let path = format!("{path}.{name}");
        let default = match &field["default"] {
            Value::Null => String::new(),
            value => format!("`{value}`"),
        };
        let meaning = text(&field["description"]).replace('\n', " ");
        let _ = writeln!(page, "| `{path}` | {} | {default} | {meaning} |", kind(field));
        match &field["items"] {
            Value::Null => rows(&path, field, page),
            items => rows(&format!("{path}[]"), items, page),
        }
    }
}

/// What a value may be, in words.
fn kind(schema: &Value) -> String {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
        return format!("[{name}](#{})", name.to_lowercase());
    }
    if let Some(values) = schema["enum"].as_array() {
        let values = values.iter().filter(|value| !value.is_null());
        return values.map(|value| format!("`{value}`")).collect::<Vec<_>>().join(", ");
    }
    if let Some(any) = schema["anyOf"].as_array() {
        return any.iter().map(kind).collect::<Vec<_>>().join(" or ");
    }
    let name = match &schema["type"] {
        Value::Array(names) => names.iter().map(text).collect::<Vec<_>>().join(" or "),
        name => text(name).to_owned(),
    };
    match &schema["items"] {
        Value::Null => name,
        items => format!("{name} of {}", kind(items)),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("")
}
