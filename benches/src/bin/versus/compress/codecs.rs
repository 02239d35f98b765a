//! The contestants. Each match on a coding lists all that are measured.

use std::{
    io::{self, Read, Write},
    sync::Mutex,
};

use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use swiftwater_compress::{Coding, Compressor, Decompressor, Fixed, Hints, Setting};
use tokio::io::{AsyncWrite, AsyncWriteExt as _};

use crate::{
    compress::{Codec, Shape},
    runtime::one_thread,
};

const CHUNK: usize = 8 << 10;

pub struct Ours(Compressor);

impl Ours {
    pub fn new(setting: Setting) -> Self {
        Self(Compressor::builder().policy(Fixed(setting)).build().expect("valid options"))
    }
}

impl Codec for Ours {
    fn encode(&self, shape: Shape, data: &[u8]) -> Vec<u8> {
        match shape {
            Shape::OneShot => {
                self.0.compress(&Hints::new(), data).expect("it encodes").into_bytes().into_owned()
            }
            Shape::Flush | Shape::Stream => {
                let mut writer = self.0.writer(Vec::new(), &Hints::new()).expect("it encodes");
                feed(&mut writer, shape, data);
                writer.finish().expect("it encodes")
            }
        }
    }
}

/// As it comes, without limits: nobody else has any.
pub fn ours_decoder() -> Decompressor {
    Decompressor::builder().build().expect("valid options")
}

pub fn open_ours(setting: Setting) -> Box<dyn Write> {
    Box::new(Ours::new(setting).0.writer(io::sink(), &Hints::new()).expect("it encodes"))
}

/// The codec itself, through the writer that its crate offers.
pub struct Raw(pub Setting);

impl Codec for Raw {
    fn encode(&self, shape: Shape, data: &[u8]) -> Vec<u8> {
        let level = self.0.level();
        match self.0.coding() {
            Coding::Brotli => {
                let mut encoded = Vec::new();
                let mut writer =
                    brotli::CompressorWriter::with_params(&mut encoded, CHUNK, &brotli_parameters(level));
                feed(&mut writer, shape, data);
                drop(writer);
                encoded
            }
            Coding::Gzip => {
                let mut writer = GzEncoder::new(Vec::new(), Compression::new(level as u32));
                feed(&mut writer, shape, data);
                writer.finish().expect("it encodes")
            }
            Coding::Lz4 => {
                let mut writer = lz4_flex::frame::FrameEncoder::with_frame_info(lz4_frame(), Vec::new());
                feed(&mut writer, shape, data);
                writer.finish().expect("it encodes")
            }
            Coding::Zstd if shape == Shape::OneShot => zstd::bulk::compress(data, level).expect("it encodes"),
            Coding::Zstd => {
                let mut writer = zstd::stream::write::Encoder::new(Vec::new(), level).expect("it encodes");
                feed(&mut writer, shape, data);
                writer.finish().expect("it encodes")
            }
            other => panic!("{other} is not measured"),
        }
    }
}

pub fn open_raw(setting: Setting) -> Box<dyn Write> {
    let level = setting.level();
    match setting.coding() {
        Coding::Brotli => {
            Box::new(brotli::CompressorWriter::with_params(io::sink(), CHUNK, &brotli_parameters(level)))
        }
        Coding::Gzip => Box::new(GzEncoder::new(io::sink(), Compression::new(level as u32))),
        Coding::Lz4 => Box::new(lz4_flex::frame::FrameEncoder::with_frame_info(lz4_frame(), io::sink())),
        Coding::Zstd => Box::new(zstd::stream::write::Encoder::new(io::sink(), level).expect("it encodes")),
        other => panic!("{other} is not measured"),
    }
}

/// Its default window, of 4 MiB.
fn brotli_parameters(level: i32) -> brotli::enc::BrotliEncoderParams {
    brotli::enc::BrotliEncoderParams { quality: level, lgwin: 22, ..Default::default() }
}

/// What ours writes: independent blocks of 64 KiB and a checksum of the whole.
fn lz4_frame() -> lz4_flex::frame::FrameInfo {
    lz4_flex::frame::FrameInfo::new().block_size(lz4_flex::frame::BlockSize::Max64KB).content_checksum(true)
}

/// With the crate that ours is made of.
pub fn decode(setting: Setting, data: &[u8]) -> Vec<u8> {
    let mut plain = Vec::new();
    let read = match setting.coding() {
        Coding::Brotli => brotli::Decompressor::new(data, CHUNK).read_to_end(&mut plain),
        Coding::Gzip => MultiGzDecoder::new(data).read_to_end(&mut plain),
        Coding::Lz4 => lz4_flex::frame::FrameDecoder::new(data).read_to_end(&mut plain),
        Coding::Zstd => {
            zstd::stream::read::Decoder::new(data).and_then(|mut decoder| decoder.read_to_end(&mut plain))
        }
        other => panic!("{other} is not measured"),
    };
    read.expect("it decodes");
    plain
}

/// mbrotli and mzstd, by one author: the same two formats in Rust.
pub struct Mine(pub Setting);

