//! What a user downloads: a release as `.ci/release` writes it, taken by the real `install.sh`.
//!
//! The programs are those of this build without their symbols; that a release's own run on an old
//! glibc is checked where they are built.

use std::collections::BTreeSet;
use std::env::consts::ARCH;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tests::scratch::ScratchDir;
use tests::skip_or_fail;

use crate::chart::helm::Helm;

/// Any time will do, if it is not the one that files of a new checkout have.
const TIME: &str = "1700000000";

/// One release for all tests: its programs are packed once.
static RELEASE: LazyLock<Option<ScratchDir>> = LazyLock::new(|| {
    for program in ["python3", "strip", "git"] {
        if Command::new(program).arg("--version").output().is_err() {
            skip_or_fail(&format!("no `{program}`, which packing a release needs"));
            return None;
        }
    }
    let scratch = ScratchDir::create("release").expect("a folder for the release");
    write_release(&scratch);
    Some(scratch)
});

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Writes a release of this machine's programs to `files`.
fn write_release(scratch: &ScratchDir) {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The whole workspace's features, so that nothing is built twice.
    let programs = ["gpu-autoscaler", "gpu-autoscaler-controller", "chronos"];
    let named = programs.iter().flat_map(|program| ["--bin", program]);
    run(Command::new(cargo).args(["build", "--quiet", "--workspace", "--lib"]).args(named));
    let test = std::env::current_exe().expect("a test has a path");
    let built = test.ancestors().nth(2).expect("target/PROFILE/deps/TEST");
    let folder = scratch.join("programs");
    fs::create_dir(&folder).expect("a new folder");
    for name in programs.into_iter().chain(["libchronos_c.so"]) {
        run(Command::new("strip").arg("-o").arg(folder.join(name)).arg(built.join(name)));
    }
    run(Command::new("python3")
        .arg("-B")
        .arg(root().join(".ci/release"))
        .arg(scratch.join("files"))
        .env("MACHINES", ARCH)
        .env(format!("PROGRAMS_{ARCH}"), &folder)
        .env("SOURCE_DATE_EPOCH", TIME));
    // A folder that lives as long as the process is removed by the next run only.
    fs::remove_dir_all(folder).expect("ours");
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(output.status.success(), "{command:?}: {}", text(&output));
    output
}

fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!("{}{}", String::from_utf8_lossy(out), String::from_utf8_lossy(err))
}

/// A release of its own that a test may spoil, and a prefix to install under.
struct Attempt {
    scratch: ScratchDir,
}

impl Attempt {
    fn new() -> Option<Self> {
        let release = RELEASE.as_ref()?;
        let scratch = ScratchDir::create("install").expect("a folder");
        run(Command::new("cp").arg("-r").arg(release.join("files")).arg(scratch.join("files")));
        Some(Self { scratch })
    }

    fn archive(&self, name: &str) -> PathBuf {
        self.scratch.join(format!("files/{name}-linux-{ARCH}.tar.gz"))
    }

    fn installed(&self, place: &str) -> PathBuf {
        self.scratch.join("prefix").join(place)
    }

    /// `install.sh` of the release with these arguments, the release and the prefix.
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new("bash");
        command.arg(self.scratch.join("files/install.sh")).args(arguments);
        command.arg("--from").arg(self.scratch.join("files")).env_remove("INSTALL_DIR");
        command
    }

    fn install(&self, name: &str) -> Output {
        let mut command = self.command(&[name]);
        command.arg("--prefix").arg(self.scratch.join("prefix")).output().expect("bash runs")
    }

    /// An older program at the place of `name`, which says so.
    fn place_older(&self, name: &str) {
        let place = self.installed(&format!("bin/{name}"));
        fs::create_dir_all(place.parent().expect("in bin")).expect("a new folder");
        fs::write(&place, "#!/bin/sh\necho older\n").expect("written");
        fs::set_permissions(&place, fs::Permissions::from_mode(0o755)).expect("ours");
    }

    /// What the program that is installed says of its version.
    fn version(&self, name: &str) -> String {
        let program = self.installed(&format!("bin/{name}"));
        text(&run(Command::new(program).arg("--version"))).trim().to_owned()
    }

    /// Refused for a reason that has all of `words`; what was there before is there alone.
    fn assert_refused(&self, name: &str, words: &[&str]) {
        let refused = self.install(name);
        assert_eq!(refused.status.code(), Some(1), "{}", text(&refused));
        for word in words {
            assert!(text(&refused).contains(word), "`{word}` is missing: {}", text(&refused));
        }
        let bin = fs::read_dir(self.installed("bin")).expect("the older one is there");
        let names: Vec<_> = bin.map(|entry| entry.expect("readable").file_name()).collect();
        assert_eq!(names, [name], "no half program is left");
        assert_eq!(self.version(name), "older");
    }
}

fn files_of(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("written");
    entries.map(|entry| entry.expect("readable").file_name().display().to_string()).collect()
}

