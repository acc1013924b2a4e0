//! A machine that runs for a day of its own clock.

use super::*;

/// Operations by users, each killed at a random step in two of three, until `HOURS` of the virtual
/// clock are over (one where it is not set); then one guard ends what is left. The machine is never
/// restarted, so that whatever grows would go on growing.
#[test]
fn hours_on_the_virtual_clock_leave_nothing() {
    let hours = std::env::var("HOURS").ok().and_then(|hours| hours.parse().ok()).unwrap_or(1_u64);
    let seed = crate::seed(1);
    let mut run = Run::new(seed);
    run.machine.borrow_mut().reboots = false;
    let began = std::time::Instant::now();
    let start = run.machine.borrow().boot_nanos;
    let end = start + hours * 3_600 * chronos::quantity::NANOS;
    let (mut operations, mut journal_max, mut granted) = (0_u64, 0, 0);
    while run.machine.borrow().boot_nanos < end {
        run.operate();
        run.check().unwrap_or_else(|why| panic!("seed={seed} operation={operations}: {why}"));
        operations += 1;
        let machine = run.machine.borrow();
        journal_max = journal_max.max(machine.journal.as_ref().map_or(0, |(_, b)| b.len()));
        granted = granted.max(machine.truth.0.serial());
    }
    run.end().unwrap_or_else(|why| panic!("seed={seed} at the end: {why}"));
    let machine = run.machine.borrow();
    // 40 processes cannot keep more alive than a journal of this holds.
    assert!(journal_max < 1 << 20, "the journal grew to {journal_max} bytes");
    println!(
        "day: seed={seed} hours={hours} operations={operations} ids={granted} kills={} steps={} \
         journal_max={journal_max} buried={} secs={:.1} violations=0",
        machine.kills,
        machine.steps,
        machine.history.len(),
        began.elapsed().as_secs_f64()
    );
}
