//! The corpus of archives and documents that attack, lie or are odd, each through the real `import` and `load`: refused
//! in one line that says why, or taken and safe; a directory outside stays as it is, and nothing half is left.
//!
//! `archives.rs` and `documents.rs` are the tables, `tape.rs` writes tars block by block; `differential.rs` compares with
//! other tools what means no harm.

mod archives;
mod differential;
mod documents;
mod tape;

use std::{fs, path::Path, time::Duration};

use serde_json::json;

use self::{archives::Expect, differential::odd_archives_are_what_the_peers_make_of_them};
use crate::harness::{
    Case, Sandbox,
    bundle::{self, Packed, Specimen, pack},
    holds_within,
    tree::{self, Tree, plant_data},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        archives_are_imported_safely_or_refused,
        archives_are_loaded_safely_or_refused,
        archives_are_loaded_safely_as_upper_layers,
        archives_cut_at_every_block_are_refused,
        documents_are_refused_in_one_line,
        users_of_an_image_are_never_someone_else,
        configurations_of_any_size_are_kept_or_refused,
        million_entries_need_little_memory,
        odd_archives_are_what_the_peers_make_of_them,
        limits_can_be_set,
        wrong_limits_are_refused,
    ]
}

/// An instance beside a directory that must not change.
struct Range<'s> {
    sandbox: &'s Sandbox,
    decoy: String,
    before: Tree,
    skeleton: Vec<String>,
    failures: Vec<String>,
}

impl<'s> Range<'s> {
    fn new(sandbox: &'s Sandbox) -> Self {
        sandbox.ok(&["info"]);
        let decoy = sandbox.new_directory("decoy");
        let before = plant_data(Path::new(&decoy), "canary");
        let skeleton = tree::paths(&sandbox.root(), &["images", "layers"]);
        Self { sandbox, decoy, before, skeleton, failures: Vec::new() }
    }

    /// Brings something in that was written into a file, and looks whether what must come of it has come; with the
    /// image gone again there is nothing left.
    fn expect(&mut self, row: &str, verb: &[&str], bytes: &[u8], expect: Expect) {
        let sandbox = self.sandbox;
        let path = sandbox.place("given");
        fs::write(&path, bytes).expect("the sandbox is ours");
        let path = path.to_string_lossy().into_owned();
        let output = sandbox.mysup(&[verb, &[path.as_str()]].concat());
        let told = output.errors();
        let is_right = match expect {
            Expect::Refused(words) => {
                let is_a_line = told.lines().count() == 1 && !told.trim_end().contains(char::is_control);
                output.code == 1 && is_a_line && told.contains(words)
            }
            Expect::Taken => output.code == 0 && sandbox.mysup(&["image", "verify"]).code == 0,
        };
        if !is_right {
            self.failures.push(format!("{row}: {expect:?} was expected\n{output}"));
        }
        for id in sandbox.ok(&["images", "-q"]).lines() {
            sandbox.ok(&["rmi", "-f", id]);
        }
        let layers = fs::read_dir(sandbox.root().join("layers")).expect("the store is there").count();
        if layers > 0 {
            self.failures.push(format!("{row} left a layer"));
        }
        let changes = self.before.difference(&Tree::read(Path::new(&self.decoy)));
        assert!(changes.is_empty(), "{row} reached out: {changes:?}");
    }

    /// What is in the store's root besides images and layers is what was there, and every row was right.
    #[track_caller]
    fn finish(self) {
        let mut beside = Vec::new();
        holds_within(Duration::from_secs(10), || {
            let now = tree::paths(&self.sandbox.root(), &["images", "layers"]);
            beside = now.into_iter().filter(|path| !self.skeleton.contains(path)).collect();
            beside.is_empty()
        });
        assert!(beside.is_empty(), "written outside of the layers: {beside:?}");
        assert!(self.failures.is_empty(), "{} rows:\n{}", self.failures.len(), self.failures.join("\n"));
    }
}

fn archives_are_imported_safely_or_refused(sandbox: &Sandbox) {
    let mut range = Range::new(sandbox);
    for (row, bytes, expect) in archives::all(&range.decoy) {
        range.expect(row, &["import"], &bytes, expect);
    }
    range.finish();
}

/// Rows that are another thing in a layer: that is whole by its digest, so its end mark and filling may be missing; and
/// what is compressed already is compressed twice.
const ANOTHER_IN_A_LAYER: [&str; 6] = ["no_byte", "no_end_mark", "half_a_block", "xz", "bzip2", "zip"];

fn archives_are_loaded_safely_or_refused(sandbox: &Sandbox) {
    load_all(sandbox, &[]);
}

