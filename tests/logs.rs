//! Logs: every byte, in order, on the right stream, whatever the supervisor does meanwhile.

use rustix::process::Signal;

use crate::harness::{Case, Sandbox, inspect, processes, tree::sha256, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        bytes_come_back_unchanged,
        streams_stay_apart,
        output_of_a_terminal_is_one_stream,
        timestamps_are_rfc_3339_with_nine_digits,
        tail_shows_the_last_lines,
        since_and_until_cut_the_log,
        follow_ends_with_the_container,
        follow_shows_lines_as_they_come,
        logs_of_exited_container_are_kept_until_rm,
        logs_of_unknown_container_are_refused,
        last_megabyte_is_complete_fifty_times,
        sixty_megabytes_with_default_rotation_keep_a_clean_tail,
        rotation_keeps_the_number_of_files,
        rotated_log_is_read_in_order,
        log_is_complete_while_the_supervisor_is_dead,
        log_is_complete_while_the_supervisor_is_stopped,
        writer_is_not_blocked_by_a_stopped_follower,
        foreground_output_is_logged_too,
        lines_longer_than_any_buffer_are_whole,
    ]
}

fn bytes_come_back_unchanged(sandbox: &Sandbox) {
    let script = r#"printf 'a\000b\r\n\377\376\n\nlast without newline'"#;
    sandbox.start("one", &[], script);
    sandbox.ok(&["wait", "one"]);
    let output = sandbox.mysup(&["logs", "one"]).expect_code(0);
    assert_eq!(output.stdout, b"a\0b\r\n\xff\xfe\n\nlast without newline", "{output}");
    assert!(output.stderr.is_empty(), "{output}");
}

fn streams_stay_apart(sandbox: &Sandbox) {
    sandbox.start("one", &[], "for i in 1 2 3; do echo out $i; echo err $i >&2; done");
    sandbox.ok(&["wait", "one"]);
    let output = sandbox.mysup(&["logs", "one"]).expect_code(0);
    assert_eq!(output.text(), "out 1\nout 2\nout 3");
    assert_eq!(output.errors(), "err 1\nerr 2\nerr 3\n");
}

fn output_of_a_terminal_is_one_stream(sandbox: &Sandbox) {
    sandbox.start("one", &["-t"], "echo out; echo err >&2");
    sandbox.ok(&["wait", "one"]);
    let output = sandbox.mysup(&["logs", "one"]).expect_code(0);
    assert_eq!(output.stdout, b"out\r\nerr\r\n", "{output}");
}

fn timestamps_are_rfc_3339_with_nine_digits(sandbox: &Sandbox) {
    sandbox.start("one", &[], "echo first; echo second; printf third");
    sandbox.ok(&["wait", "one"]);
    let text = sandbox.ok(&["logs", "-t", "one"]);
    let words: Vec<&str> =
        text.lines().map(|line| line.split_once(' ').map_or("", |(_, word)| word)).collect();
    assert_eq!(words, ["first", "second", "third"], "{text}");
    for line in text.lines() {
        let stamp = line.split(' ').next().unwrap_or("");
        let shape: String =
            stamp.chars().map(|letter| if letter.is_ascii_digit() { '0' } else { letter }).collect();
        assert_eq!(shape, "0000-00-00T00:00:00.000000000Z", "{line}");
    }
}

fn tail_shows_the_last_lines(sandbox: &Sandbox) {
    sandbox.start("one", &[], "seq 1 500");
    sandbox.ok(&["wait", "one"]);
    assert_eq!(sandbox.ok(&["logs", "-n", "3", "one"]), "498\n499\n500");
    assert_eq!(sandbox.ok(&["logs", "--tail", "1", "one"]), "500");
    assert_eq!(sandbox.ok(&["logs", "--tail=0", "one"]), "");
    assert_eq!(sandbox.ok(&["logs", "-n", "all", "one"]).lines().count(), 500);
    assert_eq!(sandbox.ok(&["logs", "-n", "9999", "one"]).lines().count(), 500);
}

fn clock(format: &str) -> String {
    let date = std::process::Command::new("date").args(["-u", format]).output().expect("date runs");
    String::from_utf8_lossy(&date.stdout).trim().to_owned()
}

