//! Seeded chance.
//!
//! Every part of the world draws from a stream of its own, named by what it is for, so that one
//! more draw in one part does not change what the others see.

use std::time::Duration;

/// A stream of pseudo-random numbers.
///
/// Source: xoshiro256** by Blackman and Vigna (<https://prng.di.unimi.it/xoshiro256starstar.c>),
/// its state filled by splitmix64 (<https://prng.di.unimi.it/splitmix64.c>), as its authors advise.
#[derive(Clone, Debug)]
pub struct Chance {
    state: [u64; 4],
}

/// One step of splitmix64: also the hash by which seeds of streams are derived.
const fn splitmix(state: u64) -> (u64, u64) {
    let state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mut z = state;
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    (state, z ^ (z >> 31))
}

impl Chance {
    /// The stream called `name` of `seed`.
    pub fn stream(seed: u64, name: &str) -> Self {
        let mut mixed = splitmix(seed).1;
        for byte in name.bytes() {
            mixed = splitmix(mixed ^ u64::from(byte)).1;
        }
        let mut state = [0; 4];
        for word in &mut state {
            let (next, out) = splitmix(mixed);
            mixed = next;
            *word = out;
        }
        Self { state }
    }

    /// The next 64 bits.
    pub fn bits(&mut self) -> u64 {
        let [a, b, c, d] = &mut self.state;
        let out = b.wrapping_mul(5).rotate_left(7).wrapping_mul(9);
        let shifted = *b << 17;
        *c ^= *a;
        *d ^= *b;
        *b ^= *c;
        *a ^= *d;
        *c ^= shifted;
        *d = d.rotate_left(45);
        out
    }

    /// Uniform in `[0, 1)`.
    pub fn unit(&mut self) -> f64 {
        // 53 bits are what a double holds, so that the conversion is exact.
        (self.bits() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Uniform in `[low, high)`.
    pub fn within(&mut self, low: f64, high: f64) -> f64 {
        low + (high - low) * self.unit()
    }

    /// True with probability `p`.
    pub fn happens(&mut self, p: f64) -> bool {
        // Drawn even where the answer is known, so that turning a fault off leaves the rest of
        // the stream as it was.
        self.unit() < p
    }

    /// Uniform in `0..count`; zero when `count` is zero.
    pub fn below(&mut self, count: usize) -> usize {
        // The product is below `count`, which is a usize.
        (self.unit() * count as f64) as usize
    }

    /// Uniform in whole milliseconds in `[low, high)`.
    pub fn span(&mut self, low: Duration, high: Duration) -> Duration {
        Duration::from_millis(self.within(millis(low), millis(high)) as u64)
    }

    /// The waiting time until the next of events that come at random, `mean` apart on average.
    pub fn wait(&mut self, mean: Duration) -> Duration {
        // 1 - unit() is in (0, 1], so that the logarithm is finite.
        Duration::from_millis((-(1.0 - self.unit()).ln() * millis(mean)) as u64)
    }

    /// One of `choices`, each as likely as its weight says; the last one when all weigh nothing.
    ///
    /// # Panics
    /// When there are no choices: a table in this crate is wrong.
    pub fn pick<'a, T>(&mut self, choices: &'a [(f64, T)]) -> &'a T {
        let total: f64 = choices.iter().map(|(weight, _)| weight).sum();
        let mut left = self.unit() * total;
        for (weight, choice) in choices {
            if left < *weight {
                return choice;
            }
            left -= weight;
        }
        &choices.last().expect("every table of choices has rows").1
    }
}

fn millis(span: Duration) -> f64 {
    span.as_secs_f64() * 1e3
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_is_the_published_one() {
        // First outputs of xoshiro256** for the state {1, 2, 3, 4}, as in the tests of the
        // `rand_xoshiro` crate, which took them from the authors' C program.
        let mut chance = Chance { state: [1, 2, 3, 4] };
        let expected = [11_520, 0, 1_509_978_240, 1_215_971_899_390_074_240];
        assert_eq!(expected.map(|_| chance.bits()), expected);
    }

    #[test]
    fn streams_of_one_seed_differ_and_repeat() {
        let first = |seed, name| Chance::stream(seed, name).bits();
        assert_eq!(first(7, "node/a"), first(7, "node/a"));
        assert_ne!(first(7, "node/a"), first(7, "node/b"));
        assert_ne!(first(7, "node/a"), first(8, "node/a"));
    }

    #[test]
    fn draws_keep_to_their_range_and_mean() {
        let mut chance = Chance::stream(1, "draws");
        let mut sum = 0.0;
        for _ in 0..10_000 {
            let drawn = chance.within(2.0, 4.0);
            assert!((2.0..4.0).contains(&drawn));
            sum += drawn;
        }
        assert!((sum / 10_000.0 - 3.0).abs() < 0.03, "mean {}", sum / 10_000.0);
        let waits: u128 =
            (0..10_000).map(|_| chance.wait(Duration::from_secs(10)).as_millis()).sum();
        assert!((waits as f64 / 1e4 - 10_000.0).abs() < 400.0, "mean {} ms", waits as f64 / 1e4);
        assert_eq!(*chance.pick(&[(0.0, 'a'), (1.0, 'b')]), 'b');
    }
}
