//! What `tests/chaos` has found, each as a test of its own that needs no luck.

use std::path::Path;

use rustix::process::Signal;

use crate::harness::{Case, Sandbox, plant::Bind, processes, tree::plant_data, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        run_that_was_never_answered_is_not_attached_to_a_stranger,
        run_that_was_never_read_is_made_by_the_next_supervisor,
        recorded_end_is_shown_after_a_dead_shim_and_a_restart_in_a_long_teardown,
    ]
}

/// `run` in the foreground whose supervisor has its request, and dies before it has read it.
fn unanswered(sandbox: &Sandbox, name: &str) -> crate::harness::command::Output {
    let supervisor = sandbox.supervisor();
    let line = sandbox.run_line(&["--name", name], &["sh", "-c", "exit 7"]);
    processes::signal(supervisor, Signal::STOP);
    let client = sandbox.call(&line).start();
    sandbox.adopt_client(client.pid());
    wait_until("the request is made", || {
        let waits = std::fs::read_to_string(format!("/proc/{}/wchan", client.pid())).unwrap_or_default();
        waits.contains("poll")
    });
    processes::signal(supervisor, Signal::KILL);
    client.wait()
}

fn run_that_was_never_answered_is_not_attached_to_a_stranger(sandbox: &Sandbox) {
    let gate = sandbox.new_directory("gate");
    let script = "until [ -e /gate/open ]; do echo secret; sleep 0.3; done; exit 42";
    let id = sandbox.start("stranger", &["-v", &format!("{gate}:/gate")], script);
    let opener = sandbox.place("gate/open");
    std::thread::scope(|scope| {
        // A name may look like the beginning of an id.
        let run = scope.spawn(|| unanswered(sandbox, &id[..6]));
        crate::harness::holds_within(std::time::Duration::from_secs(3), || run.is_finished());
        std::fs::write(&opener, "").expect("the sandbox is ours");
        let output = run.join().expect("it does not panic");
        assert_eq!(output.text(), "", "it prints what another container says\n{output}");
        assert_ne!(output.code, 42, "it returns how another container has ended\n{output}");
    });
}

fn run_that_was_never_read_is_made_by_the_next_supervisor(sandbox: &Sandbox) {
    sandbox.image();
    let output = unanswered(sandbox, "fresh");
    assert_eq!(output.code, 7, "nobody has done anything of it, so it is asked for again\n{output}");
    assert_eq!(sandbox.ok(&["wait", "fresh"]), "7");
}

fn recorded_end_is_shown_after_a_dead_shim_and_a_restart_in_a_long_teardown(sandbox: &Sandbox) {
    let decoy = sandbox.new_directory("decoy");
    let before = plant_data(Path::new(&decoy), "precious");
    let code = sandbox.exit_code();
    let id = sandbox.start_obedient("one", &[], code);
    let upper = sandbox.root().join("containers").join(&id).join("upper");
    let bind = Bind::new(Path::new(&decoy), &upper.join("planted"));
    sandbox.stop_unfinished("one");
    sandbox.wait_status("one", "leftover");
    let shim = sandbox.shim_pid("one");
    processes::signal(shim, Signal::KILL);
    // A shim that only takes down holds the lock now.
    let lock = sandbox.root().join("containers").join(&id).join("lock");
    wait_until("another shim takes it down", || processes::lock_holder(&lock).is_some_and(|pid| pid != shim));
    sandbox.kill_supervisor();
    sandbox.ok(&["start"]);
    bind.remove_wherever(Path::new(&decoy));
    wait_until("it is at rest", || ["exited", "created"].contains(&sandbox.status("one").as_str()));
    assert_eq!(sandbox.status("one"), "exited", "it has run, and its end is on disk");
    assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
    before.expect_unchanged(Path::new(&decoy));
    sandbox.ok(&["rm", "one"]);
}