fn since_and_until_cut_the_log(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let script = "echo early; until [ -e /v/go ]; do sleep 0.02; done; echo late";
    sandbox.start("one", &["-v", &format!("{directory}:/v")], script);
    wait_until("the first line is logged", || sandbox.ok(&["logs", "one"]) == "early");
    // A second on the clock lies between the lines, since dates on the command line may be whole seconds.
    let stamp = sandbox.ok(&["logs", "-t", "one"]);
    let early = stamp.split(' ').next().expect("a time").to_owned();
    let second = early[..19].to_owned();
    wait_until("the second is over", || clock("+%Y-%m-%dT%H:%M:%S") > second);
    let between = clock("+%Y-%m-%dT%H:%M:%S.%NZ");
    std::fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    sandbox.ok(&["wait", "one"]);
    assert_eq!(sandbox.ok(&["logs", "--since", &between, "one"]), "late");
    assert_eq!(sandbox.ok(&["logs", "--until", &between, "one"]), "early");
    assert_eq!(sandbox.ok(&["logs", "--since", "1h", "one"]), "early\nlate");
    assert_eq!(sandbox.ok(&["logs", "--until", "1h", "one"]), "");
    assert_eq!(sandbox.ok(&["logs", "--since", "0", "one"]), "early\nlate");
    assert_ne!(sandbox.mysup(&["logs", "--since", "someday", "one"]).code, 0);
}

fn follow_ends_with_the_container(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 3);
    let follower = sandbox.call(&["logs", "-f", "one"]).start();
    sandbox.ok(&["stop", "one"]);
    assert_eq!(follower.wait().expect_code(0).text(), "up");
    assert_eq!(sandbox.ok(&["logs", "-f", "one"]), "up", "follow of an exited container ends at once");
}

fn follow_shows_lines_as_they_come(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let script = "echo one; until [ -e /v/two ]; do sleep 0.02; done; echo two; echo bad >&2; until [ -e /v/three ]; do sleep 0.02; done; echo three";
    sandbox.start("one", &["-v", &format!("{directory}:/v")], script);
    let mut follower = sandbox.call(&["logs", "-f", "-n", "all", "one"]).start();
    follower.wait_for("one");
    std::fs::write(sandbox.place("v/two"), "").expect("the sandbox is ours");
    follower.wait_for("two");
    std::fs::write(sandbox.place("v/three"), "").expect("the sandbox is ours");
    let output = follower.wait().expect_code(0);
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("one\ntwo\nthree", "bad\n"));
}

fn logs_of_exited_container_are_kept_until_rm(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["echo", "kept"]).expect_code(0);
    sandbox.ok(&["shutdown"]);
    assert_eq!(sandbox.ok(&["logs", "one"]), "kept");
    sandbox.ok(&["rm", "one"]);
    sandbox.refused(&["logs", "one"], 1, &["no such container"]);
}

fn logs_of_unknown_container_are_refused(sandbox: &Sandbox) {
    sandbox.refused(&["logs", "nobody"], 1, &["no such container", "nobody"]);
}

/// A megabyte that differs in every line.
const MEGABYTE: &str = "awk 'BEGIN { for (i = 0; i < 20000; i++) \
    printf \"line %06d of a megabyte that must be complete in the log\\n\", i }' | head -c 1048576; exit 9";

fn last_megabyte_is_complete_fifty_times(sandbox: &Sandbox) {
    let expected = {
        let output = sandbox.run(&["--rm"], &["sh", "-c", MEGABYTE]).expect_code(9);
        assert_eq!(output.stdout.len(), 1_048_576, "a foreground run prints all");
        sha256(&output.stdout)
    };
    for round in 0..50 {
        sandbox.start("one", &[], MEGABYTE);
        assert_eq!(sandbox.ok(&["wait", "one"]), "9");
        let output = sandbox.mysup(&["logs", "one"]).expect_code(0);
        assert_eq!(output.stdout.len(), 1_048_576, "round {round}");
        assert_eq!(sha256(&output.stdout), expected, "round {round}");
        sandbox.ok(&["rm", "one"]);
    }
}

fn consecutive(text: &str) -> (u64, u64) {
    let numbers: Vec<u64> = text.lines().map(|line| line.trim().parse().expect("only numbers")).collect();
    let (first, last) = (numbers[0], numbers[numbers.len() - 1]);
    let broken = numbers.windows(2).find(|pair| pair[1] != pair[0] + 1);
    assert!(broken.is_none(), "a gap in the log: {broken:?}");
    (first, last)
}

/// Where an old file was dropped the first line may be the end of one.
fn after_first_line(text: &str) -> &str {
    text.split_once('\n').map_or("", |(_, rest)| rest)
}

fn sixty_megabytes_with_default_rotation_keep_a_clean_tail(sandbox: &Sandbox) {
    sandbox.start("one", &[], "seq 1000000 8500000");
    sandbox.ok(&["wait", "one"]);
    let text = sandbox.ok(&["logs", "one"]);
    let (_, last) = consecutive(after_first_line(&text));
    assert_eq!(last, 8_500_000);
    assert_eq!(sandbox.ok(&["logs", "-n", "2", "one"]), "8499999\n8500000");
}

