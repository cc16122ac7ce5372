//! Directories that a layer has no entry for are what they are in the layers below.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::fs::{MetadataExt, symlink as make_symlink},
    path::Path,
    thread,
};

use serde_json::json;

use super::{
    laboratory::{archive, directory, file, header, pax, survey, symlink},
    small::{Small, load, tarred},
    storing::Bench,
};
use crate::images::{Cancel, Limits, config::digest_of, limits::Cap};

/// A directory of somebody, with all that it can have: 02711, 7:8, an attribute, and its time.
fn theirs(name: &str) -> Vec<u8> {
    let mut entry = header(b'5', name.as_bytes(), b"", 0);
    entry.set_mode(0o2711);
    entry.set_uid(7);
    entry.set_gid(8);
    entry.set_mtime(2_000_000);
    entry.set_cksum();
    let records: [(&str, &[u8]); 2] =
        [("SCHILY.xattr.user.word", b"theirs"), ("SCHILY.xattr.security.selinux", b"not")];
    [pax(&records), entry.as_bytes().to_vec()].concat()
}

fn image(layers: &[Vec<Vec<u8>>]) -> Small {
    let mut small = Small::new(&[]);
    small.layers = layers.iter().map(|entries| archive(entries)).collect();
    let diff_ids: Vec<_> = small.layers.iter().map(|layer| digest_of(layer)).collect();
    small.config["rootfs"]["diff_ids"] = json!(diff_ids);
    small
}

type Facts = (u32, (u32, u32), i64, BTreeMap<Vec<u8>, Vec<u8>>);

/// What a directory of the topmost layer has.
fn top(bench: &Bench, small: &Small, path: &str) -> Facts {
    let image = bench.store.resolve(small.id().as_str()).unwrap();
    let seen = survey(&bench.store.layer_directories(&image)[0]);
    let seen = &seen[Path::new(path)];
    (seen.mode & 0o7777, seen.owner, seen.modified.0, seen.attributes.clone())
}

