//! Runs a container through the supervisor's socket and waits for its end, without the command line.
//!
//! `cargo run --example run_and_wait -p mysup-examples -- /run/mysup/mysup.sock busybox true`
#![expect(clippy::print_stdout, reason = "an example talks to its reader")]

use std::{error::Error, os::unix::net::UnixStream};

use mysup_ipc::{
    api::{Request, Response},
    blocking::{Connection, Received},
    container::{ContainerConfig, ImageSource},
    plan::{Limits, LogPlan, Network, StorageDriver},
};

fn main() -> Result<(), Box<dyn Error>> {
    let mut args = std::env::args().skip(1);
    let socket = args.next().ok_or("usage: run_and_wait SOCKET IMAGE COMMAND...")?;
    let image = args.next().ok_or("an image is missing")?;
    let mut supervisor = Connection::new(UnixStream::connect(socket)?);

    let config = Box::new(config(image, args.collect()));
    let Response::Created { id, .. } = ask(&mut supervisor, &Request::Run { config, attach: false })? else {
        return Err("the supervisor answered something else".into());
    };
    println!("started {id}");
    let wait = Request::Wait { container: id.to_string() };
    if let Response::Exited { status, .. } = ask(&mut supervisor, &wait)? {
        println!("ended with {}", status.shell_code());
    }
    let remove = Request::Remove { container: id.to_string(), force: false, volumes: false };
    ask(&mut supervisor, &remove)?;
    Ok(())
}

/// One request, one answer; an error of the supervisor is an error here.
fn ask(supervisor: &mut Connection, request: &Request) -> Result<Response, Box<dyn Error>> {
    supervisor.send(request)?;
    match supervisor.receive()? {
        Received::Message(Response::Error(error)) => Err(error.into()),
        Received::Message(response) => Ok(response),
        Received::NotYet | Received::Closed => Err("the supervisor closed the connection".into()),
    }
}

fn config(image: String, command: Vec<String>) -> ContainerConfig {
    ContainerConfig {
        name: None,
        image: ImageSource::Named(image),
        command,
        entrypoint: None,
        env: Vec::new(),
        workdir: None,
        user: None,
        hostname: None,
        terminal: None,
        interactive: false,
        remove: false,
        keep: false,
        init: false,
        mounts: Vec::new(),
        read_only: false,
        network: Network::None,
        storage_driver: StorageDriver::Overlay,
        privileged: false,
        cap_add: Vec::new(),
        cap_drop: Vec::new(),
        no_new_privileges: false,
        limits: Limits::default(),
        rlimits: Vec::new(),
        labels: Vec::new(),
        stop_signal: None,
        stop_timeout: None,
        log: LogPlan::default(),
    }
}
