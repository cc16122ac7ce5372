//! A supervisor and a shim played by a thread.

use std::thread;

use mysup_ipc::teardown::TeardownReport;
use mysup_ipc::{
    blocking::ConnectionError, container::ContainerState, error::ErrorCode, exit::ExitReport, shim::Stream,
};

use super::*;
use crate::cli::{error::Rule, ps::tests::sample};

/// What the thread plays: it has the request's two connections.
type Play = fn(supervisor: Connection, shim: Connection);

/// Attaches to the play; the result, and whether the id was told.
fn attach_to(play: Play) -> (Result<Ended, CliError>, bool) {
    let (ours, theirs) = UnixStream::pair().expect("socket pair");
    let player = thread::spawn(move || {
        let mut supervisor = Connection::new(theirs);
        let request = supervisor.receive::<Request>().expect("a request");
        assert!(matches!(request, Received::Message(Request::Start { attach: true, .. })));
        let socket = supervisor.take_descriptor().expect("a socket rides along");
        play(supervisor, Connection::new(UnixStream::from(socket)));
    });
    let request = Request::Start { container: "c1".to_owned(), attach: true, stdin: false };
    let mut told = false;
    let wish = Wish { stdin: false, terminal: false };
    let ended = attached(Client::over(ours), &request, None, wish, &mut |_, _| {
        told = true;
        Ok(())
    });
    player.join().expect("the play went as written");
    (ended, told)
}

fn created() -> Response {
    Response::Created { id: sample('a', "c1", ContainerState::Created).id, warnings: Vec::new() }
}

fn exited(status: ExitStatus) -> FromShim {
    FromShim::Exited(ExitReport {
        status,
        oom_killed: false,
        started_at: Some(1),
        finished_at: 2,
        error: String::new(),
    })
}

fn say<M: Message>(to: &mut Connection, message: &M) {
    to.send(message).expect("sent");
}

#[test]
fn the_status_comes_through_after_the_last_word() {
    let (ended, told) = attach_to(|mut supervisor, mut shim| {
        say(&mut shim, &FromShim::Started { at: 1 });
        say(&mut supervisor, &created());
        say(&mut shim, &FromShim::Output { stream: Stream::Stderr, bytes: Vec::new() });
        say(&mut shim, &exited(ExitStatus::Signal(9)));
        say(&mut shim, &FromShim::TornDown(TeardownReport::default()));
    });
    assert!(matches!(ended, Ok(Ended::Status(ExitStatus::Signal(9)))), "{ended:?}");
    assert!(told);
}

#[test]
fn a_dead_supervisor_does_not_matter() {
    let (ended, told) = attach_to(|supervisor, mut shim| {
        drop(supervisor);
        say(&mut shim, &FromShim::Started { at: 1 });
        say(&mut shim, &exited(ExitStatus::Code(5)));
    });
    assert!(matches!(ended, Ok(Ended::Status(ExitStatus::Code(5)))), "{ended:?}");
    assert!(!told);
}

#[test]
fn the_supervisors_answer_is_taken_after_the_end_too() {
    let (ended, told) = attach_to(|mut supervisor, mut shim| {
        say(&mut shim, &FromShim::Started { at: 1 });
        say(&mut shim, &exited(ExitStatus::Code(0)));
        drop(shim);
        say(&mut supervisor, &created());
    });
    assert!(matches!(ended, Ok(Ended::Status(ExitStatus::Code(0)))), "{ended:?}");
    assert!(told);
}

#[test]
fn a_missing_program_is_the_error_that_is_told() {
    let (ended, _) = attach_to(|supervisor, mut shim| {
        say(&mut shim, &FromShim::Failed(WireError::new(ErrorCode::CommandNotFound, "no such program")));
        say(&mut shim, &FromShim::TornDown(TeardownReport::default()));
        drop(supervisor);
    });
    assert_eq!(ended.expect_err("failed").exit_code(Rule::Run), 127);
    let (ended, _) = attach_to(|mut supervisor, shim| {
        drop(shim);
        say(&mut supervisor, &Response::Error(WireError::new(ErrorCode::Conflict, "name taken")));
    });
    assert_eq!(ended.expect_err("failed").exit_code(Rule::Run), 125);
}

#[test]
fn a_killed_shim_leaves_the_status_open() {
    let (ended, told) = attach_to(|mut supervisor, mut shim| {
        say(&mut shim, &FromShim::Started { at: 1 });
        say(&mut supervisor, &created());
        // Half a message, as of one who was killed while he spoke.
        let bytes = exited(ExitStatus::Code(0)).to_frame().expect("a frame");
        fds::send(shim.socket().as_fd(), &bytes[..bytes.len() / 2], &[]).expect("sent");
    });
    assert!(matches!(ended, Ok(Ended::Lost { .. })), "{ended:?}");
    assert!(told);
}

#[test]
fn nothing_is_sent_before_the_program_runs() {
    let (ended, _) = attach_to(|mut supervisor, mut shim| {
        shim.socket().set_nonblocking(true).expect("set");
        let early: Result<Received<ToShim>, ConnectionError> = shim.receive();
        assert!(matches!(early, Ok(Received::NotYet)), "{early:?}");
        shim.socket().set_nonblocking(false).expect("set");
        say(&mut shim, &FromShim::Started { at: 1 });
        say(&mut supervisor, &created());
        say(&mut shim, &exited(ExitStatus::Code(1)));
    });
    assert!(matches!(ended, Ok(Ended::Status(ExitStatus::Code(1)))), "{ended:?}");
}
