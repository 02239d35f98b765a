//! What is compressed: made up, always the same; or files.

use std::path::Path;

pub struct Document {
    pub name: String,
    pub bytes: Vec<u8>,
}

/// Makes the n-th part of a document.
type Part = fn(&mut Words, u64) -> Vec<u8>;

/// As large as `size`, each of its kind: a catalogue as JSON, the same as HTML, records of a fixed layout, noise.
pub fn made_up(size: usize) -> Vec<Document> {
    let kinds: [(&str, Part); 4] = [("json", json), ("html", html), ("binary", binary), ("random", random)];
    let make = |(name, part): (&str, Part)| {
        let mut words = Words(7);
        let mut bytes = Vec::with_capacity(size + 1024);
        let mut number = 0;
        while bytes.len() < size {
            bytes.extend(part(&mut words, number));
            number += 1;
        }
        bytes.truncate(size);
        Document { name: name.to_owned(), bytes }
    };
    kinds.into_iter().map(make).collect()
}

/// The files of a folder.
pub fn files(folder: &str) -> Result<Vec<Document>, String> {
    let unreadable = |path: &Path, error: std::io::Error| format!("cannot read {}: {error}", path.display());
    let folder = Path::new(folder);
    let mut documents = Vec::new();
    for entry in std::fs::read_dir(folder).map_err(|error| unreadable(folder, error))? {
        let path = entry.map_err(|error| unreadable(folder, error))?.path();
        if path.is_file() {
            let bytes = std::fs::read(&path).map_err(|error| unreadable(&path, error))?;
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            documents.push(Document { name, bytes });
        }
    }
    documents.retain(|document| !document.bytes.is_empty());
    documents.sort_by(|one, other| one.name.cmp(&other.name));
    match documents.is_empty() {
        true => Err(format!("there is no document in {}", folder.display())),
        false => Ok(documents),
    }
}

fn json(words: &mut Words, number: u64) -> Vec<u8> {
    let (name, text, tags) = (words.some(2), words.some(14), [words.some(1), words.some(1), words.some(1)]);
    let (cents, stock) = (words.next() % 100_000, words.next() % 500);
    format!(
        "{{\"id\":{},\"name\":\"{name}\",\"price\":{}.{:02},\"stock\":{stock},\"available\":{},\"tags\":[\"{}\",\"{}\",\"{}\"],\
         \"description\":\"{text}.\",\"updated\":\"2026-{:02}-{:02}T{:02}:{:02}:{:02}Z\"}},\n",
        100_000 + number,
        cents / 100,
        cents % 100,
        stock > 0,
        tags[0],
        tags[1],
        tags[2],
        1 + words.next() % 12,
        1 + words.next() % 28,
        words.next() % 24,
        words.next() % 60,
        words.next() % 60,
    )
    .into_bytes()
}

fn html(words: &mut Words, number: u64) -> Vec<u8> {
    let (name, text, cents) = (words.some(2), words.some(14), words.next() % 100_000);
    format!(
        "<li class=\"product product--listed\" data-id=\"{}\">\n  <a class=\"product__link\" href=\"/products/{}\">\n    \
         <h2 class=\"product__name\">{name}</h2>\n  </a>\n  <p class=\"product__text\">{text}.</p>\n  \
         <span class=\"product__price\">{}.{:02}&nbsp;&euro;</span>\n</li>\n",
        100_000 + number,
        100_000 + number,
        cents / 100,
        cents % 100,
    )
    .into_bytes()
}

/// 48 bytes: counters, offsets that grow, small numbers, some noise, as tables in programs and databases have them.
fn binary(words: &mut Words, number: u64) -> Vec<u8> {
    let mut record = Vec::with_capacity(48);
    record.extend((number as u32).to_le_bytes());
    record.extend((0x0040_0000 + number * 48 + words.next() % 16).to_le_bytes());
    record.extend([0x48, 0x8B, (words.next() % 8) as u8, 0x24, (words.next() % 32) as u8, 0, 0, 0]);
    record.extend((words.next() % 300).to_le_bytes());
    record.extend((words.next() as u32 & 0x3FF).to_le_bytes());
    record.extend(((number as f64).sqrt() * 1.5).to_le_bytes());
    record.extend(words.next().to_le_bytes());
    record
}

fn random(words: &mut Words, _: u64) -> Vec<u8> {
    words.next().to_le_bytes().to_vec()
}

/// Words of a vocabulary of which few are frequent, as in any language.
struct Words(u64);

impl Words {
    /// Marsaglia's xorshift, multiplied, so that the low bits are good too.
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 7
    }

    fn some(&mut self, count: usize) -> String {
        let word = |_| {
            // The square of a share: the first words come up most.
            let share = (self.next() % 10_000) as f64 / 10_000.0;
            spell((share * share * share * 3000.0) as u64)
        };
        (0..count).map(word).collect::<Vec<_>>().join(" ")
    }
}

/// The n-th word: syllables that stand for its digits.
fn spell(number: u64) -> String {
    const SYLLABLES: [&str; 16] = [
        "ka", "ri", "ton", "mel", "su", "pra", "den", "lo", "vi", "cha", "ner", "ost", "ba", "gil", "um",
        "fre",
    ];
    let mut number = number + 16;
    let mut word = String::new();
    while number > 0 {
        word += SYLLABLES[number as usize % 16];
        number /= 16;
    }
    word
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_up_is_always_the_same_and_of_the_size_asked_for() {
        let (one, other) = (made_up(50_000), made_up(50_000));
        for (one, other) in one.iter().zip(&other) {
            assert_eq!(one.bytes.len(), 50_000);
            assert!(one.bytes == other.bytes, "{}", one.name);
        }
        assert!(String::from_utf8(one[0].bytes.clone()).is_ok());
    }
}
