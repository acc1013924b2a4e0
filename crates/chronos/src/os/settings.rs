//! Where state lies and how the machine is asked: environment, configuration file, defaults.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::fault::Fault;
use super::{directory, places, users};
use crate::policy::{Policy, Scalar};
use crate::preemption;
use crate::quantity::Span;

/// The folder of the lock files of the implementation before this one.
pub const OLD_LOCKS: &str = "/tmp/chronos_locks";

/// The configuration file. Every key is checked; an unknown one is an error.
#[derive(Clone, PartialEq, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where live state lies.
    #[serde(default)]
    pub runtime_directory: Option<PathBuf>,
    /// Where history and the calendar lie.
    #[serde(default)]
    pub state_directory: Option<PathBuf>,
    /// How GPUs are found: `auto`, `nvidia`, `amd`, `intel`, `portable`, `fake`.
    #[serde(default)]
    pub backend: Option<String>,
    /// GPUs of the `portable` backend, described by hand.
    #[serde(default)]
    pub gpus: Vec<DeclaredGpu>,
    /// Grace of a lease that does not say.
    #[serde(default)]
    pub grace: Option<SpanText>,
    /// Warning before the deadline of a lease that does not say.
    #[serde(default)]
    pub warn: Option<SpanText>,
    /// How long a lease of low priority runs before it may be suspended for one of high priority.
    #[serde(default)]
    pub preempt_exempt_time: Option<SpanText>,
    /// Whether lock files in the form of the earlier implementation are written.
    #[serde(default)]
    pub lock_compat: bool,
    /// Where such lock files lie.
    #[serde(default)]
    pub lock_directory: Option<PathBuf>,
}

/// A GPU that is described and not found.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeclaredGpu {
    /// Its name.
    pub name: String,
    /// Its memory, such as `24GiB`.
    pub memory: String,
}

/// A span in a configuration file, as text or as seconds.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct SpanText(pub Span);

impl<'de> Deserialize<'de> for SpanText {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = Scalar::deserialize(from)?;
        Span::parse_or_zero(&text.0).map(Self).map_err(serde::de::Error::custom)
    }
}

impl Serialize for SpanText {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(&format!("{}s", self.0.as_secs_up()))
    }
}

/// How this process reaches the book.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Access {
    /// It owns the state.
    Own,
    /// It reads the state and asks the helper on this socket to change it.
    Helper(PathBuf),
}

/// Everything a process needs to know before it looks at the machine.
#[derive(Clone, PartialEq, Debug)]
pub struct Settings {
    /// Where live state lies.
    pub runtime: PathBuf,
    /// Where history and the calendar lie.
    pub state: PathBuf,
    /// How the state is reached.
    pub access: Access,
    /// The hierarchy of control groups, where it is not the first one mounted.
    pub cgroup_root: Option<PathBuf>,
    /// The name of the backend.
    pub backend: String,
    /// What the fake backend shows.
    pub fake: String,
    /// The configuration file as it was read.
    pub config: Config,
    /// The configuration file, where there is one.
    pub config_file: Option<PathBuf>,
    /// The policy file; it is looked for anew each time, since a helper may be older than it.
    pub policy_file: PathBuf,
}

impl Settings {
    /// Reads the environment and the configuration file.
    ///
    /// # Errors
    /// [`Fault::Setting`] with the key and the reason.
    pub fn read() -> Result<Self, Fault> {
        let euid = users::effective_uid();
        let (config, config_file) = Self::config(euid)?;
        let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let chosen = variable("CHRONOS_RUNTIME_DIR").map(PathBuf::from);
        let chosen = chosen.or_else(|| config.runtime_directory.clone());
        let runtime = chosen.clone().unwrap_or_else(places::machine_runtime);
        let socket = runtime.join("helper.sock");
        let (runtime, access) =
            if euid == 0 || (chosen.is_some() && directory::may_be_of(&runtime, euid)) {
                (runtime, Access::Own)
            } else if socket.exists() {
                (runtime, Access::Helper(socket))
            } else if chosen.is_some() {
                (runtime, Access::Own)
            } else {
                (places::own_runtime(euid), Access::Own)
            };
        let state = variable("CHRONOS_STATE_DIR").map(PathBuf::from);
        let state = state.or_else(|| config.state_directory.clone()).unwrap_or_else(|| {
            if euid == 0 || access != Access::Own {
                places::machine_state()
            } else {
                places::own_state(&runtime)
            }
        });
        let policy_file = variable("CHRONOS_POLICY").map(PathBuf::from);
        let policy_file = policy_file.unwrap_or_else(places::machine_policy);
        let backend = text("CHRONOS_BACKEND").or_else(|| config.backend.clone());
        Ok(Self {
            runtime,
            state,
            access,
            cgroup_root: variable("CHRONOS_CGROUP_ROOT").map(PathBuf::from),
            backend: backend.unwrap_or_else(|| "auto".to_owned()),
            fake: text("CHRONOS_FAKE_GPUS").unwrap_or_default(),
            config,
            config_file,
            policy_file,
        })
    }

