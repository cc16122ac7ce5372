//! Volumes that several containers have, or want at the same moment.

use std::fs;

use crate::{
    harness::{Case, Sandbox, wait_until},
    named_volumes::{data, import, names, rich},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        two_containers_at_once_fill_a_volume_once,
        anonymous_volume_that_another_container_has_stays,
        volumes_from_another_container_are_shared,
        run_beside_rm_never_gets_half_a_volume,
    ]
}

fn two_containers_at_once_fill_a_volume_once(sandbox: &Sandbox) {
    import(sandbox, "many", &[], |writer| {
        writer.directory("content", 0o755);
        for number in 0..300 {
            writer.file(&format!("content/{number}"), 0o644, &vec![7; 4096]);
        }
    });
    let script = "ls /content | wc -l; cat /content/* | wc -c";
    let line = ["run", "--rm", "-v", "data:/content", "many", "sh", "-c", script];
    let clients: Vec<_> = (0..6).map(|_| sandbox.call(&line).start()).collect();
    for client in clients {
        let output = client.wait().expect_code(0);
        assert_eq!(output.text(), "300\n1228800", "all of it or nothing");
    }
}

fn anonymous_volume_that_another_container_has_stays(sandbox: &Sandbox) {
    sandbox.run(&["--name", "one", "-v", "/d"], &["sh", "-c", "echo x > /d/file"]).expect_code(0);
    let name = names(sandbox).pop().expect("one volume");
    let volume = format!("{name}:/e");
    sandbox.start("two", &["-v", &volume], "sleep 1000");
    sandbox.ok(&["rm", "-v", "one"]);
    assert_eq!(names(sandbox).join(" "), name);
    assert_eq!(fs::read(data(sandbox, &name).join("file")).expect("it stays"), b"x\n");
    sandbox.ok(&["rm", "-f", "-v", "two"]);
    assert_eq!(names(sandbox).join(" "), name, "there it was asked for by name");
    sandbox.ok(&["volume", "rm", &name]);
    // The same with --rm, whose volumes are to go: also after a restart.
    sandbox.start("three", &["--rm", "-v", "/d"], "echo y > /d/file; sleep 1000");
    let name = names(sandbox).pop().expect("one volume");
    let volume = format!("{name}:/e");
    sandbox.start("four", &["-v", &volume], "sleep 1000");
    sandbox.ok(&["rm", "-f", "three"]);
    sandbox.kill_supervisor();
    assert_eq!(names(sandbox).join(" "), name);
    sandbox.ok(&["rm", "-f", "four"]);
    sandbox.kill_supervisor();
    sandbox.ok(&["ps"]);
    assert_eq!(fs::read(data(sandbox, &name).join("file")).expect("it stays"), b"y\n");
}

fn volumes_from_another_container_are_shared(sandbox: &Sandbox) {
    let host = sandbox.new_directory("host");
    let bind = format!("{host}:/h");
    let script = "echo a > /d/file; echo h > /h/file; sleep 1000";
    sandbox.start("one", &["-v", "/d", "-v", &bind, "-v", "named:/n:ro", "--tmpfs", "/t"], script);
    let anonymous = names(sandbox).into_iter().find(|name| name != "named").expect("one of them");
    wait_until("it is written", || sandbox.place("host/file").exists());
    let script = "cat /d/file /h/file; echo x > /n/file || echo refused; ls -d /t; echo b > /d/file";
    sandbox.start("two", &["--volumes-from", "one"], &format!("{script}; sleep 1000"));
    wait_until("it has read", || sandbox.mysup(&["logs", "two"]).text().starts_with("a\nh\nrefused"));
    assert_eq!(sandbox.sh(&["--volumes-from", "one:ro"], "echo x > /d/file || echo refused"), "refused");
    sandbox.ok(&["rm", "-f", "-v", "one"]);
    wait_until("it is written", || {
        fs::read(data(sandbox, &anonymous).join("file")).ok() == Some(b"b\n".to_vec())
    });
    sandbox.ok(&["rm", "-f", "-v", "two"]);
    assert_eq!(names(sandbox).len(), 2, "what was another's is not two's to remove");
    sandbox.refused(&sandbox.run_line(&["--volumes-from", "three"], &["true"]), 125, &["three"]);
}

/// Either the removal is refused, or the container gets a new volume: never one that is on its way out.
fn run_beside_rm_never_gets_half_a_volume(sandbox: &Sandbox) {
    rich(sandbox, &[]);
    for _ in 0..12 {
        let script = "test -e /content/deep/.hidden && echo x > /content/written && cat /content/written";
        let line = ["run", "--rm", "-v", "data:/content", "rich", "sh", "-c", script];
        let run = sandbox.call(&line).start();
        let removals: Vec<_> =
            (0..3).map(|_| sandbox.call(&["volume", "rm", "-f", "data"]).start()).collect();
        assert_eq!(run.wait().expect_code(0).text(), "x");
        for removal in removals {
            let output = removal.wait();
            assert!(output.code == 0 || output.errors().contains("in use"), "{output}");
        }
    }
    sandbox.ok(&["volume", "rm", "-f", "data"]);
}
