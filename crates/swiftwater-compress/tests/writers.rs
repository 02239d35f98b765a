//! What writers owe to the inner writer: every byte once, whatever it does.

mod common;

use std::io::{self, ErrorKind, Write};

use swiftwater_compress::{Coding, Codings, CompressWriter, Error, Hints, Setting};

use common::*;

fn writer<W: Write>(inner: W, setting: Setting) -> CompressWriter<W> {
    compressor(setting).writer(inner, &Hints::new()).unwrap()
}

#[test]
fn an_inner_writer_that_blocks_and_stutters_loses_and_doubles_nothing() {
    let body = mixed(300_000);
    for setting in quick().into_iter().chain([Setting::identity()]) {
        let whole = match setting.coding() {
            Coding::Identity => body.clone(),
            _ => {
                let mut writer = writer(Vec::new(), setting);
                writer.write_all(&body).unwrap();
                writer.finish().unwrap()
            }
        };
        for at_most in [1, 7, 10_000] {
            let mut writer = writer(Flaky::new(Vec::new(), at_most), setting);
            let mut rest = &body[..];
            while !rest.is_empty() {
                let n = patiently(|| writer.write(rest)).unwrap();
                assert_ne!(n, 0);
                rest = &rest[n..];
            }
            patiently(|| writer.try_finish()).unwrap();
            patiently(|| writer.try_finish()).unwrap();
            assert!(writer.get_ref().inner == whole, "{setting}, {at_most} at a time");

            let mut writer =
                decompressor().writer(Flaky::new(Vec::new(), at_most), setting.coding()).unwrap();
            let mut rest = &whole[..];
            while !rest.is_empty() {
                let n = patiently(|| writer.write(rest)).unwrap();
                rest = &rest[n..];
            }
            patiently(|| writer.flush()).unwrap();
            patiently(|| writer.try_finish()).unwrap();
            assert!(writer.get_ref().inner == body, "{setting}, {at_most} at a time");
        }
    }
}

#[test]
fn flush_makes_everything_so_far_decodable() {
    for setting in settings() {
        let mut writer = writer(Vec::new(), setting);
        let mut written = Vec::new();
        writer.flush().unwrap();
        assert!(writer.get_ref().is_empty(), "{setting}: nothing written, nothing to flush");
        for piece in [&json(500)[..], b"", b"x", &noise(3000, 8), &json(70_000), b"y"] {
            writer.write_all(piece).unwrap();
            written.extend(piece);
            writer.flush().unwrap();
            let (got, result) = decode(setting.coding(), writer.get_ref());
            assert!(got == written, "{setting}: {} of {} bytes", got.len(), written.len());
            assert!(result.is_err(), "{setting}: not the end yet");
        }
        let before = writer.get_ref().len();
        writer.flush().unwrap();
        assert_eq!(writer.get_ref().len(), before, "{setting}: nothing new, nothing written");
        assert_eq!(decode(setting.coding(), &writer.finish().unwrap()).0, written);
    }
}

#[test]
fn a_flush_that_was_interrupted_goes_on() {
    for setting in quick() {
        let mut writer = writer(Flaky::new(Vec::new(), 3), setting);
        for piece in json(3000).chunks(1000) {
            patiently(|| writer.write(piece)).unwrap();
            patiently(|| writer.flush()).unwrap();
        }
        assert_eq!(decode(setting.coding(), &writer.get_ref().inner).0, json(3000));
    }
}

/// Takes so many bytes, then nothing, for good.
struct Full {
    taken: Vec<u8>,
    room: usize,
    error: Option<ErrorKind>,
}

