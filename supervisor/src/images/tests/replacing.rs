//! Entries of a name that is there already.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::laboratory::{Laboratory, archive, device, directory, file, hardlink, header, survey, symlink};

#[test]
fn a_file_replaces_a_file_and_not_its_other_names() {
    let laboratory = Laboratory::new();
    laboratory.unpack(&archive(&[file("a", "first"), hardlink("b", "a"), file("a", "second")])).unwrap();
    assert_eq!(fs::read_to_string(laboratory.layer().join("a")).unwrap(), "second");
    assert_eq!(fs::read_to_string(laboratory.layer().join("b")).unwrap(), "first");
}

#[test]
fn a_file_replaces_a_link_and_not_its_target() {
    let laboratory = Laboratory::new();
    let entries = [file("target", "target"), symlink("a", "target"), file("a", "mine")];
    laboratory.unpack(&archive(&entries)).unwrap();
    assert_eq!(fs::read_to_string(laboratory.layer().join("target")).unwrap(), "target");
    assert!(fs::symlink_metadata(laboratory.layer().join("a")).unwrap().is_file());
}

#[test]
fn a_directory_replaces_a_link_to_a_directory() {
    let laboratory = Laboratory::new();
    let entries = [directory("target"), symlink("a", "target"), directory("a/"), file("a/x", "x")];
    laboratory.unpack(&archive(&entries)).unwrap();
    assert!(fs::symlink_metadata(laboratory.layer().join("a")).unwrap().is_dir());
    assert!(!laboratory.layer().join("target/x").exists());
}

#[test]
fn a_directory_keeps_what_is_in_it_and_takes_the_new_mode_and_times() {
    let laboratory = Laboratory::new();
    let mut late = header(b'5', b"a", b"", 0);
    late.set_mode(0o1777);
    late.set_mtime(7);
    late.set_cksum();
    let entries = [file("a/b/c", "x"), late.as_bytes().to_vec(), file("a/d", "x"), file("e", "x")];
    laboratory.unpack(&archive(&entries)).unwrap();
    let data = fs::metadata(laboratory.layer().join("a")).unwrap();
    assert_eq!((data.mode(), data.mtime()), (0o041_777, 7));
    assert_eq!(fs::metadata(laboratory.layer().join("a/b")).unwrap().mode(), 0o040_755);
    assert!(laboratory.layer().join("a/b/c").exists());
}

#[test]
fn only_an_empty_directory_gives_way() {
    type Made = fn() -> Vec<u8>;
    let others: [Made; 4] =
        [|| file("a", "x"), || symlink("a", "x"), || device(b'6', "a", 0, 0), || hardlink("a", "f")];
    for other in others {
        let laboratory = Laboratory::new();
        laboratory.unpack(&archive(&[file("f", "f"), directory("a"), other()])).unwrap();
        assert!(!fs::symlink_metadata(laboratory.layer().join("a")).unwrap().is_dir());
        let laboratory = Laboratory::new();
        let message = laboratory.refusal(&archive(&[file("f", "f"), file("a/kept", "x"), other()]));
        assert!(message.contains("not empty"), "{message}");
    }
}

#[test]
fn a_hard_link_to_itself_keeps_the_file() {
    let laboratory = Laboratory::new();
    let entries = [
        file("d/a", "a"),
        hardlink("d/a", "d/a"),
        hardlink("b", "/d/a"),
        hardlink("b", "d//a"),
        file("c", "c"),
    ];
    laboratory.unpack(&archive(&entries)).unwrap();
    let layer = survey(&laboratory.layer());
    assert_eq!(layer[Path::new("d/a")].content, b"a");
    assert_eq!(layer[Path::new("d/a")].same_as, layer[Path::new("b")].same_as);
}

#[test]
fn what_is_no_directory_has_nothing_below_it() {
    let laboratory = Laboratory::new();
    for way in [file("a", "x"), device(b'6', "a", 0, 0), symlink("a", "nowhere"), symlink("a", "a")] {
        laboratory.refusal(&archive(&[way.clone(), file("a/b", "x")]));
        laboratory.refusal(&archive(&[way, file("a/b/c", "x")]));
    }
}

#[test]
fn the_root_takes_owner_mode_and_times_and_is_nothing_else() {
    let laboratory = Laboratory::new();
    let mut root = header(b'5', b"./", b"", 0);
    root.set_mode(0o711);
    root.set_uid(5);
    root.set_cksum();
    laboratory.unpack(&archive(&[file("a", "x"), root.as_bytes().to_vec(), file("b", "x")])).unwrap();
    let data = fs::metadata(laboratory.layer()).unwrap();
    assert_eq!((data.mode(), data.uid(), data.mtime()), (0o040_711, 5, 1_000_000));
    for entry in [file("/", "x"), symlink("./", "/decoy"), hardlink(".", "a"), device(b'3', "/.", 1, 3)] {
        // A file whose name ends in a slash is a directory, and one with data is refused.
        laboratory.refusal(&archive(&[entry]));
    }
}
