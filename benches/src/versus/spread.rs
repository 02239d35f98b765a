//! What several rounds say together.

/// The least, the middle and the greatest of some numbers.
#[derive(Clone, Copy, Debug, PartialEq, serde::Serialize)]
pub struct Spread {
    pub min: f64,
    pub median: f64,
    pub max: f64,
}

impl Spread {
    /// None of nothing. The median of an even number is midway between the two in the middle.
    pub fn of(numbers: impl IntoIterator<Item = f64>) -> Option<Self> {
        let mut sorted: Vec<f64> = numbers.into_iter().collect();
        sorted.sort_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let (below, above) = (sorted[(sorted.len() - 1) / 2], sorted[sorted.len() / 2]);
        Some(Self { min, median: f64::midpoint(below, above), max })
    }

    /// The same to four digits: what is beyond them is noise.
    pub fn rounded(self) -> Self {
        let Self { min, median, max } = self;
        Self { min: to_four_digits(min), median: to_four_digits(median), max: to_four_digits(max) }
    }
}

/// The value of which `share` of the numbers are not above; zero of none.
pub fn quantile(numbers: &mut [u64], share: f64) -> u64 {
    if numbers.is_empty() {
        return 0;
    }
    let place = (share * numbers.len() as f64).ceil() as usize;
    *numbers.select_nth_unstable(place.clamp(1, numbers.len()) - 1).1
}

fn to_four_digits(number: f64) -> f64 {
    if number == 0.0 || !number.is_finite() {
        return number;
    }
    format!("{number:.3e}").parse().expect("what is printed can be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(Spread::of([]), None);
        assert_eq!(Spread::of([3.0]), Some(Spread { min: 3.0, median: 3.0, max: 3.0 }));
        assert_eq!(Spread::of([9.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 2.0, max: 9.0 }));
        assert_eq!(Spread::of([4.0, 9.0, 1.0, 2.0]), Some(Spread { min: 1.0, median: 3.0, max: 9.0 }));
    }

    #[test]
    fn four_digits_are_kept() {
        assert_eq!(to_four_digits(1234.567), 1235.0);
        assert_eq!(to_four_digits(0.012_345_67), 0.01235);
        assert_eq!(to_four_digits(0.0), 0.0);
    }

    #[test]
    fn a_quantile_leaves_the_rest_above() {
        let mut hundred: Vec<u64> = (1..=100).rev().collect();
        assert_eq!(quantile(&mut hundred, 0.99), 99);
        assert_eq!(quantile(&mut hundred, 1.0), 100);
        assert_eq!(quantile(&mut hundred, 0.0), 1);
        assert_eq!(quantile(&mut [7], 0.5), 7);
        assert_eq!(quantile(&mut [], 0.5), 0);
    }
}
