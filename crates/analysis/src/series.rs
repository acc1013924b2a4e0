//! Readings in the order of time, in few bytes each: a fleet has millions of them.

use std::collections::VecDeque;
use std::ops::Range;
use std::time::Duration;

use gpu_autoscaler_model::Timestamp;

/// The longest window: what 32 bits of milliseconds hold, 49 days.
const WINDOW_MAX: Duration = Duration::from_millis(u32::MAX as u64);

/// What was read, oldest first, no more than a window of it and at most 49 days.
///
/// A reading takes four bytes more than its value.
#[derive(Clone, Debug)]
pub(crate) struct Series<T: Copy> {
    /// What the milliseconds of the points are counted from: not after the first of them.
    origin: Timestamp,
    points: VecDeque<Point<T>>,
}

/// Packed, since alignment would make eight bytes of five.
#[derive(Clone, Copy, Debug)]
#[repr(C, packed)]
struct Point<T: Copy> {
    millis: u32,
    value: T,
}

impl<T: Copy> Default for Series<T> {
    fn default() -> Self {
        Self { origin: Timestamp::EPOCH, points: VecDeque::new() }
    }
}

/// The same readings are the same series, whatever they are counted from.
impl<T: Copy + PartialEq> PartialEq for Series<T> {
    fn eq(&self, other: &Self) -> bool {
        self.first() == other.first() && self.steps(0..self.len()).eq(other.steps(0..other.len()))
    }
}

impl<T: Copy> Series<T> {
    /// Takes a reading in and forgets what is older than `window`; `false` for a second reading of
    /// an instant, which is the same reading delivered again.
    pub fn push(&mut self, at: Timestamp, value: T, window: Duration) -> bool {
        let (first, last) = (self.first().unwrap_or(at), self.last());
        // Most readings come in order; one that was late goes where it belongs.
        let place = if last < Some(at) { self.len() } else { self.before(at) };
        if self.time(place) == Some(at) {
            return false;
        }
        let start = last.map_or(at, |last| last.max(at)).before(window.min(WINDOW_MAX));
        if at < start {
            return true;
        }
        let gone = if first < start { self.before(start) } else { 0 };
        self.points.drain(..gone);
        let millis = self.offset(at);
        self.points.insert(place - gone, Point { millis, value });
        true
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.points.len()
    }

    /// When the first was.
    pub fn first(&self) -> Option<Timestamp> {
        self.time(0)
    }

    /// When the one at `place` was.
    pub fn time(&self, place: usize) -> Option<Timestamp> {
        self.points.get(place).map(|point| self.at(point.millis))
    }

    /// When the last was.
    pub fn last(&self) -> Option<Timestamp> {
        self.points.back().map(|point| self.at(point.millis))
    }

    /// How many are before `at`.
    pub fn before(&self, at: Timestamp) -> usize {
        let millis = at.as_millis().saturating_sub(self.origin.as_millis());
        self.points.partition_point(|point| i64::from(point.millis) < millis)
    }

    /// What was read, of the readings at these places.
    pub fn values(&self, places: Range<usize>) -> impl Iterator<Item = T> + Clone {
        self.points.range(places).map(|point| point.value)
    }

    /// The same, each with the milliseconds since the reading before it; the first reading of all
    /// has none before it and is left out.
    pub fn steps(&self, places: Range<usize>) -> impl Iterator<Item = (u32, T)> + Clone {
        let start = places.start.max(1);
        let before = self.points.iter().skip(start - 1);
        let points = self.points.iter().skip(start).take(places.end.saturating_sub(start));
        before.zip(points).map(|(before, point)| (point.millis - before.millis, point.value))
    }

    fn at(&self, millis: u32) -> Timestamp {
        self.origin.after(Duration::from_millis(millis.into()))
    }

