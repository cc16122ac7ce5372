//! Compressions, and what is no archive at all.

use std::{
    fs,
    io::{PipeWriter, Write},
    thread,
    time::{Duration, Instant},
};

use super::laboratory::{Laboratory, Scratch, archive, file, gzip, zstd};
use crate::images::{
    cancel::Cancel, entries::End, error::ImageError, layers::NewLayer, memory::Window, pipeline,
    source::Archive, unpack,
};

fn specimen() -> Vec<u8> {
    archive(&[file("a", "content"), file("b", &"x".repeat(300_000))])
}

#[test]
fn compressed_members_may_follow_each_other() {
    let whole = specimen();
    let (one, other) = whole.split_at(100_000);
    for compressed in [
        gzip(&whole),
        [gzip(one), gzip(other)].concat(),
        [gzip(one), gzip(b""), gzip(other), vec![0; 5000]].concat(),
        zstd(&whole),
        [zstd(one), zstd(other)].concat(),
        // A frame that is to be skipped.
        [vec![0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3], zstd(&whole)].concat(),
    ] {
        let laboratory = Laboratory::new();
        laboratory.unpack(&compressed).unwrap();
        assert_eq!(fs::read(laboratory.layer().join("b")).unwrap().len(), 300_000);
    }
}

#[test]
fn garbage_after_a_compressed_archive_is_refused() {
    for compressed in [gzip(&specimen()), zstd(&specimen())] {
        for garbage in [&b"garbage"[..], &[0, 0, 7], &[0x1f, 0x8b]] {
            let message = Laboratory::new().refusal(&[&compressed, garbage].concat());
            assert!(message.contains("damaged"), "{message}");
        }
    }
}

#[test]
fn a_changed_byte_in_compressed_data_is_noticed() {
    let mut compressed = gzip(&specimen());
    let middle = compressed.len() / 2;
    compressed[middle] ^= 0xff;
    Laboratory::new().refusal(&compressed);
}

#[test]
fn what_is_no_archive_is_told_so() {
    for (bytes, told) in [
        (&b""[..], "is empty"),
        (b"x", "no tar archive"),
        (&[b'x'; 5000][..], "no tar archive"),
        (b"\xfd7zXZ\0rest", "xz"),
        (b"BZh91AY", "bzip2"),
        (b"PK\x03\x04rest", "zip"),
        (b"\x1f\x8bno gzip", "gzip"),
        (b"\x28\xb5\x2f\xfdno zstd", "zstd"),
    ] {
        let message = Laboratory::new().refusal(bytes);
        assert!(message.contains(told), "{message}");
    }
    Laboratory::new().refusal(&gzip(b""));
    let directory = fs::File::open("/").unwrap();
    assert!(Archive::new(directory.into()).unwrap_err().to_string().contains("directory"));
    // An archive of nothing is an archive.
    Laboratory::new().unpack(&[0; 10240]).unwrap();
}

fn unpack_pipe(
    laboratory: &Laboratory,
    cancel: &Cancel,
    write: impl FnOnce(PipeWriter) + Send,
) -> Result<(), ImageError> {
    let root = fs::File::open(laboratory.layer()).unwrap();
    let (reader, writer) = std::io::pipe().unwrap();
    let archive = Archive::new(reader.into()).unwrap();
    thread::scope(|scope| {
        scope.spawn(|| write(writer));
        let limits = &laboratory.limits;
        let work = Scratch::new();
        let layer = NewLayer::of(fs::File::open(work.path()).unwrap().into(), root.into());
        let result = pipeline::run(&archive, cancel, limits, Window::Usual, |tape| {
            unpack::unpack(tape, &layer, unpack::Position::Lowest, End::Mark, limits)
        });
        drop(archive);
        result.map(|_| ())
    })
}

#[test]
fn a_pipe_in_small_pieces_is_read_whole() {
    for bytes in [specimen(), gzip(&specimen()), zstd(&specimen())] {
        let laboratory = Laboratory::new();
        let write =
            |mut writer: PipeWriter| bytes.chunks(777).for_each(|piece| writer.write_all(piece).unwrap());
        unpack_pipe(&laboratory, &Cancel::new().unwrap(), write).unwrap();
        assert_eq!(fs::read(laboratory.layer().join("b")).unwrap().len(), 300_000);
    }
}

#[test]
fn a_silent_pipe_can_be_cancelled() {
    let cancel = Cancel::new().unwrap();
    for silent_after in [0, 3, 600, 200_000] {
        let laboratory = Laboratory::new();
        let begin = Instant::now();
        let cancel = if silent_after == 0 { cancel.clone() } else { Cancel::new().unwrap() };
        let switch = cancel.clone();
        let result = unpack_pipe(&laboratory, &cancel, move |mut writer| {
            writer.write_all(&specimen()[..silent_after]).unwrap();
            thread::sleep(Duration::from_millis(20));
            switch.cancel();
            thread::sleep(Duration::from_millis(200));
            // The writer stays open until here: no end of file has ended the import.
            drop(writer);
        });
        assert!(matches!(result, Err(ImageError::Cancelled)), "{result:?}");
        assert!(begin.elapsed() < Duration::from_secs(5));
    }
}

#[test]
fn a_refused_archive_does_not_wait_for_the_rest_of_its_pipe() {
    let laboratory = Laboratory::new();
    let (done, wait) = std::sync::mpsc::channel::<()>();
    let result = unpack_pipe(&laboratory, &Cancel::new().unwrap(), move |mut writer| {
        writer.write_all(&archive(&[file("../x", "x")])).unwrap();
        writer.write_all(&vec![b'x'; 130 << 10]).unwrap_or_default();
        // Held open longer than a test may take, unless the import ends.
        let _ = wait.recv_timeout(Duration::from_millis(300));
    });
    drop(done);
    assert!(matches!(result, Err(ImageError::Archive(_))), "{result:?}");
}
