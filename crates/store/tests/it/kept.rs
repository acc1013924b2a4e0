//! What is kept, and for how long.

use proptest::prelude::*;

use super::*;

/// A step of a random history of a store.
#[derive(Clone, Debug)]
enum Step {
    Put(Vec<(bool, u64, u64)>),
    Reopen,
}

fn step() -> impl Strategy<Value = Step> {
    let record = (any::<bool>(), 0u64..6, any::<u64>());
    prop_oneof![
        4 => prop::collection::vec(record, 0..8).prop_map(Step::Put),
        1 => Just(Step::Reopen),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn what_was_put_last_under_each_key_is_read_back(
        steps in prop::collection::vec(step(), 1..12),
    ) {
        let folder = Folder::new();
        let through = now();
        let mut model = Model::default();
        let mut store = Some(open(&folder.file()));
        for step in steps {
            match step {
                Step::Put(records) => {
                    let records: Vec<HistoryRecord> = records
                        .into_iter()
                        .map(|(is_usage, key, value)| match is_usage {
                            true => usage(key, value, through),
                            false => demand(key % 2, key, value, through),
                        })
                        .collect();
                    model.put(&records);
                    // Not waited for: closing writes what waits.
                    store.as_ref().expect("open").writer.put(records);
                }
                Step::Reopen => {
                    drop(store.take());
                    store = Some(open(&folder.file()));
                    let records = &store.as_ref().expect("open").records;
                    prop_assert_eq!(&Model::of(records), &model);
                }
            }
        }
        drop(store);
        prop_assert_eq!(Model::of(&open(&folder.file()).records), model);
    }
}

#[test]
fn records_older_than_they_are_kept_are_gone() {
    let folder = Folder::new();
    let day = Duration::from_secs(24 * 3600);
    let (old, recent) = (now().before(day * 91), now().before(day * 89));
    let records =
        vec![usage(1, 1, old), usage(2, 2, recent), demand(1, 0, 3, old), demand(1, 0, 4, recent)];
    put(&open(&folder.file()).writer, records.clone());
    assert_eq!(open(&folder.file()).records, [records[1].clone(), records[3].clone()]);
}

#[test]
fn at_its_limit_the_oldest_records_give_way() {
    let folder = Folder::new();
    let limits = Limits { bytes_max: 256 << 10, ..Limits::DEFAULT };
    let store = Store::open(&folder.file(), limits).expect("opens");
    let start = now().before(Duration::from_secs(3600));
    for round in 0..40u64 {
        let through = start.after(Duration::from_secs(round));
        let records = (0..50).map(|n| usage(round * 50 + n, n, through)).collect();
        put(&store.writer, records);
    }
    drop(store);
    let size = fs::metadata(folder.file()).expect("it is there").len();
    assert!(size <= limits.bytes_max, "{size}");
    let kept = Store::open(&folder.file(), limits).expect("opens").records;
    println!("{} KiB hold {} profiles", limits.bytes_max >> 10, kept.len());
    assert!((100..2000).contains(&kept.len()), "{}", kept.len());
    let through = |record: &HistoryRecord| match record {
        HistoryRecord::Usage(usage) => usage.through,
        HistoryRecord::Demand(demand) => demand.through,
    };
    let oldest = kept.iter().map(through).min().expect("some");
    let whole_rounds = kept.iter().filter(|record| through(record) > oldest).count();
    assert_eq!(whole_rounds % 50, 0, "of every later round all are kept");
    assert!(kept.iter().any(|record| through(record) == start.after(Duration::from_secs(39))));
}

#[test]
fn handing_over_does_not_wait_for_the_disk_and_replaces_by_key() {
    let folder = Folder::new();
    let store = open(&folder.file());
    let mut taken = 0;
    for value in 0..20_000 {
        taken = store.writer.put([usage(value % 3, value, now())]);
        assert!(store.writer.standing().waiting <= 3);
    }
    assert_eq!(store.writer.wait_for(taken, SOON).acknowledged, 20_000);
    drop(store);
    assert_eq!(open(&folder.file()).records.len(), 3);
}
