//! Latencies, from sending to the receipt.

use hdrhistogram::Histogram;
use serde::Serialize;

/// One hour; nothing waits longer.
const MICROS_MAX: u64 = 3_600_000_000;

/// A histogram of microseconds with three significant digits.
#[derive(Clone, Debug)]
pub struct Latencies(Histogram<u64>);

/// The percentiles that are reported, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// Half were faster.
    pub p50: f64,
    /// One of a hundred was slower.
    pub p99: f64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self(Histogram::new_with_bounds(1, MICROS_MAX, 3).expect("the bounds are valid"))
    }
}

impl Latencies {
    /// Takes one.
    pub fn record(&mut self, micros: u64) {
        self.0.saturating_record(micros.max(1));
    }

    /// Takes all of another one's.
    pub fn extend(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles so far; zero without any.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        let at = |quantile| {
            let micros = if self.0.is_empty() { 0 } else { self.0.value_at_quantile(quantile) };
            crate::output::rounded(micros as f64 / 1000.0)
        };
        Percentiles { p50: at(0.5), p99: at(0.99) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_in_milliseconds() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.percentiles(), Percentiles { p50: 0.0, p99: 0.0 });
        (1..=100).for_each(|n| latencies.record(n * 1000));
        let Percentiles { p50, p99 } = latencies.percentiles();
        assert!((49.9..51.0).contains(&p50) && (98.9..100.1).contains(&p99), "{p50} {p99}");
        let mut slower = Latencies::default();
        (1..=100).for_each(|_| slower.record(200_000));
        slower.extend(&latencies);
        assert_eq!(slower.count(), 200);
        let Percentiles { p50, p99 } = slower.percentiles();
        assert!((99.9..200.5).contains(&p50) && (199.0..201.0).contains(&p99), "{p50} {p99}");
        latencies.record(u64::MAX);
    }
}
