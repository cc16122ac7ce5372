//! Root file system archives that attack, lie or are odd: name, bytes, and what must come of them.

use super::tape::{
    Bytes, changed, device, directory, entry, file, hardlink, header, long_name, pax, records, symlink, tar,
};
use crate::harness::bundle::{Packed, pack};

/// What must come of an archive.
#[derive(Debug, Clone, Copy)]
pub(super) enum Expect {
    /// A line with these words, and nothing is left.
    Refused(&'static str),
    /// An image that verifies.
    Taken,
}
use Expect::{Refused, Taken};

pub(super) type Row = (&'static str, Bytes, Expect);

/// All of them. `decoy` is a directory outside, with `data` in it.
pub(super) fn all(decoy: &str) -> Vec<Row> {
    [
        names(),
        links(decoy),
        replaced(decoy),
        marks(decoy),
        nodes(),
        sizes(),
        numbers(),
        extensions(),
        attributes(),
        ends(),
        packed(),
    ]
    .concat()
}

fn names() -> Vec<Row> {
    let deep = "d/".repeat(513);
    let deeper = "d/".repeat(10_000);
    let huge = "n".repeat(64 << 10);
    let long = format!("{}/f", vec!["n".repeat(250); 17].join("/"));
    let odd = "new\nline \u{1b}[2J\u{7} tab\t \"quote\"";
    let up = |name: &str| tar(&[directory("a"), file(name, "x")]);
    vec![
        ("dots_first", up("../x"), Refused("\"..\"")),
        ("dots_within", up("a/../../x"), Refused("\"..\"")),
        ("dots_last", up("a/.."), Refused("\"..\"")),
        ("dots_after_a_slash", up("/../x"), Refused("\"..\"")),
        ("dots_in_pax", tar(&[pax("path", b"../x"), file("x", "x")]), Refused("\"..\"")),
        ("dots_in_a_long_name", tar(&[long_name(b"../x"), file("x", "x")]), Refused("\"..\"")),
        ("dots_in_a_sparse_name", tar(&[pax("GNU.sparse.name", b"../x"), file("x", "")]), Refused("\"..\"")),
        ("absolute", tar(&[file("/etc/shadow", "x"), file("//etc//./passwd", "x")]), Taken),
        ("nothing", tar(&[file("", "x")]), Refused("empty")),
        ("the_root_as_a_file", tar(&[file(".", "x")]), Refused("root directory")),
        ("the_root_as_a_link", tar(&[symlink("./", "/")]), Refused("root directory")),
        ("nul", tar(&[pax("path", b"a\0b"), file("x", "x")]), Refused("NUL")),
        ("control_characters", tar(&[file(odd, "x"), symlink("l", odd), hardlink("h", odd)]), Taken),
        (
            "control_characters_refused",
            tar(&[file(&format!("{odd}/../x"), "x")]),
            Refused("new\\nline \\u{1b}[2J"),
        ),
        ("no_utf_8", tar(&[pax("path", b"\xff\xfe/\x80"), file("x", "x")]), Taken),
        ("component_of_64_kib", tar(&[pax("path", huge.as_bytes()), file("x", "x")]), Refused("255 bytes")),
        ("path_max", tar(&[pax("path", long.as_bytes()), file("x", "x")]), Refused("4095 bytes")),
        ("513_deep", tar(&[pax("path", deep.as_bytes()), directory("x")]), Refused("512 directories")),
        ("10000_deep", tar(&[long_name(deeper.as_bytes()), directory("x")]), Refused("which is the limit")),
        ("two_mib", tar(&[long_name(&vec![b'/'; 2 << 20]), file("x", "x")]), Refused("extension=N")),
    ]
}

fn links(decoy: &str) -> Vec<Row> {
    let climb = format!("../../../../../../../..{decoy}");
    let secret = format!("{decoy}/data");
    vec![
        ("file_below_a_link", tar(&[symlink("a", decoy), file("a/data", "x")]), Refused("link to nothing")),
        ("file_below_a_climbing_link", tar(&[symlink("a", &climb), file("a/new", "x")]), Refused("nothing")),
        ("directory_below_a_link", tar(&[symlink("a", decoy), directory("a/new")]), Refused("nothing")),
        ("device_below_a_link", tar(&[symlink("a", decoy), device("a/null", 1, 3)]), Refused("nothing")),
        ("link_below_a_link", tar(&[symlink("a", decoy), symlink("a/b", "x")]), Refused("nothing")),
        (
            "chain_of_links",
            tar(&[symlink("a", "b"), symlink("b", decoy), file("a/data", "x")]),
            Refused("nothing"),
        ),
        ("link_into_proc", tar(&[symlink("a", "/proc/self/root"), file("a/x", "x")]), Refused("nothing")),
        ("circle", tar(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "x")]), Refused("circle")),
        ("dangling_link_alone", tar(&[symlink("a", &secret), symlink("b", &climb)]), Taken),
        ("hard_link_out", tar(&[hardlink("a", &secret), file("a", "x")]), Refused("does not exist")),
        ("hard_link_climbing", tar(&[hardlink("a", &climb)]), Refused("\"..\"")),
        ("hard_link_through_a_link", tar(&[symlink("l", decoy), hardlink("a", "l/data")]), Refused("exist")),
        ("hard_link_to_a_link", tar(&[symlink("l", &secret), hardlink("a", "l"), file("a", "x")]), Taken),
        ("hard_link_to_a_directory", tar(&[directory("d"), hardlink("a", "d")]), Refused("a directory")),
        ("hard_link_to_later", tar(&[hardlink("a", "b"), file("b", "x")]), Refused("before it")),
        ("hard_link_to_itself", tar(&[file("a", "x"), hardlink("a", "a")]), Taken),
        ("link_to_nothing", tar(&[symlink("a", "")]), Refused("no link target")),
        (
            "link_of_5000_bytes",
            tar(&[pax("linkpath", &[b't'; 5000]), symlink("a", "x")]),
            Refused("4095 bytes"),
        ),
    ]
}

