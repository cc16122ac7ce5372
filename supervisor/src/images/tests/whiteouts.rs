//! Marks of removed files, as overlayfs has them.

use std::{fs, os::unix::fs::MetadataExt, path::Path};

use super::laboratory::{Laboratory, archive, directory, file, symlink};
use crate::images::unpack::Position;

/// The names of a layer with what they are: `w` whiteout, `o` opaque directory, `d` directory, `f` anything else.
fn unpacked(entries: &[Vec<u8>]) -> Vec<(String, char)> {
    let mut laboratory = Laboratory::new();
    laboratory.position = Position::Above;
    laboratory.unpack(&archive(entries)).unwrap();
    let mut found = Vec::new();
    look(&laboratory.layer(), Path::new(""), &mut found);
    found.sort();
    found
}

fn look(root: &Path, path: &Path, found: &mut Vec<(String, char)>) {
    let data = fs::symlink_metadata(root.join(path)).unwrap();
    let mut value = [0; 8];
    let opaque = rustix::fs::lgetxattr(root.join(path), "trusted.overlay.opaque", &mut value) == Ok(1);
    let kind = match data.is_dir() {
        true if opaque => 'o',
        true => 'd',
        false if data.mode() & 0o170_000 == 0o020_000 && data.rdev() == 0 => 'w',
        false => 'f',
    };
    found.push((path.display().to_string(), kind));
    if data.is_dir() {
        for entry in fs::read_dir(root.join(path)).unwrap() {
            look(root, &path.join(entry.unwrap().file_name()), found);
        }
    }
}

fn seen(expected: &[(&str, char)]) -> Vec<(String, char)> {
    expected.iter().map(|(name, kind)| ((*name).to_owned(), *kind)).collect()
}

#[test]
fn marks_become_overlays_own() {
    let found =
        unpacked(&[directory("d"), file("d/.wh.a", ""), file(".wh.b", ""), file("e/.wh..wh..opq", "")]);
    assert_eq!(found, seen(&[("", 'd'), ("b", 'w'), ("d", 'd'), ("d/a", 'w'), ("e", 'o')]));
}

#[test]
fn marks_never_hide_what_their_own_layer_has_in_any_order() {
    for order in [[0, 1], [1, 0]] {
        let both = |one: Vec<u8>, other: Vec<u8>| {
            let pair = [one, other];
            order.map(|at| pair[at].clone()).to_vec()
        };
        assert_eq!(unpacked(&both(file("a", "x"), file(".wh.a", ""))), seen(&[("", 'd'), ("a", 'f')]));
        assert_eq!(unpacked(&both(symlink("a", "x"), file(".wh.a", ""))), seen(&[("", 'd'), ("a", 'f')]));
        // A directory above a removed one is a new one, and nothing of the old one is seen in it.
        assert_eq!(unpacked(&both(directory("a"), file(".wh.a", ""))), seen(&[("", 'd'), ("a", 'o')]));
        let found = unpacked(&both(file("d/x", "x"), file("d/.wh..wh..opq", "")));
        assert_eq!(found, seen(&[("", 'd'), ("d", 'o'), ("d/x", 'f')]));
    }
    let found = unpacked(&[file(".wh.a", ""), file("a/b", "x")]);
    assert_eq!(found.iter().find(|(name, _)| name == "a/b"), Some(&("a/b".to_owned(), 'f')));
    assert_eq!(found.iter().find(|(name, _)| name == "a"), Some(&("a".to_owned(), 'o')));
}

#[test]
fn marks_of_aufs_itself_make_nothing() {
    assert_eq!(unpacked(&[file(".wh..wh.aufs", ""), directory(".wh..wh.plnk")]), seen(&[("", 'd')]));
}

#[test]
fn marks_through_links_stay_inside() {
    let mut laboratory = Laboratory::new();
    laboratory.position = Position::Above;
    let decoy = laboratory.decoy().display().to_string();
    for target in [decoy.as_str(), "../decoy"] {
        let entries = [symlink("way", target), file("way/.wh.secret", ""), file("way/.wh..wh..opq", "")];
        // Both outcomes are right: inside the root the target may not exist.
        let _ = laboratory.unpack(&archive(&entries));
    }
}

#[test]
fn times_of_directories_with_marks_are_the_archives() {
    let mut laboratory = Laboratory::new();
    laboratory.position = Position::Above;
    laboratory.unpack(&archive(&[directory("d"), file("d/.wh.a", ""), file("d/.wh..wh..opq", "")])).unwrap();
    assert_eq!(fs::metadata(laboratory.layer().join("d")).unwrap().mtime(), 1_000_000);
}
