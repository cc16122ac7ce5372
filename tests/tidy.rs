//! Rules about the source that a machine can check. Each says why it is one.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::harness::{Case, Sandbox, command::repository};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        files_have_at_most_500_lines,
        functions_have_at_most_80_lines,
        files_begin_by_saying_what_they_are,
        file_names_name_a_subject,
        only_the_codec_names_bincode,
        unsafe_code_is_in_the_named_files_only,
        shim_is_without_async_and_threads,
        crates_do_not_depend_on_each_other_across,
        only_reap_waits_for_processes,
        supervisor_mounts_and_removes_nothing,
        only_main_ends_the_process,
        no_machine_or_person_is_named,
        debts_are_tagged,
        every_journaled_effect_has_an_undo,
        scripts_stop_at_the_first_error,
    ]
}

/// All Rust sources of the workspace, as path below the root and text.
fn sources() -> Vec<(String, String)> {
    let mut found = Vec::new();
    for folder in ["ipc", "shim", "supervisor", "tests", "examples"] {
        collect(&repository().join(folder), &mut found);
    }
    assert!(found.len() > 20, "the sources were not found");
    found
}

fn collect(directory: &Path, found: &mut Vec<(String, String)>) {
    let mut entries: Vec<PathBuf> =
        fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path()).collect();
    entries.sort();
    for path in entries {
        if path.is_dir() && path.file_name().is_some_and(|name| name != "target") {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.strip_prefix(repository()).unwrap_or(&path).to_string_lossy().into_owned();
            found.push((name, fs::read_to_string(&path).expect("sources are UTF-8")));
        }
    }
}

/// The part of a line that is code: what is before a comment. Good enough for words that are no strings.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or("")
}