fn replaced(decoy: &str) -> Vec<Row> {
    vec![
        ("twice", tar(&[file("a", "one"), file("a", "two"), file("./a", "three")]), Taken),
        ("file_over_link", tar(&[symlink("a", &format!("{decoy}/data")), file("a", "mine")]), Taken),
        ("directory_over_link", tar(&[symlink("a", decoy), directory("a"), file("a/data", "mine")]), Taken),
        ("directory_over_file", tar(&[file("a", "x"), directory("a"), file("a/b", "y")]), Taken),
        ("file_over_empty_directory", tar(&[directory("a"), file("a", "x")]), Taken),
        (
            "file_over_full_directory",
            tar(&[directory("a"), file("a/b", "y"), file("a", "x")]),
            Refused("not empty"),
        ),
        (
            "link_over_full_directory",
            tar(&[directory("a"), file("a/b", "y"), symlink("a", decoy), file("a/data", "x")]),
            Refused("not empty"),
        ),
        // CVE-2025-47290, CVE-2021-32760.
        (
            "link_over_the_directory_of_the_entry_before",
            tar(&[directory("a"), symlink("a", decoy), file("a/data", "x")]),
            Refused("link to nothing"),
        ),
        ("mode_through_a_link", tar(&[symlink("a", decoy), entry(b'5', "a/", "", b"")]), Taken),
        ("file_below_a_file", tar(&[file("a", "x"), file("a/b", "y")]), Refused("no directory")),
        ("device_below_a_device", tar(&[device("a", 1, 3), device("a/b", 1, 3)]), Refused("no directory")),
    ]
}

