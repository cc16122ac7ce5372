//! How a container is named and found: names, ids, prefixes.

use crate::harness::{Case, Sandbox, inspect, sandbox::is_id};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        generated_name_is_adjective_and_surname,
        name_in_use_is_refused_and_names_the_owner,
        name_of_exited_container_is_still_in_use,
        bad_names_are_refused,
        container_is_found_by_name_id_and_unique_prefix,
        ambiguous_prefix_is_refused,
        name_wins_over_prefix,
        short_id_is_never_all_digits,
        rename_gives_a_new_name_and_frees_the_old,
        rename_to_a_name_in_use_is_refused,
        rename_of_unknown_container_is_refused,
        renamed_running_container_survives_a_restart,
        unknown_container_is_1_for_every_verb,
        names_are_shown_with_a_slash_in_json_only,
    ]
}

fn generated_name_is_adjective_and_surname(sandbox: &Sandbox) {
    for _ in 0..3 {
        sandbox.run(&["-d"], &["true"]).expect_code(0);
    }
    for name in sandbox.ok(&["ps", "-a", "--format", "{{.Names}}"]).lines() {
        let parts: Vec<&str> = name.split('_').collect();
        let letters =
            |text: &str| text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
        assert!(parts.len() == 2 && parts.iter().all(|part| part.len() > 1 && letters(part)), "{name}");
    }
}

fn name_in_use_is_refused_and_names_the_owner(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let line = sandbox.run_line(&["--rm", "--name", "one"], &["true"]);
    sandbox.refused(&line, 125, &["conflict", "/one", &id]);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q", "--no-trunc"]), id);
}

fn name_of_exited_container_is_still_in_use(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["true"]).expect_code(0);
    let line = sandbox.run_line(&["--name", "one"], &["true"]);
    sandbox.refused(&line, 125, &["conflict"]);
    sandbox.ok(&["rm", "one"]);
    sandbox.ok(&line);
}

fn bad_names_are_refused(sandbox: &Sandbox) {
    let long = "x".repeat(5000);
    for name in ["x", "", "-ab", ".ab", "_ab", "a b", "a/b", "../ab", "a\nb", "ä1", "a:b", &long] {
        let flag = format!("--name={name}");
        let line = sandbox.run_line(&["--rm", &flag], &["true"]);
        let output = sandbox.mysup(&line);
        assert!(output.code == 125 && output.errors().lines().count() == 1, "{name:?}\n{output}");
    }
    for name in ["ab", "A.b-c_d", "0a", "a0"] {
        sandbox.run(&["--rm", "--name", name], &["true"]).expect_code(0);
    }
}

fn container_is_found_by_name_id_and_unique_prefix(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    for word in ["one", "/one", &id, &id[..12], &id[..4], &id[..1]] {
        assert_eq!(inspect::text(&sandbox.inspect(word), "Id"), id, "{word}");
    }
    assert_eq!(sandbox.ok(&["stop", "-t", "0", &id[..6]]), id[..6], "the word is printed as typed");
}

/// Two ids with the same first digit; a few tries are enough, there are sixteen digits.
fn two_alike(sandbox: &Sandbox) -> (String, String) {
    let image = sandbox.image();
    let mut known: Vec<String> = Vec::new();
    loop {
        let id = sandbox.ok(&["create", image, "true"]);
        if let Some(other) = known.iter().find(|other| other[..1] == id[..1]) {
            return (other.clone(), id);
        }
        known.push(id);
    }
}

fn ambiguous_prefix_is_refused(sandbox: &Sandbox) {
    let (first, second) = two_alike(sandbox);
    let prefix = &first[..1];
    for verb in [&["inspect"][..], &["rm"], &["stop"], &["start"], &["logs"]] {
        let output = sandbox.mysup(&[verb, &[prefix]].concat()).expect_code(1);
        assert!(output.errors().contains(&format!("prefix: {prefix}")), "{output}");
        assert!(output.errors().to_lowercase().contains("multiple"), "{output}");
    }
    assert_eq!(sandbox.status(&first), "created");
    assert_eq!(sandbox.status(&second), "created");
}

fn name_wins_over_prefix(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let name = &id[..4];
    let other = sandbox.start(name, &[], "sleep 1000");
    assert_eq!(inspect::text(&sandbox.inspect(name), "Id"), other);
}

fn short_id_is_never_all_digits(sandbox: &Sandbox) {
    let image = sandbox.image();
    for _ in 0..20 {
        let id = sandbox.ok(&["create", image, "true"]);
        assert!(is_id(&id) && id[..12].bytes().any(|byte| byte.is_ascii_lowercase()), "{id}");
    }
}

fn rename_gives_a_new_name_and_frees_the_old(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    sandbox.ok(&["rename", "one", "two"]);
    assert_eq!(inspect::text(&sandbox.inspect("two"), "Id"), id);
    assert_eq!(sandbox.status("one"), "absent");
    sandbox.start("one", &[], "sleep 1000");
}

fn rename_to_a_name_in_use_is_refused(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    sandbox.start("two", &[], "sleep 1000");
    sandbox.refused(&["rename", "one", "two"], 1, &["conflict", "two"]);
    for bad in ["x", "a b", "../x"] {
        sandbox.refused(&["rename", "one", bad], 1, &[]);
    }
    assert_eq!(sandbox.status("one"), "running");
}

fn rename_of_unknown_container_is_refused(sandbox: &Sandbox) {
    sandbox.refused(&["rename", "nobody", "two"], 1, &["no such container", "nobody"]);
}

fn renamed_running_container_survives_a_restart(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    sandbox.ok(&["rename", "one", "two"]);
    sandbox.kill_supervisor();
    assert_eq!(inspect::text(&sandbox.inspect("two"), "Id"), id);
    assert_eq!(sandbox.status("one"), "absent");
}

fn unknown_container_is_1_for_every_verb(sandbox: &Sandbox) {
    for verb in ["start", "stop", "kill", "restart", "wait", "rm", "logs", "top"] {
        sandbox.refused(&[verb, "nobody"], 1, &["no such container", "nobody"]);
    }
}

fn names_are_shown_with_a_slash_in_json_only(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    assert_eq!(inspect::text(&sandbox.inspect("one"), "Name"), "/one");
    assert_eq!(sandbox.ok(&["ps", "--format", "{{.Names}}"]), "one");
}
