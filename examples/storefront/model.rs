//! The recommendations: which products go with those that a visitor has just looked at.
//!
//! Every product is a vector, close to those of the products it is bought with. A visitor is the sum of what they have
//! seen, and gets the products whose vectors point the same way: one product of a matrix and a vector. For many visitors
//! at once it is a product of two matrices, which reads the large one once for all of them: a batch is cheaper than its
//! items.

use fastrand::Rng;
use multiversion::multiversion;

use crate::catalog;

/// How many products a visitor is recommended.
pub const RECOMMENDED: usize = 5;

const DIMENSIONS: usize = 128;
type Vector = [f32; DIMENSIONS];

pub struct Model {
    /// Product 1 is the first lane of the first block, and so on.
    blocks: Vec<Block>,
    products: usize,
}

/// So many products side by side: what is added up is added lane by lane, which is what processors do best.
type Block = [[f32; LANES]; DIMENSIONS];
const LANES: usize = 16;

impl Model {
    /// Learns from purchases, which are made up, and made up the same way each time. The method is random projection
    /// (FastRP: Chen, Sultan, Tian, Chen, Skiena; CIKM 2019): each product starts with a random vector, and a few times
    /// over becomes the mean of all that it was bought with.
    ///
    /// Of a shop with many products the first ones are recommended; they are the popular ones.
    pub fn train(products: u64) -> Self {
        let products = (products as usize).min(MOST_PRODUCTS);
        let mut random = Rng::with_seed(SEED);
        let baskets = baskets(products, &mut random);
        let mut vectors: Vec<Vector> =
            (0..products).map(|_| std::array::from_fn(|_| if random.bool() { 1.0 } else { -1.0 })).collect();
        for _ in 0..ROUNDS {
            let before = vectors.clone();
            for basket in &baskets {
                let mut together = [0.0; DIMENSIONS];
                basket.iter().for_each(|&product| add(&mut together, &before[product]));
                basket.iter().for_each(|&product| add(&mut vectors[product], &together));
            }
            vectors.iter_mut().for_each(normalise);
        }
        Self { blocks: blocks(&vectors), products }
    }

    /// What goes best with what each visitor has seen, best first, without what they have seen. One visitor's answer is
    /// the same to the bit, whoever else is in the batch.
    ///
    /// A visitor who has seen nothing that the model knows gets the most popular products.
    pub fn recommend(&self, visitors: &[Vec<u64>]) -> Vec<Vec<u64>> {
        let tastes: Vec<Vector> = visitors.iter().map(|seen| self.taste(seen)).collect();
        let mut best: Vec<Best> = visitors.iter().map(|seen| Best::of(self.products, seen)).collect();
        pass(&self.blocks, &tastes, &mut best);
        best.into_iter().map(Best::products).collect()
    }

    fn taste(&self, seen: &[u64]) -> Vector {
        let mut taste = [0.0; DIMENSIONS];
        for &product in seen {
            if (1..=self.products as u64).contains(&product) {
                let at = product as usize - 1;
                let vector = self.blocks[at / LANES].map(|lanes| lanes[at % LANES]);
                add(&mut taste, &vector);
            }
        }
        taste
    }
}

/// The hot loop: every product's score for every visitor. Each block comes from memory once, and meets all visitors
/// while it is in the nearest cache, two at a time so that what is loaded into registers is used twice.
///
/// Products and sums are never fused, so both versions of this function give the same scores. (There is none for AVX-512,
/// which Rust 1.88 does not offer.)
#[multiversion(targets("x86_64+avx2"))]
fn pass(blocks: &[Block], tastes: &[Vector], best: &mut [Best]) {
    let (pairs, rest) = tastes.as_chunks::<2>();
    for (number, block) in blocks.iter().enumerate() {
        let first = number * LANES;
        let (best_of_pairs, best_of_rest) = best.split_at_mut(2 * pairs.len());
        for (pair, best) in pairs.iter().zip(best_of_pairs.as_chunks_mut::<2>().0) {
            let scores = scores(block, pair);
            best[0].offer(first, &scores[0]);
            best[1].offer(first, &scores[1]);
        }
        for (one, best) in rest.iter().zip(best_of_rest) {
            best.offer(first, &scores(block, &[*one])[0]);
        }
    }
}

#[inline(always)]
fn scores<const VISITORS: usize>(block: &Block, tastes: &[Vector; VISITORS]) -> [[f32; LANES]; VISITORS] {
    let mut sums = [[0.0; LANES]; VISITORS];
    for (dimension, lanes) in block.iter().enumerate() {
        for (sums, taste) in sums.iter_mut().zip(tastes) {
            for (sum, lane) in sums.iter_mut().zip(lanes) {
                *sum += lane * taste[dimension];
            }
        }
    }
    sums
}

/// The best products for one visitor so far, best first; of equals the one with the lower number, which is the more
/// popular one.
struct Best<'a> {
    products: usize,
    seen: &'a [u64],
    found: Vec<(f32, u64)>,
    /// What a product must exceed to be among them.
    bar: f32,
}

impl<'a> Best<'a> {
    fn of(products: usize, seen: &'a [u64]) -> Self {
        Self { products, seen, found: Vec::with_capacity(RECOMMENDED + 1), bar: f32::NEG_INFINITY }
    }

    #[inline(always)]
    fn offer(&mut self, first: usize, scores: &[f32; LANES]) {
        // Nearly every block ends here.
        let highest = scores.iter().fold(f32::NEG_INFINITY, |a, &b| if b > a { b } else { a });
        if highest > self.bar {
            self.take(first, scores);
        }
    }