/// There the marks of removed files are made.
fn archives_are_loaded_safely_as_upper_layers(sandbox: &Sandbox) {
    load_all(sandbox, &tape::tar(&[tape::directory("a"), tape::file("b", "lower")]));
}

fn load_all(sandbox: &Sandbox, below: &[u8]) {
    let mut range = Range::new(sandbox);
    for (row, bytes, expect) in archives::all(&range.decoy) {
        if ANOTHER_IN_A_LAYER.contains(&row) || row.contains("gzip") || row.contains("zstd") {
            continue;
        }
        // The lowest layer has nothing to hide, so marks in it are not made anywhere.
        let expect = match row {
            "mark_through_a_link" | "opaque_through_a_link" if !below.is_empty() => {
                Expect::Refused("link to nothing")
            }
            _ => expect,
        };
        let mut specimen = Specimen { layers: vec![bytes], config: json!(null) };
        if !below.is_empty() {
            specimen.layers.insert(0, below.to_vec());
        }
        specimen.config = configuration(&specimen);
        range.expect(row, &["load", "-i"], &bundle::archive(&specimen.docker_files(&["hostile:1"])), expect);
        let packed = specimen.oci_files(Some("hostile:1"), Packed::Gzip);
        range.expect(row, &["load", "-i"], &bundle::archive(&packed), expect);
    }
    range.finish();
}

fn configuration(specimen: &Specimen) -> serde_json::Value {
    json!({
        "architecture": "amd64", "os": "linux",
        "rootfs": { "type": "layers", "diff_ids": specimen.diff_ids() }
    })
}

fn archives_cut_at_every_block_are_refused(sandbox: &Sandbox) {
    let mut range = Range::new(sandbox);
    let whole = tape::tar(&[
        tape::directory("d"),
        tape::file("d/file", &"data".repeat(300)),
        tape::pax("path", b"d/pax"),
        tape::file("x", "y"),
        tape::long_name(&[b'n'; 250]),
        tape::symlink("s", "d"),
        tape::hardlink("h", "d/file"),
    ]);
    let blocks = whole.len() / 512;
    for count in 1..blocks - 1 {
        range.expect("a cut", &["import"], &whole[..count * 512], Expect::Refused("cut short"));
    }
    range.expect("the whole", &["import"], &whole, Expect::Taken);
    range.finish();
}

fn documents_are_refused_in_one_line(sandbox: &Sandbox) {
    let mut range = Range::new(sandbox);
    for (row, files, expect) in documents::all(&range.decoy) {
        range.expect(row, &["load", "-i"], &bundle::archive(&files), expect);
        // The same as a directory, in which names could lead out. It has no name twice.
        if row == "manifest_twice" {
            continue;
        }
        let directory = sandbox.new_directory("bundle");
        bundle::directory(&files, Path::new(&directory));
        let output = sandbox.mysup(&["load", "-i", &directory]);
        let taken = matches!(expect, Expect::Taken);
        if output.code != i32::from(!taken) || !taken && output.errors().lines().count() != 1 {
            range.failures.push(format!("{row} as a directory\n{output}"));
        }
        for id in sandbox.ok(&["images", "-q"]).lines() {
            sandbox.ok(&["rmi", "-f", id]);
        }
        #[expect(
            clippy::disallowed_methods,
            reason = "the sandbox's own directory, in which nothing is mounted"
        )]
        fs::remove_dir_all(&directory).expect("the sandbox is ours");
    }
    documents::link_out_of_a_directory(sandbox, &range.decoy);
    range.finish();
}

/// CVE-2016-3697, CVE-2024-40635, CVE-2026-30892: a number that is none is not taken for root, and a name that is a
/// number is that number.
fn users_of_an_image_are_never_someone_else(sandbox: &Sandbox) {
    for (user, expected) in [
        ("1:1", Some("1:1")),
        ("65534", Some("65534:0")),
        ("tester", Some("1000:1000")),
        ("4294967294", None),
        ("4294967295", None),
        ("4294967296", None),
        ("-1", None),
        ("0x0", None),
        ("root\n", None),
        ("root:root:root", None),
        ("1:-1", None),
        ("nobody-there", None),
        ("", Some("0:0")),
    ] {
        let mut specimen = Specimen::new("user");
        specimen.config["config"]["User"] = json!(user);
        specimen.config["config"]["Entrypoint"] = json!(null);
        let path = sandbox.place("user.tar");
        fs::write(&path, bundle::archive(&specimen.docker_files(&["user:1"]))).expect("the sandbox is ours");
        sandbox.ok(&["load", "-i", &path.to_string_lossy()]);
        let output =
            sandbox.mysup(&["run", "--rm", "-w", "/", "user:1", "sh", "-c", "echo $(id -u):$(id -g)"]);
        match expected {
            Some(ids) => assert!(output.code == 0 && output.text() == ids, "{user:?}\n{output}"),
            None => {
                assert!(output.code >= 125 || output.text().starts_with("4294967294"), "{user:?}\n{output}")
            }
        }
        sandbox.ok(&["rmi", "user:1"]);
    }
}

