//! Many at once: every code true, everything clean.

use std::thread;

use crate::harness::{Case, Sandbox, inspect, leaks, processes, tree::plant_data, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        fifty_foreground_runs_at_once_return_their_codes,
        fifty_detached_started_and_ended_at_once_keep_their_codes,
        fifty_killed_at_the_same_instant_are_all_137,
        fifty_share_a_volume_and_lose_nothing,
        same_name_fifty_times_at_once_is_given_once,
        supervisor_killed_in_a_storm_loses_no_code,
    ]
}

const MANY: usize = 50;

fn codes(sandbox: &Sandbox) -> Vec<i32> {
    (0..MANY).map(|_| sandbox.exit_code()).collect()
}

fn fifty_foreground_runs_at_once_return_their_codes(sandbox: &Sandbox) {
    let image = sandbox.image();
    let clients: Vec<_> = codes(sandbox)
        .into_iter()
        .map(|code| {
            let script = format!("echo {code}; exit {code}");
            (code, sandbox.call(&["run", "--rm", image, "sh", "-c", &script]).start())
        })
        .collect();
    for (code, client) in clients {
        assert_eq!(client.wait().expect_code(code).text(), code.to_string());
    }
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn fifty_detached_started_and_ended_at_once_keep_their_codes(sandbox: &Sandbox) {
    let gate = sandbox.new_directory("gate");
    let before = processes::descriptors(sandbox.supervisor());
    let codes = codes(sandbox);
    thread::scope(|scope| {
        for (number, code) in codes.iter().enumerate() {
            let gate = &gate;
            scope.spawn(move || {
                let script = format!("until [ -e /gate/open ]; do sleep 0.02; done; exit {code}");
                sandbox.start(&format!("c{number}"), &["-v", &format!("{gate}:/gate:ro")], &script);
            });
        }
    });
    std::fs::write(sandbox.place("gate/open"), "").expect("the sandbox is ours");
    for (number, code) in codes.iter().enumerate() {
        let name = format!("c{number}");
        assert_eq!(sandbox.ok(&["wait", &name]), code.to_string());
        assert_eq!(inspect::number(&sandbox.inspect(&name), "State.ExitCode"), i64::from(*code));
    }
    wait_until("all are torn down", || {
        sandbox.ok(&["ps", "-a", "--filter", "status=exited", "-q"]).lines().count() == MANY
    });
    let all = sandbox.ok(&["ps", "-a", "-q"]);
    sandbox.ok(&[&["rm"], &all.lines().collect::<Vec<_>>()[..]].concat());
    let supervisor = sandbox.supervisor();
    wait_until("the supervisor has its descriptors back", || processes::descriptors(supervisor) == before);
}

fn start_many(sandbox: &Sandbox, flags: &[&str], script: &str) -> Vec<String> {
    let names: Vec<String> = (0..MANY).map(|number| format!("c{number}")).collect();
    sandbox.image();
    thread::scope(|scope| {
        for name in &names {
            scope.spawn(|| sandbox.start(name, flags, script));
        }
    });
    names
}

fn fifty_killed_at_the_same_instant_are_all_137(sandbox: &Sandbox) {
    let names = start_many(sandbox, &[], "sleep 1000");
    let inits: Vec<i32> = names.iter().map(|name| sandbox.init_pid(name)).collect();
    for init in inits {
        processes::signal(init, rustix::process::Signal::KILL);
    }
    for name in &names {
        assert_eq!(sandbox.ok(&["wait", name]), "137");
    }
}

fn fifty_share_a_volume_and_lose_nothing(sandbox: &Sandbox) {
    let volume = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "shared");
    let names = start_many(sandbox, &["-v", &format!("{volume}:/v")], "sleep 1000");
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    sandbox.ok(&[&["rm", "-f"], &names[..]].concat());
    before.expect_unchanged(&sandbox.place("v"));
}

fn same_name_fifty_times_at_once_is_given_once(sandbox: &Sandbox) {
    let image = sandbox.image();
    let clients: Vec<_> = (0..MANY)
        .map(|_| sandbox.call(&["run", "-d", "--name", "one", image, "sleep", "1000"]).start())
        .collect();
    let outputs: Vec<_> = clients.into_iter().map(|client| client.wait()).collect();
    let given = outputs.iter().filter(|output| output.code == 0).count();
    assert_eq!(given, 1);
    assert!(outputs.iter().all(|output| output.code == 0 || output.code == 125));
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]).lines().count(), 1, "the others left nothing");
}

fn supervisor_killed_in_a_storm_loses_no_code(sandbox: &Sandbox) {
    let image = sandbox.image();
    let proof = sandbox.new_directory("proof");
    let volume = format!("{proof}:/proof");
    let clients: Vec<_> = codes(sandbox)
        .into_iter()
        .enumerate()
        .map(|(number, code)| {
            let script = format!("echo {code} > /proof/{number}; exit {code}");
            let name = format!("c{number}");
            sandbox.call(&["run", "-d", "--name", &name, "-v", &volume, image, "sh", "-c", &script]).start()
        })
        .collect();
    wait_until("some have run", || std::fs::read_dir(&proof).is_ok_and(|entries| entries.count() > 5));
    sandbox.kill_supervisor();
    clients.into_iter().for_each(|client| drop(client.wait()));
    sandbox.ok(&["info"]);
    wait_until("all are settled", || {
        let states = sandbox.ok(&["ps", "-a", "--format", "{{.State}}"]);
        states.lines().all(|state| ["exited", "created"].contains(&state))
    });
    for entry in std::fs::read_dir(&proof).expect("the sandbox is ours").flatten() {
        let number = entry.file_name().to_string_lossy().into_owned();
        let code = std::fs::read_to_string(entry.path()).expect("it was written");
        let shown = sandbox.inspect(&format!("c{number}"));
        assert_eq!(inspect::text(&shown, "State.ExitCode"), code.trim(), "container c{number}");
    }
    let left = leaks::find(sandbox);
    assert!(!left.iter().any(|line| line.starts_with("mount") || line.starts_with("cgroup")), "{left:?}");
}
