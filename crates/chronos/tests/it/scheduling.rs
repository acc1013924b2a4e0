//! Who is suspended for whom, and what a job hears before its deadline, with real processes.

use std::path::PathBuf;
use std::process::{Command, Stdio};

use chronos::lease::LeaseId;
use chronos::quantity::Span;

use crate::sandbox::{Killed, Sandbox, await_some, gone, kill, numbers};

/// A job that writes for as long as it runs.
struct Ticker {
    supervisor: Killed,
    file: PathBuf,
    said: PathBuf,
    id: String,
    pid: u32,
}

impl Ticker {
    fn start(sandbox: &Sandbox, name: &str, arguments: &[&str]) -> Self {
        let file = sandbox.root().join(name);
        let (pid, said) = (file.with_extension("pid"), file.with_extension("said"));
        let script =
            format!("echo $$ > {}; while :; do echo x >> {}; done", pid.display(), file.display());
        let words =
            [&["run", "--name", name][..], arguments, &["--", "sh", "-c", &script]].concat();
        let errors = std::fs::File::create(&said).unwrap();
        let mut command = sandbox.command(&words);
        let supervisor = Killed(command.stdout(Stdio::null()).stderr(errors).spawn().unwrap());
        let pid = numbers(&pid, 1)[0];
        let leases = sandbox.leases();
        let lease = leases.iter().find(|lease| lease["name"] == name).unwrap();
        Self { supervisor, file, said, id: lease["id"].as_str().unwrap().to_owned(), pid }
    }

    fn size(&self) -> u64 {
        std::fs::metadata(&self.file).map_or(0, |metadata| metadata.len())
    }

    fn ticks(&self) {
        let before = self.size();
        await_some("the next tick", || (self.size() > before).then_some(()));
    }

    fn said(&self) -> String {
        std::fs::read_to_string(&self.said).unwrap()
    }

    fn phase(&self, sandbox: &Sandbox) -> String {
        let leases = sandbox.leases();
        let lease = leases.iter().find(|lease| lease["id"] == *self.id);
        lease.map_or_else(|| "gone".to_owned(), |l| l["phase"].as_str().unwrap().to_owned())
    }
}

/// One GPU whose leases may be suspended for others once they have run for `exempt`.
fn machine(exempt: &str) -> Sandbox {
    let mut sandbox = Sandbox::new("count=1,checkpoint=yes");
    let config = sandbox.root().join("chronos.yaml");
    std::fs::write(&config, format!("preempt_exempt_time: {exempt}\n")).unwrap();
    sandbox.set("CHRONOS_CONFIG", &config.display().to_string());
    sandbox
}

#[test]
fn an_urgent_request_has_a_low_one_suspended_and_it_goes_on_by_itself() {
    let sandbox = machine("0s");
    let low = Ticker::start(&sandbox, "low", &["--mem", "60%", "--priority", "low"]);
    let normal = Ticker::start(&sandbox, "normal", &["--mem", "30%"]);
    sandbox.refused(73, &["create", "0", "0.5", "600"]);
    let asked = ["suggest", "0", "0.5", "600", "--priority", "high"];
    let suggestion = sandbox.json(&asked);
    assert_eq!(suggestion["startsInSeconds"], 0.0);
    assert_eq!(suggestion["preempts"][0]["id"], low.id.as_str());
    let said = sandbox.ok(&asked);
    assert!(said.contains(&format!("suspends partition {} of user", low.id)), "{said}");
    assert_eq!(low.phase(&sandbox), "active", "a suggestion suspends nobody");
    let urgent = sandbox.run(&["create", "0", "0.5", "600", "--priority", "high", "--json"]);
    let said = String::from_utf8(urgent.stderr).unwrap();
    assert!(said.contains(&format!("partition {} of user", low.id)), "{said}");
    assert!(said.contains("is suspended"), "{said}");
    let lease: serde_json::Value = serde_json::from_slice(&urgent.stdout).unwrap();
    let stopped = low.size();
    assert_eq!(
        (low.phase(&sandbox), normal.phase(&sandbox)),
        ("suspended".into(), "active".into())
    );
    normal.ticks();
    assert_eq!(low.size(), stopped, "a suspended job does not write");
    let waiting = &sandbox.json(&["queue"])["items"][0];
    assert_eq!((&waiting["id"], &waiting["resumes"]), (&low.id.as_str().into(), &true.into()));
    await_some("the word to its owner", || {
        low.said().contains("is suspended: it goes on when there is room").then_some(())
    });
    // A second urgent request finds nobody left to suspend.
    sandbox.refused(73, &["create", "0", "0.5", "600", "--priority", "high"]);
    assert_eq!(sandbox.book().tickets().len(), 1, "it left the queue again");
    sandbox.ok(&["release", lease["id"].as_str().unwrap()]);
    low.ticks();
    assert_eq!(low.phase(&sandbox), "active");
    await_some("the word to its owner", || low.said().contains("goes on\n").then_some(()));
    sandbox.ok(&["release", "--force", &low.id]);
    sandbox.ok(&["release", "--force", &normal.id]);
    await_some("the end of both", || (gone(low.pid) && gone(normal.pid)).then_some(()));
    drop((low.supervisor, normal.supervisor));
}