fn have(attributes: &[(&str, &str)]) -> BTreeMap<Vec<u8>, Vec<u8>> {
    attributes.iter().map(|(name, value)| (name.as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
}

/// What it is about, the layers, a directory, whether that is the one of [`theirs`], and its attributes.
type Case = (&'static str, Vec<Vec<Vec<u8>>>, &'static str, bool, Vec<(&'static str, &'static str)>);

fn cases() -> Vec<Case> {
    let (word, opaque) = (("user.word", "theirs"), ("trusted.overlay.opaque", "y"));
    let base = || vec![theirs("d"), theirs("d/e"), file("d/e/old", "x")];
    vec![
        ("a changed file", vec![base(), vec![file("d/e/new", "y")]], "d/e", true, vec![word]),
        ("its grandparent", vec![base(), vec![file("d/e/new", "y")]], "d", true, vec![word]),
        ("a removed file", vec![base(), vec![file("d/e/.wh.old", "")]], "d/e", true, vec![word]),
        (
            "through a layer without it",
            vec![base(), vec![file("f", "")], vec![file("d/e/new", "y")]],
            "d/e",
            true,
            vec![word],
        ),
        (
            "of a layer that took it itself",
            vec![base(), vec![file("d/e/a", "")], vec![file("d/e/b", "")]],
            "d/e",
            true,
            vec![word],
        ),
        ("emptied", vec![base(), vec![file("d/e/.wh..wh..opq", "")]], "d/e", true, vec![opaque, word]),
        (
            "below an emptied one",
            vec![base(), vec![file("d/.wh..wh..opq", ""), file("d/e/new", "y")]],
            "d/e",
            false,
            vec![],
        ),
        (
            "below an empty root",
            vec![base(), vec![file(".wh..wh..opq", ""), file("d/e/new", "y")]],
            "d/e",
            false,
            vec![],
        ),
        (
            "removed below",
            vec![base(), vec![file(".wh.d", "")], vec![file("d/e/new", "y")]],
            "d/e",
            false,
            vec![],
        ),
        (
            "emptied below",
            vec![base(), vec![directory("d"), file("d/.wh..wh..opq", "")], vec![file("d/e/x", "")]],
            "d/e",
            false,
            vec![],
        ),
        (
            "removed, then new",
            vec![base(), vec![file("d/.wh.e", ""), file("d/e/new", "y")]],
            "d/e",
            false,
            vec![opaque],
        ),
        (
            "new, then removed",
            vec![base(), vec![file("d/e/new", "y"), file("d/.wh.e", "")]],
            "d/e",
            false,
            vec![opaque],
        ),
        ("a file below", vec![vec![file("d", "x")], vec![file("d/e/new", "y")]], "d/e", false, vec![]),
        (
            "a link below",
            vec![vec![theirs("real"), theirs("real/e"), symlink("d", "real")], vec![file("d/e/new", "")]],
            "d/e",
            false,
            vec![],
        ),
        ("nothing below", vec![vec![theirs("f")], vec![file("d/e/new", "y")]], "d/e", false, vec![]),
    ]
}

#[test]
fn what_a_layer_does_not_tell_is_what_the_layers_below_have() {
    for (label, layers, path, taken, attributes) in cases() {
        let bench = Bench::new();
        let small = image(&layers);
        load(&bench, &tarred(&small.docker())).unwrap();
        let (mode, owner, modified, found) = top(&bench, &small, path);
        let (expected, owned) = if taken { (0o2711, (7, 8)) } else { (0o755, (0, 0)) };
        assert_eq!((mode, owner), (expected, owned), "{label}");
        assert_eq!(modified == 2_000_000, taken, "{label}: {modified}");
        assert_eq!(found, have(&attributes), "{label}");
        let verdict = bench.store.verify(&[], &Cancel::new().unwrap()).unwrap().remove(0);
        assert_eq!(verdict.faults, Vec::<String>::new(), "{label}");
        let saved = fs::File::create(bench.scratch.path().join("saved")).unwrap();
        let form = (crate::images::Format::OciArchive, crate::images::Compression::None);
        bench.store.save(saved.into(), &[small.id().to_string()], form, &Cancel::new().unwrap()).unwrap();
    }
}

#[test]
fn an_entry_outweighs_the_layers_below_wherever_it_stands() {
    let own = [directory("d"), file("d/new", "y")];
    for order in [[0, 1], [1, 0]] {
        let bench = Bench::new();
        let small = image(&[vec![theirs("d")], order.map(|at| own[at].clone()).to_vec()]);
        load(&bench, &tarred(&small.docker())).unwrap();
        assert_eq!(top(&bench, &small, "d"), (0o640, (0, 0), 1_000_000, have(&[])));
    }
}

#[test]
fn the_root_is_the_one_of_the_lowest_layer_until_one_tells_of_it() {
    let bench = Bench::new();
    let small = image(&[vec![theirs("./")], vec![file("new", "y")]]);
    load(&bench, &tarred(&small.docker())).unwrap();
    let (mode, owner, _, attributes) = top(&bench, &small, "");
    assert_eq!((mode, owner, attributes), (0o2711, (7, 8), have(&[("user.word", "theirs")])));
    let small = image(&[vec![theirs("./")], vec![file("new", "y")], vec![directory("./")]]);
    load(&bench, &tarred(&small.docker())).unwrap();
    assert_eq!(top(&bench, &small, ""), (0o640, (0, 0), 1_000_000, have(&[])));
    assert!(
        bench.store.verify(&[], &Cancel::new().unwrap()).unwrap().iter().all(|one| one.faults.is_empty())
    );
}

/// Somebody has put links to a decoy where the layers below are read.
#[test]
fn nothing_is_followed_out_of_the_layers_below() {
    let bench = Bench::new();
    let decoy = bench.scratch.path().join("decoy");
    fs::create_dir(&decoy).unwrap();
    std::os::unix::fs::chown(&decoy, Some(77), Some(77)).unwrap();
    let low = image(&[vec![theirs("d"), file("x", "")]]);
    load(&bench, &tarred(&low.docker())).unwrap();
    let image_below = bench.store.resolve(low.id().as_str()).unwrap();
    let tree = bench.store.layer_directories(&image_below).remove(0);
    fs::remove_dir(tree.join("d")).unwrap();
    make_symlink(&decoy, tree.join("d")).unwrap();
    let small = image(&[vec![theirs("d"), file("x", "")], vec![file("d/new", "y")]]);
    load(&bench, &tarred(&small.docker())).unwrap();
    let (mode, owner, _, _) = top(&bench, &small, "d");
    assert_eq!((mode, owner), (0o755, (0, 0)));
    assert_eq!(fs::metadata(&decoy).unwrap().uid(), 77);
}

/// Each has some of the layers that the others need; all of them must end, and be the same as of one alone.
#[test]
fn loads_at_the_same_time_wait_for_what_they_take_from_each_other() {
    let layers: Vec<Vec<Vec<u8>>> =
        (0..6)
            .map(|at| {
                if at == 0 { vec![theirs("d"), theirs("d/e")] } else { vec![file(&format!("d/e/{at}"), "x")] }
            })
            .collect();
    let smalls: Vec<Small> = (1..=6).map(|count| image(&layers[..count])).collect();
    for _ in 0..5 {
        let bench = Bench::new();
        for (at, small) in smalls.iter().enumerate() {
            fs::write(bench.scratch.path().join(at.to_string()), tarred(&small.docker())).unwrap();
        }
        thread::scope(|scope| {
            for at in (0..6).rev().chain(0..6) {
                let (store, path) = (bench.store.clone(), bench.scratch.path().join(at.to_string()));
                scope.spawn(move || {
                    let file = fs::File::open(path).unwrap();
                    store.load(file.into(), &Cancel::new().unwrap()).unwrap();
                });
            }
        });
        for small in &smalls {
            let (mode, owner, modified, attributes) = top(&bench, small, "d/e");
            assert_eq!((mode, owner, modified), (0o2711, (7, 8), 2_000_000));
            assert_eq!(attributes, have(&[("user.word", "theirs")]));
        }
        assert!(bench.names("trash").is_empty(), "a layer was unpacked twice: {:?}", bench.names("trash"));
    }
}

/// A name of 512 bytes has 255 directories: what a stranger may make is counted by what is made.
#[test]
fn directories_that_names_need_are_counted() {
    let mut laboratory = super::laboratory::Laboratory::new();
    laboratory.limits = Limits::default().with(Cap::Entries, 10);
    laboratory.unpack(&archive(&[file("a/b/c/d/e/f/g/h/i/j/x", "")])).unwrap();
    let message = laboratory.refusal(&archive(&[file("k/b/c/d/e/f/g/h/i/j/l/x", "")]));
    assert!(message.contains("entries"), "{message}");
}
