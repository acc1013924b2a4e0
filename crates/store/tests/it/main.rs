//! The store through its public face: what it keeps, what it survives, what it says.

mod faults;
mod kept;
mod kills;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use std::{env, fs, process};

use gpu_autoscaler_model::{
    DemandHour, GpuMillis, HistoryRecord, ProfileKey, QuantileSketch, Timestamp, UsageProfile,
};
use gpu_autoscaler_store::{Limits, Standing, Store, Writer};

/// For what takes moments on an idle machine.
const SOON: Duration = Duration::from_secs(60);

/// A folder of its own, removed when dropped.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("gpu-autoscaler-store-{}-{number}", process::id());
        let path = env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a temporary folder can be made");
        Self(path)
    }

    fn file(&self) -> PathBuf {
        gpu_autoscaler_store::file_in(&self.0.join("deeper"))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        // A folder that stays behind harms nobody.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What a store must hold: the last record of each key.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model(BTreeMap<String, HistoryRecord>);

impl Model {
    fn put(&mut self, records: &[HistoryRecord]) {
        for record in records {
            let key = match record {
                HistoryRecord::Usage(usage) => format!("usage {:?}", usage.key),
                HistoryRecord::Demand(demand) => {
                    format!("demand {:?} {}", demand.pool, demand.hour)
                }
            };
            self.0.insert(key, record.clone());
        }
    }

    fn of(records: &[HistoryRecord]) -> Self {
        let mut model = Self::default();
        model.put(records);
        assert_eq!(model.0.len(), records.len(), "no key twice");
        model
    }
}

fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis().try_into().expect("in range")).expect("in range")
}

/// A profile of an owner whose pods were seen at `value` until `through`.
fn usage(owner: u64, value: u64, through: Timestamp) -> HistoryRecord {
    let key = ProfileKey {
        namespace: format!("team-{}", owner % 7).into(),
        owner: format!("Deployment/serve-{owner}").into(),
        image: "registry.example/serve:1.2@sha256:0123".into(),
    };
    let mut profile = UsageProfile::empty(key, through);
    for step in 0..20 {
        profile.activity_ppm.add(value.wrapping_mul(step) % 1_000_000, step + 1);
    }
    // Far below 2^63, as every count of seconds is.
    let secs = (value >> 2) + 5_000;
    profile.fb_mib.add(value % 80_000, secs);
    profile.touched_max = u32::try_from(value % 8).expect("small");
    profile.pods = value >> 1;
    profile.observed_secs = secs;
    HistoryRecord::Usage(profile)
}

/// What a pool was asked for in one of the hours before `through`.
fn demand(pool: u64, hour: u64, value: u64, through: Timestamp) -> HistoryRecord {
    let (most, observed_millis) = (value & 0xffff, value % 3_600_001);
    HistoryRecord::Demand(DemandHour {
        pool: format!("pool-{pool}").into(),
        hour: through.hour().before(Duration::from_secs(hour * 3600)),
        requested: GpuMillis::new(u128::from(most * observed_millis).min((value >> 1).into())),
        requested_max: u32::try_from(most).expect("16 bits"),
        observed_millis,
        through,
    })
}

fn open(path: &Path) -> Store {
    Store::open(path, Limits::DEFAULT).unwrap_or_else(|error| panic!("{error}"))
}

/// Hands records over and waits until they are on the disk.
fn put(writer: &Writer, records: Vec<HistoryRecord>) -> Standing {
    let taken = writer.put(records);
    let standing = writer.wait_for(taken, SOON);
    assert_eq!((standing.acknowledged, &standing.error), (taken, &None));
    standing
}

/// The sketch of nothing must survive as such.
#[test]
fn an_empty_profile_is_kept() {
    let folder = Folder::new();
    let key =
        ProfileKey { namespace: "n".into(), owner: "Pod/it's \"quoted\"".into(), image: "".into() };
    let empty = HistoryRecord::Usage(UsageProfile::empty(key, now()));
    put(&open(&folder.file()).writer, vec![empty.clone()]);
    let back = open(&folder.file()).records;
    assert_eq!(back, [empty]);
    let HistoryRecord::Usage(back) = &back[0] else { panic!("a profile") };
    assert_eq!(back.fb_mib, QuantileSketch::default());
}