/// docker passes over what aufs kept for itself (`.wh..wh.plnk`, `.wh..wh.aufs`, `.wh..wh.orph`), and so does this; files
/// below them, which docker takes for the targets of hard links, are refused.
fn marks(decoy: &str) -> Vec<Row> {
    vec![
        ("mark_of_nothing", tar(&[file(".wh.", "")]), Refused("malformed")),
        ("mark_of_a_dot", tar(&[file(".wh..", "")]), Refused("malformed")),
        ("mark_of_two_dots", tar(&[directory("a"), file("a/.wh...", "")]), Refused("malformed")),
        ("below_a_mark", tar(&[directory(".wh.a"), file(".wh.a/b", "")]), Refused("malformed")),
        ("mark_through_a_link", tar(&[symlink("a", decoy), file("a/.wh.data", "")]), Taken),
        ("opaque_through_a_link", tar(&[symlink("a", decoy), file("a/.wh..wh..opq", "")]), Taken),
        ("opaque_root", tar(&[file("a", "x"), file(".wh..wh..opq", "")]), Taken),
        ("mark_and_file", tar(&[file("a", "x"), file(".wh.a", ""), file("b", ""), file(".wh.b", "")]), Taken),
        ("mark_of_the_root", tar(&[file("/.wh./", "")]), Refused("malformed")),
        (
            "marks_of_aufs",
            tar(&[directory(".wh..wh.plnk"), directory(".wh..wh.orph"), file(".wh..wh.aufs", "")]),
            Taken,
        ),
        (
            "link_targets_of_aufs",
            tar(&[
                directory(".wh..wh.plnk"),
                file(".wh..wh.plnk/1.2", "x"),
                hardlink("a", ".wh..wh.plnk/1.2"),
            ]),
            Refused("malformed"),
        ),
        ("mark_of_overlay", tar(&[device("a", 0, 0)]), Refused("overlayfs")),
        ("mark_with_data", tar(&[file(".wh.a", "data"), file("b", "x")]), Taken),
    ]
}

fn nodes() -> Vec<Row> {
    let setuid = |header: &mut tar::Header| header.set_mode(0o7755);
    let large_mode = |header: &mut tar::Header| header.as_old_mut().mode = *b"7777777\0";
    vec![
        ("devices", tar(&[device("null", 1, 3), device("kmsg", 1, 11), entry(b'6', "fifo", "", b"")]), Taken),
        ("device_number", tar(&[device("a", 4096, 0)]), Refused("4096:0")),
        ("setuid", tar(&[changed(header(b'0', b"su", b"", 1), setuid, b"x")]), Taken),
        ("mode_of_21_bits", tar(&[changed(header(b'0', b"a", b"", 1), large_mode, b"x")]), Taken),
        ("socket", tar(&[entry(b'Z', "a", "", b"")]), Refused("none of a root file system")),
        ("other_volume", tar(&[entry(b'M', "a", "", b"")]), Refused("none of a root file system")),
    ]
}

