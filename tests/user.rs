//! Who a program is: user, groups, home, environment, directory.

use crate::harness::{Case, Sandbox};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        user_is_root_by_default,
        user_by_name_gets_all_its_groups,
        user_by_number_gets_the_groups_of_its_name,
        unknown_number_has_no_extra_groups,
        user_and_group_by_name_and_number,
        home_is_that_of_the_user,
        passwd_as_a_link_or_fifo_is_not_followed_out,
        environment_has_the_usual_variables,
        variables_are_set_and_taken_from_the_caller,
        environment_file_is_read_line_by_line,
        workdir_is_made_and_entered,
        workdir_of_a_user_is_entered,
        ulimits_are_set,
        capabilities_of_a_user_are_gone,
    ]
}

const WHO: &str = "id -u; id -g; id -G";

fn user_is_root_by_default(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "id -u; id -g"), "0\n0");
}

fn user_by_name_gets_all_its_groups(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-u", "tester"], WHO), "1000\n1000\n1000 10 29");
}

fn user_by_number_gets_the_groups_of_its_name(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-u", "1000"], WHO), "1000\n1000\n1000 10 29");
}

fn unknown_number_has_no_extra_groups(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-u", "4242"], WHO), "4242\n0\n0");
    assert_eq!(sandbox.sh(&["-u", "4242:4343"], WHO), "4242\n4343\n4343");
}

fn user_and_group_by_name_and_number(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-u", "tester:wheel"], "id -u; id -g"), "1000\n10");
    assert_eq!(sandbox.sh(&["--user", "1000:29"], "id -u; id -g"), "1000\n29");
    assert_eq!(sandbox.sh(&["--user=root:tester"], "id -u; id -g"), "0\n1000");
}

fn home_is_that_of_the_user(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "echo $HOME"), "/root");
    assert_eq!(sandbox.sh(&["-u", "tester"], "echo $HOME"), "/home/tester");
    assert_eq!(sandbox.sh(&["-u", "4242"], "echo $HOME"), "/");
    assert_eq!(sandbox.sh(&["-e", "HOME=/my", "-u", "tester"], "echo $HOME"), "/my");
}

fn passwd_as_a_link_or_fifo_is_not_followed_out(sandbox: &Sandbox) {
    let directory = sandbox.new_directory("etc");
    std::os::unix::fs::symlink("/etc/passwd-of-the-host", sandbox.place("etc/passwd"))
        .expect("the sandbox is ours");
    let volume = format!("{directory}:/etc");
    let line = sandbox.run_line(&["--rm", "-v", &volume, "-u", "nobodyhere"], &["id"]);
    sandbox.refused(&line, 125, &["nobodyhere"]);
    std::fs::remove_file(sandbox.place("etc/passwd")).expect("the sandbox is ours");
    let mode = rustix::fs::Mode::from_raw_mode(0o644);
    rustix::fs::mknodat(rustix::fs::CWD, sandbox.place("etc/passwd"), rustix::fs::FileType::Fifo, mode, 0)
        .expect("a FIFO can be made");
    sandbox.refused(&line, 125, &[]);
}

fn environment_has_the_usual_variables(sandbox: &Sandbox) {
    let output = sandbox.run(&["--rm", "-h", "box"], &["env"]).expect_code(0).text();
    let mut names: Vec<&str> = output.lines().filter_map(|line| line.split('=').next()).collect();
    names.sort_unstable();
    assert_eq!(names, ["HOME", "HOSTNAME", "PATH"], "{output}");
    assert!(output.contains("PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"), "{output}");
    assert!(output.contains("HOSTNAME=box"), "{output}");
}

fn variables_are_set_and_taken_from_the_caller(sandbox: &Sandbox) {
    let flags = [
        "--rm",
        "-e",
        "A=1",
        "-e",
        "B=x=y z",
        "-e",
        "FROM_CALLER",
        "-e",
        "NOT_SET",
        "--env",
        "A=2",
        "-e",
        "EMPTY=",
    ];
    let line = sandbox.run_line(&flags, &["env"]);
    let output = sandbox.call(&line).env("FROM_CALLER", "yes").without_env("NOT_SET").ok();
    for word in ["A=2", "B=x=y z", "FROM_CALLER=yes", "EMPTY="] {
        assert!(output.lines().any(|line| line == word), "no {word} in {output}");
    }
    assert!(!output.contains("NOT_SET") && !output.contains("A=1"), "{output}");
}

fn environment_file_is_read_line_by_line(sandbox: &Sandbox) {
    let file = sandbox.place("env");
    std::fs::write(&file, "# a comment\n\nA=1\nB=\"quoted\"\nC=$HOME\nFROM_CALLER\nD=last\n")
        .expect("the sandbox is ours");
    let line = ["--rm", "--env-file", &file.to_string_lossy(), "-e", "D=flag"].map(str::to_owned);
    let line: Vec<&str> = line.iter().map(String::as_str).collect();
    let line = sandbox.run_line(&line, &["env"]);
    let output = sandbox.call(&line).env("FROM_CALLER", "yes").ok();
    for word in ["A=1", "B=\"quoted\"", "C=$HOME", "FROM_CALLER=yes", "D=flag"] {
        assert!(output.lines().any(|line| line == word), "no {word} in {output}");
    }
    assert!(!output.contains("comment"), "{output}");
}

fn workdir_is_made_and_entered(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "pwd"), "/");
    assert_eq!(sandbox.sh(&["-w", "/brand/new"], "pwd; stat -c '%u %a' /brand/new"), "/brand/new\n0 755");
    assert_eq!(sandbox.sh(&["--workdir", "/tmp"], "pwd"), "/tmp");
}

fn workdir_of_a_user_is_entered(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["-u", "tester", "-w", "/work"], "pwd; id -u"), "/work\n1000");
}

fn ulimits_are_set(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&["--ulimit", "nofile=100:200"], "ulimit -Sn; ulimit -Hn"), "100\n200");
    assert_eq!(
        sandbox.sh(&["--ulimit", "core=0", "--ulimit", "nofile=77"], "ulimit -c; ulimit -n; ulimit -Hn"),
        "0\n77\n77"
    );
}

fn capabilities_of_a_user_are_gone(sandbox: &Sandbox) {
    let script = "echo x > /etc/passwd || echo refused; chown 0 /tmp 2>/dev/null || echo refused";
    assert_eq!(sandbox.sh(&["-u", "tester"], &format!("({script}) 2>/dev/null")), "refused\nrefused");
}