fn version_of_workspace() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

#[test]
fn two_runs_write_the_same_release() {
    let Some(first) = RELEASE.as_ref() else { return };
    let second = ScratchDir::create("release-again").expect("a folder");
    write_release(&second);
    let sums = |release: &ScratchDir| {
        fs::read_to_string(release.join("files/checksums.txt")).expect("written")
    };
    assert_eq!(sums(first), sums(&second));
    // By the tool that users have, not by the script that wrote them.
    run(Command::new("sha256sum")
        .args(["--check", "--strict", "checksums.txt"])
        .current_dir(first.join("files")));
    let named = sums(first).lines().map(|line| line[66..].to_owned()).collect::<BTreeSet<_>>();
    let mut found = files_of(&first.join("files"));
    assert!(found.remove("checksums.txt"));
    assert_eq!(named, found, "every file has its checksum");
    let version = version_of_workspace();
    for name in ["gpu-autoscaler", "gpu-autoscaler-controller", "chronos"] {
        assert!(found.remove(&format!("{name}-linux-{ARCH}.tar.gz")), "{name}: {named:?}");
    }
    for name in [format!("gpu-autoscaler-{version}.tgz"), "install.sh".to_owned()] {
        assert!(found.remove(&name), "{name}: {named:?}");
    }
    let [wheel] = &found.into_iter().collect::<Vec<_>>()[..] else { panic!("{named:?}") };
    let (begin, end) =
        (format!("chronos_gpu-{version}-py3-none-manylinux_"), format!("_{ARCH}.whl"));
    assert!(wheel.starts_with(&begin) && wheel.ends_with(&end), "{wheel}");
}

#[test]
fn what_is_installed_runs_and_completes() {
    let Some(attempt) = Attempt::new() else { return };
    for (name, kinds) in [("gpu-autoscaler", &["bin", "share"][..]), ("chronos", &[])] {
        let done = attempt.install(name);
        assert!(done.status.success(), "{}", text(&done));
        assert!(text(&done).contains(&format!("next: {name} doctor")), "{}", text(&done));
        assert_eq!(attempt.version(name), format!("{name} {}", version_of_workspace()));
        for shell in [
            format!("share/bash-completion/completions/{name}"),
            format!("share/zsh/site-functions/_{name}"),
            format!("share/fish/vendor_completions.d/{name}.fish"),
        ] {
            let script = fs::read_to_string(attempt.installed(&shell)).expect("installed");
            assert!(script.contains("doctor"), "{shell} completes commands");
        }
        assert!(attempt.installed(&format!("share/doc/{name}/LICENSE")).is_file());
        if !kinds.is_empty() {
            assert_eq!(
                files_of(&attempt.installed("")),
                kinds.iter().map(|k| (*k).into()).collect()
            );
        }
    }
    assert!(attempt.installed("lib/libchronos.so").is_file());
    let header = attempt.installed("include/chronos/chronos.hpp");
    assert!(header.is_file() && header.with_file_name("chronos_c.h").is_file());
}

/// The published variable, and the published way: a script on standard input, without arguments.
#[test]
fn install_dir_takes_the_program_alone() {
    let Some(attempt) = Attempt::new() else { return };
    let folder = attempt.scratch.join("programs");
    let script = fs::File::open(attempt.scratch.join("files/install.sh")).expect("written");
    let done = Command::new("bash")
        .args(["-s", "--", "--from"])
        .arg(attempt.scratch.join("files"))
        .stdin(script)
        .env("INSTALL_DIR", &folder)
        .output()
        .expect("bash runs");
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(files_of(&folder), BTreeSet::from(["gpu-autoscaler".to_owned()]));
    let script = fs::read_to_string(root().join("install.sh")).expect("committed");
    let releases = format!("releases={}/releases\n", env!("CARGO_PKG_REPOSITORY"));
    assert!(script.contains(&releases), "it takes releases from the repository: {releases}");
}

#[test]
fn an_older_program_is_replaced_also_while_it_runs() {
    let Some(attempt) = Attempt::new() else { return };
    attempt.place_older("chronos");
    assert_eq!(attempt.version("chronos"), "older");
    // A program that runs cannot be written to, but its name can go to another.
    let old = attempt.installed("bin/chronos");
    fs::copy("/bin/cat", &old).expect("coreutils are here");
    let mut running = Command::new(&old)
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("it runs");
    let done = attempt.install("chronos");
    drop(running.stdin.take());
    running.wait().expect("it ends with its input");
    assert!(done.status.success(), "{}", text(&done));
    assert_eq!(attempt.version("chronos"), format!("chronos {}", version_of_workspace()));
    assert_eq!(files_of(&attempt.installed("bin")), BTreeSet::from(["chronos".to_owned()]));
}

