//! Archives that are cut short, damaged, or lie about sizes.

use std::fs;

use super::laboratory::{
    Laboratory, archive, directory, entry, file, gzip, hardlink, header, long_name, padded, pax, symlink,
    zstd,
};

fn specimen() -> Vec<u8> {
    let long = format!("d/{}", "n".repeat(200));
    archive(&[
        directory("d"),
        file("d/empty", ""),
        file("d/file", &"data".repeat(400)),
        long_name(long.as_bytes()),
        file("short", "x"),
        pax(&[("path", b"d/pax"), ("mtime", b"12.5"), ("SCHILY.xattr.user.a", b"a\nb")]),
        file("x", "y"),
        symlink("s", "d"),
        hardlink("h", "d/file"),
        entry(b'0', "last", "", &[7; 2000]),
    ])
}

#[test]
fn an_archive_cut_at_any_block_is_refused() {
    let whole = specimen();
    let laboratory = Laboratory::new();
    laboratory.unpack(&whole).unwrap();
    for blocks in 0..whole.len() / 512 - 1 {
        for extra in [0, 1, 100, 511] {
            let laboratory = Laboratory::new();
            laboratory.refusal(&whole[..blocks * 512 + extra]);
        }
    }
    // One block of zeros is an end mark too.
    Laboratory::new().unpack(&whole[..whole.len() - 512]).unwrap();
}

#[test]
fn compressed_archives_cut_anywhere_are_refused() {
    let whole = specimen();
    for compressed in [gzip(&whole), zstd(&whole)] {
        for length in (0..compressed.len()).step_by(7) {
            Laboratory::new().refusal(&compressed[..length]);
        }
    }
}

#[test]
fn a_header_with_any_changed_bit_is_refused() {
    let good = specimen();
    for at in (0..512).step_by(3) {
        let mut bad = good.clone();
        bad[512 + at] ^= 0x04;
        Laboratory::new().refusal(&bad);
    }
}

#[test]
fn the_size_of_the_pax_record_counts() {
    let laboratory = Laboratory::new();
    let mut small = header(b'0', b"a", b"", 0);
    small.set_cksum();
    let smuggled = archive(&[file("smuggled", "x")]);
    let size = smuggled.len().to_string();
    let bytes =
        archive(&[pax(&[("size", size.as_bytes())]), small.as_bytes().to_vec(), smuggled, file("b", "b")]);
    laboratory.unpack(&bytes).unwrap();
    assert!(!laboratory.layer().join("smuggled").exists());
    assert_eq!(fs::metadata(laboratory.layer().join("a")).unwrap().len().to_string(), size);
    assert!(laboratory.layer().join("b").exists());
}

#[test]
fn the_size_of_the_pax_record_counts_when_it_is_smaller() {
    let laboratory = Laboratory::new();
    let large = header(b'0', b"a", b"", 4096);
    let bytes =
        archive(&[pax(&[("size", b"3")]), large.as_bytes().to_vec(), padded(b"abc"), file("seen", "x")]);
    laboratory.unpack(&bytes).unwrap();
    assert_eq!(fs::read(laboratory.layer().join("a")).unwrap(), b"abc");
    assert!(laboratory.layer().join("seen").exists());
}

#[test]
fn extension_headers_are_not_described_by_a_pax_record() {
    let laboratory = Laboratory::new();
    let bytes = archive(&[pax(&[("size", b"5")]), long_name(b"long"), file("short", "12345")]);
    laboratory.unpack(&bytes).unwrap();
    assert_eq!(fs::read(laboratory.layer().join("long")).unwrap(), b"12345");
}

#[test]
fn sizes_that_lie_are_refused() {
    let huge: [(&str, [u8; 12]); 4] = [
        ("beyond the end", *b"00000007777\0"),
        ("negative", [0xff; 12]),
        ("more than 64 bits", [0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3]),
        ("no number", *b"00000000zzz\0"),
    ];
    for (label, size) in huge {
        let mut header = header(b'0', b"a", b"", 0);
        header.as_old_mut().size = size;
        header.set_cksum();
        let message = Laboratory::new().refusal(&archive(&[header.as_bytes().to_vec(), file("b", "b")]));
        assert!(message.contains("size") || message.contains("cut short"), "{label}: {message}");
    }
    for size in ["18446744073709551615", "18446744073709551616", "9223372036854775807", "-1", "0x10", " 1"] {
        Laboratory::new().refusal(&archive(&[pax(&[("size", size.as_bytes())]), file("a", "a")]));
    }
}

#[test]
fn only_files_have_data() {
    for kind in *b"123456" {
        let bytes = archive(&[file("f", "f"), entry(kind, "a", "f", b"data"), file("b", "b")]);
        let message = Laboratory::new().refusal(&bytes);
        assert!(message.contains("only a file can have"), "{message}");
        let bytes = archive(&[file("f", "f"), pax(&[("size", b"512")]), entry(kind, "a", "f", b"")]);
        Laboratory::new().refusal(&bytes);
    }
    Laboratory::new().refusal(&archive(&[entry(b'0', "old/", "", b"data")]));
}

#[test]
fn what_readers_disagree_about_is_refused() {
    for bytes in [
        // Two descriptions of one entry.
        archive(&[long_name(b"a"), pax(&[("path", b"b")]), file("c", "c")]),
        archive(&[long_name(b"a"), long_name(b"b"), file("c", "c")]),
        archive(&[pax(&[("path", b"a")]), pax(&[("path", b"b")]), file("c", "c")]),
        // A description of nothing.
        archive(&[file("a", "a"), pax(&[("path", b"b")])]),
        // Entries after one block of zeros.
        archive(&[vec![0; 512], file("a", "a")]),
        archive(&[file("a", "a"), vec![0; 512], file("b", "b")]),
        // Names after a NUL.
        archive(&[pax(&[("path", b"a\0b")]), file("c", "c")]),
        archive(&[long_name(b"a\0b"), file("c", "c")]),
        archive(&[pax(&[("linkpath", b"a\0b")]), symlink("c", "c")]),
        // Types that are for other programs, or for none.
        archive(&[entry(b'M', "a", "", b"")]),
        archive(&[entry(b'D', "a", "", b"")]),
        archive(&[entry(b'Z', "a", "", b"")]),
        // Records for all entries that make sense for one only.
        archive(&[global("path", b"../x"), file("a", "a")]),
        archive(&[global("size", b"0"), file("a", "a")]),
        // Empty and missing names.
        archive(&[entry(b'0', "", "", b"")]),
        archive(&[symlink("a", "")]),
    ] {
        Laboratory::new().refusal(&bytes);
    }
    let comment = global("comment", b"4b825dc642cb6eb9a060e54bf8d69288fbee4904");
    Laboratory::new().unpack(&archive(&[comment, file("a", "a")])).unwrap();
}

fn global(key: &str, value: &[u8]) -> Vec<u8> {
    let mut bytes = pax(&[(key, value)]);
    let size = tar::Header::from_byte_slice(&bytes[..512]).entry_size().unwrap();
    let header = header(b'g', b"pax_global_header", b"", size);
    bytes[..512].copy_from_slice(header.as_bytes());
    bytes
}