fn holds_word(line: &str, word: &str) -> bool {
    let is_part = |letter: char| letter.is_alphanumeric() || letter == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[track_caller]
fn expect_none(rule: &str, wrong: Vec<String>) {
    assert!(wrong.is_empty(), "{rule}:\n{}", wrong.join("\n"));
}

/// Lines of code with one of the words, in files for which `applies`.
fn lines_with(words: &[&str], applies: impl Fn(&str) -> bool) -> Vec<String> {
    let mut found = Vec::new();
    for (name, text) in sources().iter().filter(|(name, _)| applies(name)) {
        for (number, line) in text.lines().enumerate() {
            if words.iter().any(|word| holds_word(code(line), word)) {
                found.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    found
}

fn files_have_at_most_500_lines(_: &Sandbox) {
    let sources = sources();
    let wrong = sources.iter().filter(|(_, text)| text.lines().count() > 500);
    let wrong = wrong.map(|(name, text)| format!("{name}: {} lines", text.lines().count())).collect();
    expect_none("a file has one subject, and that fits into 500 lines", wrong);
}

fn functions_have_at_most_80_lines(_: &Sandbox) {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        let lines: Vec<&str> = text.lines().collect();
        for (begin, line) in lines.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            if !holds_word(code(line), "fn")
                || line.trim_start().starts_with("//")
                || code(line).trim_end().ends_with(';')
            {
                continue;
            }
            let closing = format!("{}}}", " ".repeat(indent));
            let end = lines[begin..].iter().position(|line| **line == closing);
            let length = end.map_or(1, |end| end + 1);
            // A declaration without body in a trait, or one line, has no closing brace of its own.
            if length > 80
                && code(line).trim_start().contains("fn ")
                && opens_body(&lines[begin..begin + 12.min(lines.len() - begin)])
            {
                wrong.push(format!("{name}:{}: {length} lines", begin + 1));
            }
        }
    }
    expect_none("a function is read at once, in 80 lines", wrong);
}

fn opens_body(lines: &[&str]) -> bool {
    for line in lines {
        let line = code(line).trim_end();
        if line.ends_with('{') {
            return true;
        }
        if line.ends_with(';') || line.ends_with('}') {
            return false;
        }
    }
    false
}

fn files_begin_by_saying_what_they_are(_: &Sandbox) {
    let wrong = sources()
        .into_iter()
        .filter(|(name, text)| !text.starts_with("//!") && !name.ends_with("tests.rs"))
        .map(|(name, _)| name)
        .collect();
    expect_none("a file begins with //! and what it is for", wrong);
}

fn file_names_name_a_subject(_: &Sandbox) {
    let banned = ["utils", "util", "helpers", "helper", "common", "misc"];
    let wrong = sources()
        .into_iter()
        .map(|(name, _)| name)
        .filter(|name| {
            Path::new(name).iter().any(|part| {
                let part = part.to_string_lossy().into_owned();
                banned.contains(&part.trim_end_matches(".rs"))
            })
        })
        .collect();
    expect_none("a name that says nothing collects everything", wrong);
    let modules = lines_with(&["mod utils", "mod util", "mod helpers", "mod common", "mod misc"], |_| true);
    expect_none(
        "a name that says nothing collects everything",
        modules.into_iter().filter(|line| !line.starts_with("tests/tidy.rs")).collect(),
    );
}

fn only_the_codec_names_bincode(_: &Sandbox) {
    let wrong = lines_with(&["bincode"], |name| name != "ipc/src/codec.rs" && name != "tests/tidy.rs");
    expect_none("bincode is unmaintained: one file to change when it goes", wrong);
    for manifest in ["shim", "supervisor", "tests", "examples"] {
        let text = fs::read_to_string(repository().join(manifest).join("Cargo.toml")).expect("it exists");
        assert!(!text.contains("bincode"), "{manifest}/Cargo.toml names bincode");
    }
}

fn unsafe_code_is_in_the_named_files_only(_: &Sandbox) {
    let allowed = |name: &str| {
        name.starts_with("shim/src/sys")
            || [
                "shim/src/init/child.rs",
                "ipc/src/fds.rs",
                "supervisor/src/sys.rs",
                "tests/tidy.rs",
                "tests/bench/floor.rs",
                "tests/power/shutdown.rs",
            ]
            .contains(&name)
    };
    let wrong = lines_with(&["unsafe"], |name| !allowed(name));
    expect_none("unsafe code is where a reviewer looks for it", wrong);
}

fn shim_is_without_async_and_threads(_: &Sandbox) {
    let wrong = lines_with(&["tokio", "async", "await", "thread::spawn", "thread::Builder"], |name| {
        name.starts_with("shim/src")
    });
    expect_none("the shim is one thread around clone, with one loop that can be read", wrong);
    let manifest = fs::read_to_string(repository().join("shim/Cargo.toml")).expect("it exists");
    assert!(!manifest.contains("tokio"), "the shim depends on tokio");
}

fn crates_do_not_depend_on_each_other_across(_: &Sandbox) {
    let wrong = lines_with(&["mysup_shim"], |name| !name.starts_with("shim/") && name != "tests/tidy.rs");
    expect_none("supervisor and shim meet in ipc only", wrong);
    let wrong = lines_with(&["mysup_shim", "mysup", "tokio"], |name| name.starts_with("ipc/src"));
    expect_none("ipc knows neither side", wrong.into_iter().filter(|line| line.contains("::")).collect());
    for (member, banned) in [("supervisor", "mysup-shim"), ("shim", "mysup-supervisor"), ("ipc", "tokio")] {
        let text = fs::read_to_string(repository().join(member).join("Cargo.toml")).expect("it exists");
        let dependencies = text.split_once("[dependencies]").map_or("", |(_, rest)| rest);
        assert!(!dependencies.contains(banned), "{member} depends on {banned}");
    }
}

fn only_reap_waits_for_processes(_: &Sandbox) {
    let wrong = lines_with(&["waitpid", "waitid", "wait4"], |name| {
        name.starts_with("shim/src") && name != "shim/src/reap.rs" && !name.starts_with("shim/src/sys")
            || name.starts_with("supervisor/src")
    });
    let calls = wrong
        .into_iter()
        .filter(|line| line.contains('('))
        .filter(|line| !line.starts_with("shim/src/init/"))
        .collect();
    expect_none("two waiters lose exit codes", calls);
}

fn supervisor_mounts_and_removes_nothing(_: &Sandbox) {
    let words = [
        "umount",
        "umount2",
        "unmount",
        "fsopen",
        "move_mount",
        "pivot_root",
        "clone3",
        "remove_dir_all",
        "pre_exec",
    ];
    let wrong =
        lines_with(&words, |name| name.starts_with("supervisor/src") && !name.contains("/tests")).into_iter();
    let calls = wrong.filter(|line| words.iter().any(|word| line.contains(&format!("{word}("))));
    expect_none("the supervisor never touches a root file system", calls.collect());
}

fn only_main_ends_the_process(_: &Sandbox) {
    let wrong =
        lines_with(&["process::exit", "println", "eprintln", "dbg", "todo", "unimplemented"], |name| {
            !name.ends_with("main.rs") && !name.starts_with("tests/") && !name.starts_with("examples/")
        });
    let wrong = wrong.into_iter().filter(|line| line.contains('!') || line.contains("exit(")).collect();
    expect_none("an exit in the middle skips the undo", wrong);
}

fn no_machine_or_person_is_named(_: &Sandbox) {
    let words: Vec<String> = [
        ["firecracker", "-vm"],
        ["process", "_api"],
        ["/work", "/main"],
        ["/work", "/shared"],
        ["chat", "gpt"],
        ["copi", "lot"],
        ["clau", "de"],
        ["open", "ai"],
        ["anthro", "pic"],
        ["language", " model"],
    ]
    .iter()
    .map(|parts| parts.concat())
    .collect();
    let mut files = sources();
    for name in [
        "Cargo.toml",
        "README.md",
        "ARCHITECTURE.md",
        "clippy.toml",
        "tests/run",
        ".ci/run",
        "examples/quickstart",
    ] {
        if let Ok(text) = fs::read_to_string(repository().join(name)) {
            files.push((name.to_owned(), text));
        }
    }
    let mut wrong = Vec::new();
    for (name, text) in files {
        for (number, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            if words.iter().any(|word| lower.contains(word.as_str())) {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    expect_none("the source is about containers, not about the machine it was written on", wrong);
}

fn debts_are_tagged(_: &Sandbox) {
    let mut wrong = Vec::new();
    for (name, text) in sources() {
        for (number, line) in text.lines().enumerate().filter(|_| name != "tests/tidy.rs") {
            let shrug = ["FIXME", "XXX", "HACK"].iter().any(|word| holds_word(line, word));
            if shrug || holds_word(line, "TODO") && !line.contains("TODO(#") {
                wrong.push(format!("{name}:{}: {}", number + 1, line.trim()));
            }
        }
    }
    expect_none("a debt has a number: TODO(#12)", wrong);
}

/// The compiler sees it too, as long as nobody writes an arm for all the rest.
fn every_journaled_effect_has_an_undo(_: &Sandbox) {
    let read = |name: &str| fs::read_to_string(repository().join(name)).expect("it exists");
    let body = |text: &str, begin: &str| {
        let (_, rest) = text.split_once(begin).unwrap_or_else(|| panic!("there is no {begin}"));
        let indent = " ".repeat(begin.len() - begin.trim_start().len());
        rest.split_once(&format!("\n{indent}}}\n")).expect("it ends").0.to_owned()
    };
    let kinds = body(&read("ipc/src/teardown.rs"), "pub enum JournalEntry {");
    let name = |line: &str| {
        let name = line.strip_prefix("    ")?.trim_end_matches([' ', '{', ',']);
        name.chars().all(char::is_alphanumeric).then(|| name.to_owned())
    };
    let kinds: Vec<String> = kinds.lines().filter_map(name).filter(|name| !name.is_empty()).collect();
    assert!(kinds.len() >= 6, "the kinds of entries were not found: {kinds:?}");
    for (file, function) in [
        ("shim/src/teardown/mod.rs", "    fn undo_later("),
        ("shim/src/teardown/tests.rs", "    fn make("),
        ("ipc/src/point.rs", "    pub fn of_entry("),
    ] {
        let body = body(&read(file), function);
        assert!(!body.contains(" _ =>"), "{file}: {function} does not say what it does with each kind");
        for kind in &kinds {
            let kind = format!("JournalEntry::{kind}");
            assert!(body.contains(&kind), "{file}: {function} has no {kind}");
        }
    }
}

fn scripts_stop_at_the_first_error(_: &Sandbox) {
    for name in [
        "tests/run",
        ".ci/run",
        "examples/quickstart",
        "tests/bench/run",
        "tests/kill_points/build",
        "tests/kill_points/run",
        "tests/peers/run",
        "tests/sweep/run",
        "tests/vm/run",
    ] {
        let Ok(text) = fs::read_to_string(repository().join(name)) else { continue };
        if text.starts_with("#!") && text.contains("sh\n") {
            assert!(text.contains("set -euo pipefail"), "{name} goes on after an error");
        }
    }
}
