//! Files and disks that cannot be used: what is said, and that nothing is harmed.

use std::process::Command;

use gpu_autoscaler_store::StoreError;

use super::*;

/// A folder on a disk of 512 KiB; set for the child process that has one.
const CHILD_FOLDER: &str = "GPU_AUTOSCALER_STORE_SMALL_DISK";

fn refused(path: &Path) -> String {
    let before = fs::read(path).expect("it is there");
    let error = Store::open(path, Limits::DEFAULT).expect_err("it cannot be used").to_string();
    assert!(error.contains(&format!("`{}`", path.display())), "{error}");
    assert!(error.contains("\nhint: "), "{error}");
    assert!(fs::read(path).expect("it is there") == before, "it is left as it was");
    error
}

/// A store that holds a hundred profiles, closed.
fn filled(folder: &Folder) -> PathBuf {
    put(&open(&folder.file()).writer, (0..100).map(|n| usage(n, n, now())).collect());
    folder.file()
}

fn sql(path: &Path, statement: &str) {
    let connection = rusqlite::Connection::open(path).expect("opens");
    connection.execute_batch(statement).expect("valid");
}

#[test]
fn a_file_of_a_later_release_is_refused() {
    let folder = Folder::new();
    let path = filled(&folder);
    sql(&path, "PRAGMA user_version = 99");
    assert!(refused(&path).contains("has schema 99, this release knows up to 1"));
    sql(&path, "PRAGMA user_version = 1");
    assert_eq!(open(&path).records.len(), 100, "nothing was lost");
}

#[test]
fn what_is_no_history_is_refused() {
    let folder = Folder::new();
    let path = folder.file();
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
    fs::write(
        &path,
        "no database at all, but long enough to be taken for a header of one\n".repeat(99),
    )
    .expect("written");
    assert!(refused(&path).contains("is damaged: "));
    fs::remove_file(&path).expect("removed");
    sql(&path, "CREATE TABLE theirs (a)");
    assert!(refused(&path).contains("belongs to another program (application id 0x0)"));
    fs::remove_file(&path).expect("removed");
    fs::write(&path, "").expect("written");
    assert_eq!(open(&path).records.len(), 0, "an empty file is one that was never begun");
}

#[test]
fn a_damaged_file_is_refused() {
    let folder = Folder::new();
    let path = filled(&folder);
    let whole = fs::read(&path).expect("readable");
    for (what, bytes) in [
        ("cut off", whole[..whole.len() / 2].to_vec()),
        ("overwritten", {
            let mut bytes = whole.clone();
            // Past the header and the schema.
            bytes[2 * 4096..].fill(0xa5);
            bytes
        }),
    ] {
        fs::write(&path, bytes).expect("written");
        assert!(refused(&path).contains("is damaged: "), "{what}");
    }
}

/// Each of these passes SQLite's own checks.
#[test]
fn a_record_that_cannot_be_is_left_out_and_told_of_and_the_others_are_kept() {
    let folder = Folder::new();
    let path = filled(&folder);
    let whole = fs::read(&path).expect("readable");
    let long = format!("[{}]", vec!["[1,1]"; 20_000].join(","));
    for set in [
        "fb_mib = 'no sketch'",
        "fb_mib = '[[1, 2'",
        "fb_mib = '[[65535, 1]]'",
        "fb_mib = '[[1900, 1]]'",
        "activity_ppm = '[[9, 1], [8, 1]]'",
        "activity_ppm = '[[8, 0]]'",
        "activity_ppm = '[[8, -1]]'",
        "activity_ppm = '[[8, 18446744073709551615], [9, 1]]'",
        "activity_ppm = '[[600, 1]]'",
        "observed_secs = 0",
        "observed_secs = -1",
        "pods = -1",
        "touched_max = -1",
        "touched_max = 4294967296",
        "through = 9223372036854775807",
        &format!("activity_ppm = '{long}'"),
    ] {
        fs::write(&path, &whole).expect("written");
        sql(&path, &format!("UPDATE usage SET {set} WHERE owner = 'Deployment/serve-7'"));
        let store = open(&path);
        assert_eq!(store.records.len(), 99, "{}", &set[..set.len().min(60)]);
        until(|| store.writer.standing().unreadable == 1);
        // What is learned anew takes its place.
        put(&store.writer, vec![usage(7, 70, now())]);
        drop(store);
        assert_eq!(open(&path).records.len(), 100);
    }
}

#[test]
fn an_hour_that_cannot_be_is_left_out() {
    let folder = Folder::new();
    let path = filled(&folder);
    let hour = now().hour().as_millis();
    for (hour, requested, most, observed) in [
        (hour + 1, 0, 0, 0),
        (hour, 1, 1, 3_600_001),
        (hour, 3_600_001, 1, 3_600_000),
        (hour, -1, 1, 3_600_000),
        (hour, 1, -1, 3_600_000),
    ] {
        sql(
            &path,
            &format!(
                "DELETE FROM demand; INSERT INTO demand VALUES
                    ('p', {hour}, {requested}, {most}, {observed}, {hour})"
            ),
        );
        let store = open(&path);
        assert_eq!(store.records.len(), 100, "{requested} of {most} in {observed}");
        until(|| store.writer.standing().unreadable == 1);
    }
}

