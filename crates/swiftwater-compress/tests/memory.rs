//! What a stream holds does not depend on how long it is, or on how long it claims to be.
#![expect(unsafe_code, reason = "counting needs an allocator")]

mod common;

use std::{
    alloc::{GlobalAlloc, Layout, System},
    cell::Cell,
    io::{Read, Write},
};

use swiftwater_compress::{Coding, Hints, Setting};

use common::*;

struct Counting;

thread_local! {
    static HELD: Cell<isize> = const { Cell::new(0) };
    static PEAK: Cell<isize> = const { Cell::new(0) };
}

fn count(bytes: isize) {
    // `try_with`: a thread may still allocate while its locals are gone.
    let _ = HELD.try_with(|held| {
        held.set(held.get() + bytes);
        let _ = PEAK.try_with(|peak| peak.set(peak.get().max(held.get())));
    });
}

// SAFETY: everything is the system allocator's; the counts are plain thread-locals that never allocate.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as the caller promised.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as the caller promised.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The most that this thread held in `f`, beyond what it held before. (libzstd allocates for itself, unseen.)
fn peak(f: impl FnOnce()) -> usize {
    let before = HELD.get();
    PEAK.set(before);
    f();
    (PEAK.get() - before) as usize
}

#[test]
fn the_count_counts() {
    assert_eq!(peak(|| drop(std::hint::black_box(vec![0u8; 1000]))), 1000);
}

#[test]
fn a_bomb_is_read_in_fixed_space() {
    for (setting, bound) in [
        (Setting::brotli(2), 2 << 20), // a window of 256 KiB and the codec's tables
        (Setting::gzip(6), 256 << 10),
        (Setting::lz4(), 512 << 10),
        (Setting::zstd(1), 256 << 10),
    ] {
        let bomb = compress(setting, &vec![0; 8 << 20]);
        let mut piece = vec![0; 16 << 10];
        let mut read_to_its_end = 0;
        let held = peak(|| {
            let mut reader = decompressor().reader(&bomb[..], setting.coding()).unwrap();
            while let Ok(n @ 1..) = reader.read(&mut piece) {
                read_to_its_end += n;
            }
        });
        assert!(read_to_its_end >= 1 << 20, "{setting}: the burst at least");
        assert!(held < bound, "{setting} held {held} bytes for {read_to_its_end}");
    }
}

#[test]
fn an_announced_block_is_not_believed_before_it_comes() {
    // Lz4: blocks of up to 4 MiB, the first of 4 MiB, and then nothing.
    let descriptor = [0x60, 0x70];
    let check = (twox_hash::XxHash32::oneshot(0, &descriptor) >> 8) as u8;
    let stream =
        [0x04, 0x22, 0x4d, 0x18, descriptor[0], descriptor[1], check, 0x00, 0x00, 0x40, 0x00, 1, 2, 3];
    let held = peak(|| {
        assert!(decode(Coding::Lz4, &stream).1.is_err());
    });
    assert!(held < 256 << 10, "{held} bytes");
}

/// Nor is a small one that did come: a few bytes cannot become 4 MiB.
#[test]
fn a_tiny_block_takes_what_it_can_become_not_what_it_announces() {
    let descriptor = [0x60, 0x70];
    let check = (twox_hash::XxHash32::oneshot(0, &descriptor) >> 8) as u8;
    let header = [0x04, 0x22, 0x4d, 0x18, descriptor[0], descriptor[1], check];
    let raw = [1, 0, 0, 0x80, b'r'];
    let zeros = lz4_flex::block::compress(&[0; 10_000]);
    let packed = [&(zeros.len() as u32).to_le_bytes()[..], &zeros].concat();
    for (block, length) in [(&raw[..], 1), (&packed, 10_000)] {
        let stream = [&header[..], block, &[0; 4]].concat();
        let held = peak(|| assert_eq!(decode(Coding::Lz4, &stream).0.len(), length));
        assert!(held < 256 << 10, "{held} bytes");
    }
}

#[test]
fn a_writer_holds_a_block_however_much_it_is_given() {
    let body = mixed(4 << 20);
    for (setting, bound) in [
        (Setting::brotli(2), 3 << 20), // below the body, as all of them
        (Setting::gzip(1), 1 << 20),
        (Setting::gzip(6), 1 << 20),
        (Setting::lz4(), 512 << 10),
        (Setting::zstd(1), 1 << 20),
    ] {
        for piece in [100, body.len()] {
            let held = peak(|| {
                let mut writer = compressor(setting).writer(std::io::sink(), &Hints::new()).unwrap();
                for piece in body.chunks(piece) {
                    writer.write_all(piece).unwrap();
                }
                writer.finish().unwrap();
            });
            assert!(held < bound, "{setting} held {held} bytes, {piece} at a time");
        }
    }
}
