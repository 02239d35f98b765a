//! Compression: speed and ratio in one go, in one process and one thread; MB are millions of bytes of plain text.
//!
//! Everybody makes a new encoder for each body, unless its name says otherwise. Levels are the codecs' own numbers.
//! flate2 runs on zlib-rs here, as it does in ours; its other backends are worker processes (`benches/flate2-workers`).

mod codecs;
mod documents;
mod worker;

use std::{hint::black_box, rc::Rc, sync::Arc};

use swiftwater_benches::{
    heap,
    versus::{Case, Effort, Figure, Planned, time_per_op},
};
use swiftwater_compress::{Coding, Setting};

use crate::{
    arguments::Arguments,
    compress::{
        codecs::{AsyncCompression, Block, Kept, Mine, Ours, Raw},
        documents::Document,
        worker::Worker,
    },
};

pub fn cases(arguments: &Arguments) -> Result<Vec<Planned>, String> {
    let quick = arguments.effort.quick;
    let documents: Vec<_> =
        documents::made_up(if quick { 128 << 10 } else { 1 << 20 }).into_iter().map(Rc::new).collect();
    let files = arguments.documents.as_deref().map(documents::files).transpose()?.unwrap_or_default();
    let workers = Rc::new(Worker::all());
    let mut cases = Vec::new();
    for document in &documents {
        for setting in SETTINGS {
            cases.push(encode("oneshot", Shape::OneShot, setting, document, &workers));
        }
    }
    for (name, shape) in [("stream", Shape::Stream), ("flush", Shape::Flush)] {
        for setting in SETTINGS {
            cases.push(encode(name, shape, setting, &documents[0], &workers));
        }
    }
    for document in &documents[..3] {
        for setting in [Setting::gzip(6), Setting::brotli(4), Setting::zstd(3), Setting::lz4()] {
            cases.push(decode(setting, document, &workers));
        }
    }
    let small = Rc::new(Document { name: "small".into(), bytes: documents[0].bytes[..2048].to_vec() });
    for setting in SETTINGS {
        let small = small.clone();
        cases.push(Planned::new(format!("small_{}", token(setting)), move || small_body(setting, &small)));
    }
    for setting in SETTINGS {
        let document = documents[0].clone();
        cases.push(Planned::new(format!("heap_{}", token(setting)), move || memory(setting, &document)));
    }
    for document in files.into_iter().map(Rc::new) {
        for setting in [Setting::gzip(6), Setting::brotli(4), Setting::zstd(3), Setting::lz4()] {
            cases.push(encode("document", Shape::OneShot, setting, &document, &workers));
        }
    }
    Ok(cases)
}

/// Those that a service uses while somebody waits.
const SETTINGS: [Setting; 10] = [
    Setting::gzip(1),
    Setting::gzip(6),
    Setting::gzip(9),
    Setting::brotli(1),
    Setting::brotli(4),
    Setting::brotli(5),
    Setting::zstd(1),
    Setting::zstd(3),
    Setting::zstd(9),
    Setting::lz4(),
];

/// How a body comes in.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Shape {
    /// 8 KiB at a time, and everything so far must be decodable after each.
    Flush,
    OneShot,
    /// 8 KiB at a time.
    Stream,
}

/// A contestant: encodes a body, which has a certain shape.
pub trait Codec: Send + Sync + 'static {
    fn encode(&self, shape: Shape, data: &[u8]) -> Vec<u8>;

    /// Whether the output has no format that a decoder of the coding reads.
    fn is_block(&self) -> bool {
        false
    }
}

fn encode(
    name: &str,
    shape: Shape,
    setting: Setting,
    document: &Rc<Document>,
    workers: &Rc<Vec<Worker>>,
) -> Planned {
    let name = format!("{name}_{}_{}", document.name, token(setting));
    let (document, workers) = (document.clone(), workers.clone());
    Planned::new(name.clone(), move || {
        let mut case = Case::new([
            Figure::higher(name.clone(), "MB/s"),
            Figure::higher(format!("{name}_ratio"), "plain over encoded size"),
        ]);
        let add = |codec: Arc<dyn Codec>| {
            let document = document.clone();
            move |effort| {
                let data = &document.bytes[..];
                let ns = time_per_op(1, brief(effort), |_, count| {
                    (0..count).for_each(|_| drop(black_box(codec.encode(shape, black_box(data)))));
                });
                let encoded = codec.encode(shape, data);
                assert!(codecs::decode(setting, &encoded) == data, "what comes back is something else");
                [data.len() as f64 / ns * 1e3, data.len() as f64 / encoded.len() as f64]
            }
        };
        case.ours(add(Arc::new(Ours::new(setting))));
        match setting.coding() {
            Coding::Brotli => case.rival("mbrotli", add(Arc::new(Mine(setting)))),
            Coding::Zstd => case.rival("mzstd", add(Arc::new(Mine(setting)))),
            Coding::Gzip => {
                let what = match shape {
                    Shape::Flush => "flush",
                    Shape::OneShot => "oneshot",
                    Shape::Stream => "stream",
                };
                for worker in &*workers {
                    let (measure, document) = (worker.measure(what, setting.level()), document.clone());
                    case.rival(worker.name, move |effort| {
                        let data = &document.bytes[..];
                        let (ns, encoded) = measure(brief(effort), data);
                        assert!(
                            codecs::decode(setting, &encoded) == data,
                            "what comes back is something else"
                        );
                        [data.len() as f64 / ns * 1e3, data.len() as f64 / encoded.len() as f64]
                    });
                }
            }
            _ => {}
        }
        // It has no one-shot form, and no frames of lz4 that end like these.
        if shape != Shape::OneShot && setting.coding() != Coding::Lz4 {
            case.rival("async-compression", add(Arc::new(AsyncCompression(setting))));
        }
        case.floor(raw(setting), add(Arc::new(Raw(setting))));
        case
    })
}

