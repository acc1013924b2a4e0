//! Every command that answers in JSON keeps to the schema that `chronos schema` prints.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::sandbox::Sandbox;

/// The words of JSON Schema 2020-12 that our schema uses; any other fails the test.
fn check(schema: &Value, root: &Value, value: &Value, at: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for (word, rule) in schema.as_object().expect("a schema is an object") {
        let mut refuse = |why: String| wrong.push(format!("{at}: {why}"));
        match word.as_str() {
            "$ref" => {
                let pointer = rule.as_str().unwrap().trim_start_matches('#');
                wrong.extend(check(root.pointer(pointer).unwrap(), root, value, at));
            }
            "type" if !is(rule, value) => refuse(format!("{value} is no {rule}")),
            "const" if rule != value => refuse(format!("{value} is not {rule}")),
            "enum" if !rule.as_array().unwrap().contains(value) => {
                refuse(format!("{value} is none of {rule}"));
            }
            "minimum" if value.as_f64() < rule.as_f64() && value.is_number() => {
                refuse(format!("{value} is below {rule}"));
            }
            "maximum" if value.as_f64() > rule.as_f64() && value.is_number() => {
                refuse(format!("{value} is above {rule}"));
            }
            "required" => {
                for name in rule.as_array().unwrap() {
                    if value.get(name.as_str().unwrap()).is_none() {
                        refuse(format!("{name} is missing"));
                    }
                }
            }
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(value) = value.get(name) {
                        wrong.extend(check(rule, root, value, &format!("{at}.{name}")));
                    }
                }
            }
            "items" => {
                for (number, item) in value.as_array().into_iter().flatten().enumerate() {
                    wrong.extend(check(rule, root, item, &format!("{at}[{number}]")));
                }
            }
            "allOf" => {
                for rule in rule.as_array().unwrap() {
                    wrong.extend(check(rule, root, value, at));
                }
            }
            "if" => {
                if check(rule, root, value, at).is_empty() {
                    wrong.extend(check(&schema["then"], root, value, at));
                }
            }
            "type" | "const" | "enum" | "minimum" | "maximum" | "then" | "title"
            | "description" | "format" | "pattern" | "$schema" | "$id" | "$defs" => {}
            other => panic!("the schema uses `{other}`, which this test does not know"),
        }
    }
    wrong
}

fn is(kinds: &Value, value: &Value) -> bool {
    let one = |kind: &str| match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        other => panic!("type `{other}`"),
    };
    match kinds {
        Value::Array(kinds) => kinds.iter().any(|kind| one(kind.as_str().unwrap())),
        kind => one(kind.as_str().unwrap()),
    }
}

#[test]
fn every_answer_in_json_keeps_to_the_published_schema() {
    let sandbox = Sandbox::new("count=2").without_guardian();
    let schema: Value = serde_json::from_str(&sandbox.ok(&["schema"])).unwrap();
    let mut kinds = BTreeSet::new();
    let mut hold = |value: &Value, of: &[&str]| {
        let wrong = check(&schema, &schema, value, "$");
        assert!(wrong.is_empty(), "{of:?}: {wrong:?} in {value}");
        kinds.insert(value["kind"].as_str().unwrap().to_owned());
    };
    let first = sandbox.json(&["create", "0", "0.5", "600", "--name", "a", "--compute", "50%"]);
    hold(&first, &["create"]);
    let id = first["id"].as_str().unwrap();
    let start = chronos::os::clock::now().wall.after(std::time::Duration::from_secs(3_600));
    let start = start.to_string();
    let commands: [&[&str]; 15] = [
        &["create", "--gpu", "1", "--mem", "10%", "--for", "1h", "--start", &start],
        &["list"],
        &["get", id],
        &["env", id],
        &["extend", id, "--for", "60s"],
        &["queue"],
        &["available", "0"],
        &["stats"],
        &["stats", "--since", "1h"],
        &["suggest", "0", "0.9", "60"],
        &["top"],
        &["config", "show"],
        &["config", "check"],
        &["doctor"],
        &["version"],
    ];
    for command in commands {
        hold(&sandbox.json(command), command);
    }
    if !cfg!(feature = "portable") {
        hold(&sandbox.json(&["setup", "--print"]), &["setup"]);
    }
    let refused: [(i32, &[&str]); 6] = [
        (2, &["create", "0", "nan", "60", "--json"]),
        (2, &["create", "--unheard-of", "--json"]),
        (65, &["release", "partition_none", "--json"]),
        (69, &["suspend", id, "--json"]),
        (69, &["create", "0", "0.1", "60", "--require", "memory=kernel", "--json"]),
        (73, &["create", "0", "0.9", "60", "--json"]),
    ];
    for (code, command) in refused {
        let error: Value = serde_json::from_str(&sandbox.refused(code, command)).unwrap();
        hold(&error, command);
    }
    hold(&sandbox.json(&["release", id]), &["release"]);
    let promised = schema["properties"]["kind"]["enum"].as_array().unwrap();
    // Those that are only parts of others.
    let parts = ["Ticket", "Gpu", "EndedLease"];
    let absent = if cfg!(feature = "portable") { &["FileList"][..] } else { &[] };
    for kind in promised.iter().map(|kind| kind.as_str().unwrap()) {
        let elsewhere = parts.contains(&kind) || absent.contains(&kind);
        assert!(kinds.contains(kind) || elsewhere, "{kind} was not shown");
    }
}

#[test]
fn completions_are_there_for_every_shell() {
    let sandbox = Sandbox::new("count=1").without_guardian();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        let text = sandbox.ok(&["completions", shell]);
        for word in ["create", "lockdown", "warn-signal"] {
            assert!(text.contains(word), "{shell}: {word}");
        }
    }
}
