//! The store: names, records, layers, and what is left after an interruption.

use std::{
    fs,
    os::{fd::OwnedFd, unix::fs::PermissionsExt},
    path::Path,
    thread,
};

use mysup_ipc::{
    error::ErrorCode,
    id::{ContainerId, Digest},
};

use super::laboratory::{Scratch, archive, file, gzip};
use crate::{
    images::{Cancel, Change, Image, ImageError, Limits, Store},
    shim_link::sweep::Sweeper,
};

pub(super) struct Bench {
    pub(super) scratch: Scratch,
    pub(super) store: Store,
}

impl Bench {
    pub(super) fn new() -> Self {
        let scratch = Scratch::new();
        let store = Store::open(&scratch.path().join("root"), Sweeper::default(), Limits::default()).unwrap();
        Self { scratch, store }
    }

    pub(super) fn root(&self) -> std::path::PathBuf {
        self.scratch.path().join("root")
    }

    pub(super) fn reopen(&mut self) {
        self.store = Store::open(&self.root(), Sweeper::default(), Limits::default()).unwrap();
    }

    pub(super) fn archive(&self, bytes: &[u8]) -> OwnedFd {
        let path = self.scratch.path().join("archive");
        fs::write(&path, bytes).unwrap();
        fs::File::open(path).unwrap().into()
    }

    pub(super) fn import(&self, bytes: &[u8], name: Option<&str>) -> Result<Image, ImageError> {
        self.store.import(self.archive(bytes), name, &Change::default(), &Cancel::new().unwrap())
    }

    pub(super) fn names(&self, directory: &str) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.root().join(directory))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn tar(content: &str) -> Vec<u8> {
    archive(&[file("content", content)])
}

fn container(digit: &str) -> ContainerId {
    digit.repeat(64).parse().unwrap()
}

fn code(result: Result<impl std::fmt::Debug, ImageError>) -> ErrorCode {
    result.unwrap_err().to_wire().code
}

#[test]
fn an_imported_image_is_found_by_name_id_and_prefix() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("one"), Some("bb")).unwrap();
    assert_eq!((image.names.as_slice(), image.size), (&["bb:latest".to_owned()][..], 3));
    let other = bench.import(&gzip(&tar("two")), None).unwrap();
    for _ in 0..2 {
        let id = image.id.clone();
        for reference in ["bb", "bb:latest", id.as_str(), id.hex(), id.short(), &id.as_str()[..12]] {
            assert_eq!(bench.store.resolve(reference).unwrap(), image, "{reference}");
        }
        assert_eq!(code(bench.store.resolve("bb:other")), ErrorCode::NotFound);
        assert_eq!(code(bench.store.resolve("")), ErrorCode::NotFound);
        assert_eq!(code(bench.store.resolve("sha256:")), ErrorCode::NotFound);
        let listed: Vec<Digest> = bench.store.list().into_iter().map(|info| info.id).collect();
        assert_eq!(listed, [other.id.clone(), image.id.clone()]);
        let directories = bench.store.layer_directories(&image);
        assert_eq!(fs::read_to_string(directories[0].join("content")).unwrap(), "one");
        bench.reopen();
    }
    for directory in ["images", "layers", "trash"] {
        let mode = fs::metadata(bench.root().join(directory)).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700, "{directory}");
    }
    let layer = bench.store.layer_directories(&image).remove(0);
    assert_eq!(fs::metadata(layer).unwrap().permissions().mode() & 0o7777, 0o755);
}

#[test]
fn the_layer_is_named_by_the_digest_of_the_whole_uncompressed_archive() {
    let bench = Bench::new();
    let bytes = [tar("one"), vec![0; 300_000], b"after the end mark".to_vec()].concat();
    let image = bench.import(&gzip(&bytes), None).unwrap();
    assert_eq!(image.layers, [crate::images::config::digest_of(&bytes)]);
}

#[test]
fn a_prefix_of_more_than_one_id_is_ambiguous() {
    let bench = Bench::new();
    // Seventeen ids have sixteen first digits.
    let images: Vec<Image> = (0..17).map(|at| bench.import(&tar(&format!("{at}")), None).unwrap()).collect();
    let first = |image: &Image| image.id.hex()[..1].to_owned();
    let double =
        images.iter().find(|image| images.iter().filter(|other| first(other) == first(image)).count() > 1);
    assert_eq!(code(bench.store.resolve(&first(double.unwrap()))), ErrorCode::Ambiguous);
}

