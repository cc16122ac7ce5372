//! Archives that are odd and mean no harm: GNU tar, bsdtar, umoci and mysup must make the same files of them, with
//! content, mode, owner, time, attributes, links and holes. Where a peer is known to differ, the row says which.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use serde_json::json;

use super::{
    configuration,
    tape::{Bytes, changed, directory, entry, file, hardlink, header, long_name, pax, records, symlink, tar},
};
use crate::harness::{
    Sandbox,
    bundle::{self, Packed, Specimen},
    peers::{is_here, tool},
    skip,
    tree::Tree,
};

/// A peer that unpacks a tar.
const PEERS: [&str; 3] = ["tar", "bsdtar", "umoci"];

/// Name, entries, and the peers that make something else of it, with the reason.
type Row = (&'static str, Vec<Bytes>, &'static [(&'static str, &'static str)]);

fn rows() -> Vec<Row> {
    [plain(), kinds(), described()].concat()
}

fn plain() -> Vec<Row> {
    vec![
        ("no_root_entry", vec![file("a", "a"), directory("d"), file("d/b", "b")], &[]),
        (
            "leading_dots_and_slashes",
            vec![directory("./"), file("./a", "a"), file(".//b", "b"), directory("./d//")],
            &[],
        ),
        (
            "file_with_slash_is_a_directory",
            vec![entry(b'0', "d/", "", b"")],
            &[("umoci", "Go's reader makes a file")],
        ),
        (
            "old_file_type",
            vec![entry(0, "a", "", b"a"), entry(b'7', "b", "", b"b")],
            &[("umoci", "it refuses the type 7")],
        ),
        ("replaced", vec![file("a", "one"), file("a", "two"), symlink("b", "a"), file("b", "new")], &[]),
        ("directory_again", vec![directory("d"), file("d/a", "a"), directory("d")], &[]),
    ]
}

fn kinds() -> Vec<Row> {
    let long = "n".repeat(255);
    let setuid = |header: &mut tar::Header| header.set_mode(0o6711);
    let owned = |header: &mut tar::Header| {
        header.set_uid(1234);
        header.set_gid(0o7_777_777);
    };
    vec![
        (
            "hard_links",
            vec![
                file("a", "a"),
                hardlink("b", "a"),
                hardlink("c", "./b"),
                symlink("s", "x"),
                hardlink("t", "s"),
            ],
            &[],
        ),
        (
            "link_to_a_directory",
            vec![directory("d"), symlink("l", "d"), file("l/a", "a")],
            &[
                ("tar", "it puts the time of the directory back too early"),
                ("bsdtar", "it refuses to go through the link"),
            ],
        ),
        (
            "empty_and_full_blocks",
            vec![file("a", ""), file("b", &"b".repeat(512)), file("c", &"c".repeat(513))],
            &[],
        ),
        (
            "setuid",
            vec![
                changed(header(b'0', b"a", b"", 1), setuid, b"x"),
                changed(header(b'5', b"d", b"", 0), setuid, b""),
            ],
            &[],
        ),
        (
            "owners",
            vec![
                changed(header(b'0', b"a", b"", 0), owned, b""),
                changed(header(b'2', b"l", b"x", 0), owned, b""),
            ],
            &[],
        ),
        ("fifo", vec![entry(b'6', "p", "", b"")], &[]),
        ("control_characters", vec![file("a\nb\u{1b}[1m\\", "a"), symlink("l\t", "a\nb")], &[]),
        ("component_of_255", vec![long_name(long.as_bytes()), file("x", "x")], &[]),
        (
            "long_target",
            vec![
                entry(b'K', "././@LongLink", "", &[&b"t/".repeat(500)[..], b"\0"].concat()),
                symlink("l", "x"),
            ],
            &[],
        ),
        (
            "time_in_base_256",
            vec![changed(
                header(b'0', b"a", b"", 0),
                |header| header.as_old_mut().mtime = [0x80, 0, 0, 0, 0, 0, 0, 0, 0x90, 0, 0, 1],
                b"",
            )],
            &[],
        ),
        ("garbage_after_the_end", vec![file("a", "a"), vec![0; 1024], vec![b'g'; 4096]], &[]),
    ]
}

