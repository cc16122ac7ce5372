//! A volume whose server withholds its answers: who uses it hangs in the kernel, where not even SIGKILL helps. It costs
//! that container and no other, what is waited for is said, and when the server answers it heals without a command.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use crate::{
    harness::{
        Case, Sandbox,
        command::Output,
        fuse::{Ask, Fuse},
        inspect,
        plant::{self, Holder},
        skip, wait_until,
    },
    no_hang::others_answer,
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        volume_that_is_silent_at_run_is_refused_in_time,
        working_directory_in_a_silent_volume_is_refused_in_time,
        mountpoint_in_a_silent_volume_is_refused_in_time,
        passwd_in_a_silent_volume_is_refused_in_time,
        program_in_a_silent_volume_starts_when_answered,
        program_that_hangs_in_open_is_told_and_ends_when_answered,
        program_that_hangs_in_close_is_told_and_ends_when_answered,
        silent_attributes_hold_no_teardown,
        busy_silent_volume_names_its_holder_and_heals,
        unmount_that_never_returns_is_told_and_heals,
        shim_killed_in_a_hanging_unmount_leaves_nothing,
    ]
}

/// The longest that a refusal may take: only a hang takes longer.
const REFUSAL: Duration = Duration::from_secs(30);

fn volume_that_is_silent_at_run_is_refused_in_time(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let source = format!("{}/sub:/v", fuse.path());
    let output = refused_while_silent(sandbox, &fuse, "a start on a silent volume", &["-v", &source]);
    assert!(output.errors().contains("/sub"), "it is said\n{output}");
}

fn working_directory_in_a_silent_volume_is_refused_in_time(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let volume = format!("{}:/v", fuse.path());
    let options = ["-v", &volume, "-w", "/v/sub"];
    let output = refused_while_silent(sandbox, &fuse, "a working directory in a silent volume", &options);
    assert!(output.errors().contains("working directory"), "it is said\n{output}");
}

fn mountpoint_in_a_silent_volume_is_refused_in_time(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let (outer, inner) =
        (format!("{}:/v", fuse.path()), format!("{}:/v/sub", sandbox.new_directory("inner")));
    let options = ["-v", &outer, "-v", &inner];
    let output = refused_while_silent(sandbox, &fuse, "a mountpoint in a silent volume", &options);
    assert!(output.errors().contains("/v/sub"), "it is said\n{output}");
}

fn passwd_in_a_silent_volume_is_refused_in_time(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let volume = format!("{}:/etc", fuse.path());
    let options = ["-v", &volume, "-u", "7"];
    let output = refused_while_silent(sandbox, &fuse, "users in a silent volume", &options);
    assert!(output.errors().contains("passwd"), "it is said\n{output}");
}

/// A start that works, does not while the server looks nothing up, and then works again.
fn refused_while_silent(sandbox: &Sandbox, fuse: &Fuse, what: &str, options: &[&str]) -> Output {
    let options = [&["--rm", "--name", "stuck"], options].concat();
    sandbox.start_obedient("other", &[], 4);
    sandbox.run(&options, &["sh", "-c", "exit 7"]).expect_code(7);
    fuse.withhold(&[Ask::Lookup]);
    let began = Instant::now();
    let output = std::thread::scope(|scope| {
        let run = scope.spawn(|| sandbox.run(&options, &["true"]));
        fuse.wait_until_asked(Ask::Lookup);
        others_answer(sandbox, what, "other", true);
        run.join().expect("it does not panic")
    });
    assert_eq!(output.code, 125, "{output}");
    assert!(output.errors().contains("does not answer"), "it is said\n{output}");
    assert!(began.elapsed() < REFUSAL, "the refusal took {:?}", began.elapsed());
    // The call that waits may keep the volume busy; it is named then.
    wait_until("it is removed, or it is said what it waits for", || {
        sandbox.status("stuck") == "absent"
            || sandbox.ok(&["ps", "-a", "--no-trunc"]).lines().any(|line| line.contains("mysup-shim"))
    });
    fuse.answer();
    wait_until("nothing is left of it", || sandbox.status("stuck") == "absent");
    sandbox.run(&options, &["sh", "-c", "exit 7"]).expect_code(7);
    output
}