fn sizes() -> Vec<Row> {
    let lying = |size: [u8; 12]| {
        let change = move |header: &mut tar::Header| header.as_old_mut().size = size;
        tar(&[changed(header(b'0', b"a", b"", 0), change, b""), file("b", "x")])
    };
    let sparse = |size: &str, map: &str| {
        let all: [(&str, &[u8]); 2] =
            [("GNU.sparse.size", size.as_bytes()), ("GNU.sparse.map", map.as_bytes())];
        tar(&[records(b'x', &all), file("s", "abc")])
    };
    let pax_size = |size: &str| tar(&[pax("size", size.as_bytes()), file("a", "a"), file("b", "b")]);
    vec![
        ("size_beyond_the_end", lying(*b"00000007777\0"), Refused("cut short")),
        ("size_of_8_gib", lying(*b"77777777777\0"), Refused("cut short")),
        ("size_negative", lying([0xff; 12]), Refused("size")),
        ("size_of_65_bits", lying([0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 3]), Refused("size")),
        (
            "size_of_63_bits",
            lying([0x80, 0, 0, 0, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            Refused("file=N"),
        ),
        ("size_no_number", lying(*b"0000000zzzz\0"), Refused("size")),
        ("pax_size_larger", pax_size("99999"), Refused("cut short")),
        ("pax_size_of_64_bits", pax_size("18446744073709551615"), Refused("file=N")),
        ("pax_size_of_65_bits", pax_size("18446744073709551616"), Refused("size")),
        ("pax_size_negative", pax_size("-1"), Refused("size")),
        (
            "pax_size_smaller",
            tar(&[pax("size", b"1"), changed(header(b'0', b"a", b"", 999), |_| {}, b"x")]),
            Taken,
        ),
        (
            "pax_size_smuggles",
            tar(&[pax("size", b"1024"), file("a", ""), vec![0; 512], file("b", "")]),
            Taken,
        ),
        ("directory_with_data", tar(&[entry(b'5', "d", "", b"data")]), Refused("only a file")),
        ("link_with_data", tar(&[file("f", "x"), entry(b'1', "h", "f", b"data")]), Refused("only a file")),
        ("sparse_of_1_tib", sparse("1099511627776", "0,2,4096,1"), Taken),
        ("sparse_of_2_64", sparse("18446744073709551615", "0,2,4096,1"), Refused("file=N")),
        ("sparse_overlaps", sparse("5000", "0,2,1,1"), Refused("sparse")),
        ("sparse_beyond_itself", sparse("10", "0,2,4096,1"), Refused("sparse")),
        ("sparse_overflows", sparse("5000", "18446744073709551615,3"), Refused("sparse")),
    ]
}

fn numbers() -> Vec<Row> {
    let base256 = |field: fn(&mut tar::Header, [u8; 12])| {
        let value = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
        changed(header(b'0', b"a", b"", 0), move |header| field(header, value), b"")
    };
    let uid = |id: &str| tar(&[pax("uid", id.as_bytes()), file("a", "a")]);
    let time = |time: &str| tar(&[pax("mtime", time.as_bytes()), file("a", "a")]);
    vec![
        ("uid_of_minus_1", uid("4294967295"), Refused("owner")),
        ("uid_of_33_bits", uid("4294967296"), Refused("owner")),
        ("uid_negative", uid("-1"), Refused("uid")),
        ("uid_hexadecimal", uid("0x0"), Refused("uid")),
        ("uid_largest", uid("4294967294"), Taken),
        (
            "uid_in_base_256",
            tar(&[base256(|header, value| header.as_old_mut().uid.copy_from_slice(&value[4..]))]),
            Refused("uid"),
        ),
        (
            "size_in_base_256",
            tar(&[base256(|header, _| header.as_old_mut().size[0] = 0x80)]),
            Refused("size"),
        ),
        ("mtime_in_base_256", tar(&[base256(|header, value| header.as_old_mut().mtime = value)]), Taken),
        ("mtime_before_1970", time("-1.5"), Taken),
        ("mtime_huge", time("4611686018427387904.999999999"), Taken),
        ("mtime_of_64_bits", time("9223372036854775808"), Refused("mtime")),
        ("mtime_no_number", time("now"), Refused("mtime")),
    ]
}

fn extensions() -> Vec<Row> {
    let raw = |data: &[u8]| tar(&[entry(b'x', "p", "", data), file("a", "a")]);
    vec![
        ("record_too_long", raw(b"99 path=a\n"), Refused("malformed")),
        ("record_without_length", raw(b"path=a\n"), Refused("malformed")),
        ("record_without_end", raw(b"8 path=a"), Refused("malformed")),
        ("record_of_length_0", raw(b"0 path=a\n"), Refused("malformed")),
        ("record_twice", tar(&[records(b'x', &[("path", b"a"), ("path", b"b")]), file("c", "c")]), Taken),
        ("two_long_names", tar(&[long_name(b"a"), long_name(b"b"), file("c", "")]), Refused("two different")),
        (
            "long_name_and_path",
            tar(&[long_name(b"a"), pax("path", b"b"), file("c", "")]),
            Refused("two different"),
        ),
        (
            "two_headers",
            tar(&[pax("path", b"a"), pax("path", b"b"), file("c", "")]),
            Refused("two different"),
        ),
        ("header_of_nothing", tar(&[file("a", "a"), pax("path", b"b")]), Refused("two different")),
        ("global_path", tar(&[records(b'g', &[("path", b"../x")]), file("a", "a")]), Refused("global")),
        ("global_comment", tar(&[records(b'g', &[("comment", b"x")]), file("a", "a")]), Taken),
        (
            "header_of_2_mib",
            tar(&[pax("comment", &vec![b'c'; 2 << 20]), file("a", "")]),
            Refused("extension=N"),
        ),
        ("checksum", [&[b'a'; 512][..], &tar(&[file("a", "")])].concat(), Refused("no tar archive")),
        ("checksum_later", tar(&[file("a", ""), vec![b'a'; 512]]), Refused("checksum")),
    ]
}

fn attributes() -> Vec<Row> {
    let one = |name: &str, value: &[u8]| tar(&[pax(&format!("SCHILY.xattr.{name}"), value), file("a", "a")]);
    let names: Vec<String> = (0..1001).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b"x"[..])).collect();
    vec![
        ("overlay_opaque", one("trusted.overlay.opaque", b"y"), Refused("trusted.overlay.opaque")),
        ("overlay_redirect", one("trusted.overlay.redirect", b"/etc"), Refused("trusted.overlay.redirect")),
        ("overlay_metacopy", one("trusted.overlay.metacopy", b""), Refused("trusted.overlay.metacopy")),
        ("overlay_of_a_user", one("user.overlay.whiteout", b"y"), Refused("user.overlay.whiteout")),
        ("labels_of_this_host", one("security.selinux", b"x"), Taken),
        ("trusted", one("trusted.mine", b"x"), Taken),
        ("access_list", one("system.posix_acl_access", b"x"), Taken),
        ("1001_attributes", tar(&[records(b'x', &many), file("a", "a")]), Refused("attribute-count=N")),
        ("attribute_of_200_kib", one("user.a", &vec![b'v'; 200 << 10]), Refused("attributes=N")),
        ("attribute_without_name", one("", b"x"), Taken),
        ("capability_that_is_none", one("security.capability", b"x"), Refused("extended attribute")),
    ]
}

