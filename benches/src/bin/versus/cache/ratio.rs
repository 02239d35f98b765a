//! Hit ratios on traces of keys, beside the best that any policy could have done.

use std::{
    collections::{BTreeSet, HashMap},
    fs::File,
    io::Read,
    path::Path,
    sync::Arc,
};

use flate2::read::MultiGzDecoder;
use swiftwater_benches::versus::{Case, Effort, Figure, Planned};

use crate::cache::{
    Hasher,
    stores::{Moka, Ours, QuickBare, Store},
};

/// Three sizes of each trace in the folder: shares of its distinct keys.
pub fn cases(folder: &str, effort: Effort) -> Result<Vec<Planned>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read traces in {folder}: {error}");
    let entries = std::fs::read_dir(folder).map_err(|error| unreadable(&error))?;
    let mut paths: Vec<_> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(|error| unreadable(&error))?;
    paths.retain(|path| path.to_string_lossy().ends_with(".txt.gz"));
    paths.sort();
    if paths.is_empty() {
        return Err(unreadable(&"there is no *.txt.gz"));
    }
    let mut cases = Vec::new();
    for path in paths {
        let keys: Arc<[u64]> = read(&path, effort)?.into();
        let distinct = number(&keys).1;
        let name = path.file_name().unwrap_or_default().to_string_lossy().replace(".txt.gz", "");
        for percent in [2, 10, 30] {
            let (keys, capacity) = (keys.clone(), (distinct * percent / 100).max(16));
            let case = format!("hit_ratio_{name}_{percent}");
            cases.push(Planned::new(case.clone(), move || ratio(case, &keys, capacity)));
        }
    }
    Ok(cases)
}

/// One decimal key a line.
fn read(path: &Path, effort: Effort) -> Result<Vec<u64>, String> {
    let unreadable = |error: &dyn std::fmt::Display| format!("cannot read {}: {error}", path.display());
    let file = File::open(path).map_err(|error| unreadable(&error))?;
    let mut text = String::new();
    MultiGzDecoder::new(file).read_to_string(&mut text).map_err(|error| unreadable(&error))?;
    let enough = if effort.quick { 100_000 } else { usize::MAX };
    let lines = text.lines().filter(|line| !line.trim().is_empty()).take(enough);
    lines.map(|line| line.trim().parse().map_err(|error| unreadable(&format!("{line}: {error}")))).collect()
}

fn ratio(case: String, keys: &Arc<[u64]>, capacity: usize) -> Case {
    fn add<S: Store<u64>>(keys: &Arc<[u64]>, capacity: usize) -> impl FnMut(Effort) -> [f64; 1] + use<S> {
        let keys = keys.clone();
        move |_| {
            let store = S::build(capacity);
            let mut hits = 0_u64;
            for key in keys.iter() {
                match store.read(key, |value| *value) {
                    Some(value) => {
                        assert_eq!(value, *key);
                        hits += 1;
                    }
                    None => store.insert(*key, *key),
                }
            }
            [hits as f64 / keys.len() as f64]
        }
    }

    let mut case = Case::new([Figure::higher(case, format_unit(capacity))]);
    case.ours(add::<Ours<u64>>(keys, capacity));
    case.rival("moka::sync", add::<Moka<u64>>(keys, capacity));
    case.rival("quick_cache", add::<QuickBare<u64>>(keys, capacity));
    let (optimal, keys) = (std::cell::OnceCell::new(), keys.clone());
    case.floor("the optimum", move |_| [*optimal.get_or_init(|| belady(&keys, capacity))]);
    case
}

fn format_unit(capacity: usize) -> &'static str {
    // A handful of strings in the life of the process.
    format!("share of hits with {capacity} entries").leak()
}

/// What could be had by always evicting what is needed again last: L. A. Belady, IBM Systems Journal 5(2), 1966; here
/// with leave to not admit at all what is needed last of all.
fn belady(keys: &[u64], capacity: usize) -> f64 {
    let (numbers, distinct) = number(keys);
    let mut next = vec![usize::MAX; keys.len()];
    let mut seen = vec![usize::MAX; distinct];
    for (place, number) in numbers.iter().enumerate().rev() {
        next[place] = std::mem::replace(&mut seen[*number as usize], place);
    }
    // By when they are needed again. What is never needed again is told apart by its number.
    let mut held = BTreeSet::new();
    let mut hits = 0_u64;
    for (place, number) in numbers.iter().enumerate() {
        hits += u64::from(held.remove(&(place, *number)));
        held.insert((next[place], *number));
        if held.len() > capacity {
            held.pop_last();
        }
    }
    hits as f64 / keys.len() as f64
}

/// Each key as a small number, and how many there are.
fn number(keys: &[u64]) -> (Vec<u32>, usize) {
    let mut known: HashMap<u64, u32, Hasher> = HashMap::default();
    let mut numbers = Vec::with_capacity(keys.len());
    for key in keys {
        let next = known.len() as u32;
        numbers.push(*known.entry(*key).or_insert(next));
    }
    (numbers, known.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_optimum_of_a_loop_keeps_part_of_it() {
        // Three keys in turn, room for two: one of them stays for ever, and each other place of the rest is lucky.
        let keys: Vec<u64> = (0..3000).map(|n| n % 3).collect();
        let ratio = belady(&keys, 2);
        assert!((0.66..0.67).contains(&ratio), "{ratio}");
        assert_eq!(belady(&[1, 1, 1, 1], 1), 0.75);
        assert_eq!(belady(&[1, 2, 3, 4], 4), 0.0);
    }
}