#[test]
fn a_name_moves_to_the_image_that_got_it_last() {
    let mut bench = Bench::new();
    let old = bench.import(&tar("old"), Some("bb:1")).unwrap();
    let new = bench.import(&tar("new"), Some("bb:1")).unwrap();
    for _ in 0..2 {
        assert_eq!(bench.store.resolve("bb:1").unwrap().id, new.id);
        assert!(bench.store.resolve(old.id.hex()).unwrap().names.is_empty());
        bench.reopen();
    }
    assert_eq!(code(bench.import(&tar("x"), Some("UPPER"))), ErrorCode::Invalid);
}

#[test]
fn the_same_archive_is_the_same_image_and_shares_its_layer() {
    let bench = Bench::new();
    let first = bench.import(&tar("same"), Some("a")).unwrap();
    let second = bench.import(&tar("same"), Some("b")).unwrap();
    let third = bench.store.import_once(bench.archive(&gzip(&tar("same"))), &Cancel::new().unwrap()).unwrap();
    assert_eq!(first.id, second.id);
    assert_eq!(third.names, ["a:latest", "b:latest"]);
    assert_eq!(bench.names("layers"), [first.layers[0].hex()]);
}

#[test]
fn an_archive_is_unpacked_once() {
    let mut bench = Bench::new();
    let cancel = Cancel::new().unwrap();
    let bytes = tar("once");
    let open =
        |bench: &Bench| -> OwnedFd { fs::File::open(bench.scratch.path().join("archive")).unwrap().into() };
    drop(bench.archive(&bytes));
    let image = bench.store.import_once(open(&bench), &cancel).unwrap();
    bench.reopen();
    // Hashed, since the store was opened anew and the file has just been written; an unpacking would leave trash.
    for _ in 0..2 {
        assert_eq!(bench.store.import_once(open(&bench), &cancel).unwrap(), image);
    }
    assert!(bench.names("trash").is_empty());
    // Another archive of the same size is another image.
    assert_ne!(bench.store.import_once(bench.archive(&tar("twin")), &cancel).unwrap().id, image.id);
    // Removed, it is unpacked again.
    bench.store.remove(image.id.hex(), false, &[]).unwrap();
    let again = bench.store.import_once(bench.archive(&bytes), &cancel).unwrap();
    assert_eq!(again.id, image.id);
    assert!(bench.store.layer_directories(&again)[0].join("content").exists());
}

#[test]
fn a_failed_import_leaves_nothing_but_trash() {
    let bench = Bench::new();
    let cut = &tar("cut")[..1024];
    assert_eq!(code(bench.import(cut, Some("bb"))), ErrorCode::Invalid);
    assert_eq!(code(bench.import(b"", Some("bb"))), ErrorCode::Invalid);
    let cancel = Cancel::new().unwrap();
    cancel.cancel();
    let result = bench.store.import(bench.archive(&tar("x")), None, &Change::default(), &cancel);
    assert!(matches!(result, Err(ImageError::Cancelled)), "{result:?}");
    assert!(bench.names("layers").is_empty());
    assert!(bench.names("images").is_empty());
    assert_eq!(bench.names("trash").len(), 3);
    assert!(bench.store.list().is_empty());
}

#[test]
fn imports_of_one_archive_at_once_all_succeed() {
    let bench = Bench::new();
    let bytes = tar(&"x".repeat(200_000));
    let path = bench.scratch.path().join("archive");
    fs::write(&path, bytes).unwrap();
    thread::scope(|scope| {
        let import = |number: usize| {
            let archive = fs::File::open(&path).unwrap().into();
            bench
                .store
                .import(archive, Some(&format!("n{number}")), &Change::default(), &Cancel::new().unwrap())
                .unwrap()
                .id
        };
        let running: Vec<_> = (0..6).map(|number| scope.spawn(move || import(number))).collect();
        let ids: Vec<Digest> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        assert!(ids.iter().all(|id| *id == ids[0]));
    });
    assert_eq!(bench.names("layers").len(), 1);
    assert_eq!(bench.store.list()[0].names.len(), 6);
}

#[test]
fn leftovers_of_an_interruption_go_into_the_trash() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("kept"), Some("kept")).unwrap();
    let layers = bench.root().join("layers");
    fs::create_dir(layers.join("import-0123")).unwrap();
    // Power was cut between the layer and its record.
    fs::create_dir(layers.join("a".repeat(64))).unwrap();
    fs::write(bench.root().join("images/x.json.tmp"), "half").unwrap();
    bench.reopen();
    assert_eq!(bench.names("layers"), [image.layers[0].hex()]);
    assert_eq!(bench.names("images").len(), 1);
    assert_eq!(bench.names("trash").len(), 2);
}

