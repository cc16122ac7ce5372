//! `mysup-registry`: speaks with registries for a client, which starts it for one order and ends with it.
//!
//! It is a program of its own, so that neither the supervisor nor a plain `mysup run` carries the network: HTTP, TLS and
//! names cost ten times the memory of the rest, and a registry that is silent, slow or hostile meets nobody but the one
//! client that asked for it, with that user's environment: credentials, proxies, certificates.
//!
//! Never here: a container, the supervisor, a file that outlives an order, but the user's own `config.json`.

mod archive;
mod certificates;
mod credentials;
mod download;
mod error;
mod keychain;
mod login;
mod manifest;
mod peer;
mod pull;
mod push;
mod session;

use std::{
    os::{fd::AsFd, unix::net::UnixStream},
    process::ExitCode,
};

use mysup_ipc::registry::{FromRegistry, ToRegistry};
use rustix::process::{Resource, Rlimit, setrlimit};

use self::{error::Error, peer::Peer};

/// Bytes of memory: ten times what is needed. The client library takes a manifest whole, however long it is; beyond this
/// the program ends and nobody else notices.
const MEMORY: u64 = 512 << 20;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever started it is gone, or is no client: there is nobody to be told.
        Err(_) => ExitCode::FAILURE,
    }
}

fn run() -> Result<(), Error> {
    let limit = Rlimit { current: Some(MEMORY), maximum: Some(MEMORY) };
    // With more memory than allowed it does what it should, too.
    let _ = setrlimit(Resource::Data, limit);
    // Fails if there is a provider already, and that is this one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let socket = std::io::stdin().as_fd().try_clone_to_owned().map_err(Error::Peer)?;
    let mut peer = Peer::new(UnixStream::from(socket))?;
    let order = peer.order()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(Error::Peer)?;
    let answer = match runtime.block_on(answer(&mut peer, order)) {
        Ok(answer) => answer,
        Err(error) => FromRegistry::Failed(error.to_string()),
    };
    let sent = peer.send(&answer);
    // A resolver of names that is still waited for does not hold us.
    runtime.shutdown_background();
    sent
}

async fn answer(peer: &mut Peer, order: ToRegistry) -> Result<FromRegistry, Error> {
    match order {
        ToRegistry::Pull(order) => {
            let file = peer.file()?;
            pull::pull(peer, &order, file).await.map(FromRegistry::Pulled)
        }
        ToRegistry::Push(order) => {
            let file = peer.file()?;
            push::push(peer, &order, file).await
        }
        ToRegistry::Bring { order, manifest } => push::again(peer, &order, &manifest).await,
        ToRegistry::Login { server, user, secret, trust } => {
            login::login(&server, &user, &secret, &trust).await.map(FromRegistry::Done)
        }
        ToRegistry::Logout { server } => login::logout(&server).map(FromRegistry::Done),
        ToRegistry::Present(_) | ToRegistry::Unknown => Err(Error::Order),
    }
}
