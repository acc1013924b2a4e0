//! Helm, run as an administrator does.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tests::process::CommandLine;
use tests::program::Program;
use tests::scratch::ScratchDir;
use tests::skip_or_fail;

use super::{chart, yaml};

/// Time for one command.
const COMMAND_WITHIN: Duration = Duration::from_secs(180);
/// The Kubernetes that is rendered for unless a test names another.
pub const KUBERNETES: &str = "1.36";
/// The namespace of the published commands, which is also the release's here.
pub const NAMESPACE: &str = "gpu-autoscaler-system";
/// The release of the published commands.
pub const RELEASE: &str = "gpu-autoscaler";

/// Helm with a home of its own.
pub struct Helm {
    program: PathBuf,
    home: ScratchDir,
}

impl Helm {
    /// Skips the calling test aloud where Helm is missing.
    pub fn find_or_skip() -> Option<Self> {
        match Program::Helm.find() {
            Ok(program) => {
                Some(Self { program, home: ScratchDir::create("helm").expect("a folder") })
            }
            Err(missing) => {
                skip_or_fail(&missing.to_string());
                None
            }
        }
    }

    /// Runs Helm; an error is what it wrote to stderr.
    pub fn run(&self, arguments: &[&str], kubeconfig: Option<&Path>) -> Result<String, String> {
        let nowhere = self.home.join("no-kubeconfig");
        let command = CommandLine::new(&self.program, arguments)
            .with_environment("HOME", self.home.path())
            .with_environment("KUBECONFIG", kubeconfig.unwrap_or(&nowhere));
        let output = command.output_within("", COMMAND_WITHIN).map_err(|e| e.to_string())?;
        if output.status.success() {
            return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
        }
        Err(String::from_utf8_lossy(&output.stderr).into_owned())
    }

    /// The text that the chart renders to with these further arguments.
    pub fn render(&self, further: &[&str]) -> Result<String, String> {
        let chart = chart();
        let chart = chart.to_string_lossy();
        let mut arguments = vec!["template", RELEASE, &*chart, "--namespace", NAMESPACE];
        if !further.contains(&"--kube-version") {
            arguments.extend(["--kube-version", KUBERNETES]);
        }
        arguments.extend(further);
        self.run(&arguments, None)
    }

    /// The objects that the chart renders to; refusing to render is a failure of the test.
    pub fn objects(&self, further: &[&str]) -> Vec<Value> {
        let text = self.render(further).unwrap_or_else(|error| panic!("{further:?}: {error}"));
        yaml(&text)
    }
}

/// The objects of a kind.
pub fn of_kind<'a>(objects: &'a [Value], kind: &'a str) -> impl Iterator<Item = &'a Value> {
    objects.iter().filter(move |object| object["kind"] == kind)
}

/// The one object of a kind with this name.
pub fn named<'a>(objects: &'a [Value], kind: &str, name: &str) -> &'a Value {
    let mut found = objects.iter().filter(|o| o["kind"] == kind && o["metadata"]["name"] == name);
    let object = found.next().unwrap_or_else(|| panic!("no {kind} `{name}`"));
    assert!(found.next().is_none(), "two of {kind} `{name}`");
    object
}
