//! An image with something to change, and changes of every kind, made through the root file system of a running container.

use std::{
    ffi::OsStr,
    fs::{self, File, Permissions},
    io::Write,
    os::unix::{
        ffi::OsStrExt,
        fs::{FileExt, PermissionsExt, chown, lchown, symlink},
    },
    path::{Path, PathBuf},
};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT, XattrFlags, makedev, mknodat, setxattr,
    utimensat,
};

use crate::harness::{Sandbox, image, peers::tool, tree::Tree};

/// The image.
pub(crate) const BASE: &str = "base:1";

/// Files of the image that are changed.
const FILES: &[(&str, &str)] = &[
    ("change/content", "old\n"),
    ("change/mode", "mode\n"),
    ("change/owner", "owner\n"),
    ("change/time", "time\n"),
    ("change/attribute", "attribute\n"),
    ("change/longer", "a"),
    ("stays/whole/deep/file", "stays\n"),
    ("gone/file", "gone\n"),
    ("gone/all/of/it", "gone\n"),
    ("gone-file", "gone\n"),
    ("replaced/old", "old\n"),
    ("replaced/both", "old\n"),
    ("replaced/sub/deep", "old\n"),
    ("replaced-by-file/deep/file", "old\n"),
    ("replaced-by-directory", "old\n"),
    ("emptied/one", "1"),
    ("emptied/two", "2"),
    ("only-mode/inside", "x"),
    ("only-time/inside", "x"),
];

/// Imports the image.
#[track_caller]
pub(crate) fn import(sandbox: &Sandbox) {
    let (files, base) = (sandbox.place("files.tar"), sandbox.place("base.tar"));
    let (files, base) = (files.to_string_lossy(), base.to_string_lossy());
    fs::write(&*files, image::tar_bytes(FILES)).expect("the sandbox is ours");
    // Once through tar(1), so that all directories are in it: others would be as old as their unpacking.
    let place = sandbox.new_directory("base");
    tool("tar", &["-x", "--numeric-owner", "-p", "-f", &files, "-C", &place]);
    tool("tar", &["-c", "--numeric-owner", "--format=pax", "-f", &base, "-C", &place, "."]);
    sandbox.ok(&["import", "-c", "ENV WORD=kept", "-c", "CMD [\"sh\"]", &base, BASE]);
}

/// A container of it that waits; gives the way into its file system.
#[track_caller]
pub(crate) fn start(sandbox: &Sandbox, name: &str, image: &str, flags: &[&str]) -> PathBuf {
    let line = [&["run", "-d", "--name", name], flags, &[image, "sleep", "4321"]].concat();
    sandbox.ok(&line);
    root_of(sandbox, name)
}

/// The file system of a container, as its init sees it.
#[track_caller]
pub(crate) fn root_of(sandbox: &Sandbox, name: &str) -> PathBuf {
    // The directory, not the link to it.
    PathBuf::from(format!("/proc/{}/root/.", sandbox.init_pid(name)))
}

/// What is the container's own, not the image's.
const OWN: [&str; 6] = ["/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf"];

/// All there is of the program's and the image's. The root's time is each container's own.
pub(crate) fn read(root: &Path) -> Tree {
    let skip = OWN.map(|path| root.join(path.trim_start_matches('/')));
    let tree = Tree::read_copy_but(root, &skip);
    OWN.iter().fold(tree, |tree, path| tree.without(path)).without("")
}

fn times(path: &Path, seconds: i64, nanoseconds: i64) {
    let omit = Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT };
    let time = Timespec { tv_sec: seconds, tv_nsec: nanoseconds };
    let times = Timestamps { last_access: omit, last_modification: time };
    utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).expect("times can be set");
}

fn node(path: &Path, kind: FileType, mode: u32, device: u64) {
    mknodat(CWD, path, kind, Mode::from_raw_mode(mode), device).expect("nodes can be made");
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("just made");
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("it is there");
}

/// Everything that can be done to a file system.
pub(crate) fn change(root: &Path) {
    let at = |name: &str| root.join(name);
    let write = |name: &str, text: &str| fs::write(root.join(name), text).expect("it can be written");
    write("change/content", "new and longer\n");
    mode(&at("change/mode"), 0o4751);
    chown(at("change/owner"), Some(1234), Some(3_000_000_000)).expect("chown");
    times(&at("change/time"), 1_234_567_890, 123_456_789);
    setxattr(at("change/attribute"), "user.mysup", b"\0\n=value", XattrFlags::empty()).expect("setxattr");
    File::options().append(true).open(at("change/longer")).expect("open").write_all(b"bc").expect("append");
    removals(root);
    mode(&at("only-mode"), 0o1711);
    times(&at("only-time"), 5, 7);
    links_and_nodes(root);
    attributes(root);
    holes(root);
    names(root);
    fs::create_dir_all(at("added/empty/deep")).expect("mkdir");
    mode(&at("added/empty/deep"), 0o2775);
    for (name, seconds, part) in
        [("before-1970", -3, 250_000_000), ("far", 9_000_000_000, 1), ("zero", 0, 0), ("one", -1, 0)]
    {
        write(&format!("added/{name}"), name);
        times(&at("added").join(name), seconds, part);
    }
    // Last, since what is made in a directory changes its time.
    times(&at("added"), 1_700_000_000, 987_654_321);
    times(&at("added/empty"), 1_600_000_000, 1);
}

