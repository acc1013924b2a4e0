//! The generated part of `docs/configuration.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::{env, fs};

use serde_json::Value;

use super::values::{Key, default_of, defaults, is_pending, keys, pending};
use super::{read, root};

const PAGE: &str = "docs/configuration.md";
const BEGIN: &str = "<!-- Printed from charts/gpu-autoscaler; \
                     `UPDATE_EXPECT=1 cargo test -p tests chart::reference` rewrites it. -->\n";
const END: &str = "<!-- End of what is printed. -->\n";

#[test]
fn the_values_reference_is_fresh() {
    let page = read(PAGE);
    let (before, rest) = page.split_once(BEGIN).expect("the beginning of the printed part");
    let (committed, after) = rest.split_once(END).expect("the end of the printed part");
    let printed = reference();
    if env::var_os("UPDATE_EXPECT").is_some_and(|value| value == "1") {
        let page = format!("{before}{BEGIN}{printed}{END}{after}");
        fs::write(root().join(PAGE), page).expect("written");
        return;
    }
    assert!(committed == printed, "{PAGE} is stale: run with UPDATE_EXPECT=1");
}

/// Two tables: keys that do something, and keys that do not yet.
fn reference() -> String {
    let (pending, defaults, comments) = (pending(), defaults(), comments());
    let (idle, live): (Vec<Key>, Vec<Key>) =
        keys().into_iter().partition(|key| is_pending(&pending, &key.path));
    let mut page = "\n| value | type | default | meaning |\n|---|---|---|---|\n".to_owned();
    for key in &live {
        let meaning = comments.get(&key.path);
        let meaning = meaning.unwrap_or_else(|| panic!("`{}` has no `# --` comment", key.path));
        let default = default_of(&defaults, &key.path);
        let default = if default.is_null() { String::new() } else { format!("`{default}`") };
        let row = [&format!("`{}`", key.path), &kind(&key.schema), &default, meaning];
        line(&mut page, &row.map(String::as_str));
    }
    page.push_str("\n## Values without effect\n\n");
    page.push_str("Earlier releases published these; they are accepted so that files of values ");
    page.push_str("stay valid, and the notes of `helm install` name those that are set.\n\n");
    page.push_str("| value | type |\n|---|---|\n");
    for key in &idle {
        line(&mut page, &[&format!("`{}`", key.path), &kind(&key.schema)]);
    }
    page.push('\n');
    for (section, reason) in pending {
        let _ = writeln!(page, "- `{section}`: {reason}.");
    }
    page.push('\n');
    page
}

fn line(page: &mut String, cells: &[&str]) {
    let cells = cells.iter().map(|cell| cell.replace('|', "\\|")).collect::<Vec<_>>();
    let _ = writeln!(page, "| {} |", cells.join(" | "));
}

/// What may be given, in words.
fn kind(schema: &Value) -> String {
    let name = |kind: &Value| kind.as_str().expect("a name of a type").to_owned();
    if let Some(values) = schema["enum"].as_array() {
        let values: Vec<String> = values.iter().map(|v| format!("`{}`", name(v))).collect();
        return values.join(", ");
    }
    let pattern = schema["pattern"].as_str().unwrap_or("");
    if pattern.contains("ms|s") {
        return "duration".to_owned();
    }
    if pattern.contains("Ki|Mi") {
        return "quantity".to_owned();
    }
    let kinds = match &schema["type"] {
        Value::Array(kinds) => kinds.iter().map(name).collect(),
        kind => vec![name(kind)],
    };
    let kinds: Vec<String> = kinds.into_iter().filter(|kind| kind != "null").collect();
    match (schema["minimum"].as_i64(), schema["maximum"].as_i64()) {
        (Some(low), Some(high)) => format!("{}, {low} to {high}", kinds.join(" or ")),
        (Some(low), None) => format!("{}, at least {low}", kinds.join(" or ")),
        _ => kinds.join(" or "),
    }
}

/// The `# --` comments of values.yaml, by the path of the key that follows.
fn comments() -> BTreeMap<String, String> {
    let text = read("charts/gpu-autoscaler/values.yaml");
    let mut comments = BTreeMap::new();
    let mut path: Vec<(usize, &str)> = Vec::new();
    let mut comment: Option<String> = None;
    for line in text.lines() {
        let content = line.trim_start();
        let indent = line.len() - content.len();
        if let Some(begun) = content.strip_prefix("# -- ") {
            comment = Some(begun.to_owned());
        } else if let Some(more) = content.strip_prefix("# ") {
            if let Some(comment) = &mut comment {
                *comment += " ";
                *comment += more;
            }
        } else if let Some((name, _)) = content.split_once(':') {
            path.retain(|(outer, _)| *outer < indent);
            path.push((indent, name));
            if let Some(comment) = comment.take() {
                let names: Vec<&str> = path.iter().map(|(_, name)| *name).collect();
                comments.insert(names.join("."), comment);
            }
        }
    }
    comments
}
