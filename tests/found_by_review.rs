//! What somebody found who looked for holes in the promise, from outside: each was one.

use std::{fs, path::PathBuf};

use rustix::process::Signal;

use crate::{
    adoption::replace_shim,
    harness::{Case, Sandbox, command::Call, plant::Bind, processes, skip, wait_until},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        threaded_cgroup_does_not_hold_the_end,
        program_in_a_cgroup_of_its_own_is_adopted,
        adopted_terminal_that_nobody_has_open_costs_nothing,
        followed_log_goes_on_when_shims_die,
        limit_on_file_sizes_kills_nobody,
        own_directories_are_refused_below_another_mount,
    ]
}

/// The container's directories in all hierarchies.
fn cgroups(sandbox: &Sandbox, name: &str) -> Vec<PathBuf> {
    let id = sandbox.inspect(name)["Id"].as_str().unwrap_or_default().to_owned();
    let own = processes::cgroup_directories().into_iter().filter(|path| path.ends_with(&id));
    own.collect()
}

fn threaded_cgroup_does_not_hold_the_end(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let unified = cgroups(sandbox, "one").into_iter().find(|path| path.join("cgroup.type").exists());
    let Some(unified) = unified else { skip("no hierarchy of version 2") };
    let threaded = unified.join("threaded");
    fs::create_dir(&threaded).expect("cgroups can be made");
    if fs::write(threaded.join("cgroup.type"), "threaded").is_err() {
        skip("this cgroup cannot have threaded ones below it");
    }
    sandbox.ok(&["stop", "one"]);
    sandbox.wait_status("one", "exited");
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    assert!(!unified.exists(), "its cgroup is left");
}

/// As systemd and nested engines do.
fn program_in_a_cgroup_of_its_own_is_adopted(sandbox: &Sandbox) {
    let code = sandbox.exit_code();
    sandbox.start_obedient("one", &[], code);
    let init = sandbox.init_pid("one");
    for cgroup in cgroups(sandbox, "one") {
        let own = cgroup.join("own");
        fs::create_dir(&own).expect("cgroups can be made");
        for pid in fs::read_to_string(cgroup.join("cgroup.procs")).expect("it can be read").lines() {
            // Children of the program come and go.
            let _ = fs::write(own.join("cgroup.procs"), pid);
        }
    }
    let shim = sandbox.shim_pid("one");
    processes::signal(sandbox.supervisor(), Signal::KILL);
    processes::signal(shim, Signal::KILL);
    sandbox.wait_status("one", "running");
    assert_eq!(sandbox.init_pid("one"), init);
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
}

fn adopted_terminal_that_nobody_has_open_costs_nothing(sandbox: &Sandbox) {
    let volume = format!("{}:/v", sandbox.new_directory("v"));
    let script = "exec </dev/null >/dev/null 2>&1; : > /v/closed; \
                  until [ -e /v/adopted ]; do usleep 10000; done; sleep 2; : > /v/later; exec sleep 1000";
    sandbox.ok(&sandbox.run_line(&["-dt", "--name", "one", "-v", &volume], &["sh", "-c", script]));
    wait_until("its ends are closed", || sandbox.place("v/closed").exists());
    replace_shim(sandbox, "one");
    fs::write(sandbox.place("v/adopted"), "").expect("the sandbox is ours");
    wait_until("two seconds have passed for it", || sandbox.place("v/later").exists());
    let stat = fs::read_to_string(format!("/proc/{}/stat", sandbox.shim_pid("one"))).unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    let ticks: u64 = fields[11..13].iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    assert!(ticks < 50, "the shim has used {ticks} hundredths of a second");
    sandbox.ok(&["kill", "one"]);
}

fn followed_log_goes_on_when_shims_die(sandbox: &Sandbox) {
    let script = "i=0; while [ $i -lt 400 ]; do i=$((i+1)); echo line $i; usleep 10000; done; exit 5";
    sandbox.start("one", &[], script);
    let logs = sandbox.call(&["logs", "-f", "one"]).start();
    for _ in 0..3 {
        replace_shim(sandbox, "one");
    }
    let output = logs.wait().expect_code(0);
    let lines: Vec<String> = (1..=400).map(|number| format!("line {number}")).collect();
    assert_eq!(output.text(), lines.join("\n"));
    assert_eq!(sandbox.ok(&["wait", "one"]), "5");
}

fn limit_on_file_sizes_kills_nobody(sandbox: &Sandbox) {
    sandbox.image();
    sandbox.ok(&["shutdown"]);
    let script = format!("ulimit -f 64; exec '{}' start", sandbox.program().display());
    let mut call = Call::new("/bin/sh".as_ref(), ["-c", &script]);
    for (name, value) in sandbox.environment() {
        call = call.env(name, value);
    }
    call.run().expect_code(0);
    let supervisor = sandbox.supervisor();
    // More than the limit, which the log cannot take.
    sandbox.start("one", &[], "dd if=/dev/zero bs=1024 count=200 2>/dev/null | tr '\\0' x; exit 6");
    assert_eq!(sandbox.ok(&["wait", "one"]), "6");
    assert_eq!(sandbox.supervisor_pid(), Some(supervisor), "the supervisor lives");
    assert!(!sandbox.log().contains("adopt"), "no shim died\n{}", sandbox.log());
}

fn own_directories_are_refused_below_another_mount(sandbox: &Sandbox) {
    let volume = format!("{}:/x", sandbox.new_directory("m"));
    sandbox.run(&["--rm", "-v", &volume], &["true"]).expect_code(0);
    let bind = Bind::new(&sandbox.root(), &sandbox.place("m/sub"));
    let output = sandbox.run(&["--rm", "-v", &volume], &["ls", "/x/sub"]);
    assert!(output.code == 125 && output.errors().contains("mysup's own"), "{output}");
    bind.remove();
}