#[test]
fn what_the_checksums_do_not_vouch_for_is_refused() {
    let Some(attempt) = Attempt::new() else { return };
    attempt.place_older("gpu-autoscaler");
    fs::copy(attempt.archive("chronos"), attempt.archive("gpu-autoscaler")).expect("both there");
    attempt.assert_refused("gpu-autoscaler", &["checksum of gpu-autoscaler-linux-", "says"]);
    fs::write(attempt.scratch.join("files/checksums.txt"), "").expect("written");
    attempt
        .assert_refused("gpu-autoscaler", &["checksums.txt does not name gpu-autoscaler-linux-"]);
    fs::remove_file(attempt.archive("gpu-autoscaler")).expect("it was there");
    attempt.assert_refused("gpu-autoscaler", &["no gpu-autoscaler-linux-", "in "]);
}

/// As a release for a newer glibc than this machine's would.
#[test]
fn a_program_that_does_not_run_leaves_the_older_one() {
    let Some(attempt) = Attempt::new() else { return };
    attempt.place_older("chronos");
    let script = "mkdir bin; printf '#!/bin/sh\\nexit 1\\n' > bin/chronos; tar -czf \"$1\" bin
        sha256sum \"$1\" | sed 's,  .*/,  ,' > files/checksums.txt";
    run(Command::new("sh")
        .args(["-euc", script, "sh"])
        .arg(attempt.archive("chronos"))
        .current_dir(attempt.scratch.path()));
    attempt.assert_refused("chronos", &["does not run on this machine", "glibc 2.17"]);
}

#[test]
fn machines_without_a_release_and_mistakes_are_named() {
    let Some(attempt) = Attempt::new() else { return };
    let stand_ins = attempt.scratch.join("stand-ins");
    fs::create_dir(&stand_ins).expect("a new folder");
    let path = format!("{}:{}", stand_ins.display(), std::env::var("PATH").expect("set"));
    for (system, machine) in [("Linux", "riscv64"), ("Darwin", "arm64")] {
        let uname = format!("#!/bin/sh\n[ \"$1\" = -s ] && echo {system} || echo {machine}\n");
        fs::write(stand_ins.join("uname"), uname).expect("written");
        fs::set_permissions(stand_ins.join("uname"), fs::Permissions::from_mode(0o755))
            .expect("ours");
        let refused = attempt.command(&["chronos"]).env("PATH", &path).output().expect("it runs");
        assert_eq!(refused.status.code(), Some(1));
        let said = format!("no release for {system} on {machine}: try `cargo build");
        assert!(text(&refused).contains(&said), "{}", text(&refused));
    }
    for (arguments, said) in [
        (&["gpu-autoscalr"][..], "argument `gpu-autoscalr` is not known"),
        (&["--prefix", ""], "--prefix needs a value"),
        (&["--version", "1.2.3"], "--from names a release already"),
    ] {
        let refused = attempt.command(arguments).output().expect("it runs");
        assert_eq!(refused.status.code(), Some(2), "{arguments:?}: {}", text(&refused));
        assert!(text(&refused).contains(said), "{arguments:?}: {}", text(&refused));
    }
    let refused = Command::new("bash")
        .arg(attempt.scratch.join("files/install.sh"))
        .args(["--from", "http://localhost/release"])
        .output()
        .expect("it runs");
    assert!(text(&refused).contains("only https:// and folders are trusted"), "{}", text(&refused));
}

/// Helm reads the archive as it does the one that it packs itself of the folder.
#[test]
fn helm_takes_the_chart_of_a_release() {
    let (Some(release), Some(helm)) = (RELEASE.as_ref(), Helm::find_or_skip()) else { return };
    let name = format!("gpu-autoscaler-{}.tgz", version_of_workspace());
    let packed = ScratchDir::create("packed").expect("a folder");
    let (chart, folder) = (root().join("charts/gpu-autoscaler"), packed.path().display());
    helm.run(&["package", &chart.display().to_string(), "-d", &folder.to_string()], None)
        .expect("packed");
    let (ours, helms) = (release.join("files").join(&name), packed.join(&name));
    let [ours_path, helms_path] = [&ours, &helms].map(|path| path.display().to_string());
    helm.run(&["lint", "--strict", &ours_path], None).expect("no fault");
    // Helm writes its own form of this file.
    let show = |path| helm.run(&["show", "chart", path], None).expect("it reads it");
    assert_eq!(show(&ours_path), show(&helms_path));
    for (archive, into) in [(&ours, "ours"), (&helms, "helms")] {
        let into = packed.join(into);
        fs::create_dir(&into).expect("a new folder");
        run(Command::new("tar").arg("-xzf").arg(archive).arg("-C").arg(into));
    }
    let (ours, helms) = (packed.join("ours"), packed.join("helms"));
    let differing = Command::new("diff")
        .args(["-r", "--exclude", "Chart.yaml"])
        .args([&ours, &helms])
        .output()
        .expect("diffutils are here");
    assert!(differing.status.success(), "{}", text(&differing));
}