/// A minute is the default: whoever has just started is left in peace.
#[test]
fn a_low_job_is_spared_for_a_while_and_it_is_said_for_how_long() {
    let sandbox = Sandbox::new("count=1,checkpoint=yes");
    let low = Ticker::start(&sandbox, "low", &["--mem", "60%", "--priority", "low"]);
    let suggestion = sandbox.json(&["suggest", "0", "0.5", "600", "--priority", "high"]);
    let starts = suggestion["startsInSeconds"].as_f64().unwrap();
    assert!((30.0..=60.0).contains(&starts), "{starts}");
    assert_eq!(suggestion["preempts"][0]["id"], low.id.as_str());
    let errors = sandbox.refused(73, &["create", "0", "0.5", "600", "--priority", "high"]);
    assert!(errors.contains(&format!("by suspending partition {}", low.id)), "{errors}");
    low.ticks();
    assert_eq!(low.phase(&sandbox), "active");
    sandbox.ok(&["release", "--force", &low.id]);
}

/// Who waits tries again when the exempt time is over, and a lease that was resumed is spared anew.
#[test]
fn an_urgent_request_that_waits_takes_its_place_when_the_exempt_time_is_over() {
    let sandbox = machine("1500ms");
    let low = Ticker::start(&sandbox, "low", &["--mem", "60%", "--priority", "low"]);
    let granted = sandbox.book().leases().next().unwrap().granted;
    let urgent = ["create", "0", "0.5", "600", "--priority", "high", "--wait=20s"];
    let first = sandbox.create(&urgent[1..]);
    let lease = sandbox.book().lease(&LeaseId(first.clone())).unwrap().clone();
    let waited = lease.granted.since(granted);
    assert!(waited >= Span::from_millis(1_500), "suspended after {waited}");
    assert!(waited < Span::from_secs(15), "suspended after {waited}");
    assert_eq!(low.phase(&sandbox), "suspended");
    sandbox.ok(&["release", &first]);
    await_some("the low one", || (low.phase(&sandbox) == "active").then_some(()));
    let resumed = sandbox.book().lease(&LeaseId(low.id.clone())).unwrap().clone();
    assert!(resumed.running_since > lease.granted, "it is spared from its resumption on");
    assert!(resumed.idle > Span::ZERO, "what it waited for is not counted as used");
    sandbox.ok(&["release", "--force", &low.id]);
}

#[test]
fn nobody_is_preempted_where_suspending_frees_no_memory() {
    let sandbox = Sandbox::new("count=1");
    let low = Ticker::start(&sandbox, "low", &["--mem", "60%", "--priority", "low"]);
    let errors = sandbox.refused(73, &["create", "0", "0.5", "600", "--priority", "high"]);
    assert!(errors.contains("nobody is preempted: suspending frees no GPU memory"), "{errors}");
    low.ticks();
    sandbox.ok(&["release", "--force", &low.id]);
}

#[test]
fn a_job_is_suspended_at_its_deadline_and_resumed() {
    let sandbox = Sandbox::new("count=1,checkpoint=yes");
    let job = Ticker::start(
        &sandbox,
        "job",
        &["--mem", "90%", "--for", "700ms", "--grace", "0", "--on-expire", "suspend"],
    );
    await_some("the suspension", || (job.phase(&sandbox) == "suspended").then_some(()));
    let stopped = job.size();
    let other = sandbox.create(&["0", "0.9", "600"]);
    let errors = sandbox.refused(2, &["resume", &job.id]);
    assert!(errors.contains("has no time left"), "{errors}");
    sandbox.refused(73, &["resume", &job.id, "--for", "60s"]);
    sandbox.ok(&["release", &other]);
    assert_eq!(job.size(), stopped);
    sandbox.ok(&["resume", &job.id, "--for", "60s"]);
    job.ticks();
    sandbox.ok(&["release", "--force", &job.id]);
}

#[test]
fn without_a_checkpoint_the_deadline_ends_what_was_to_be_suspended_and_says_so() {
    let sandbox = Sandbox::new("count=1");
    let mut job = Ticker::start(
        &sandbox,
        "job",
        &["--for", "500ms", "--grace", "10s", "--on-expire", "suspend"],
    );
    let code = job.supervisor.0.wait().unwrap().code();
    assert_eq!(code, Some(124), "SIGTERM was enough");
    assert!(job.said().contains("at the deadline it is ended instead"), "{}", job.said());
    assert!(gone(job.pid));
}

/// The signal comes from whichever guard is left; the supervisor is not.
#[test]
fn a_job_is_warned_by_a_signal_also_when_its_supervisor_is_killed() {
    let sandbox = Sandbox::new("count=1");
    let file = sandbox.root().join("heard");
    let script = format!(
        "trap 'echo warned >> {0}' USR1; trap 'echo told >> {0}; exit 0' TERM; echo $$ >> {0}; \
         while :; do :; done",
        file.display()
    );
    let words = ["run", "--for", "2s", "--warn", "1s", "--warn-signal", "usr1", "--", "sh", "-c"];
    let mut command = sandbox.command(&[&words[..], &[&script]].concat());
    let supervisor = Killed(command.stderr(Stdio::null()).spawn().unwrap());
    let job = numbers(&file, 1)[0];
    kill(supervisor.0.id());
    await_some("the end of the job", || gone(job).then_some(()));
    let heard = std::fs::read_to_string(&file).unwrap();
    assert_eq!(heard, format!("{job}\nwarned\ntold\n"), "once each, in this order");
    let errors = Command::new(Sandbox::tool()).args(["create", "--warn-signal", "usr1"]).output();
    assert_eq!(errors.unwrap().status.code(), Some(2), "a signal without a warning");
}
