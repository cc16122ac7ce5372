//! What is listed and how: `ps`, `inspect`, `--format`, `--filter`.

use serde_json::Value;

use crate::harness::{Case, Sandbox, inspect};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        ps_shows_the_usual_columns,
        ps_shows_running_ones_and_all_with_a,
        ps_shows_newest_first_and_n_or_l_of_them,
        ps_quiet_prints_short_ids,
        ps_json_is_one_object_a_line,
        ps_templates_print_fields,
        ps_filters_by_name_id_status_and_code,
        ps_with_unknown_filter_is_refused,
        status_texts_are_dockers,
        inspect_has_the_fields_scripts_read,
        inspect_template_prints_fields,
        inspect_of_several_prints_all_known,
        inspect_times_are_rfc_3339,
        bad_template_is_refused,
        json_format_works_wherever_something_is_listed,
        inspect_shows_limits_and_flags,
    ]
}

fn ps_shows_the_usual_columns(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000; true a long command");
    let text = sandbox.ok(&["ps"]);
    let mut lines = text.lines();
    let heading: Vec<&str> =
        lines.next().unwrap_or("").split("   ").map(str::trim).filter(|word| !word.is_empty()).collect();
    assert_eq!(heading, ["CONTAINER ID", "IMAGE", "COMMAND", "CREATED", "STATUS", "PORTS", "NAMES"]);
    let row = lines.next().unwrap_or("");
    assert!(row.starts_with(&id[..12]) && row.trim_end().ends_with("one"), "{row}");
    assert!(
        row.contains("busybox") && row.contains("\"sh -c 'sleep 1000; …\"") && row.contains("Up "),
        "{row}"
    );
    assert!(sandbox.ok(&["ps", "--no-trunc"]).contains("a long command"));
}

fn ps_shows_running_ones_and_all_with_a(sandbox: &Sandbox) {
    sandbox.run(&["--name", "ended"], &["true"]).expect_code(0);
    sandbox.start("running", &[], "sleep 1000");
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "made", image, "true"]);
    let names = |arguments: &[&str]| {
        let text = sandbox.ok(&[&["ps", "--format", "{{.Names}}"], arguments].concat());
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(names(&[]), ["running"]);
    assert_eq!(names(&["-a"]), ["made", "running", "ended"]);
    assert_eq!(names(&["--all"]), ["made", "running", "ended"]);
}

fn ps_shows_newest_first_and_n_or_l_of_them(sandbox: &Sandbox) {
    for name in ["c1", "c2", "c3"] {
        sandbox.run(&["--name", name], &["true"]).expect_code(0);
    }
    assert_eq!(sandbox.ok(&["ps", "-l", "--format", "{{.Names}}"]), "c3");
    assert_eq!(sandbox.ok(&["ps", "-n", "2", "--format", "{{.Names}}"]), "c3\nc2");
    assert_eq!(sandbox.ok(&["ps", "-n", "9", "-q"]).lines().count(), 3);
}

fn ps_quiet_prints_short_ids(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    assert_eq!(sandbox.ok(&["ps", "-q"]), id[..12]);
    assert_eq!(sandbox.ok(&["ps", "-aq", "--no-trunc"]), id);
}

fn ps_json_is_one_object_a_line(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    sandbox.start("two", &["--label", "a=b"], "sleep 1000");
    let text = sandbox.ok(&["ps", "--format", "json"]);
    let rows: Vec<Value> =
        text.lines().map(|line| serde_json::from_str(line).expect("an object a line")).collect();
    assert_eq!(rows.len(), 2);
    assert_eq!(rows[0]["Names"], "two");
    for field in ["ID", "Image", "Command", "CreatedAt", "RunningFor", "Status", "State", "Names", "Labels"] {
        assert!(!rows[0][field].is_null(), "no {field} in {}", rows[0]);
    }
    assert_eq!(rows[0]["State"], "running");
    assert_eq!(rows[0]["Labels"], "a=b");
}