#[test]
fn a_damaged_record_costs_its_image_only() {
    let mut bench = Bench::new();
    let good = bench.import(&tar("good"), Some("good")).unwrap();
    let bad = bench.import(&tar("bad"), Some("bad")).unwrap();
    let path = bench.root().join("images").join(format!("{}.json", bad.id.hex()));
    let whole = fs::read_to_string(&path).unwrap();
    let record: serde_json::Value = serde_json::from_str(&whole).unwrap();
    assert_eq!(record["image"]["id"], bad.id.as_str());
    let other = whole.replace("bad:latest", "evil:late1");
    for damaged in ["", "{}", &whole[..whole.len() / 2], &other, &format!("{whole} ")] {
        fs::write(&path, damaged).unwrap();
        bench.reopen();
        let listed: Vec<Digest> = bench.store.list().into_iter().map(|info| info.id).collect();
        assert_eq!(listed, std::slice::from_ref(&good.id), "{damaged}");
        // A container may be running on it.
        assert_eq!(bench.names("layers").len(), 2);
    }
    // Imported again, it is whole again.
    assert_eq!(bench.import(&tar("bad"), Some("bad")).unwrap().id, bad.id);
    bench.reopen();
    assert_eq!(bench.store.list().len(), 2);
}

#[test]
fn a_lost_layer_costs_its_image_only() {
    let mut bench = Bench::new();
    bench.import(&tar("good"), Some("good")).unwrap();
    let bad = bench.import(&tar("bad"), Some("bad")).unwrap();
    let layer = bench.store.layer_directories(&bad).remove(0);
    fs::rename(layer, bench.scratch.path().join("lost")).unwrap();
    bench.reopen();
    assert_eq!(bench.store.list().len(), 1);
}

#[test]
fn a_damaged_image_can_be_removed_by_its_id() {
    let mut bench = Bench::new();
    let good = bench.import(&tar("good"), Some("good")).unwrap();
    let (bad, worse) = (bench.import(&tar("bad"), None).unwrap(), bench.import(&tar("worse"), None).unwrap());
    for image in [&bad, &worse] {
        fs::write(bench.root().join("images").join(format!("{}.json", image.id.hex())), "half").unwrap();
    }
    bench.reopen();
    let users = [(bad.id.clone(), container("1"), true)];
    assert_eq!(code(bench.store.remove(bad.id.short(), true, &users)), ErrorCode::Conflict, "it runs");
    let users = [(bad.id.clone(), container("1"), false)];
    assert_eq!(
        code(bench.store.remove(bad.id.as_str(), false, &users)),
        ErrorCode::Conflict,
        "it was not forced"
    );
    let lines = bench.store.remove(bad.id.as_str(), true, &users).unwrap();
    assert_eq!(lines, [format!("Deleted: {}", bad.id)], "the other one may need the layers");
    assert_eq!(bench.names("layers").len(), 3);
    assert_eq!(bench.store.remove(worse.id.short(), false, &[]).unwrap().len(), 3);
    assert_eq!(bench.names("layers"), [good.layers[0].hex()]);
    assert_eq!(bench.names("images"), [format!("{}.json", good.id.hex())]);
    assert_eq!(code(bench.store.remove(worse.id.short(), false, &[])), ErrorCode::NotFound);
}

#[test]
fn an_image_that_lost_its_layer_can_be_removed_by_its_id() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("bad"), Some("bad")).unwrap();
    let layer = bench.store.layer_directories(&image).remove(0);
    fs::rename(layer, bench.scratch.path().join("lost")).unwrap();
    bench.reopen();
    bench.store.remove(image.id.short(), false, &[]).unwrap();
    assert!(bench.names("images").is_empty());
}

#[test]
fn a_record_that_is_a_link_is_not_followed() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("a"), None).unwrap();
    let path = bench.root().join("images").join(format!("{}.json", image.id.hex()));
    let moved = bench.scratch.path().join("moved");
    fs::rename(&path, &moved).unwrap();
    std::os::unix::fs::symlink(&moved, &path).unwrap();
    bench.reopen();
    assert!(bench.store.list().is_empty());
}