fn ends() -> Vec<Row> {
    let whole = tar(&[file("a", "a"), file("b", "b")]);
    vec![
        ("no_byte", Vec::new(), Refused("empty")),
        ("text", b"#!/bin/sh\necho no archive\n".repeat(60), Refused("no tar archive")),
        ("end_mark_alone", vec![0; 1024], Taken),
        ("no_end_mark", whole[..2048].to_vec(), Refused("end mark")),
        ("half_a_block", whole[..700].to_vec(), Refused("cut short")),
        ("garbage_after_the_end", [&whole[..], &[b'g'; 5000]].concat(), Taken),
        ("archive_after_the_end", [&whole[..], &tar(&[file("../x", "x")])].concat(), Taken),
        (
            "one_block_of_zeros_between",
            tar(&[file("a", "a"), vec![0; 512], file("b", "b")]),
            Refused("two different"),
        ),
    ]
}

fn packed() -> Vec<Row> {
    let (first, second) = (file("a", "a"), tar(&[file("b", "b")]));
    let gzip = |bytes: &[u8]| pack(Packed::Gzip, bytes);
    let zstd = |bytes: &[u8]| pack(Packed::Zstd, bytes);
    let (one, other) = (gzip(&second), zstd(&second));
    vec![
        ("gzip_in_two_members", [gzip(&first), gzip(&second)].concat(), Taken),
        ("zstd_in_two_frames", [zstd(&first), zstd(&second)].concat(), Taken),
        ("gzip_with_zeros_after_it", [&one[..], &[0; 600]].concat(), Taken),
        ("gzip_with_garbage_after_it", [&one[..], b"garbage"].concat(), Refused("garbage")),
        ("zstd_with_garbage_after_it", [&other[..], b"garbage"].concat(), Refused("zstd")),
        ("gzip_cut", one[..one.len() - 9].to_vec(), Refused("gzip")),
        ("gzip_without_its_sum", one[..one.len() - 4].to_vec(), Refused("gzip")),
        ("zstd_cut", other[..other.len() - 5].to_vec(), Refused("zstd")),
        ("gzip_in_gzip", gzip(&one), Refused("no tar archive")),
        ("gzip_of_nothing", gzip(b""), Refused("cut short")),
        ("xz", b"\xfd7zXZ\0rest".to_vec(), Refused("xz")),
        ("bzip2", b"BZh91AY&SY".to_vec(), Refused("bzip2")),
        ("zip", b"PK\x03\x04rest".to_vec(), Refused("zip")),
    ]
}
