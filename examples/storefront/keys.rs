//! Which product each request asks for: one long sequence, from a trace or drawn from a Zipf distribution.

use std::{
    collections::HashMap,
    sync::atomic::{AtomicUsize, Ordering::Relaxed},
};

/// How many keys are drawn when there is no trace: the sequence repeats after that many requests.
const DRAWN: usize = 1 << 20;

/// More rows than that would take longer to seed than to serve.
const MAX_PRODUCTS: usize = 1_000_000;

pub struct Keys {
    sequence: Vec<u32>,
    products: u64,
    next: AtomicUsize,
}

impl Keys {
    /// Product 1 is the most popular, and so on.
    pub fn zipf(products: u32, skew: f64, seed: u64) -> Self {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut total = 0.0;
        let cumulated: Vec<f64> = (1..=products)
            .map(|rank| {
                total += f64::from(rank).powf(-skew);
                total
            })
            .collect();
        let draw = || {
            let at = random.f64() * total;
            let below = cumulated.partition_point(|&sum| sum <= at);
            (below as u32).min(products - 1) + 1
        };
        Self {
            sequence: std::iter::repeat_with(draw).take(DRAWN).collect(),
            products: products.into(),
            next: AtomicUsize::new(0),
        }
    }

    /// The shop holds one product per distinct key of the trace, numbered in the order of their first appearance.
    pub fn trace(keys: &[u64]) -> Result<Self, String> {
        let mut numbers = HashMap::new();
        let mut sequence = Vec::with_capacity(keys.len());
        for key in keys {
            let next = numbers.len() as u32 + 1;
            sequence.push(*numbers.entry(key).or_insert(next));
            if numbers.len() > MAX_PRODUCTS {
                return Err(format!("holds more than {MAX_PRODUCTS} distinct keys"));
            }
        }
        Ok(Self { sequence, products: numbers.len() as u64, next: AtomicUsize::new(0) })
    }

    pub fn products(&self) -> u64 {
        self.products
    }

    /// The next product of the sequence, whoever asks: all clients together replay it in its order.
    pub fn next(&self) -> u64 {
        // Relaxed: each place of the sequence is handed out once, and nothing else is published.
        let at = self.next.fetch_add(1, Relaxed);
        self.sequence[at % self.sequence.len()].into()
    }

    /// The product that was asked for last: what writers change, since that is where the races are.
    pub fn latest(&self) -> u64 {
        let at = self.next.load(Relaxed).saturating_sub(1);
        self.sequence[at % self.sequence.len()].into()
    }

    /// Every phase starts from the same place.
    pub fn rewind(&self) {
        self.next.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn take(keys: &Keys, count: usize) -> Vec<u64> {
        std::iter::repeat_with(|| keys.next()).take(count).collect()
    }

    #[test]
    fn a_seed_gives_the_same_keys_again() {
        assert_eq!(take(&Keys::zipf(1000, 0.9, 7), 1000), take(&Keys::zipf(1000, 0.9, 7), 1000));
        assert_ne!(take(&Keys::zipf(1000, 0.9, 7), 1000), take(&Keys::zipf(1000, 0.9, 8), 1000));
    }

    #[test]
    fn zipf_keys_are_products_and_the_first_is_the_most_popular() {
        let drawn = take(&Keys::zipf(50, 0.9, 1), DRAWN);
        let mut counts = [0u32; 51];
        for key in drawn {
            counts[key as usize] += 1;
        }
        assert_eq!(counts[0], 0);
        assert!(counts[1..].iter().all(|&count| count > 0));
        assert!(counts[1] > counts[2] && counts[2] > counts[10] && counts[10] > counts[50]);
    }

    #[test]
    fn a_trace_is_replayed_in_its_order_and_starts_over() {
        let keys = Keys::trace(&[900, 17, 900, 3]).unwrap();
        assert_eq!(keys.products(), 3);
        assert_eq!(take(&keys, 6), [1, 2, 1, 3, 1, 2]);
        assert_eq!(keys.latest(), 2);
        keys.rewind();
        assert_eq!(take(&keys, 2), [1, 2]);
    }
}
