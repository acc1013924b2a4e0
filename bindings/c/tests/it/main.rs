//! The C ABI from C, C++ and Python, with the real compilers and the real interpreter.

// A test that cannot go on says so by panicking, in its helpers as well.
#![allow(clippy::unwrap_used)]

use std::path::{Path, PathBuf};
use std::process::Command;

struct Place {
    root: PathBuf,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.root);
    }
}

impl Place {
    /// A folder with `libchronos.so` in it, and state of its own.
    fn new(name: &str) -> Self {
        let root = std::env::temp_dir().join(format!("chronos-c-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&root).unwrap();
        let own = std::env::current_exe().unwrap();
        let built = own.parent().unwrap().join("libchronos_c.so");
        std::fs::copy(&built, root.join("libchronos.so"))
            .unwrap_or_else(|e| panic!("{}: {e}", built.display()));
        Self { root }
    }

    fn run(&self, command: &mut Command) -> String {
        command
            .env("CHRONOS_LIBRARY", self.root.join("libchronos.so"))
            .env("LD_LIBRARY_PATH", &self.root)
            // The tool is built by another package: leases are ended by the next caller here.
            .env("CHRONOS_PROGRAM", "/bin/true");
        self.run_as_is(command)
    }

    /// Without telling the program where library and tool are.
    fn run_as_is(&self, command: &mut Command) -> String {
        let path = |name: &str| self.root.join(name);
        let output = command
            .env("CHRONOS_BACKEND", "fake")
            .env("CHRONOS_FAKE_GPUS", "count=2,memory=80GiB")
            .env("CHRONOS_RUNTIME_DIR", path("run"))
            .env("CHRONOS_STATE_DIR", path("state"))
            .env_remove("CHRONOS_LEASE")
            .output()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let (out, err) =
            (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{command:?}: {}\n{out}{err}", output.status);
        print!("{out}");
        out.into_owned()
    }

    fn compile(
        &self,
        compiler: &str,
        standard: &str,
        source: &Path,
        includes: &[PathBuf],
    ) -> PathBuf {
        let program = self.root.join("program");
        let mut command = Command::new(compiler);
        command.args([standard, "-Wall", "-Wextra", "-Werror", "-pedantic", "-O1"]).arg(source);
        for include in includes {
            command.arg("-I").arg(include);
        }
        command.arg("-o").arg(&program).arg("-L").arg(&self.root).args(["-lchronos", "-lm"]);
        self.run(&mut command);
        program
    }
}

fn bindings() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

fn there(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("skipped: {program} is not installed");
    }
    there
}

#[test]
fn the_abi_from_c() {
    if !there("cc") {
        return;
    }
    let place = Place::new("c");
    let (source, include) = (bindings().join("c/tests/abi.c"), bindings().join("c/include"));
    let program = place.compile("cc", "-std=gnu11", &source, &[include]);
    assert!(place.run(&mut Command::new(program)).ends_with("c: ok\n"));
}

#[test]
fn the_header_from_cpp() {
    if !there("c++") {
        return;
    }
    let place = Place::new("cpp");
    let source = bindings().join("cpp/tests/behaviour.cpp");
    let includes = [bindings().join("c/include"), bindings().join("cpp/include")];
    let program = place.compile("c++", "-std=c++17", &source, &includes);
    assert!(place.run(&mut Command::new(program)).ends_with("c++: ok\n"));
}

#[test]
fn the_package_from_python() {
    if !there("python3") {
        return;
    }
    let place = Place::new("python");
    let mut command = Command::new("python3");
    command.arg(bindings().join("python/tests/behaviour.py"));
    place.run(
        command.env("PYTHONPATH", bindings().join("python")).env("PYTHONDONTWRITEBYTECODE", "1"),
    );
}

/// The wheel, installed into an environment of its own: with its library and its tool inside, all
/// behaviours hold; without them the import works and everything else says what is missing.
#[test]
fn the_wheel_in_a_fresh_environment() {
    let venv = Command::new("python3").args(["-c", "import venv, ensurepip"]).output();
    if !venv.is_ok_and(|output| output.status.success()) {
        println!("skipped: python3 without venv and ensurepip");
        return;
    }
    let place = Place::new("wheel");
    let tool = std::env::current_exe().unwrap().ancestors().nth(2).unwrap().join("chronos");
    if !tool.exists() {
        println!("skipped: {} is not built: cargo build -p chronos", tool.display());
        return;
    }
    let environment = place.root.join("venv");
    place.run(Command::new("python3").args(["-m", "venv"]).arg(&environment));
    let (python, wheels) = (environment.join("bin/python"), place.root.join("wheels"));
    std::fs::create_dir_all(&wheels).unwrap();
    let inside = |arguments: &[&str]| {
        let mut command = Command::new(&python);
        command.args(arguments).current_dir(&place.root);
        for name in ["CHRONOS_LIBRARY", "CHRONOS_PROGRAM", "LD_LIBRARY_PATH", "PYTHONPATH"] {
            command.env_remove(name);
        }
        command
    };
    let backend = bindings().join("python/backend.py");
    let build = |library: &str, tool: &Path| {
        let mut command = inside(&[backend.to_str().unwrap(), wheels.to_str().unwrap()]);
        command.env("CHRONOS_WHEEL_LIBRARY", library).env("CHRONOS_WHEEL_TOOL", tool);
        let name = place.run_as_is(command.env("PYTHONDONTWRITEBYTECODE", "1"));
        wheels.join(name.trim()).display().to_string()
    };
    let pip = ["-m", "pip", "install", "--quiet", "--no-index", "--force-reinstall"];
    let pip = [&pip[..], &["--disable-pip-version-check"]].concat();
    let pure = build("", Path::new(""));
    assert!(pure.ends_with("-py3-none-any.whl"), "{pure}");
    place.run_as_is(&mut inside(&[&pip[..], &[&pure]].concat()));
    let script = "import chronos, chronos.aio, chronos.multiprocessing\n\
                  assert chronos.is_stub_mode()\n\
                  try: chronos.Partitioner()\n\
                  except chronos.ChronosStubError as e: print(e)";
    let said = place.run_as_is(&mut inside(&["-c", script]));
    assert!(said.contains("pip install --force-reinstall chronos-gpu"), "{said}");
    let library = place.root.join("libchronos.so");
    let whole = build(library.to_str().unwrap(), &tool);
    assert!(!whole.contains("-any"), "a library is of one platform: {whole}");
    place.run_as_is(&mut inside(&[&pip[..], &[&whole]].concat()));
    let tests = bindings().join("python/tests/behaviour.py");
    place.run_as_is(inside(&[tests.to_str().unwrap()]).env("PYTHONDONTWRITEBYTECODE", "1"));
    let mut installed = Command::new(environment.join("bin/chronos"));
    assert!(place.run(installed.arg("version")).starts_with("chronos 0."));
}

/// The examples that need no more than Python.
#[test]
fn the_examples_in_python() {
    if !there("python3") {
        return;
    }
    let place = Place::new("examples");
    let examples = bindings().parent().unwrap().join("examples/chronos");
    for (name, last) in
        [("multiprocessing_pool.py", "on GPU 0"), ("frameworks.py", "left on GPU 0")]
    {
        let mut command = Command::new("python3");
        command.arg(examples.join(name)).env("PYTHONDONTWRITEBYTECODE", "1");
        let out = place.run(command.env("PYTHONPATH", bindings().join("python")));
        assert!(out.contains(last), "{name}: {out}");
    }
}