fn log_files(sandbox: &Sandbox, name: &str) -> Vec<std::path::PathBuf> {
    let id = inspect::text(&sandbox.inspect(name), "Id");
    let directory = sandbox.root().join("containers").join(id);
    let entries = std::fs::read_dir(directory).expect("the container has a directory");
    entries
        .flatten()
        .filter(|entry| entry.file_name().to_string_lossy().starts_with("log"))
        .map(|entry| entry.path())
        .collect()
}

fn rotation_keeps_the_number_of_files(sandbox: &Sandbox) {
    let flags = ["--log-opt", "max-size=64k", "--log-opt", "max-file=3"];
    sandbox.start("one", &flags, "seq 100000 199999");
    sandbox.ok(&["wait", "one"]);
    let files = log_files(sandbox, "one");
    assert!((2..=3).contains(&files.len()), "{files:?}");
    let sizes: u64 = files.iter().map(|file| std::fs::metadata(file).expect("it exists").len()).sum();
    assert!(sizes < 3 * 2 * 65536, "three files of 64 KiB have {sizes} bytes");
    let (_, last) = consecutive(after_first_line(&sandbox.ok(&["logs", "one"])));
    assert_eq!(last, 199_999);
}

fn rotated_log_is_read_in_order(sandbox: &Sandbox) {
    let flags = ["--log-opt", "max-size=64k", "--log-opt", "max-file=50"];
    sandbox.start("one", &flags, "seq 100000 149999");
    sandbox.ok(&["wait", "one"]);
    assert!(log_files(sandbox, "one").len() > 2, "it was rotated");
    assert_eq!(consecutive(&sandbox.ok(&["logs", "one"])), (100_000, 149_999));
    assert_eq!(sandbox.ok(&["logs", "-f", "one"]).lines().count(), 50_000);
}

fn log_is_complete_while_the_supervisor_is_dead(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let script = "until [ -e /v/go ]; do sleep 0.02; done; seq 1 200000; touch /v/done; exit 4";
    sandbox.start("one", &["-v", &format!("{directory}:/v")], script);
    sandbox.kill_supervisor();
    std::fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    wait_until("the program has written all", || sandbox.place("v/done").exists());
    assert_eq!(sandbox.ok(&["wait", "one"]), "4");
    assert_eq!(consecutive(&sandbox.ok(&["logs", "one"])), (1, 200_000));
}

fn log_is_complete_while_the_supervisor_is_stopped(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let script = "until [ -e /v/go ]; do sleep 0.02; done; seq 1 200000; touch /v/done; exit 4";
    sandbox.start("one", &["-v", &format!("{directory}:/v")], script);
    let supervisor = sandbox.supervisor();
    processes::signal(supervisor, Signal::STOP);
    std::fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    wait_until("the program has written all", || sandbox.place("v/done").exists());
    processes::signal(supervisor, Signal::CONT);
    assert_eq!(sandbox.ok(&["wait", "one"]), "4");
    assert_eq!(consecutive(&sandbox.ok(&["logs", "one"])), (1, 200_000));
}

/// A follower of the log costs the program nothing. (A client in the foreground is a pipeline: its program waits for it.)
fn writer_is_not_blocked_by_a_stopped_follower(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("v");
    let script = "until [ -e /v/go ]; do sleep 0.02; done; seq 1 300000; touch /v/done; exit 4";
    let volume = format!("{directory}:/v");
    sandbox.start("one", &["-v", &volume], script);
    let client = sandbox.call(&["logs", "-f", "one"]).start();
    client.signal(Signal::STOP);
    std::fs::write(sandbox.place("v/go"), "").expect("the sandbox is ours");
    wait_until("the program has written all, its reader stopped", || sandbox.place("v/done").exists());
    client.signal(Signal::CONT);
    client.wait();
    assert_eq!(consecutive(&sandbox.ok(&["logs", "one"])), (1, 300_000));
}

fn foreground_output_is_logged_too(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one"], &["sh", "-c", "echo out; echo err >&2"]).expect_code(0);
    let output = sandbox.mysup(&["logs", "one"]).expect_code(0);
    assert_eq!((output.text().as_str(), output.errors().as_str()), ("out", "err\n"));
}

fn lines_longer_than_any_buffer_are_whole(sandbox: &Sandbox) {
    sandbox.start("one", &[], "head -c 300000 /dev/zero | tr '\\0' x; echo; echo end");
    sandbox.ok(&["wait", "one"]);
    let text = sandbox.ok(&["logs", "one"]);
    assert_eq!(text.lines().map(str::len).collect::<Vec<_>>(), [300_000, 3]);
    assert_eq!(sandbox.ok(&["logs", "-n", "2", "one"]).len(), text.len());
    let stamped = sandbox.ok(&["logs", "-t", "one"]);
    assert_eq!(stamped.matches('Z').count(), 2, "one time for each line, none inside a line");
}