fn ps_templates_print_fields(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    assert_eq!(
        sandbox.ok(&["ps", "--format", "{{.ID}} {{.Names}}: {{.State}}"]),
        format!("{} one: running", &id[..12])
    );
    let table = sandbox.ok(&["ps", "--format", "table {{.Names}}\t{{.Image}}"]);
    assert!(table.starts_with("NAMES") && table.contains("IMAGE"), "{table}");
    assert!(sandbox.ok(&["ps", "--format", "{{json .}}"]).starts_with('{'));
    assert_eq!(sandbox.ok(&["ps", "--format", "{{upper .Names}}"]), "ONE");
}

fn ps_filters_by_name_id_status_and_code(sandbox: &Sandbox) {
    sandbox.run(&["--name", "ended-3"], &["sh", "-c", "exit 3"]).expect_code(3);
    sandbox.run(&["--name", "ended-4"], &["sh", "-c", "exit 4"]).expect_code(4);
    let id = sandbox.start("running", &[], "sleep 1000");
    let names = |filters: &[&str]| {
        let mut line = vec!["ps", "-a", "--format", "{{.Names}}"];
        filters.iter().for_each(|filter| line.extend(["--filter", *filter]));
        sandbox.ok(&line)
    };
    assert_eq!(names(&["status=running"]), "running");
    assert_eq!(names(&["status=exited"]), "ended-4\nended-3");
    assert_eq!(
        names(&["status=exited", "status=running"]),
        "running\nended-4\nended-3",
        "the same key is an or"
    );
    assert_eq!(names(&["status=exited", "exited=3"]), "ended-3", "another key is an and");
    assert_eq!(names(&["name=ended"]), "ended-4\nended-3");
    assert_eq!(names(&[&format!("id={}", &id[..6])]), "running");
    assert_eq!(names(&["ancestor=busybox", "name=run"]), "running");
    assert_eq!(names(&["name=nobody"]), "");
}

fn ps_with_unknown_filter_is_refused(sandbox: &Sandbox) {
    for filter in ["color=red", "name", "=x", ""] {
        let output = sandbox.mysup(&["ps", "--filter", filter]);
        assert!([1, 125].contains(&output.code) && !output.stderr.is_empty(), "{filter:?}\n{output}");
    }
}

fn status_texts_are_dockers(sandbox: &Sandbox) {
    sandbox.run(&["--name", "ended"], &["sh", "-c", "exit 3"]).expect_code(3);
    sandbox.start("running", &[], "sleep 1000");
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "made", image, "true"]);
    let text = sandbox.ok(&["ps", "-a", "--format", "{{.Names}}={{.Status}}"]);
    let of = |name: &str| {
        text.lines().find_map(|line| line.strip_prefix(&format!("{name}="))).unwrap_or("").to_owned()
    };
    assert_eq!(of("made"), "Created");
    assert!(of("running").starts_with("Up "), "{text}");
    assert!(of("ended").starts_with("Exited (3) ") && of("ended").ends_with(" ago"), "{text}");
}

fn inspect_has_the_fields_scripts_read(sandbox: &Sandbox) {
    sandbox.start("one", &["-e", "A=1", "-w", "/tmp", "-u", "tester", "-h", "box"], "sleep 1000");
    let text = sandbox.ok(&["inspect", "one"]);
    assert!(text.starts_with("[\n    {\n        \""), "4 spaces of indent:\n{text}");
    let container = sandbox.inspect("one");
    for path in [
        "Id",
        "Created",
        "Path",
        "Args",
        "State.Status",
        "State.Running",
        "State.Paused",
        "State.Restarting",
        "State.OOMKilled",
        "State.Dead",
        "State.Pid",
        "State.ExitCode",
        "State.Error",
        "State.StartedAt",
        "State.FinishedAt",
        "Image",
        "Name",
        "RestartCount",
        "LogPath",
        "Mounts",
        "HostConfig.Memory",
        "HostConfig.NanoCpus",
        "HostConfig.AutoRemove",
        "HostConfig.NetworkMode",
        "HostConfig.LogConfig",
        "Config.Hostname",
        "Config.User",
        "Config.Env",
        "Config.Cmd",
        "Config.Image",
        "Config.WorkingDir",
        "Config.Labels",
        "Config.Tty",
        "Config.OpenStdin",
    ] {
        assert!(!inspect::field(&container, path).is_null(), "no {path} in\n{text}");
    }
    assert_eq!(inspect::text(&container, "Config.Hostname"), "box");
    assert_eq!(inspect::text(&container, "Config.User"), "tester");
    assert_eq!(inspect::text(&container, "Config.WorkingDir"), "/tmp");
    assert_eq!(inspect::text(&container, "State.Running"), "true");
    let log = inspect::text(&container, "LogPath");
    assert!(std::path::Path::new(&log).exists(), "LogPath {log}");
}

