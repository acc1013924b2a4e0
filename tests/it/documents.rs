//! What the documents tell readers to type, and where they send them.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::command_line;

use crate::chart::helm::Helm;

/// The root of the source tree.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("inside the tree").to_owned()
}

/// Our pages with their texts: path from the root, and text.
fn pages() -> Vec<(String, String)> {
    let folders = ["", "docs", "docs/runbooks", "docs/designs", "ui", "tests"];
    let mut pages = Vec::new();
    for folder in folders {
        for entry in fs::read_dir(root().join(folder)).expect("committed").flatten() {
            let path = entry.path();
            if path.extension().is_some_and(|ending| ending == "md") {
                let name = path.strip_prefix(root()).expect("inside").display().to_string();
                pages.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    pages.sort();
    pages
}

/// Lines of the shell blocks of a page, joined where they go on.
fn shell_lines(text: &str) -> Vec<String> {
    let blocks = text.split("```bash\n").skip(1).filter_map(|rest| rest.split("```").next());
    let joined = blocks.map(|block| block.replace("\\\n", " ")).collect::<Vec<_>>().join("\n");
    joined.lines().map(|line| line.trim().to_owned()).collect()
}

/// Words of a command, up to what the shell makes of the rest.
fn words(line: &str) -> Vec<&str> {
    let ends = ["|", ">", "&", "#", "&&", ";"];
    line.split_whitespace().take_while(|word| !ends.contains(word)).collect()
}

#[test]
fn every_command_line_of_ours_is_understood() {
    let notes = fs::read_to_string(root().join("charts/gpu-autoscaler/templates/NOTES.txt"));
    let notes = notes.expect("committed").lines().map(|line| line.trim().to_owned()).collect();
    let mut lines: Vec<(String, Vec<String>)> = vec![("NOTES.txt".to_owned(), notes)];
    lines.extend(pages().into_iter().map(|(name, text)| (name, shell_lines(&text))));
    let mut understood = BTreeSet::new();
    for (page, lines) in lines {
        for line in lines.iter().filter(|line| line.starts_with("gpu-autoscaler ")) {
            // What comes before `--help` is parsed, and refused where it is not known.
            let mut arguments = words(line).split_off(1);
            arguments.push("--help");
            let printed = command_line::run(&arguments, &[]);
            assert_eq!(printed.code, 0, "{page}: {line}: {}", printed.stderr);
            understood.insert(line.clone());
        }
    }
    assert!(understood.len() > 20, "{understood:?}");
    println!("{} command lines are understood", understood.len());
}

#[test]
fn every_object_that_kubectl_is_pointed_at_is_one_of_the_chart() {
    let Some(helm) = Helm::find_or_skip() else { return };
    let objects: BTreeSet<String> = helm
        .objects(&[])
        .iter()
        .map(|object| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or("").to_owned();
            format!("{}/{}", text(&object["kind"]), text(&object["metadata"]["name"]))
        })
        .collect();
    let mut seen = 0;
    for (page, text) in pages() {
        for line in shell_lines(&text).iter().filter(|line| line.starts_with("kubectl ")) {
            for word in words(line) {
                let Some((kind, name)) = word.split_once('/') else { continue };
                if !name.starts_with("gpu-autoscaler-") && name != "dcgm-exporter" {
                    continue;
                }
                let kind = match kind {
                    "svc" | "service" => "Service",
                    "deploy" | "deployment" => "Deployment",
                    "ds" | "daemonset" => "DaemonSet",
                    _ => continue,
                };
                let object = format!("{kind}/{name}");
                assert!(objects.contains(&object), "{page}: {line}: no {object}");
                seen += 1;
            }
        }
    }
    assert!(seen > 5, "{seen}");
}

/// The anchor that a heading gets where Markdown is shown: GitHub's rule.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    let kept = kept.chars().filter(|c| c.is_alphanumeric() || [' ', '-', '_'].contains(c));
    kept.collect::<String>().replace(' ', "-")
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (page, text) in pages() {
        let folder = root().join(&page).parent().expect("in a folder").to_owned();
        // Code shows brackets that are no links.
        let prose: String = text.split("```").step_by(2).collect();
        for target in prose.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") || target.contains(' ') || target.is_empty() {
                continue;
            }
            let (file, place) = target.split_once('#').unwrap_or((target, ""));
            let path = if file.is_empty() { root().join(&page) } else { folder.join(file) };
            assert!(path.exists(), "{page}: no {target}");
            if !place.is_empty() {
                let linked = fs::read_to_string(&path).expect("a page");
                let known = linked.lines().filter(|line| line.starts_with('#')).map(anchor);
                assert!(known.into_iter().any(|known| known == place), "{page}: no {target}");
            }
            followed += 1;
        }
    }
    assert!(followed > 50, "{followed}");
}
