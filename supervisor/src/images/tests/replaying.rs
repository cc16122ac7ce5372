//! A layer goes out as it came in, byte for byte, and a changed one is noticed.

use std::{
    fs,
    io::Read,
    os::unix::fs::{PermissionsExt, symlink},
    process::Command,
};

use super::{
    differential::{make_tree, run},
    laboratory::{
        Scratch, archive, device, directory, entry, file, gzip, hardlink, long_name, pax, symlink as link,
        zstd,
    },
    storing::Bench,
};
use crate::images::{Cancel, Compression, Format, Image};

/// The layer as docker's archive has it.
fn saved_layer(bench: &Bench, image: &Image) -> Result<Vec<u8>, String> {
    let path = bench.scratch.path().join("saved");
    let out = fs::File::create(&path).unwrap();
    let form = (Format::DockerArchive, Compression::None);
    bench
        .store
        .save(out.into(), &[image.id.to_string()], form, &Cancel::new().unwrap())
        .map_err(|error| error.to_wire().message)?;
    let name = format!("{}.tar", image.layers[0].hex());
    let mut tar = tar::Archive::new(fs::File::open(&path).unwrap());
    for entry in tar.entries().unwrap() {
        let mut entry = entry.unwrap();
        if entry.path_bytes().as_ref() == name.as_bytes() {
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            return Ok(bytes);
        }
    }
    Err("the layer is not in the archive".to_owned())
}

fn goes_out_as_it_came(bytes: &[u8], label: &str) {
    let bench = Bench::new();
    let image = bench.import(bytes, None).unwrap();
    let saved = saved_layer(&bench, &image).unwrap();
    assert!(saved == bytes, "{label}: {} bytes came in, {} went out", bytes.len(), saved.len());
    let verdicts = bench.store.verify(&[], &Cancel::new().unwrap()).unwrap();
    assert_eq!(verdicts[0].faults, Vec::<String>::new(), "{label}");
}

#[test]
fn layers_of_gnu_tar_and_bsdtar_go_out_as_they_came() {
    let scratch = Scratch::new();
    let tree = scratch.path().join("tree");
    make_tree(&tree);
    let formats: [&[&str]; 6] = [
        &["tar", "--format=gnu", "--sparse"],
        &["tar", "--format=posix", "--xattrs", "--xattrs-include=*", "--sparse"],
        &["tar", "--format=posix", "--sparse", "--sparse-version=0.0", "--blocking-factor=1"],
        &["tar", "--format=ustar", "--exclude=*long*", "--mtime=@77"],
        &["tar", "--format=posix", "--sparse", "--sparse-version=0.1", "--label=a tape"],
        &["bsdtar", "--format=pax", "--xattrs"],
    ];
    for (number, options) in formats.iter().enumerate() {
        let path = scratch.path().join(format!("{number}.tar"));
        let mut create = Command::new(options[0]);
        if create.arg("--version").output().is_err() {
            continue;
        }
        let mut create = Command::new(options[0]);
        create.arg("-c").args(&options[1..]).arg("-f").arg(&path).arg("-C").arg(&tree).arg(".");
        run(&mut create);
        goes_out_as_it_came(&fs::read(&path).unwrap(), options[1]);
    }
}

/// Whatever later entries do to earlier ones.
#[test]
fn layers_with_replaced_files_go_out_as_they_came() {
    let sparse = [
        pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,2,4096,1")]),
        file("sparse", "abc"),
        file("sparse", "whole"),
    ];
    let cases: Vec<(&str, Vec<Vec<u8>>)> = vec![
        ("twice", vec![file("a", "one"), file("a", "two"), file("a", "three")]),
        ("by a link", vec![file("a", "one"), link("a", "b"), file("b", "two"), file("a", "three")]),
        ("by a directory", vec![file("a", "one"), directory("a"), file("a/b", "two")]),
        ("one name of two", vec![file("a", "one"), hardlink("b", "a"), file("a", "two"), file("b", "three")]),
        ("by itself", vec![file("a", "one"), hardlink("a", "a"), hardlink("b", "a")]),
        (
            "below a link that goes",
            vec![
                directory("d"),
                link("l", "d"),
                file("l/a", "one"),
                link("l", "e"),
                directory("e"),
                file("l/a", "two"),
            ],
        ),
        (
            "below an absolute link",
            vec![
                directory("d/e"),
                link("l", "/d/e"),
                file("l/a", "one"),
                file("d/e/a", "two"),
                file("l/a", "three"),
            ],
        ),
        ("sparse", sparse.to_vec()),
        ("empty", vec![file("a", ""), file("a", "x"), file("a", ""), file("a", "y")]),
        ("by a device", vec![file("a", "one"), device(b'3', "a", 1, 3), device(b'6', "a", 0, 0)]),
        ("marks", vec![file("a", "x"), file(".wh.a", "of"), file("d/.wh..wh..opq", "")]),
        ("long names", vec![long_name(&[b'n'; 150]), entry(b'0', "short", "", &[7; 70_000])]),
    ];
    for (label, entries) in cases {
        goes_out_as_it_came(&archive(&entries), label);
    }
}