impl Write for Full {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = buf.len().min(self.room - self.taken.len());
        self.taken.extend(&buf[..n]);
        match (n, self.error) {
            (0, Some(kind)) => Err(kind.into()),
            _ => Ok(n),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn errors_of_the_inner_writer_come_out_as_they_are() {
    for setting in quick() {
        for (error, kind) in
            [(None, ErrorKind::WriteZero), (Some(ErrorKind::StorageFull), ErrorKind::StorageFull)]
        {
            let mut writer = writer(Full { taken: Vec::new(), room: 10, error }, setting);
            writer.write_all(&noise(1000, 1)).unwrap();
            let told = writer.try_finish().unwrap_err();
            assert_eq!(told.kind(), kind);
            assert!(Error::of(&told).is_none(), "not ours");
            writer.get_mut().room = 5000; // somebody made room
            writer.try_finish().unwrap();
            assert_eq!(decode(setting.coding(), &writer.get_ref().taken).0, noise(1000, 1), "{setting}");
        }
    }
}

#[test]
fn while_the_inner_writer_blocks_no_more_than_a_block_is_taken() {
    for setting in quick() {
        let full = Full { taken: Vec::new(), room: 0, error: Some(ErrorKind::WouldBlock) };
        let mut writer = writer(full, setting);
        let body = noise(1 << 20, 1);
        let mut taken = 0;
        let error = loop {
            assert!(taken < body.len(), "{setting} takes everything");
            match writer.write(&body[taken..]) {
                Ok(n) => taken += n,
                Err(error) => break error,
            }
        };
        assert_eq!(error.kind(), ErrorKind::WouldBlock);
        assert!(taken <= 512 << 10, "{setting} piled up {taken} bytes");
        writer.get_mut().room = usize::MAX;
        writer.write_all(&body[taken..]).unwrap();
        writer.try_finish().unwrap();
        assert!(decode(setting.coding(), &writer.get_ref().taken).0 == body, "{setting}");
    }
}

#[test]
fn after_the_end_nothing_more_is_taken() {
    for setting in quick().into_iter().chain([Setting::identity()]) {
        let mut writer = writer(Vec::new(), setting);
        writer.write_all(b"body").unwrap();
        writer.try_finish().unwrap();
        let stream = writer.get_ref().clone();
        assert_eq!(writer.write(b"more").unwrap_err().kind(), ErrorKind::InvalidInput);
        writer.flush().unwrap();
        assert_eq!(writer.finish().unwrap(), stream, "{setting}");

        let mut writer = decompressor().writer(Vec::new(), setting.coding()).unwrap();
        writer.write_all(&stream).unwrap();
        writer.try_finish().unwrap();
        assert_eq!(writer.write(b"more").unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(writer.finish().unwrap(), b"body");
    }
}

/// Wherever the inner writer blocks while the end is being told, the decoders inside may be at their end already.
#[test]
fn while_the_end_blocks_nothing_more_is_taken() {
    let zeros = vec![0; 100_000];
    let two: Codings = [Coding::Gzip; 2].into_iter().collect();
    let streams = quick().map(|setting| (Codings::from(setting.coding()), compress(setting, &zeros)));
    let twice = compress(Setting::gzip(6), &compress(Setting::gzip(6), &zeros));
    for (codings, stream) in streams.into_iter().chain([(two, twice)]) {
        for room in (0..zeros.len()).step_by(8 << 10) {
            let full = Full { taken: Vec::new(), room, error: Some(ErrorKind::WouldBlock) };
            let mut writer = decompressor().writer(full, codings.clone()).unwrap();
            let mut rest = &stream[..];
            while let Ok(n @ 1..) = writer.write(rest) {
                rest = &rest[n..];
            }
            assert_eq!(writer.try_finish().unwrap_err().kind(), ErrorKind::WouldBlock);
            if !rest.is_empty() {
                continue; // blocked before the end
            }
            writer.get_mut().room = usize::MAX;
            assert_eq!(writer.write(b"more").unwrap_err().kind(), ErrorKind::InvalidInput);
            writer.try_finish().unwrap();
            assert!(writer.get_ref().taken == zeros, "{codings:?} after {room} bytes");
        }
    }
}

#[test]
fn an_interrupted_inner_writer_is_asked_again() {
    /// Every other call is interrupted.
    struct Interrupted(Vec<u8>, bool);
    impl Write for Interrupted {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.1 = !self.1;
            if self.1 { Err(ErrorKind::Interrupted.into()) } else { self.0.write(buf) }
        }
        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
    for setting in quick() {
        let body = json(300_000);
        let mut writer = writer(Interrupted(Vec::new(), false), setting);
        writer.write_all(&body).unwrap();
        writer.flush().unwrap();
        // Gone after an error, so nobody could ask again.
        let Interrupted(stream, _) = writer.finish().unwrap();
        let inner = Interrupted(Vec::new(), false);
        let mut writer = decompressor().writer(inner, setting.coding()).unwrap();
        writer.write_all(&stream).unwrap();
        writer.flush().unwrap();
        assert!(writer.finish().unwrap().0 == body, "{setting}");
    }
}

#[test]
fn a_decoding_writer_says_the_same_error_for_ever() {
    for setting in quick() {
        let stream = compress(setting, &json(3000));
        let mut writer = decompressor().writer(Vec::new(), setting.coding()).unwrap();
        let error = writer.write_all(&[&stream[..], b"garbage"].concat()).unwrap_err();
        let first = Error::of(&error).cloned();
        assert!(matches!(first, Some(Error::TrailingData { .. })), "{setting}: {error}");
        for _ in 0..3 {
            assert_eq!(Error::of(&writer.write(b"x").unwrap_err()).cloned(), first);
            assert_eq!(Error::of(&writer.flush().unwrap_err()).cloned(), first);
            assert_eq!(Error::of(&writer.try_finish().unwrap_err()).cloned(), first);
        }
        assert_eq!(*writer.get_ref(), json(3000), "{setting}: what was good is there");
    }
}

#[test]
fn small_writes_cost_nothing_in_size() {
    for setting in quick() {
        let body = json(200_000);
        let mut writer = writer(Vec::new(), setting);
        for piece in body.chunks(100) {
            writer.write_all(piece).unwrap();
        }
        let stream = writer.finish().unwrap();
        let whole = compress(setting, &body).len();
        // zstd knows the length in the one case and not in the other.
        assert!(stream.len() <= whole + whole / 50, "{setting}: {} against {whole}", stream.len());
    }
}