fn configurations_of_any_size_are_kept_or_refused(sandbox: &Sandbox) {
    let mut range = Range::new(sandbox);
    let labels: serde_json::Map<String, serde_json::Value> =
        (0..100_000).map(|number| (format!("label.{number}"), json!("x"))).collect();
    let mut specimen = Specimen { layers: vec![tape::tar(&[tape::file("a", "a")])], config: json!(null) };
    specimen.config = configuration(&specimen);
    specimen.config["config"] = json!({
        "Labels": labels,
        "Env": vec![format!("LONG={}", "e".repeat(1 << 20))],
        "Volumes": { "/": {}, "/proc": {}, "../..": {}, "a\nb": {} },
        "ExposedPorts": { "99999/none": {} },
    });
    let taken = bundle::archive(&specimen.docker_files(&["large:1"]));
    range.expect("10^5 labels", &["load", "-i"], &taken, Expect::Taken);
    specimen.config["config"]["Env"] = json!(vec![format!("LONG={}", "e".repeat(5 << 20))]);
    let refused = bundle::archive(&specimen.docker_files(&["large:1"]));
    range.expect("5 MiB", &["load", "-i"], &refused, Expect::Refused("4194304 bytes"));
}

/// Of a name each, as small as entries can be.
fn million_entries_need_little_memory(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let many = tape::file(".wh.x", "").repeat(1_000_000);
    let packed = pack(Packed::Zstd, &tape::tar(&[many]));
    sandbox.call(&["import", "-", "many"]).input(packed).ok();
    sandbox.ok(&["image", "verify"]);
    let status = fs::read_to_string(format!("/proc/{}/status", sandbox.supervisor())).expect("it runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("the kernel tells");
    let peak: u64 = peak.trim().trim_end_matches(" kB").parse().expect("it is a number");
    assert!(peak < 64 << 10, "the supervisor had {peak} kB at its peak");
    sandbox.ok(&["rmi", "many"]);
}

fn limits_can_be_set(sandbox: &Sandbox) {
    let give = |bytes: &[u8]| {
        let path = sandbox.place("given");
        fs::write(&path, bytes).expect("the sandbox is ours");
        path.to_string_lossy().into_owned()
    };
    let files = |count: usize| {
        let all: Vec<_> = (0..count).map(|number| tape::file(&format!("f{number}"), "x")).collect();
        tape::tar(&all)
    };
    sandbox.ok(&[
        "start",
        "--image-limits",
        "entries=3,ratio=50,ratio-from=1000000,archive=20000000,depth=2",
    ]);
    sandbox.ok(&["import", &give(&files(3)), "three"]);
    sandbox.refused(&["import", &give(&files(4))], 1, &["3 entries", "--image-limits entries=N"]);
    sandbox.refused(
        &["import", &give(&tape::tar(&[tape::file("a/b/c", "")]))],
        1,
        &["2 directories", "depth=N"],
    );
    let zeros = tape::tar(&[tape::file("zeros", &"\0".repeat(10 << 20))]);
    for packed in [Packed::Gzip, Packed::Zstd] {
        sandbox.refused(&["import", &give(&pack(packed, &zeros))], 1, &["bomb", "more than 50", "ratio=N"]);
    }
    let long = tape::tar(&[tape::file("long", &"x".repeat(21_000_000))]);
    sandbox.refused(&["import", &give(&long)], 1, &["20000000 bytes", "archive=N"]);
    // By the environment, for a supervisor that any command starts.
    sandbox.ok(&["shutdown"]);
    let files = give(&files(4));
    sandbox
        .call(&["import", &files])
        .env("MYSUP_IMAGE_LIMITS", "entries=2")
        .run()
        .expect_refusal(1, &["2 entries"]);
    sandbox.ok(&["start", "--replace"]);
    sandbox.ok(&["import", &files, "four"]);
}

fn wrong_limits_are_refused(sandbox: &Sandbox) {
    for (setting, words) in [
        ("files=3", "entries, depth, name"),
        ("entries", "NAME=N"),
        ("entries=0", "a number from 1"),
        ("entries=1k", "a number from 1"),
        ("name=5000", "from 1 to 4095"),
    ] {
        sandbox.refused(&["start", "--image-limits", setting], 1, &["--image-limits", words]);
    }
    assert!(sandbox.supervisor_pid().is_none(), "a supervisor was started");
}