    fn config(euid: u32) -> Result<(Config, Option<PathBuf>), Fault> {
        let named = std::env::var_os("CHRONOS_CONFIG").filter(|v| !v.is_empty());
        if let Some(named) = named {
            let path = PathBuf::from(named);
            return Ok((read_yaml(&path)?, Some(path)));
        }
        let own = if euid == 0 { None } else { places::own_config() };
        for path in own.into_iter().chain([places::machine_config()]) {
            if path.exists() {
                return Ok((read_yaml(&path)?, Some(path)));
            }
        }
        Ok((Config::default(), None))
    }

    /// Reads the policy file; without one everything is allowed.
    ///
    /// # Errors
    /// [`Fault::Setting`] with the line and the reason.
    pub fn policy(&self) -> Result<Policy, Fault> {
        if self.has_policy() { read_yaml(&self.policy_file) } else { Ok(Policy::default()) }
    }

    /// Whether there is a policy file. One that cannot be looked at counts as there, and then
    /// as unreadable: the safe side.
    pub fn has_policy(&self) -> bool {
        self.policy_file.try_exists().unwrap_or(true)
    }

    /// How long a lease runs before it may be suspended for another.
    pub fn preempt_exempt_time(&self) -> Span {
        self.config.preempt_exempt_time.map_or(preemption::EXEMPT_TIME, |text| text.0)
    }

    /// The folder of old lock files.
    pub fn old_locks(&self) -> PathBuf {
        self.config.lock_directory.clone().unwrap_or_else(|| PathBuf::from(OLD_LOCKS))
    }
}

fn read_yaml<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, Fault> {
    let text = std::fs::read_to_string(path).map_err(|e| Fault::os("read", path.display(), e))?;
    parse_yaml(path, &text)
}

fn parse_yaml<T: serde::de::DeserializeOwned>(path: &Path, text: &str) -> Result<T, Fault> {
    if text.lines().all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) {
        return serde_saphyr::from_str("{}").map_err(|error| setting(path, error));
    }
    serde_saphyr::from_str(text).map_err(|error| setting(path, error))
}

fn setting(path: &Path, error: impl std::fmt::Display) -> Fault {
    let text = error.to_string();
    // What follows the first line is a picture of the place.
    let first = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
    let why = match unknown_key(first) {
        Some((key, known)) => match nearest(key, &known) {
            Some(near) => format!("{first}; the nearest is `{near}`"),
            None => first.to_owned(),
        },
        None => first.to_owned(),
    };
    Fault::Setting { origin: path.display().to_string(), why }
}

/// The key that the reader did not know and the ones it knows, from its message.
fn unknown_key(message: &str) -> Option<(&str, Vec<&str>)> {
    let (_, rest) = message.split_once("unknown field `")?;
    let (key, rest) = rest.split_once('`')?;
    let (_, known) = rest.split_once("expected ")?;
    let known = known.trim_start_matches("one of ").split(", ");
    Some((key, known.map(|word| word.trim_matches('`')).collect()))
}

/// The known key that a person most likely meant: no more than a third of it is written otherwise.
fn nearest<'a>(key: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace(['_', '-'], "");
    let wanted = plain(key);
    let distance = |word: &&str| edits(&wanted, &plain(word));
    let near = known.iter().copied().min_by_key(distance)?;
    (distance(&near) <= key.len().div_ceil(3)).then_some(near)
}

/// Letters to insert, to remove or to change to make one word of the other.
///
/// Source: Levenshtein distance by Wagner and Fischer, JACM 21(1), 1974.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let change = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_of_the_configuration_is_checked() {
        let parse = |text: &str| parse_yaml::<Config>(Path::new("chronos.yaml"), text);
        let config = parse("grace: 10s\nbackend: fake\ngpus: [{name: a, memory: 8GiB}]").unwrap();
        assert_eq!(config.grace, Some(SpanText(Span::from_secs(10))));
        assert_eq!(parse("# nothing\n").unwrap(), Config::default());
        for bad in ["graze: 10s", "grace: -1", "gpus: [{name: a}]", "lock_compat: maybe", "["] {
            let fault = parse(bad).unwrap_err().to_string();
            assert!(fault.starts_with("chronos.yaml: "), "{bad}: {fault}");
            assert!(!fault.contains('\n'), "{bad}: {fault}");
        }
    }

    #[test]
    fn an_unknown_key_is_named_with_the_nearest_one() {
        for (bad, near) in [
            ("graze: 10s", Some("grace")),
            ("lock-compat: true", Some("lock_compat")),
            ("runtimeDirectory: /run", Some("runtime_directory")),
            ("colour: red", None),
        ] {
            let fault = parse_yaml::<Config>(Path::new("c"), bad).unwrap_err().to_string();
            let key = bad.split(':').next().unwrap();
            assert!(fault.contains("line 1 column 1: unknown field"), "{fault}");
            assert!(fault.contains(&format!("`{key}`")), "{fault}");
            let named =
                fault.split_once("the nearest is `").map(|(_, near)| &near[..near.len() - 1]);
            assert_eq!(named, near, "{fault}");
        }
    }
}