    fn take(&mut self, first: usize, scores: &[f32; LANES]) {
        for (at, &score) in (first..self.products).zip(scores) {
            let product = at as u64 + 1;
            if score > self.bar && !self.seen.contains(&product) {
                let place = self.found.partition_point(|&(better, _)| better >= score);
                self.found.insert(place, (score, product));
                self.found.truncate(RECOMMENDED);
                if let Some(&(last, _)) = self.found.get(RECOMMENDED - 1) {
                    self.bar = last;
                }
            }
        }
    }

    fn products(self) -> Vec<u64> {
        self.found.into_iter().map(|(_, product)| product).collect()
    }
}

/// Purchases: three products of one category, and one that goes with it.
fn baskets(products: usize, random: &mut Rng) -> Vec<Vec<usize>> {
    let shelves: Vec<Vec<usize>> = (1..=catalog::CATEGORIES)
        .map(|category| catalog::products_of(category, products as u64).map(|id| id as usize - 1).collect())
        .collect();
    let draw = |_| {
        let category = random.u64(1..=catalog::CATEGORIES);
        let companion = catalog::companion_of(category);
        let from = [category, category, category, companion];
        from.iter().filter_map(|&category| random.choice(&shelves[category as usize - 1])).copied().collect()
    };
    (0..products * BASKETS_PER_PRODUCT).map(draw).collect()
}

fn blocks(vectors: &[Vector]) -> Vec<Block> {
    let block = |vectors: &[Vector]| {
        std::array::from_fn(|dimension| {
            std::array::from_fn(|lane| vectors.get(lane).map_or(0.0, |vector| vector[dimension]))
        })
    };
    vectors.chunks(LANES).map(block).collect()
}

fn add(sum: &mut Vector, vector: &Vector) {
    sum.iter_mut().zip(vector).for_each(|(sum, part)| *sum += part);
}

fn normalise(vector: &mut Vector) {
    let length = vector.iter().map(|part| part * part).sum::<f32>().sqrt();
    vector.iter_mut().for_each(|part| *part /= length);
}

/// 5 MB of vectors.
const MOST_PRODUCTS: usize = 10_000;
const BASKETS_PER_PRODUCT: usize = 4;
const ROUNDS: usize = 3;
const SEED: u64 = 1;

#[cfg(test)]
mod tests {
    use super::*;

    const PRODUCTS: u64 = 1_003; // not a multiple of anything in here

    fn visitors(count: u64) -> Vec<Vec<u64>> {
        (0..count)
            .map(|n| vec![1 + n % PRODUCTS, 1 + (n + 100) % PRODUCTS, 1 + (n + 300) % PRODUCTS])
            .collect()
    }

    #[test]
    fn a_batch_gives_the_same_answers_as_each_visitor_alone() {
        let model = Model::train(PRODUCTS);
        let visitors = visitors(37);
        let alone: Vec<_> = visitors.chunks(1).flat_map(|visitor| model.recommend(visitor)).collect();
        for size in [2, 3, 16, 37] {
            let batched: Vec<_> = visitors.chunks(size).flat_map(|batch| model.recommend(batch)).collect();
            assert_eq!(batched, alone, "batches of {size}");
        }
    }

    #[test]
    fn what_is_recommended_goes_with_what_was_seen() {
        let model = Model::train(PRODUCTS);
        let visitors: Vec<_> = (1..=100).map(|product| vec![product, product + 200]).collect();
        let mut fitting = 0;
        for (seen, recommended) in visitors.iter().zip(model.recommend(&visitors)) {
            assert_eq!(recommended.len(), RECOMMENDED);
            assert!(
                recommended.iter().all(|product| (1..=PRODUCTS).contains(product) && !seen.contains(product))
            );
            let category = catalog::category_of(seen[0]);
            let fits = |product: &&u64| {
                let other = catalog::category_of(**product);
                [category, catalog::companion_of(category)].contains(&other)
                    || catalog::companion_of(other) == category
            };
            fitting += recommended.iter().filter(fits).count();
        }
        // By chance it would be 3 of 100.
        assert!(fitting >= 450, "{fitting} of 500");
    }

    #[test]
    fn the_best_are_those_with_the_highest_scores() {
        let model = Model::train(PRODUCTS);
        let seen = vec![7, 107];
        let taste = model.taste(&seen);
        let mut ranked: Vec<(f32, u64)> = (1..=PRODUCTS)
            .filter(|product| !seen.contains(product))
            .map(|product| {
                let vector = model.taste(&[product]);
                // In the order of the dimensions, as the model adds.
                (vector.iter().zip(taste).fold(0.0, |sum, (a, b)| sum + a * b), product)
            })
            .collect();
        ranked.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(&b.1)));
        let expected: Vec<u64> = ranked.iter().take(RECOMMENDED).map(|&(_, product)| product).collect();
        assert_eq!(model.recommend(&[seen]), [expected]);
    }

    #[test]
    fn who_has_seen_nothing_gets_the_most_popular_products() {
        let model = Model::train(PRODUCTS);
        assert_eq!(model.recommend(&[vec![], vec![0, PRODUCTS + 1]]), [[1, 2, 3, 4, 5], [1, 2, 3, 4, 5]]);
    }

    #[test]
    fn a_small_shop_recommends_what_it_has() {
        let model = Model::train(3);
        let mut recommended = model.recommend(&[vec![2]]).remove(0);
        recommended.sort_unstable();
        assert_eq!(recommended, [1, 3]);
    }
}