/// The init is in the kernel's exec by then, where nobody can end it.
fn program_in_a_silent_volume_starts_when_answered(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let volume = format!("{}:/v", fuse.path());
    sandbox.start_obedient("other", &[], 4);
    fuse.withhold(&[Ask::Lookup]);
    std::thread::scope(|scope| {
        let run = scope.spawn(|| sandbox.run(&["--name", "stuck", "-v", &volume], &["/v/missing"]));
        fuse.wait_until_asked(Ask::Lookup);
        others_answer(sandbox, "a program in a silent volume", "other", true);
        fuse.answer();
        let output = run.join().expect("it does not panic");
        assert_eq!(output.code, 127, "{output}");
    });
    sandbox.ok(&["rm", "stuck"]);
}

fn program_that_hangs_in_open_is_told_and_ends_when_answered(sandbox: &Sandbox) {
    program_that_hangs(sandbox, Ask::Open, "exec cat /v/data");
}

fn program_that_hangs_in_close_is_told_and_ends_when_answered(sandbox: &Sandbox) {
    program_that_hangs(sandbox, Ask::Flush, "exec 3>>/v/data; echo x >&3; exec true");
}

/// The init hangs where no signal reaches it.
fn program_that_hangs(sandbox: &Sandbox, ask: Ask, script: &str) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let source = format!("{}:/v", fuse.path());
    sandbox.start_obedient("other", &[], 4);
    fuse.withhold(&[ask]);
    sandbox.start("stuck", &["-v", &source, "--stop-timeout", "1"], script);
    fuse.wait_until_asked(ask);
    others_answer(sandbox, &format!("a program that waits for {ask:?}"), "other", true);
    for line in [&["stop", "stuck"][..], &["rm", "-f", "stuck"]] {
        let began = Instant::now();
        let output = sandbox.mysup(line);
        assert!(output.code != 0, "it has not ended\n{output}");
        let pid = sandbox.init_pid("stuck").to_string();
        assert!(output.errors().contains(&pid), "it says what it waits for, pid {pid}\n{output}");
        assert!(began.elapsed() < REFUSAL, "{output}");
    }
    let list = sandbox.ok(&["ps", "-a", "--no-trunc"]);
    assert!(list.contains("are not gone"), "ps says it\n{list}");
    others_answer(sandbox, "a killed program that does not end", "other", true);
    fuse.answer();
    wait_until("it is removed, as was asked for", || sandbox.status("stuck") == "absent");
}

fn silent_attributes_hold_no_teardown(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let source = format!("{}:/v", fuse.path());
    let code = sandbox.exit_code();
    for ask in [Ask::Getattr, Ask::Statfs, Ask::Release, Ask::Readdir, Ask::Lookup] {
        sandbox.start_obedient("one", &["-v", &source], code);
        fuse.withhold(&[ask]);
        sandbox.ok(&["stop", "one"]);
        assert_eq!(sandbox.ok(&["wait", "one"]), code.to_string());
        sandbox.wait_status("one", "exited");
        sandbox.ok(&["rm", "one"]);
        fuse.answer();
    }
}

fn busy_silent_volume_names_its_holder_and_heals(sandbox: &Sandbox) {
    let fuse = Fuse::mount(sandbox, "fuse");
    let source = format!("{}:/v", fuse.path());
    let code = sandbox.exit_code();
    sandbox.start_obedient("stuck", &["-v", &source], code);
    sandbox.start_obedient("other", &[], 4);
    let holder = Holder::sit_in(&plant::in_shim(sandbox, "stuck", "/v"));
    fuse.withhold(&Ask::ALL);
    sandbox.stop_unfinished("stuck");
    sandbox.wait_status("stuck", "leftover");
    assert_eq!(sandbox.ok(&["wait", "stuck"]), code.to_string());
    let pid = holder.pid().to_string();
    wait_until("it names who holds the volume", || {
        let output = sandbox.mysup(&["rm", "stuck"]);
        output.code != 0 && output.errors().contains(&pid)
    });
    others_answer(sandbox, "a busy volume that is silent", "other", true);
    let doctor = sandbox.mysup(&["doctor"]);
    assert!(doctor.text().contains(&pid), "doctor names pid {pid}\n{doctor}");
    holder.leave();
    sandbox.wait_status("stuck", "exited");
    fuse.answer();
}

