//! `system df`, and what prunes: it says what goes, removes only that, and asks first.

use std::fs;

use crate::harness::{Case, Sandbox, terminal::Terminal};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        df_counts_what_is_there,
        containers_are_pruned_when_they_do_not_run,
        system_prune_removes_what_nobody_uses,
        prune_asks_on_a_terminal_and_takes_no_for_an_answer,
        prune_without_a_terminal_is_refused,
    ]
}

fn names(sandbox: &Sandbox) -> Vec<String> {
    sandbox.ok(&["ps", "-a", "--format", "{{.Names}}"]).lines().map(str::to_owned).collect()
}

fn df(sandbox: &Sandbox) -> Vec<Vec<String>> {
    let format = "{{.Type}}|{{.TotalCount}}|{{.Active}}|{{.Size}}|{{.Reclaimable}}";
    let text = sandbox.ok(&["system", "df", "--format", format]);
    text.lines().map(|line| line.split('|').map(str::to_owned).collect()).collect()
}

fn df_counts_what_is_there(sandbox: &Sandbox) {
    sandbox.image();
    assert_eq!(
        sandbox.ok(&["system", "df"]).lines().next(),
        Some("TYPE            TOTAL     ACTIVE    SIZE      RECLAIMABLE")
    );
    let empty = df(sandbox);
    assert_eq!(empty[0][..3], ["Images", "1", "0"]);
    assert!(empty[0][4].ends_with("(100%)"), "{empty:?}");
    assert_eq!(empty[1], ["Containers", "0", "0", "0B", "0B"]);
    assert_eq!(empty[2], ["Local Volumes", "0", "0", "0B", "0B"]);
    let script = "head -c 3000000 /dev/zero > /big; head -c 2000000 /dev/zero > /d/big; ln /d/big /d/again; \
        truncate -s 1G /d/sparse; echo done; sleep 1000";
    sandbox.start("one", &["-v", "data:/d"], script);
    crate::harness::wait_until("it is written", || sandbox.mysup(&["logs", "one"]).text().contains("done"));
    sandbox.ok(&["volume", "create", "free"]);
    // The same layers once more count once.
    let image = sandbox.ok(&["images", "-q"]);
    sandbox.ok(&["tag", &image, "again"]);
    let full = df(sandbox);
    assert_eq!(
        (full[0][..3].to_vec(), &full[0][3]),
        (vec!["Images".into(), "1".into(), "1".into()], &empty[0][3])
    );
    assert!(full[0][4].starts_with("0B"), "{full:?}");
    assert_eq!(full[1][..3], ["Containers", "1", "1"]);
    assert!(full[1][3].starts_with('3') && full[1][3].ends_with("MB"), "blocks of the write layer: {full:?}");
    assert_eq!(full[2][..3], ["Local Volumes", "2", "1"]);
    assert!(
        full[2][3].starts_with('2') && full[2][3].ends_with("MB"),
        "a file once, a hole not at all: {full:?}"
    );
    let shown = sandbox.ok(&["system", "df", "-v"]);
    for word in
        ["Images space usage:", "SHARED SIZE", "busybox", "Containers space usage:", "one", "data", "free"]
    {
        assert!(shown.contains(word), "{word} is not in\n{shown}");
    }
}

fn containers_are_pruned_when_they_do_not_run(sandbox: &Sandbox) {
    let image = sandbox.image();
    sandbox.start("up", &[], "sleep 1000");
    sandbox.run(&["--name", "down", "-v", "/d"], &["true"]).expect_code(0);
    sandbox.run(&["--name", "kept", "--label", "keep=yes"], &["true"]).expect_code(0);
    sandbox.ok(&["create", "--name", "made", image, "true"]);
    let id = sandbox.ok(&["inspect", "--format", "{{.Id}}", "down"]);
    let said = sandbox.ok(&["container", "prune", "-f", "--filter", "label!=keep"]);
    assert!(
        said.starts_with("Deleted Containers:\n") && said.contains(&id) && said.contains("reclaimed space"),
        "{said}"
    );
    let mut left = names(sandbox);
    left.sort();
    assert_eq!(left, ["kept", "up"]);
    assert_eq!(sandbox.ok(&["volume", "ls", "-q"]).lines().count(), 1, "volumes stay, as docker's");
    sandbox.ok(&["container", "prune", "-f", "--filter", "until=1h"]);
    assert_eq!(names(sandbox).len(), 2, "made a moment ago");
    sandbox.ok(&["container", "prune", "-f"]);
    assert_eq!(names(sandbox), ["up"]);
    assert_eq!(sandbox.ok(&["container", "prune", "-f"]), "Total reclaimed space: 0B");
}

fn system_prune_removes_what_nobody_uses(sandbox: &Sandbox) {
    let tar = sandbox.place("other.tar");
    fs::write(&tar, crate::harness::image::tar_bytes(&[("other", "x")])).expect("the sandbox is ours");
    sandbox.image();
    sandbox.ok(&["import", &tar.to_string_lossy(), "other"]);
    let nameless = sandbox.place("nameless.tar");
    fs::write(&nameless, crate::harness::image::tar_bytes(&[("nameless", "x")]))
        .expect("the sandbox is ours");
    sandbox.ok(&["import", &nameless.to_string_lossy()]);
    sandbox.start("up", &["-v", "/d"], "sleep 1000");
    sandbox.run(&["--name", "down", "-v", "/d", "-v", "named:/n"], &["true"]).expect_code(0);
    let said = sandbox.ok(&["system", "prune", "-f"]);
    for title in ["Deleted Containers:", "Deleted Images:", "Total reclaimed space: "] {
        assert!(said.contains(title), "{title} is not in\n{said}");
    }
    assert_eq!(names(sandbox), ["up"]);
    assert_eq!(sandbox.ok(&["images", "-q"]).lines().count(), 2, "those with a name stay");
    assert_eq!(sandbox.ok(&["volume", "ls", "-q"]).lines().count(), 3, "volumes are not asked for");
    sandbox.ok(&["system", "prune", "-f", "--volumes"]);
    assert_eq!(sandbox.ok(&["volume", "ls", "-q"]).lines().count(), 2, "anonymous and unused ones only");
    sandbox.ok(&["system", "prune", "-f", "-a"]);
    assert_eq!(sandbox.ok(&["images", "--format", "{{.Repository}}"]), "busybox", "that of the running one");
}

fn prune_asks_on_a_terminal_and_takes_no_for_an_answer(sandbox: &Sandbox) {
    sandbox.run(&["--name", "down"], &["true"]).expect_code(0);
    for (answer, left) in [("n\n", 1), ("\n", 1), ("y\n", 0)] {
        let mut terminal = Terminal::run(sandbox, &["system", "prune"], 24, 80);
        terminal.wait_for("Are you sure you want to continue? [y/N]");
        terminal.wait_for("down");
        terminal.type_keys(answer);
        terminal.wait();
        assert_eq!(names(sandbox).len(), left, "after {answer:?}");
    }
}

fn prune_without_a_terminal_is_refused(sandbox: &Sandbox) {
    sandbox.run(&["--name", "down"], &["true"]).expect_code(0);
    for verb in [&["system", "prune"][..], &["container", "prune"], &["volume", "prune"]] {
        let output = sandbox.call(verb).input("y\n").run();
        assert!(output.code == 1 && output.errors().contains("-f"), "{output}");
    }
    assert_eq!(names(sandbox), ["down"]);
}
