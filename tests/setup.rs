//! What a person meets first: the scripts and the texts of the repository.

use std::{fs, path::Path};

use crate::harness::{
    Case, Sandbox,
    command::{Call, repository},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![quickstart_shows_a_container_and_leaves_nothing, texts_say_what_they_must]
}

fn quickstart_shows_a_container_and_leaves_nothing(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let script = repository().join("examples/quickstart");
    assert!(script.exists(), "examples/quickstart is one of the two commands of the README");
    let mut call = Call::new(&script, Vec::<String>::new());
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    call.deadline = std::time::Duration::from_secs(600);
    let output = call.run().expect_code(0);
    assert!(!output.stdout.is_empty(), "it says each thing it does\n{output}");
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn texts_say_what_they_must(_: &Sandbox) {
    let read = |name: &str| fs::read_to_string(repository().join(Path::new(name))).unwrap_or_default();
    let readme = read("README.md");
    for word in ["examples/quickstart", "tests/run", "--keep", "--rm", "imit"] {
        assert!(readme.contains(word), "README.md does not speak of {word}");
    }
    let verbs = [
        "run", "ps", "logs", "inspect", "stop", "rm", "import", "images", "top", "wait", "kill", "exec",
        "start",
    ];
    let toured = verbs.iter().filter(|verb| readme.contains(&format!("mysup {verb}"))).count();
    assert!(toured >= 10, "the tour of the README has {toured} of ten commands");
    let architecture = read("ARCHITECTURE.md").to_lowercase();
    for word in ["invariant", "protocol", "undo", "shim", "supervisor"] {
        assert!(architecture.contains(word), "ARCHITECTURE.md does not speak of {word}");
    }
}