/// A block device that is a file.
struct Loop(PathBuf);

impl Loop {
    fn new(sandbox: &Sandbox) -> Loop {
        let file = sandbox.place("disk");
        File::create(&file).and_then(|file| file.set_len(1 << 20)).expect("the sandbox is ours");
        let made = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        match made {
            Ok(output) if output.status.success() => {
                Loop(PathBuf::from(String::from_utf8_lossy(&output.stdout).trim()))
            }
            _ => skip("no losetup, or no loop device can be had"),
        }
    }

    fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // It goes with its last user; without a device there is nothing to undo.
        let _ = Command::new("losetup").arg("--detach").arg(&self.0).status();
    }
}

/// A container whose volume is the last mount of a file system: to unmount it is to wait for the server.
fn last_user(sandbox: &Sandbox, device: &Loop, code: i32) -> Fuse {
    let fuse = Fuse::mount_on(sandbox, "fuse", device.path());
    sandbox.start_obedient("stuck", &["-v", &format!("{}:/v", fuse.path())], code);
    fuse.detach();
    fuse.withhold(&[Ask::Destroy]);
    fuse
}

fn unmount_that_never_returns_is_told_and_heals(sandbox: &Sandbox) {
    let device = Loop::new(sandbox);
    let code = sandbox.exit_code();
    sandbox.start_obedient("other", &[], 4);
    let fuse = last_user(sandbox, &device, code);
    sandbox.stop_unfinished("stuck");
    fuse.wait_until_asked(Ask::Destroy);
    assert_eq!(sandbox.ok(&["wait", "stuck"]), code.to_string(), "its end is told before");
    sandbox.wait_status("stuck", "leftover");
    others_answer(sandbox, "an unmount that does not return", "other", true);
    let list = sandbox.ok(&["ps", "-a", "--no-trunc"]);
    assert!(list.contains("does not return") && list.contains("fuseblk"), "ps says it\n{list}");
    let shown = sandbox.ok(&["inspect", "stuck"]);
    assert!(shown.contains("does not return"), "inspect says it\n{shown}");
    let output = sandbox.mysup(&["rm", "stuck"]);
    assert!(output.code != 0 && output.errors().contains("does not return"), "rm says it\n{output}");
    let failed = inspect::teardown(&sandbox.inspect("stuck"))
        .into_iter()
        .any(|step| step.name == "volume" && step.text.contains("does not return"));
    assert!(failed, "it is a step of the teardown");
    // A stop or a start of the supervisor meanwhile changes nothing.
    sandbox.kill_supervisor();
    sandbox.wait_status("stuck", "leftover");
    fuse.answer();
    sandbox.wait_status("stuck", "exited");
    assert_eq!(inspect::number(&sandbox.inspect("stuck"), "State.ExitCode"), i64::from(code));
    drop(fuse);
}

fn shim_killed_in_a_hanging_unmount_leaves_nothing(sandbox: &Sandbox) {
    let device = Loop::new(sandbox);
    let code = sandbox.exit_code();
    let fuse = last_user(sandbox, &device, code);
    sandbox.stop_unfinished("stuck");
    fuse.wait_until_asked(Ask::Destroy);
    sandbox.wait_status("stuck", "leftover");
    let shim = sandbox.shim_pid("stuck");
    crate::harness::processes::signal(shim, rustix::process::Signal::KILL);
    fuse.answer();
    sandbox.wait_status("stuck", "exited");
    assert_eq!(sandbox.ok(&["wait", "stuck"]), code.to_string());
}
