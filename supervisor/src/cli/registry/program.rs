//! `mysup-registry`, started for one order.

use std::{
    os::{
        fd::{BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use mysup_ipc::{
    blocking::{Connection, ConnectionError, Received},
    registry::{FromRegistry, ToRegistry},
};

use crate::cli::{error::CliError, progress::Screen};

const NAME: &str = "mysup-registry";
/// Where proxies are named. Go's programs, docker among them, never ask one for a host on this machine.
const PROXIES: [&str; 6] =
    ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];

/// It, and the connection to it.
#[derive(Debug)]
pub(super) struct Program {
    child: Child,
    connection: Option<Connection>,
}

impl Program {
    /// Starts it for a registry, which is what is before the first `/` of `name`.
    ///
    /// # Errors
    /// If it is not installed or cannot be run.
    pub(super) fn start(name: &str) -> Result<Self, CliError> {
        let path = find()?;
        let failed = |source| CliError::File { action: "run", path: path.clone(), source };
        let (ours, theirs) = UnixStream::pair().map_err(failed)?;
        let mut command = Command::new(&path);
        command.stdin(Stdio::from(OwnedFd::from(theirs))).stdout(Stdio::null());
        if is_loopback(name.split('/').next().unwrap_or_default()) {
            for variable in PROXIES {
                command.env_remove(variable);
            }
        }
        let child = command.spawn().map_err(failed)?;
        Ok(Self { child, connection: Some(Connection::new(ours)) })
    }

    /// Gives an order.
    ///
    /// # Errors
    /// If it is gone.
    pub(super) fn send(
        &mut self,
        order: &ToRegistry,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), CliError> {
        self.connection().send_with(order, descriptors).map_err(lost)
    }

    /// What it says next, but for how far it is, which goes to the screen.
    ///
    /// # Errors
    /// If it could not do what it should.
    pub(super) fn receive(&mut self, screen: &mut Screen) -> Result<FromRegistry, CliError> {
        loop {
            match self.connection().receive().map_err(lost)? {
                Received::Message(FromRegistry::Progress(progress)) => screen.show(&progress),
                Received::Message(FromRegistry::Failed(reason)) => return Err(CliError::Registry { reason }),
                Received::Message(message) => return Ok(message),
                Received::NotYet | Received::Closed => {
                    let reason = format!("{NAME} ended before it was done");
                    return Err(CliError::Registry { reason });
                }
            }
        }
    }

    fn connection(&mut self) -> &mut Connection {
        self.connection.as_mut().expect("it is taken at the end only")
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Without us it has nothing to do and ends.
        self.connection = None;
        let _ = self.child.wait();
    }
}

fn lost(source: ConnectionError) -> CliError {
    CliError::Connection { peer: NAME, source }
}

/// Beside this program, or in `../libexec/mysup`, as the shim.
fn find() -> Result<PathBuf, CliError> {
    let own = std::env::current_exe()
        .map_err(|source| CliError::Call { action: "find this program's own path", source })?;
    let directory = own.parent().unwrap_or(std::path::Path::new("/"));
    let places = [directory.join(NAME), directory.join("../libexec/mysup").join(NAME)];
    places.iter().find(|place| place.is_file()).cloned().ok_or_else(|| {
        let looked_at = places.each_ref().map(|place| place.display().to_string()).join(" and ");
        CliError::Registry { reason: format!("{NAME} is not installed (looked at {looked_at})") }
    })
}

fn is_loopback(host: &str) -> bool {
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}