fn inspect_template_prints_fields(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    let of = |template: &str| sandbox.ok(&["inspect", "--format", template, "one"]);
    assert_eq!(of("{{.Id}}"), id);
    assert_eq!(of("{{.State.Status}} {{.Name}}"), "running /one");
    assert_eq!(of("{{json .State.Running}}"), "true");
    assert_eq!(sandbox.ok(&["inspect", "-f", "{{.State.ExitCode}}", "one"]), "0");
    let json: Value = serde_json::from_str(&of("json")).expect("JSON");
    assert!(json.is_object() || json.is_array());
}

fn inspect_of_several_prints_all_known(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    sandbox.start("two", &[], "sleep 1000");
    let output = sandbox.mysup(&["inspect", "one", "nobody", "two"]).expect_code(1);
    let list: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!(list.as_array().map(Vec::len), Some(2), "{output}");
    assert!(output.errors().contains("nobody"), "{output}");
}

fn inspect_times_are_rfc_3339(sandbox: &Sandbox) {
    let image = sandbox.image();
    sandbox.ok(&["create", "--name", "one", image, "true"]);
    let zero = "0001-01-01T00:00:00Z";
    assert_eq!(inspect::text(&sandbox.inspect("one"), "State.StartedAt"), zero);
    sandbox.mysup(&["start", "-a", "one"]).expect_code(0);
    let container = sandbox.inspect("one");
    for path in ["Created", "State.StartedAt", "State.FinishedAt"] {
        let time = inspect::text(&container, path);
        assert!(time.starts_with("20") && time.ends_with('Z') && time.contains('T'), "{path}: {time}");
    }
    assert!(inspect::text(&container, "State.StartedAt") <= inspect::text(&container, "State.FinishedAt"));
}

fn bad_template_is_refused(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    for template in ["{{.Names", "{{.NoSuchField}}", "{{nosuch .Names}}"] {
        let output = sandbox.mysup(&["ps", "--format", template]);
        assert!(
            output.code != 0 && !output.stderr.is_empty() && !output.errors().contains("panicked"),
            "{output}"
        );
    }
}

fn json_format_works_wherever_something_is_listed(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    for line in [&["ps"][..], &["images"], &["info"], &["version"]] {
        let text = sandbox.ok(&[line, &["--format", "json"]].concat());
        for row in text.lines() {
            let value: Result<Value, _> = serde_json::from_str(row);
            assert!(value.is_ok_and(|value| value.is_object()), "{line:?}: {row}");
        }
    }
}

fn inspect_shows_limits_and_flags(sandbox: &Sandbox) {
    let flags = [
        "--rm",
        "-m",
        "64m",
        "--cpus",
        "0.5",
        "--pids-limit",
        "50",
        "--read-only",
        "--network",
        "none",
        "--init",
    ];
    sandbox.start("one", &flags, "sleep 1000");
    let container = sandbox.inspect("one");
    assert_eq!(inspect::number(&container, "HostConfig.Memory"), 64 << 20);
    assert_eq!(inspect::number(&container, "HostConfig.NanoCpus"), 500_000_000);
    assert_eq!(inspect::number(&container, "HostConfig.PidsLimit"), 50);
    assert_eq!(inspect::text(&container, "HostConfig.AutoRemove"), "true");
    assert_eq!(inspect::text(&container, "HostConfig.ReadonlyRootfs"), "true");
    assert_eq!(inspect::text(&container, "HostConfig.NetworkMode"), "none");
    assert_eq!(inspect::text(&container, "HostConfig.Init"), "true");
}
