//! The same archives, unpacked by GNU tar and here, must make the same files.

use std::{
    collections::BTreeMap,
    fs,
    io::{Seek, SeekFrom, Write},
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, XattrFlags};

use super::laboratory::{Laboratory, Scratch, Seen, gzip, survey, zstd};

#[test]
fn every_format_gives_what_gnu_tar_gives() {
    let scratch = Scratch::new();
    let tree = scratch.path().join("tree");
    make_tree(&tree);
    let formats: [&[&str]; 8] = [
        &["--format=gnu"],
        &["--format=gnu", "--sparse"],
        &["--format=posix", "--xattrs", "--xattrs-include=*"],
        &["--format=posix", "--sparse"],
        &["--format=posix", "--sparse", "--sparse-version=0.0"],
        &["--format=posix", "--sparse", "--sparse-version=0.1"],
        &["--format=ustar", "--exclude=*long*", "--mtime=@77"],
        &["--format=posix", "--label=a tape", "--blocking-factor=1"],
    ];
    for (number, options) in formats.iter().enumerate() {
        let archive = scratch.path().join(format!("{number}.tar"));
        let mut create = Command::new("tar");
        create.arg("--create").arg("--numeric-owner").args(*options).arg("--file").arg(&archive);
        run(create.arg("--directory").arg(&tree).arg("."));
        compare(&archive, options);
    }
}

/// Entries in another order, and names without `./`, give the same times of directories. GNU tar cannot do this: a
/// directory that comes after its files has the time of its unpacking there.
#[test]
fn the_order_of_entries_does_not_matter() {
    let scratch = Scratch::new();
    let tree = scratch.path().join("tree");
    make_tree(&tree);
    let mut names: Vec<PathBuf> = survey(&tree).into_keys().filter(|name| *name != Path::new("")).collect();
    let archive = scratch.path().join("archive.tar");
    let mut expected = None;
    for round in 0..4 {
        match round {
            0 => {}
            1 => names.reverse(),
            2 => names.sort_by_key(|name| std::cmp::Reverse(name.as_os_str().len())),
            _ => names.rotate_left(7),
        }
        let mut create = Command::new("tar");
        create.args(["--create", "--format=posix", "--no-recursion", "--file"]).arg(&archive);
        run(create.arg("--directory").arg(&tree).args(&names));
        let laboratory = Laboratory::new();
        laboratory.unpack(&fs::read(&archive).unwrap()).unwrap();
        let ours = comparable(&laboratory.layer());
        assert_eq!(expected.get_or_insert_with(|| ours.clone()), &ours, "round {round}");
    }
}

fn compare(archive: &Path, label: &[&str]) {
    let laboratory = Laboratory::new();
    let scratch = Scratch::new();
    let theirs = scratch.path().join("theirs");
    fs::create_dir(&theirs).unwrap();
    let mut extract = Command::new("tar");
    extract.args(["--extract", "--numeric-owner", "--same-permissions", "--xattrs", "--xattrs-include=*"]);
    run(extract.arg("--file").arg(archive).arg("--directory").arg(&theirs));
    let bytes = fs::read(archive).unwrap();
    laboratory.unpack(&bytes).unwrap();
    let (theirs, ours) = (comparable(&theirs), comparable(&laboratory.layer()));
    for (name, seen) in &theirs {
        assert_eq!(ours.get(name), Some(seen), "{label:?} {}", name.display());
    }
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{label:?}");
    for compressed in [gzip(&bytes), zstd(&bytes)] {
        let laboratory = Laboratory::new();
        laboratory.unpack(&compressed).unwrap();
        assert_eq!(comparable(&laboratory.layer()), ours, "{label:?} compressed");
    }
}

/// Without what is never the same. The root's own times are the test's where the archive does not have it.
fn comparable(root: &Path) -> BTreeMap<PathBuf, Seen> {
    let mut seen = survey(root);
    for (name, file) in &mut seen {
        file.changed = (0, 0);
        if name == Path::new("") && file.modified.0 > 1_600_000_000 {
            file.modified = (0, 0);
        }
    }
    seen
}

pub(super) fn run(command: &mut Command) {
    let output = command.env("LC_ALL", "C").output().expect("GNU tar is installed");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}

