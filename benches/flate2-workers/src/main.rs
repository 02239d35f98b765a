//! Measures flate2 on whatever backend it was built with, as told on the standard input, until that ends.
//!
//! A request is a line `<what> <level> <nanoseconds> <length>` and `<length>` bytes, an answer a line `<nanoseconds a run>
//! <length>` and `<length>` bytes, the output of the last run. `what` is `oneshot`, `stream` (8 KiB at a time), `flush`
//! (and a flush after each) or `decode`.

use std::{
    hint::black_box,
    io::{self, BufRead, Read, Write},
    time::{Duration, Instant},
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

fn main() -> io::Result<()> {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let mut line = String::new();
    while input.read_line(&mut line)? > 0 {
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, format!("not a request: {line}"));
        let words: Vec<&str> = line.split_whitespace().collect();
        let [what, level, time, length] = words[..] else { return Err(malformed()) };
        let number = |word: &str| word.parse::<u64>().map_err(|_| malformed());
        let (level, time, length) = (number(level)?, Duration::from_nanos(number(time)?), number(length)?);
        let mut data = vec![0; length as usize];
        input.read_exact(&mut data)?;
        let (each, made) = measure(time, || run(what, level as u32, black_box(&data)))?;
        writeln!(output, "{each} {}", made.len())?;
        output.write_all(&made)?;
        output.flush()?;
        line.clear();
    }
    Ok(())
}

/// Nanoseconds a run, and what the last one made: more and more runs, until they take at least half the time.
fn measure(time: Duration, run: impl Fn() -> io::Result<Vec<u8>>) -> io::Result<(f64, Vec<u8>)> {
    let mut count = 1;
    loop {
        let start = Instant::now();
        let mut made = Vec::new();
        for _ in 0..count {
            made = black_box(run()?);
        }
        let took = start.elapsed();
        if took >= time / 2 {
            return Ok((took.as_nanos() as f64 / f64::from(count), made));
        }
        count *= 2;
    }
}

fn run(what: &str, level: u32, data: &[u8]) -> io::Result<Vec<u8>> {
    if what == "decode" {
        let mut plain = Vec::new();
        MultiGzDecoder::new(data).read_to_end(&mut plain)?;
        return Ok(plain);
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(level));
    match what {
        "oneshot" => encoder.write_all(data)?,
        _ => {
            for chunk in data.chunks(8 << 10) {
                encoder.write_all(chunk)?;
                if what == "flush" {
                    encoder.flush()?;
                }
            }
        }
    }
    encoder.finish()
}
