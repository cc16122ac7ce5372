//! The sockets: what is not a request of ours is refused and harms nobody.

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use crate::harness::{Case, Sandbox, command::Call, processes, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        noise_on_the_supervisors_socket_harms_nobody,
        noise_on_the_shims_socket_harms_nobody,
        half_a_frame_does_not_hold_others,
        hundred_silent_connections_do_not_hold_others,
        others_cannot_reach_the_sockets,
    ]
}

/// What strangers send: nothing, text, zeros, a length of everything, much too much.
fn noises() -> Vec<Vec<u8>> {
    vec![
        Vec::new(),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
        vec![0; 64],
        vec![0xff; 64],
        b"MYSU".iter().copied().chain([0xff; 60]).collect(),
        (0..2_000_000_u32)
            .map(|number| (number.wrapping_mul(2_654_435_761) >> 24).to_le_bytes()[0])
            .collect(),
    ]
}

fn make_noise(socket: &Path) {
    for noise in noises() {
        let mut stream =
            UnixStream::connect(socket).unwrap_or_else(|error| panic!("{}: {error}", socket.display()));
        stream.set_read_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
        stream.set_write_timeout(Some(Duration::from_secs(20))).expect("it is a socket");
        // The other side may close at the first wrong byte.
        let _ = stream.write_all(&noise);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = Vec::new();
        let _ = stream.take(1 << 20).read_to_end(&mut answer);
        assert!(answer.len() < 1 << 20, "an endless answer to {} bytes of noise", noise.len());
    }
}

fn noise_on_the_supervisors_socket_harms_nobody(sandbox: &Sandbox) {
    sandbox.start_obedient("one", &[], 7);
    let supervisor = sandbox.supervisor();
    make_noise(&sandbox.run_root().join("mysup.sock"));
    assert_eq!(sandbox.supervisor(), supervisor, "it is still the same");
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
}

fn noise_on_the_shims_socket_harms_nobody(sandbox: &Sandbox) {
    let id = sandbox.start_obedient("one", &[], 7);
    let shim = sandbox.shim_pid("one");
    make_noise(&sandbox.run_root().join("containers").join(id).join("shim.sock"));
    assert!(processes::is_alive(shim));
    sandbox.ok(&["stop", "one"]);
    assert_eq!(sandbox.ok(&["wait", "one"]), "7");
}

fn half_a_frame_does_not_hold_others(sandbox: &Sandbox) {
    sandbox.ok(&["info"]);
    let mut stream = UnixStream::connect(sandbox.run_root().join("mysup.sock")).expect("it listens");
    stream.write_all(b"M").expect("it listens");
    sandbox.run(&["--rm"], &["sh", "-c", "exit 3"]).expect_code(3);
    drop(stream);
}

fn hundred_silent_connections_do_not_hold_others(sandbox: &Sandbox) {
    sandbox.run(&["--rm"], &["true"]).expect_code(0);
    let pid = sandbox.supervisor();
    let before = processes::descriptors(pid);
    let silent: Vec<_> =
        (0..100).filter_map(|_| UnixStream::connect(sandbox.run_root().join("mysup.sock")).ok()).collect();
    assert!(silent.len() > 10);
    sandbox.run(&["--rm"], &["sh", "-c", "exit 3"]).expect_code(3);
    drop(silent);
    wait_until("their descriptors are closed", || processes::descriptors(pid) == before);
}

fn others_cannot_reach_the_sockets(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "sleep 1000");
    for socket in [
        sandbox.run_root().join("mysup.sock"),
        sandbox.run_root().join("containers").join(id).join("shim.sock"),
        sandbox.root().join("images"),
    ] {
        let path = socket.to_string_lossy().into_owned();
        let arguments = ["--reuid=65534", "--regid=65534", "--clear-groups", "test", "-e", &path];
        let output = Call::new(Path::new("setpriv"), arguments).directory("/").run();
        assert!(socket.exists() && output.code == 1, "nobody can see {path}");
    }
}