/// A root file system in small, with everything a tar can hold.
pub(super) fn make_tree(root: &Path) {
    for directory in ["bin", "etc", "usr/lib/deep/er", "var/empty", "tmp", "home/user", "many", "dev"] {
        fs::create_dir_all(root.join(directory)).unwrap();
    }
    let write = |name: &str, content: &[u8]| fs::write(root.join(name), content).unwrap();
    write("bin/busybox", &(0..100_000_u32).flat_map(u32::to_le_bytes).collect::<Vec<u8>>());
    for applet in ["sh", "ls", "cat", "mount"] {
        fs::hard_link(root.join("bin/busybox"), root.join("bin").join(applet)).unwrap();
    }
    write("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\n");
    write("etc/empty", b"");
    write("home/user/block", &[b'b'; 512]);
    write("home/user/na\nme \u{e4} \\ '\"", b"strange");
    write(&format!("usr/lib/{}", "long".repeat(60)), b"a long name");
    fs::create_dir_all(root.join("usr").join("long".repeat(30)).join("path".repeat(30))).unwrap();
    write(&format!("usr/{}/{}/file", "long".repeat(30), "path".repeat(30)), b"a long path");
    for number in 0..500 {
        write(&format!("many/{number}"), number.to_string().repeat(number).as_bytes());
    }
    symlink("usr/lib", root.join("lib")).unwrap();
    symlink("/etc/passwd", root.join("etc/absolute")).unwrap();
    symlink("../../../../../outside", root.join("etc/upwards")).unwrap();
    symlink("nowhere", root.join("dangling")).unwrap();
    symlink("t/".repeat(150), root.join("etc/long-target")).unwrap();
    sparse(&root.join("var/sparse"), &[(4096, b"begin"), (1 << 19, b"middle"), (1 << 20, b"")]);
    sparse(&root.join("var/all-hole"), &[(1 << 20, b"")]);
    sparse(&root.join("var/many-holes"), &(0..60).map(|at| (at * 8192, &b"x"[..])).collect::<Vec<_>>());
    let node = |name: &str, kind, device| {
        let mode = Mode::from_raw_mode(0o620);
        rustix::fs::mknodat(CWD, root.join(name), kind, mode, device).unwrap();
    };
    node("dev/null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
    node("dev/loop0", FileType::BlockDevice, rustix::fs::makedev(7, 0));
    node("dev/fifo", FileType::Fifo, 0);
    set_attributes(root);
    set_metadata(root);
}

fn sparse(path: &Path, parts: &[(u64, &[u8])]) {
    let mut file = fs::File::create(path).unwrap();
    for (offset, data) in parts {
        file.seek(SeekFrom::Start(*offset)).unwrap();
        file.write_all(data).unwrap();
    }
    let end = parts.iter().map(|(offset, data)| offset + data.len() as u64).max().unwrap_or(0);
    file.set_len(end).unwrap();
}

/// Where the file system has none, the comparison goes without and says so.
fn set_attributes(root: &Path) {
    let set = |name: &str, key: &str, value: &[u8]| {
        rustix::fs::lsetxattr(root.join(name), key, value, XattrFlags::empty())
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 10, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let done = set("etc/passwd", "user.comment", b"a\nb\0c=d")
        .and_then(|()| set("var", "user.of a=directory%", b""))
        .and_then(|()| set("etc/empty", "security.capability", &capability));
    if let Err(errno) = done {
        writeln!(std::io::stderr(), "skipped: extended attributes ({errno})").unwrap();
    }
}

fn set_metadata(root: &Path) {
    let mut names: Vec<PathBuf> = survey(root).into_keys().collect();
    names.reverse();
    for (number, name) in names.iter().enumerate() {
        let path = root.join(name);
        let number = u32::try_from(number).unwrap();
        let data = fs::symlink_metadata(&path).unwrap();
        if data.nlink() == 1 && !name.ends_with("empty") && number % 3 == 0 {
            std::os::unix::fs::lchown(&path, Some(number), Some(100_000 + number)).unwrap();
        }
        if !data.is_symlink() {
            let mode = [0o644, 0o4755, 0o2710, 0o1777, 0o600, 0o000][usize::try_from(number % 6).unwrap()];
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        }
        let time = Timespec {
            tv_sec: i64::from(number) * 1_000_000 - 5_000_000,
            tv_nsec: i64::from(number) * 999_983,
        };
        let times = Timestamps { last_access: time, last_modification: time };
        rustix::fs::utimensat(CWD, &path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}