#[test]
fn padding_and_what_follows_the_end_go_out_as_they_came() {
    let mut odd = archive(&[file("a", "x")]);
    // Not all writers fill blocks with zeros.
    odd[520..600].fill(b'?');
    goes_out_as_it_came(&odd, "padding");
    goes_out_as_it_came(
        &[archive(&[file("a", "x")]), vec![0; 300_000], b"after".to_vec()].concat(),
        "after the end",
    );
    goes_out_as_it_came(&[0; 10240], "nothing");
    let random: Vec<u8> =
        (0..500_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 13).to_le_bytes()[0]).collect();
    goes_out_as_it_came(&[archive(&[file("a", "x")]), random].concat(), "much after the end");
}

#[test]
fn a_compressed_layer_goes_out_as_its_content() {
    let bytes = archive(&[file("a", "x"), file("b", &"y".repeat(300_000))]);
    for packed in [gzip(&bytes), zstd(&bytes)] {
        let bench = Bench::new();
        let image = bench.import(&packed, None).unwrap();
        assert!(saved_layer(&bench, &image).unwrap() == bytes);
    }
}

type Harm = fn(&std::path::Path);

#[test]
fn any_change_of_a_layer_is_found_and_never_goes_out() {
    let harms: [(&str, bool, Harm); 11] = [
        ("content", true, |tree| {
            let data = fs::metadata(tree.join("d/a")).unwrap();
            fs::write(tree.join("d/a"), "oNe").unwrap();
            fs::File::open(tree.join("d/a")).unwrap().set_modified(data.modified().unwrap()).unwrap();
        }),
        ("shorter", true, |tree| fs::write(tree.join("d/a"), "o").unwrap()),
        ("gone", true, |tree| fs::remove_file(tree.join("d/a")).unwrap()),
        ("a link", true, |tree| {
            fs::remove_file(tree.join("d/a")).unwrap();
            symlink("../e", tree.join("d/a")).unwrap();
        }),
        ("a fifo", true, |tree| {
            fs::remove_file(tree.join("d/a")).unwrap();
            let mode = rustix::fs::Mode::from_raw_mode(0o644);
            rustix::fs::mknodat(rustix::fs::CWD, tree.join("d/a"), rustix::fs::FileType::Fifo, mode, 0)
                .unwrap();
        }),
        ("a directory that is a link", true, |tree| {
            fs::rename(tree.join("d"), tree.join("moved")).unwrap();
            symlink("moved", tree.join("d")).unwrap();
        }),
        ("mode", false, |tree| {
            fs::set_permissions(tree.join("d/a"), fs::Permissions::from_mode(0o777)).unwrap();
        }),
        ("owner", false, |tree| std::os::unix::fs::lchown(tree.join("d/a"), Some(7), None).unwrap()),
        ("time", false, |tree| {
            fs::File::open(tree.join("e")).unwrap().set_modified(std::time::SystemTime::now()).unwrap();
        }),
        ("new", false, |tree| fs::write(tree.join("new"), "").unwrap()),
        ("one more name", false, |tree| fs::hard_link(tree.join("e"), tree.join("f")).unwrap()),
    ];
    for (label, is_content, harm) in harms {
        let bench = Bench::new();
        let bytes = archive(&[directory("d"), file("d/a", "one"), file("e", "two")]);
        let image = bench.import(&bytes, None).unwrap();
        harm(&bench.store.layer_directories(&image)[0]);
        let verdicts = bench.store.verify(&[], &Cancel::new().unwrap()).unwrap();
        assert_eq!(verdicts[0].faults.len(), 1, "{label}: {:?}", verdicts[0].faults);
        match saved_layer(&bench, &image) {
            Ok(saved) => assert!(!is_content && saved == bytes, "{label} went out"),
            Err(message) => assert!(is_content, "{label}: {message}"),
        }
    }
}

#[test]
fn a_damaged_recording_is_found_at_any_byte() {
    let bytes = archive(&[file("a", "one"), file("a", "two"), file("b", "three")]);
    let bench = Bench::new();
    let image = bench.import(&bytes, None).unwrap();
    let tree = bench.store.layer_directories(&image).remove(0);
    let path = tree.parent().unwrap().join("recording");
    let whole = fs::read(&path).unwrap();
    for at in 0..whole.len() {
        let mut damaged = whole.clone();
        damaged[at] ^= 0x10;
        for text in [&damaged[..], &whole[..at]] {
            fs::write(&path, text).unwrap();
            let verdicts = bench.store.verify(&[], &Cancel::new().unwrap()).unwrap();
            // Not every bit of a compressed stream means something; then what goes out is right.
            match verdicts[0].faults.len() {
                0 => assert!(saved_layer(&bench, &image).unwrap() == bytes, "byte {at}"),
                faults => assert_eq!(faults, 1, "byte {at}"),
            }
        }
    }
    fs::write(&path, whole).unwrap();
    assert!(saved_layer(&bench, &image).unwrap() == bytes);
}