#[test]
fn a_file_in_use_is_refused_and_free_again_when_its_user_ends() {
    let folder = Folder::new();
    let path = filled(&folder);
    let store = open(&path);
    let error = Store::open(&path, Limits::DEFAULT).expect_err("in use");
    assert!(matches!(error, StoreError::InUse { .. }), "{error}");
    drop(store);
    assert_eq!(open(&path).records.len(), 100);
}

#[test]
fn a_folder_that_cannot_be_made_is_named() {
    let folder = Folder::new();
    let blocker = folder.0.join("file");
    fs::write(&blocker, "").expect("written");
    let error = Store::open(&blocker.join("history.db"), Limits::DEFAULT).expect_err("no folder");
    assert!(matches!(error, StoreError::Folder { .. }), "{error}");
    assert!(error.to_string().contains("\nhint: "), "{error}");
}

/// A disk of its own needs a mount namespace of its own, and so a process of its own.
#[test]
fn a_full_disk_and_a_read_only_one_are_survived_and_named() {
    if env::var_os(CHILD_FOLDER).is_some() {
        return;
    }
    let folder = Folder::new();
    let script = r#"mount -t tmpfs -o size=512k tmpfs "$1" && exec "$2" --exact --nocapture "$3""#;
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script, "sh"])
        .arg(&folder.0)
        .arg(env::current_exe().expect("a test has a path"))
        .arg("faults::child_on_a_small_disk")
        .env(CHILD_FOLDER, &folder.0)
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) => return skip(&format!("no `unshare`: {error}")),
    };
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    let printed = String::from_utf8_lossy(&output.stdout);
    if !printed.contains("running 1 test") {
        return skip(&format!("no disk of its own can be mounted here: {said}"));
    }
    assert!(output.status.success() && printed.contains("1 passed"), "{printed}\n{said}");
}

/// As the tests of the whole workspace skip: aloud, and not at all under `REQUIRE_ALL=1`.
fn skip(reason: &str) {
    assert!(env::var("REQUIRE_ALL").as_deref() != Ok("1"), "may not be skipped: {reason}");
    eprintln!("skipped: {}: {reason}", std::thread::current().name().unwrap_or("test"));
}

/// The other half of the test above: without its disk it has nothing to do.
#[test]
fn child_on_a_small_disk() {
    let Some(folder) = env::var_os(CHILD_FOLDER).map(PathBuf::from) else { return };
    let path = gpu_autoscaler_store::file_in(&folder);
    let store = open(&path);
    put(&store.writer, vec![usage(0, 0, now())]);
    // All that is left but for a few pages.
    let ballast = folder.join("ballast");
    fs::write(&ballast, vec![1; 512 << 10]).expect_err("more than there is");
    let records: Vec<_> = (1..400).map(|n| usage(n, n, now())).collect();
    let taken = store.writer.put(records.clone());
    let standing = store.writer.wait_for(taken, SOON);
    let error = standing.error.expect("the disk is full");
    assert!(error.contains("no space is left on its disk\nhint: "), "{error}");
    assert_eq!((standing.acknowledged, standing.waiting), (1, 399), "what waits is not lost");
    fs::remove_file(&ballast).expect("removed");
    until(|| store.writer.standing().acknowledged == taken);
    assert_eq!(store.writer.standing().error, None);
    drop(store);
    assert_eq!(open(&path).records.len(), 400);

    let mount = |options| {
        let done = Command::new("mount").args(["-o", options]).arg(&folder).status();
        assert!(done.expect("there is a `mount`").success());
    };
    mount("remount,ro");
    let error = Store::open(&path, Limits::DEFAULT).expect_err("read-only").to_string();
    assert!(error.contains("is read-only\nhint: "), "{error}");
    mount("remount,rw");
    assert_eq!(open(&path).records.len(), 400);
}

/// Looks until it is so; a test that hangs says where.
fn until(mut look: impl FnMut() -> bool) {
    let began = std::time::Instant::now();
    while !look() {
        assert!(began.elapsed() < SOON, "it never came to be");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_that_cannot_be_opened_yet_is_opened_later_and_its_past_wins() {
    let folder = Folder::new();
    let path = filled(&folder);
    let aside = path.with_extension("aside");
    fs::rename(&path, &aside).expect("moved");
    fs::write(&path, "not a database, but what another program left here\n".repeat(99))
        .expect("written");
    let (told, past) = std::sync::mpsc::channel();
    let deliver = move |records| told.send(records).expect("the test waits");
    let writer = gpu_autoscaler_store::open_later(path.clone(), Limits::DEFAULT, deliver);
    let writer = writer.expect("a thread");
    until(|| writer.standing().tried);
    assert!(writer.standing().error.is_some_and(|error| error.contains("is damaged")));
    // Known to the file already, and not.
    let taken = writer.put([usage(7, 70, now()), usage(700, 7, now())]);
    fs::rename(&aside, &path).expect("moved back");
    let past = past.recv_timeout(SOON).expect("it is opened in the end");
    assert_eq!(past.len(), 100);
    assert_eq!(writer.wait_for(taken, SOON).error, None);
    drop(writer);
    let kept = Model::of(&open(&path).records);
    assert_eq!(kept.0.len(), 101);
    let replaced = Model::of(&past).0.into_iter().filter(|(key, was)| kept.0.get(key) != Some(was));
    assert_eq!(replaced.count(), 0, "what the file held gave way to what was put before");
}