    /// The milliseconds of `at` from the origin, which is moved where 32 bits do not hold them: all
    /// points and `at` lie within one window.
    fn offset(&mut self, at: Timestamp) -> u32 {
        let within = |origin: Timestamp| u32::try_from(at.as_millis() - origin.as_millis());
        if let Ok(offset) = within(self.origin) {
            return offset;
        }
        let origin = self.first().map_or(at, |first| first.min(at));
        let moved = self.origin.as_millis() - origin.as_millis();
        for point in &mut self.points {
            let offset = i64::from(point.millis) + moved;
            point.millis = u32::try_from(offset).expect("points lie within one window");
        }
        self.origin = origin;
        within(origin).expect("it lies within one window of the points")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_millis(millis).expect("on the calendar")
    }

    fn all(series: &Series<u8>) -> Vec<(i64, u8)> {
        let first = series.first().map(|first| first.as_millis());
        let head = first.into_iter().zip(series.values(0..series.len()));
        let mut all: Vec<(i64, u8)> = head.collect();
        for (step, value) in series.steps(0..series.len()) {
            all.push((all[all.len() - 1].0 + i64::from(step), value));
        }
        all
    }

    #[test]
    fn readings_of_before_1970_and_far_apart_are_kept_as_they_are() {
        let window = Duration::from_secs(60);
        let mut series = Series::default();
        for millis in [-5_000, 0, 30_000] {
            assert!(series.push(at(millis), 1, window));
        }
        assert!(!series.push(at(0), 2, window), "the same instant again");
        assert_eq!(all(&series), [(-5_000, 1), (0, 1), (30_000, 1)]);
        let year = 365 * 86_400_000;
        assert!(series.push(at(year), 3, window));
        assert!(series.push(at(year - 60_000), 4, window));
        assert!(series.push(at(year - 60_001), 5, window), "new, and older than the window");
        assert_eq!(all(&series), [(year - 60_000, 4), (year, 3)]);
    }

    #[test]
    fn a_window_is_at_most_what_32_bits_hold() {
        let mut series = Series::default();
        let most = i64::from(u32::MAX);
        for millis in [0, 1, most, most + 1] {
            assert!(series.push(at(millis), 0, Duration::MAX));
        }
        assert_eq!(series.first(), Some(at(1)));
        assert_eq!(series.last(), Some(at(most + 1)));
    }

    proptest! {
        #[test]
        fn it_holds_what_a_sorted_map_would(
            pushed in prop::collection::vec((-2_000i64..2_000, any::<u8>()), 1..60),
            from in -2_500i64..2_500,
            length in 0i64..2_000,
        ) {
            let window = 1_000;
            let mut series = Series::default();
            let mut map = std::collections::BTreeMap::new();
            for (millis, value) in pushed {
                let new = !map.contains_key(&millis);
                prop_assert_eq!(
                    series.push(at(millis), value, Duration::from_millis(1_000)),
                    new
                );
                map.entry(millis).or_insert(value);
                let last = *map.keys().next_back().expect("one at least");
                map.retain(|millis, _| *millis >= last - window);
            }
            let wanted: Vec<_> = map.iter().map(|(millis, value)| (*millis, *value)).collect();
            prop_assert_eq!(all(&series), wanted.clone());
            let places = series.before(at(from))..series.before(at(from + length));
            let wanted_within: Vec<u8> = wanted
                .iter()
                .filter(|(millis, _)| (from..from + length).contains(millis))
                .map(|(_, value)| *value)
                .collect();
            prop_assert_eq!(series.values(places.clone()).collect::<Vec<_>>(), wanted_within);
            let steps: Vec<(i64, u8)> = wanted
                .windows(2)
                .filter(|pair| (from..from + length).contains(&pair[1].0))
                .map(|pair| (pair[1].0 - pair[0].0, pair[1].1))
                .collect();
            let found = series.steps(places).map(|(step, value)| (i64::from(step), value));
            prop_assert_eq!(found.collect::<Vec<_>>(), steps);
        }
    }
}