fn described() -> Vec<Row> {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let utf_8 = "\u{e4}\u{4e2d}\u{1f600}";
    vec![
        (
            "pax_names",
            vec![
                pax("path", utf_8.as_bytes()),
                file("x", "x"),
                pax("linkpath", utf_8.as_bytes()),
                symlink("l", "x"),
            ],
            &[],
        ),
        (
            "pax_times",
            vec![pax("mtime", b"1700000000.123456789"), file("a", "a"), pax("mtime", b"1.5"), directory("d")],
            &[],
        ),
        ("pax_time_before_1970", vec![pax("mtime", b"-2"), file("a", "a")], &[]),
        (
            "pax_owners",
            vec![
                records(b'x', &[("uid", b"4000000000"), ("gid", b"3000000"), ("uname", b"nobody")]),
                file("a", "a"),
            ],
            &[],
        ),
        (
            "pax_size",
            vec![pax("size", b"3"), changed(header(b'0', b"a", b"", 0), |_| {}, b"abc"), file("b", "b")],
            &[],
        ),
        (
            "pax_last_record_counts",
            vec![records(b'x', &[("path", b"one"), ("path", b"two")]), file("x", "x")],
            &[("umoci", "Go's reader refuses it")],
        ),
        (
            "pax_comment_of_git",
            vec![records(b'g', &[("comment", b"4b825dc642cb6eb9a060e54bf8d69288fbee4904")]), file("a", "a")],
            &[("umoci", "it refuses global headers")],
        ),
        (
            "attributes",
            vec![
                pax("SCHILY.xattr.user.a", b"line\nnul\0equals="),
                file("a", "a"),
                pax("SCHILY.xattr.user.b", b""),
                directory("d"),
            ],
            &[("umoci", "Go's reader refuses a NUL in a record")],
        ),
        (
            "capability",
            vec![pax("SCHILY.xattr.security.capability", &capability), file("a", "a")],
            &[("umoci", "Go's reader refuses a NUL in a record")],
        ),
        (
            "attribute_of_a_link_target",
            vec![pax("SCHILY.xattr.user.a", b"v"), file("a", "a"), hardlink("b", "a")],
            &[],
        ),
    ]
}

/// A file with holes in the four forms in which GNU tar writes one, with its end mark.
fn sparse(sandbox: &Sandbox) -> Vec<(String, Bytes)> {
    let place = sandbox.new_directory("holes");
    let file = fs::File::create(Path::new(&place).join("s")).expect("the sandbox is ours");
    for (offset, data) in [(4096, &b"begin"[..]), (1 << 19, b"middle"), (1 << 20, b"end")] {
        file.write_all_at(data, offset).expect("the sandbox is ours");
    }
    file.set_len(3 << 20).expect("the sandbox is ours");
    let forms: [&[&str]; 4] = [
        &["--format=gnu"],
        &["--format=posix", "--sparse-version=0.0"],
        &["--format=posix", "--sparse-version=0.1"],
        &["--format=posix", "--sparse-version=1.0"],
    ];
    forms
        .iter()
        .map(|form| {
            let path = sandbox.place("sparse.tar").to_string_lossy().into_owned();
            tool("tar", &[&["-c", "--sparse"], *form, &["-f", &path, "-C", &place, "s"]].concat());
            (format!("sparse{}", form.concat()), fs::read(path).expect("it was written"))
        })
        .collect()
}