#[test]
fn removal_gives_dockers_lines() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("a"), Some("a")).unwrap();
    bench.import(&tar("a"), Some("b:2")).unwrap();
    assert_eq!(bench.store.remove("a", false, &[]).unwrap(), ["Untagged: a:latest"]);
    let lines = [
        "Untagged: b:2".to_owned(),
        format!("Deleted: {}", image.id),
        format!("Deleted: {}", image.layers[0]),
    ];
    assert_eq!(bench.store.remove("b:2", false, &[]).unwrap(), lines);
    assert!(bench.names("layers").is_empty());
    assert!(bench.names("images").is_empty());
    assert_eq!(code(bench.store.remove("b:2", true, &[])), ErrorCode::NotFound);
    bench.reopen();
    assert!(bench.store.list().is_empty());
}

#[test]
fn removal_by_id_needs_force_when_there_are_several_names() {
    let bench = Bench::new();
    let image = bench.import(&tar("a"), Some("a")).unwrap();
    bench.import(&tar("a"), Some("b")).unwrap();
    let message = bench.store.remove(image.id.short(), false, &[]).unwrap_err().to_wire();
    assert_eq!(message.code, ErrorCode::Conflict);
    assert!(message.message.contains("must be forced"), "{}", message.message);
    assert_eq!(bench.store.remove(image.id.short(), true, &[]).unwrap().len(), 4);
}

#[test]
fn an_image_in_use_is_not_removed() {
    let bench = Bench::new();
    let image = bench.import(&tar("a"), Some("bb")).unwrap();
    let running = [(image.id.clone(), container("a"), true)];
    let short = image.id.short();
    for (reference, force, told) in [
        (
            "bb",
            false,
            format!(
                "conflict: unable to remove repository reference \"bb\" (must force) - container aaaaaaaaaaaa is using its referenced image {short}"
            ),
        ),
        (
            short,
            true,
            format!(
                "conflict: unable to delete {short} (cannot be forced) - image is being used by running container aaaaaaaaaaaa"
            ),
        ),
    ] {
        let error = bench.store.remove(reference, force, &running).unwrap_err().to_wire();
        assert_eq!((error.code, error.message), (ErrorCode::Conflict, told));
    }
    // With force the name goes and the image stays.
    assert_eq!(bench.store.remove("bb", true, &running).unwrap(), ["Untagged: bb:latest"]);
    assert!(bench.store.layer_directories(&image)[0].exists());
    assert_eq!(bench.store.list().len(), 1);
}

#[test]
fn layers_stay_as_long_as_a_stopped_container_needs_them() {
    let mut bench = Bench::new();
    let image = bench.import(&tar("a"), Some("bb")).unwrap();
    let stopped = [(image.id.clone(), container("b"), false)];
    assert_eq!(code(bench.store.remove("bb", false, &stopped)), ErrorCode::Conflict);
    assert_eq!(code(bench.store.remove(image.id.hex(), false, &stopped)), ErrorCode::Conflict);
    let lines = bench.store.remove("bb", true, &stopped).unwrap();
    assert_eq!(lines, ["Untagged: bb:latest".to_owned(), format!("Deleted: {}", image.id)]);
    for _ in 0..2 {
        assert!(bench.store.list().is_empty());
        assert_eq!(code(bench.store.resolve(image.id.as_str())), ErrorCode::NotFound);
        let hidden = bench.store.image(&image.id).unwrap();
        assert!(bench.store.layer_directories(&hidden)[0].exists());
        bench.store.collect(std::slice::from_ref(&image.id)).unwrap();
        bench.reopen();
    }
    // Imported again, it is shown again.
    bench.import(&tar("a"), Some("cc")).unwrap();
    bench.store.collect(&[]).unwrap();
    assert_eq!(bench.store.list().len(), 1);
    bench.store.remove("cc", true, &stopped).unwrap();
    bench.store.collect(&[]).unwrap();
    assert!(bench.store.image(&image.id).is_none());
    assert!(bench.names("layers").is_empty());
}

#[test]
fn full_disks_are_told_clearly() {
    let error = ImageError::system("write", "\"a\"", rustix::io::Errno::NOSPC);
    let wire = error.to_wire();
    assert_eq!(wire.code, ErrorCode::System);
    assert!(wire.message.contains("no space left in the image store"), "{}", wire.message);
}

#[test]
fn opening_where_there_is_no_directory_is_an_error() {
    assert_eq!(
        code(Store::open(Path::new("/proc/version"), Sweeper::default(), Limits::default())),
        ErrorCode::System
    );
}
