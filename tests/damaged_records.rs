//! Records whose bytes are not what was written: each costs what it is about and nothing else, and can be got rid of.

use std::fs;

use crate::harness::{Case, Sandbox};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        records_of_an_end_are_mended_by_a_start,
        container_with_damaged_records_of_its_end_is_removed_without_force,
        image_is_removed_by_its_id,
    ]
}

/// A container that ended, with damaged records of that, and no supervisor.
fn damage_the_end(sandbox: &Sandbox) {
    sandbox.start("one", &[], "true");
    sandbox.wait_status("one", "exited");
    let directory = sandbox.state_directory("one");
    sandbox.ok(&["shutdown"]);
    for name in ["exit", "teardown"] {
        fs::write(directory.join(name), "half").expect("the sandbox is ours");
    }
}

fn records_of_an_end_are_mended_by_a_start(sandbox: &Sandbox) {
    damage_the_end(sandbox);
    let found = sandbox.mysup(&["doctor"]).expect_code(1).text();
    assert!(found.matches("damaged-record").count() == 2 && found.contains("doctor --fix"), "{found}");
    let fixed = sandbox.mysup(&["doctor", "--fix"]).expect_code(0).text();
    assert_eq!(fixed.matches("repaired: damaged-record").count(), 2, "{fixed}");
    let output = sandbox.mysup(&["wait", "one"]);
    assert!(output.text() == "255" && output.errors().contains("damaged"), "{output}");
    sandbox.mysup(&["doctor"]).expect_code(0);
}

fn container_with_damaged_records_of_its_end_is_removed_without_force(sandbox: &Sandbox) {
    damage_the_end(sandbox);
    sandbox.ok(&["rm", "one"]);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn image_is_removed_by_its_id(sandbox: &Sandbox) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    let mut records = fs::read_dir(sandbox.root().join("images")).expect("there are images").flatten();
    let record = records.next().expect("there is one").path();
    fs::write(&record, "half").expect("the sandbox is ours");
    let id = record.file_stem().expect("it has a name").to_string_lossy().into_owned();
    let found = sandbox.mysup(&["doctor"]).expect_code(1).text();
    assert!(
        found.contains("damaged-image") && found.contains(&format!("mysup rmi {}", &id[..12])),
        "{found}"
    );
    sandbox.ok(&["rmi", &id[..12]]);
    sandbox.mysup(&["doctor"]).expect_code(0);
}
