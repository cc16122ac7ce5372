//! Cases of the merge of command line and image.

use mysup_ipc::plan::TerminalSize;

use super::*;
use crate::registry::record::tests::{config, record};

fn own() -> Config {
    Config { root: "/var/lib/mysup".into(), run_root: "/run/mysup".into(), ..Config::default() }
}

fn id() -> ContainerId {
    "ab".repeat(32).parse().unwrap()
}

fn image() -> ImageConfig {
    ImageConfig {
        env: vec!["PATH=/image".into(), "A=1".into()],
        cmd: vec!["cmd".into()],
        entrypoint: vec!["entry".into()],
        workdir: "/here/../w".into(),
        user: "nobody".into(),
        stop_signal: Some("SIGQUIT".into()),
        ..ImageConfig::default()
    }
}

fn strings(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn merged(change: impl FnOnce(&mut ContainerConfig)) -> Result<Program, WireError> {
    let mut config = config();
    change(&mut config);
    merge(&id(), &config, &image(), &own())
}

#[test]
fn entrypoint_and_command_follow_docker() {
    type Case = (Option<&'static [&'static str]>, &'static [&'static str], &'static [&'static str]);
    let cases: [Case; 5] = [
        (None, &[], &["entry", "cmd"]),
        (None, &["x"], &["entry", "x"]),
        (Some(&["e"]), &[], &["e"]),
        (Some(&["e"]), &["x"], &["e", "x"]),
        (Some(&[""]), &["x"], &["x"]),
    ];
    for (entrypoint, command, expected) in cases {
        let program = merged(|config| {
            config.entrypoint = entrypoint.map(strings);
            config.command = strings(command);
        });
        assert_eq!(program.unwrap().args, expected, "{entrypoint:?} {command:?}");
    }
    let none = merged(|config| config.entrypoint = Some(vec![])).unwrap_err();
    assert_eq!(none.message, "No command specified");
}

#[test]
fn variables_are_replaced_in_place() {
    let program = merged(|config| {
        config.terminal = Some(TerminalSize { rows: 1, columns: 1 });
        config.env = strings(&["A=2", "B=", "TERM=dumb"]);
    });
    let host = format!("HOSTNAME={}", id().short());
    assert_eq!(program.unwrap().env, ["PATH=/image", &host, "TERM=dumb", "A=2", "B="]);
    assert!(merged(|config| config.env = strings(&["=x"])).is_err());
    assert!(merged(|config| config.env = strings(&["A=\0"])).is_err());
}

#[test]
fn workdir_user_and_stop_come_from_the_image_unless_typed() {
    let program = merged(|_| ()).unwrap();
    assert_eq!((program.workdir.as_str(), program.user.as_str()), ("/w", "nobody"));
    assert_eq!(program.stop, StopPlan { signal: 3, grace_ms: Some(10_000) });
    let program = merged(|config| {
        config.workdir = Some("/".into());
        config.user = Some("1:2".into());
        config.stop_signal = Some(9);
        config.stop_timeout = Some(-1);
    });
    let program = program.unwrap();
    assert_eq!((program.workdir.as_str(), program.user.as_str()), ("/", "1:2"));
    assert_eq!(program.stop, StopPlan { signal: 9, grace_ms: None });
    assert!(merged(|config| config.workdir = Some("x".into())).is_err());
    assert!(merged(|config| config.stop_signal = Some(65)).is_err());
}

#[test]
fn signals_are_read_as_docker_reads_them() {
    let cases = [("TERM", 15), ("sigint", 2), ("9", 9), ("RTMIN", 34), ("RTMIN+3", 37), ("SIGRTMAX-1", 63)];
    for (text, number) in cases {
        assert_eq!(parse_signal(text), Some(number), "{text}");
    }
    for text in ["", "0", "65", "RTMIN+40", "RTMAX+1", "NONSENSE"] {
        assert_eq!(parse_signal(text), None, "{text}");
    }
}

#[test]
fn mounts_that_can_only_be_wrong_are_refused() {
    let cases = [
        ("rel", "/src", false),
        ("/a/../b", "/src", false),
        ("/", "/src", false),
        ("//", "/src", false),
        ("/ok", "src", false),
        ("/ok", "/", false),
        ("/ok", "/var", false),
        ("/ok", "/var/lib/mysup/layers", false),
        ("/ok", "/run/mysup", false),
        ("/ok", "/var/lib/mysup2", true),
        ("/ok", "/src", true),
    ];
    for (destination, path, good) in cases {
        let source = MountSource::Bind { path: path.into(), create: true };
        let mount = MountPlan { destination: destination.into(), read_only: false, source };
        assert_eq!(merged(|config| config.mounts = vec![mount]).is_ok(), good, "{path}:{destination}");
    }
}

#[test]
fn a_plan_has_the_old_limit_of_open_files_unless_one_is_typed() {
    let machine = Machine {
        capabilities: capabilities::Available(0),
        open_files: OpenFilesLimit { soft: 1024, hard: 4096 },
    };
    let plan = build(&record(), vec!["/l".into()], Attach::Output, &own(), machine).unwrap();
    assert_eq!(plan.process.rlimits, [Rlimit { resource: 7, soft: 1024, hard: 4096 }]);
    assert_eq!(plan.attach, Some(AttachPlan { stdin: false }));
    assert_eq!(plan.lifetime, Lifetime::Record);
    assert_eq!(plan.own_roots, ["/var/lib/mysup", "/run/mysup"]);
    let mut other = record();
    other.config.rlimits = vec![Rlimit { resource: 7, soft: 5, hard: 5 }];
    let plan = build(&other, vec![], Attach::Nobody, &own(), machine).unwrap();
    assert_eq!(plan.process.rlimits, other.config.rlimits);
}