fn removals(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::remove_dir_all(at("gone")).expect("rm -r");
    fs::remove_file(at("gone-file")).expect("rm");
    fs::remove_dir_all(at("replaced")).expect("rm -r");
    fs::create_dir_all(at("replaced/sub")).expect("mkdir");
    fs::write(at("replaced/new"), "new").expect("write");
    fs::write(at("replaced/both"), "new").expect("write");
    fs::remove_dir_all(at("replaced-by-file")).expect("rm -r");
    fs::write(at("replaced-by-file"), "a file now").expect("write");
    fs::remove_file(at("replaced-by-directory")).expect("rm");
    fs::create_dir(at("replaced-by-directory")).expect("mkdir");
    fs::write(at("replaced-by-directory/inside"), "x").expect("write");
    fs::remove_file(at("emptied/one")).expect("rm");
    fs::remove_file(at("emptied/two")).expect("rm");
    // Never in the image.
    fs::write(at("short-lived"), "x").expect("write");
    fs::remove_file(at("short-lived")).expect("rm");
}

fn links_and_nodes(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("links/sub")).expect("mkdir");
    fs::write(at("links/b-first"), "one file").expect("write");
    for other in ["links/a-other", "links/sub/third", "zz-last"] {
        fs::hard_link(at("links/b-first"), at(other)).expect("link");
    }
    symlink("../nowhere/é", at("links/dangling")).expect("symlink");
    symlink("x".repeat(1000), at("links/long")).expect("symlink");
    lchown(at("links/dangling"), Some(7), Some(8)).expect("lchown");
    times(&at("links/dangling"), 1_111_111_111, 111_111_111);
    fs::hard_link(at("links/dangling"), at("links/dangling-too")).expect("link of a link");
    fs::create_dir(at("nodes")).expect("mkdir");
    node(&at("nodes/fifo"), FileType::Fifo, 0o640, 0);
    node(&at("nodes/character"), FileType::CharacterDevice, 0o620, makedev(1, 7));
    node(&at("nodes/large"), FileType::CharacterDevice, 0o600, makedev(4095, 1_048_575));
    node(&at("nodes/block"), FileType::BlockDevice, 0o660, makedev(7, 200));
    fs::hard_link(at("nodes/fifo"), at("nodes/fifo-too")).expect("link of a fifo");
    chown(at("nodes/fifo"), Some(33), Some(44)).expect("chown");
    times(&at("nodes/block"), 1_000_000_000, 5);
}

/// Capabilities of version 2: CAP_NET_RAW, effective.
const CAPABILITY: [u8; 20] = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

fn attributes(root: &Path) {
    let directory = root.join("attributes");
    fs::create_dir(&directory).expect("mkdir");
    let file = directory.join("file");
    fs::write(&file, "x").expect("write");
    let set = |path: &Path, name: &str, value: &[u8]| {
        setxattr(path, name, value, XattrFlags::empty()).unwrap_or_else(|errno| panic!("{name}: {errno}"));
    };
    set(&file, "security.capability", &CAPABILITY);
    set(&file, "user.plain", b"text");
    set(&file, "user.empty", b"");
    set(&file, "user.with=equals", b"value");
    set(&file, "user.with%3Dpercent%", b"value");
    set(&file, "user.binary", &(0..=255).collect::<Vec<u8>>());
    set(&directory, "user.of.directory", b"d");
    times(&file, 1_222_333_444, 555);
}

/// Data, a hole, data and a hole; and nothing but a hole.
fn holes(root: &Path) {
    fs::create_dir(root.join("holes")).expect("mkdir");
    let file = File::create(root.join("holes/some")).expect("create");
    file.write_all_at(&[7; 70_000], 0).expect("write");
    file.write_all_at(b"in the middle", 9 << 20).expect("write");
    file.set_len(32 << 20).expect("truncate");
    File::create(root.join("holes/all")).and_then(|file| file.set_len((16 << 20) + 1)).expect("truncate");
    let file = File::create(root.join("holes/begin")).expect("create");
    file.write_all_at(b"end", 8 << 20).expect("write");
}

fn names(root: &Path) {
    let directory = root.join("names");
    fs::create_dir(&directory).expect("mkdir");
    let long = "n".repeat(255);
    for name in [
        &b"with blank"[..],
        b"new\nline",
        b"back\\slash",
        b"-dash",
        b"...",
        b"\xff\xfe not a text \x80",
        "é ü 漢字".as_bytes(),
        b"*?[a]",
        b"tab\tand\x01control",
        b".wh",
        b"wh.",
        b"100%",
        long.as_bytes(),
        "é".repeat(127).as_bytes(),
    ] {
        fs::write(directory.join(OsStr::from_bytes(name)), name).expect("any name can be");
    }
    let deep = std::iter::repeat_n("d".repeat(90), 38).collect::<Vec<_>>().join("/");
    fs::create_dir_all(directory.join(&deep)).expect("mkdir -p");
    fs::write(directory.join(&deep).join("end"), "end").expect("write");
    fs::hard_link(directory.join(&deep).join("end"), directory.join("to-the-end")).expect("link");
}