/// Blocks of each file: holes are there or not. The sizes of directories are the file system's.
fn blocks(root: &Path) -> BTreeMap<PathBuf, u64> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![root.to_owned()];
    while let Some(directory) = waiting.pop() {
        for entry in fs::read_dir(directory).expect("it can be read").flatten() {
            let data = entry.metadata().expect("it is there");
            if data.is_dir() {
                waiting.push(entry.path());
            } else {
                let name = entry.path().strip_prefix(root).expect("it is below").to_owned();
                found.insert(name, data.blocks());
            }
        }
    }
    found
}

/// A peer's tree, or what it says.
fn unpacked(sandbox: &Sandbox, peer: &str, row: &str, bytes: &[u8]) -> Result<PathBuf, String> {
    let place = sandbox.new_directory(&format!("{row}-{peer}"));
    let archive = sandbox.place("peer.tar");
    fs::write(&archive, bytes).expect("the sandbox is ours");
    let mut command = Command::new(peer);
    let root = match peer {
        "umoci" => {
            let mut specimen = Specimen { layers: vec![bytes.to_vec()], config: json!(null) };
            specimen.config = configuration(&specimen);
            let layout = sandbox.new_directory(&format!("{row}-layout"));
            bundle::directory(&specimen.oci_files(Some("odd"), Packed::Gzip), Path::new(&layout));
            let bundle = Path::new(&place).join("bundle");
            command.args(["unpack", "--image", &format!("{layout}:odd")]).arg(&bundle);
            bundle.join("rootfs")
        }
        _ => {
            let all: &[&str] = if peer == "tar" { &["--xattrs-include=*"] } else { &[] };
            command.args(["-x", "-p", "--numeric-owner", "--xattrs"]).args(all).arg("-f").arg(&archive);
            command.args(["-C", &place]);
            place.into()
        }
    };
    let output = command.stdin(Stdio::null()).env("LC_ALL", "C.UTF-8").output().expect("it was found before");
    match output.status.success() {
        true => Ok(root),
        false => Err(String::from_utf8_lossy(&output.stderr).trim().to_owned()),
    }
}

pub(super) fn odd_archives_are_what_the_peers_make_of_them(sandbox: &Sandbox) {
    if let Some(missing) = PEERS.iter().find(|peer| !is_here(peer)) {
        skip(format!("no {missing} here"));
    }
    let mut differences = Vec::new();
    let odd = rows().into_iter().map(|(row, entries, known)| (row.to_owned(), tar(&entries), known));
    let no_gnu: &[_] = &[("umoci", "it refuses the type S")];
    let holes = sparse(sandbox).into_iter().map(|(row, bytes)| {
        let known = if row.ends_with("gnu") { no_gnu } else { &[] };
        (row, bytes, known)
    });
    for (row, bytes, known) in odd.chain(holes) {
        let path = sandbox.place("given.tar");
        fs::write(&path, &bytes).expect("the sandbox is ours");
        sandbox.ok(&["import", &path.to_string_lossy(), "odd"]);
        let layers = fs::read_dir(sandbox.root().join("layers")).expect("the store is there");
        let layer = layers.flatten().next().expect("there is one").path().join("tree");
        let ours = Tree::read_copy(&layer).into_unpacked();
        for peer in PEERS.iter().filter(|peer| known.iter().all(|(other, _)| other != *peer)) {
            let theirs = match unpacked(sandbox, peer, &row, &bytes) {
                Ok(theirs) => theirs,
                Err(told) => {
                    differences.push(format!("{row}, {peer} refuses it: {told}"));
                    continue;
                }
            };
            let difference = Tree::read_copy(&theirs).into_unpacked().difference(&ours);
            differences.extend(difference.iter().map(|line| format!("{row}, {peer} -> mysup: {line}")));
            let (holes, our_holes) = (blocks(&theirs), blocks(&layer));
            if *peer == "tar" && holes != our_holes {
                differences.push(format!("{row}, {peer}: blocks {holes:?}, mysup {our_holes:?}"));
            }
        }
        sandbox.ok(&["rmi", "odd"]);
    }
    assert!(differences.is_empty(), "{}", differences.join("\n"));
}