type Decode = Box<dyn Fn(&[u8]) -> Vec<u8> + Sync>;

fn decode(setting: Setting, document: &Rc<Document>, workers: &Rc<Vec<Worker>>) -> Planned {
    let name = format!("decode_{}_{}", document.name, token(setting));
    let (document, workers) = (document.clone(), workers.clone());
    Planned::new(name.clone(), move || {
        let mut case = Case::new([Figure::higher(name, "MB/s")]);
        // The same bytes for everybody, of the codec that ours is made of.
        let encoded: Rc<[u8]> = Raw(setting).encode(Shape::OneShot, &document.bytes).into();
        let add = |decode: Decode| {
            let (document, encoded) = (document.clone(), encoded.clone());
            move |effort| {
                let encoded = &*encoded;
                assert!(decode(encoded) == document.bytes, "what comes back is something else");
                let ns = time_per_op(1, brief(effort), |_, count| {
                    (0..count).for_each(|_| drop(black_box(decode(black_box(encoded)))));
                });
                [document.bytes.len() as f64 / ns * 1e3]
            }
        };
        let ours = codecs::ours_decoder();
        case.ours(add(Box::new(move |data| ours.decompress(setting.coding(), data).expect("it decodes"))));
        match setting.coding() {
            Coding::Brotli | Coding::Zstd => {
                let name = if setting.coding() == Coding::Zstd { "mzstd" } else { "mbrotli" };
                case.rival(name, add(Box::new(move |data| codecs::decode_mine(setting, data))));
            }
            Coding::Gzip => {
                for worker in &*workers {
                    let (measure, document, encoded) =
                        (worker.measure("decode", 0), document.clone(), encoded.clone());
                    case.rival(worker.name, move |effort| {
                        let (ns, plain) = measure(brief(effort), &encoded);
                        assert!(plain == document.bytes, "what comes back is something else");
                        [plain.len() as f64 / ns * 1e3]
                    });
                }
            }
            _ => {}
        }
        case.floor(raw(setting), add(Box::new(move |data| codecs::decode(setting, data))));
        case
    })
}

/// 2 KiB, from nothing to the end.
fn small_body(setting: Setting, document: &Rc<Document>) -> Case {
    let mut case = Case::new([Figure::lower(format!("small_{}", token(setting)), "us per body of 2 KiB")]);
    let add = |codec: Arc<dyn Codec>| {
        let document = document.clone();
        move |effort: Effort| {
            let data = &document.bytes[..];
            let encoded = codec.encode(Shape::OneShot, data);
            if !codec.is_block() {
                assert!(codecs::decode(setting, &encoded) == data, "what comes back is something else");
            }
            let ns = time_per_op(1, brief(effort), |_, count| {
                (0..count).for_each(|_| drop(black_box(codec.encode(Shape::OneShot, black_box(data)))));
            });
            [ns / 1e3]
        }
    };
    case.ours(add(Arc::new(Ours::new(setting))));
    match setting.coding() {
        Coding::Brotli => case.rival("mbrotli", add(Arc::new(Mine(setting)))),
        Coding::Gzip => case.rival("flate2, one encoder for all", add(Arc::new(Kept::new(setting)))),
        Coding::Lz4 => case.rival("lz4_flex block, no frame", add(Arc::new(Block))),
        Coding::Zstd => {
            case.rival("mzstd", add(Arc::new(Mine(setting))));
            case.rival("zstd, one encoder for all", add(Arc::new(Kept::new(setting))));
        }
        _ => {}
    }
    case.floor(raw(setting), add(Arc::new(Raw(setting))));
    case
}

/// Of a streaming encoder that is still open.
fn memory(setting: Setting, document: &Rc<Document>) -> Case {
    let name = format!("heap_{}", token(setting));
    let mut case = Case::new([
        Figure::lower(name.clone(), "KiB on the heap of an encoder that has taken 2 KiB"),
        Figure::lower(format!("{name}_full"), "KiB on the heap of an encoder that has taken everything"),
    ]);
    let add = |open: fn(Setting) -> Box<dyn std::io::Write>| {
        let document = document.clone();
        move |_| {
            let measure = |taken: &[u8]| {
                let before = heap::of_process();
                let mut encoder = open(setting);
                taken
                    .chunks(8 << 10)
                    .for_each(|chunk| encoder.write_all(chunk).expect("it writes to a sink"));
                let held = heap::of_process() - before;
                drop(encoder);
                held as f64 / 1024.0
            };
            // What is set up once for all encoders.
            measure(&document.bytes[..2048]);
            [measure(&document.bytes[..2048]), measure(&document.bytes)]
        }
    };
    case.ours(add(codecs::open_ours));
    case.floor(raw(setting), add(codecs::open_raw));
    case
}

/// There are many cases, and their figures hardly spread.
fn brief(effort: Effort) -> Effort {
    Effort { time: effort.time / 3, ..effort }
}

/// The codec that ours is made of.
fn raw(setting: Setting) -> &'static str {
    match setting.coding() {
        Coding::Brotli => "brotli",
        Coding::Gzip => "flate2",
        Coding::Lz4 => "lz4_flex frame",
        Coding::Zstd => "zstd",
        other => panic!("{other} is not measured"),
    }
}

/// `gzip_6`, `lz4`.
fn token(setting: Setting) -> String {
    setting.to_string().replace(' ', "_")
}