impl Codec for Mine {
    fn encode(&self, shape: Shape, data: &[u8]) -> Vec<u8> {
        let level = self.0.level();
        if self.0.coding() == Coding::Zstd {
            let level = mzstd::Level::try_from(level).expect("a level");
            let config = mzstd::EncoderConfig::default().with_level(level);
            let mut compressor = mzstd::Compressor::new(config).expect("valid options");
            if shape == Shape::OneShot {
                return compressor.compress(data).expect("it encodes");
            }
            let mut writer = compressor.writer(Vec::new(), Default::default());
            feed(&mut writer, shape, data);
            return writer.finish().expect("it encodes");
        }
        let quality = mbrotli::Quality::try_from(level as u8).expect("a quality");
        let config = mbrotli::EncoderConfig::default().with_quality(quality);
        let mut compressor = mbrotli::Compressor::new(config).expect("valid options");
        if shape == Shape::OneShot {
            return compressor.compress(data).expect("it encodes");
        }
        let mut writer = compressor.writer(Vec::new(), Default::default()).expect("it encodes");
        feed(&mut writer, shape, data);
        writer.finish().expect("it encodes")
    }
}

pub fn decode_mine(setting: Setting, data: &[u8]) -> Vec<u8> {
    match setting.coding() {
        Coding::Zstd => mzstd::Decompressor::default().decompress(data).expect("it decodes"),
        _ => {
            let mut decompressor = mbrotli::Decompressor::new(Default::default()).expect("valid options");
            decompressor.decompress(data).expect("it decodes")
        }
    }
}

/// What a tokio service writes through; the bytes go to memory.
pub struct AsyncCompression(pub Setting);

impl Codec for AsyncCompression {
    fn encode(&self, shape: Shape, data: &[u8]) -> Vec<u8> {
        use async_compression::{
            Level,
            tokio::write::{BrotliEncoder, GzipEncoder, ZstdEncoder},
        };

        async fn all(writer: &mut (impl AsyncWrite + Unpin), shape: Shape, data: &[u8]) {
            for chunk in data.chunks(CHUNK) {
                writer.write_all(chunk).await.expect("it encodes");
                if shape == Shape::Flush {
                    writer.flush().await.expect("it encodes");
                }
            }
            writer.shutdown().await.expect("it encodes");
        }

        thread_local! {
            static RUNTIME: tokio::runtime::Runtime = one_thread();
        }
        let level = Level::Precise(self.0.level());
        RUNTIME.with(|runtime| {
            runtime.block_on(async {
                match self.0.coding() {
                    Coding::Brotli => {
                        let mut writer = BrotliEncoder::with_quality(Vec::new(), level);
                        all(&mut writer, shape, data).await;
                        writer.into_inner()
                    }
                    Coding::Gzip => {
                        let mut writer = GzipEncoder::with_quality(Vec::new(), level);
                        all(&mut writer, shape, data).await;
                        writer.into_inner()
                    }
                    Coding::Zstd => {
                        let mut writer = ZstdEncoder::with_quality(Vec::new(), level);
                        all(&mut writer, shape, data).await;
                        writer.into_inner()
                    }
                    other => panic!("{other} is not measured"),
                }
            })
        })
    }
}

/// One encoder that is reset for each body.
pub enum Kept {
    Gzip(Mutex<flate2::Compress>),
    Zstd(Mutex<zstd::bulk::Compressor<'static>>),
}

impl Kept {
    pub fn new(setting: Setting) -> Self {
        match setting.coding() {
            Coding::Gzip => {
                let level = Compression::new(setting.level() as u32);
                Self::Gzip(Mutex::new(flate2::Compress::new_gzip(level, 15)))
            }
            _ => Self::Zstd(Mutex::new(zstd::bulk::Compressor::new(setting.level()).expect("a level"))),
        }
    }
}

impl Codec for Kept {
    fn encode(&self, _: Shape, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Gzip(encoder) => {
                let mut encoder = encoder.lock().expect("nobody panicked");
                encoder.reset();
                let mut encoded = Vec::with_capacity(data.len() + 64);
                let ended = encoder.compress_vec(data, &mut encoded, flate2::FlushCompress::Finish);
                assert_eq!(ended.expect("it encodes"), flate2::Status::StreamEnd);
                encoded
            }
            Self::Zstd(encoder) => {
                encoder.lock().expect("nobody panicked").compress(data).expect("it encodes")
            }
        }
    }
}

/// lz4 without anything around it.
pub struct Block;

impl Codec for Block {
    fn encode(&self, _: Shape, data: &[u8]) -> Vec<u8> {
        lz4_flex::block::compress_prepend_size(data)
    }

    fn is_block(&self) -> bool {
        true
    }
}

fn feed(writer: &mut impl Write, shape: Shape, data: &[u8]) {
    if shape == Shape::OneShot {
        return writer.write_all(data).expect("it encodes");
    }
    for chunk in data.chunks(CHUNK) {
        writer.write_all(chunk).expect("it encodes");
        if shape == Shape::Flush {
            writer.flush().expect("it encodes");
        }
    }
}
