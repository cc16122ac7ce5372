//! The supervisor as the command line sees it: where it listens, how it is reached, and started when it does not run.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd},
        unix::{fs::OpenOptionsExt, net::UnixStream},
    },
    path::Path,
    time::{Duration, Instant},
};

use mysup_ipc::{
    api::{Request, Response, SupervisorInfo},
    blocking::{Connection, ConnectionError, Received},
    container::ContainerInfo,
    error::{ErrorCode, WireError},
    images::ImageRequest,
    layout,
    storage::StorageRequest,
};
use nix::{fcntl::OFlag, unistd};

use super::{
    args::RootArgs,
    error::CliError,
    launch::{self, Launched},
};
use crate::config::Config;

/// How long a supervisor that holds the lock may take until it listens (or until it is gone).
const LISTEN_DEADLINE: Duration = Duration::from_secs(10);
/// Pause between two tries to reach it.
const RETRY_PAUSE: Duration = Duration::from_millis(20);
/// How long it is tried to reach one that has the lock, before another start is tried.
const LAUNCH_PAUSE: Duration = Duration::from_millis(500);
/// A supervisor that was just killed still accepts for a moment. So long a request that may be repeated is asked again.
const DYING: Duration = Duration::from_secs(2);
/// How long a request that was not read is sent to one supervisor after the other.
const RESENDING: Duration = Duration::from_secs(30);
/// Longer socket paths do not fit sockaddr_un (108 bytes with the final NUL).
const SOCKET_PATH_MAX: usize = 107;

/// One instance of mysup, as a client sees it.
#[derive(Debug, Clone)]
pub(crate) struct Instance {
    /// Where it is.
    pub(crate) config: Config,
}

impl Instance {
    /// The instance that the options before the verb name.
    ///
    /// # Errors
    /// If a path is empty or the working directory is gone.
    pub(crate) fn from_args(args: &RootArgs) -> Result<Self, CliError> {
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| CliError::File {
                action: "make an absolute path of",
                path: path.to_owned(),
                source,
            })
        };
        let (root, run_root) = (absolute(&args.root)?, absolute(&args.run_root)?);
        Ok(Self { config: Config { root, run_root, ..Config::default() } })
    }

    /// Connects to the supervisor, and starts it first if none runs.
    ///
    /// # Errors
    /// If it cannot be reached or started.
    pub(crate) fn connect(&self) -> Result<Client, CliError> {
        let deadline = Instant::now() + LISTEN_DEADLINE;
        if let Some(client) = self.connect_running()? {
            return Ok(client);
        }
        loop {
            let refused = match launch::in_background(self)? {
                Launched::Ready => None,
                Launched::Refused(reason) => Some(reason),
            };
            // Another start was faster, or one is about to end: it listens, or its lock is free, in a moment.
            let next_launch = Instant::now() + LAUNCH_PAUSE;
            while Instant::now() < next_launch {
                if let Some(client) = self.connect_running()? {
                    return Ok(client);
                }
                std::thread::sleep(RETRY_PAUSE);
            }
            if let Some(reason) = refused
                && Instant::now() >= deadline
            {
                let socket = self.config.socket();
                let reason = format!("{reason}, and does not answer at {}", socket.display());
                return Err(CliError::Launch { reason });
            }
        }
    }

    /// Connects to the supervisor if one runs.
    ///
    /// # Errors
    /// If not root, or it cannot be reached for another reason than that none runs.
    pub(crate) fn connect_running(&self) -> Result<Option<Client>, CliError> {
        if !unistd::geteuid().is_root() {
            return Err(CliError::NotRoot);
        }
        match connect_in(&self.config.run_root, layout::SUPERVISOR_SOCKET) {
            Ok(socket) => {
                Ok(Some(Client { connection: Connection::new(socket), instance: Some(self.clone()) }))
            }
            Err(error)
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) =>
            {
                Ok(None)
            }
            Err(source) => Err(CliError::File {
                action: "connect to the supervisor at",
                path: self.config.socket(),
                source,
            }),
        }
    }
}

/// Connects to a socket in a directory, however long the directory's path is.
///
/// # Errors
/// As connect(2), and if the directory cannot be opened.
pub(crate) fn connect_in(directory: &Path, name: &str) -> io::Result<UnixStream> {
    let path = directory.join(name);
    if path.as_os_str().len() <= SOCKET_PATH_MAX {
        return UnixStream::connect(path);
    }
    let opened = File::options()
        .read(true)
        .custom_flags((OFlag::O_PATH | OFlag::O_DIRECTORY).bits())
        .open(directory)?;
    UnixStream::connect(format!("/proc/self/fd/{}/{name}", opened.as_raw_fd()))
}

/// A connection to the supervisor.
#[derive(Debug)]
pub(crate) struct Client {
    connection: Connection,
    /// Where another connection can be had.
    instance: Option<Instance>,
}

impl Client {
    /// Asks and waits for the answer.
    ///
    /// # Errors
    /// The supervisor's own refusal, or if the connection fails.
    pub(crate) fn ask(&mut self, request: &Request) -> Result<Response, CliError> {
        let mut first = None;
        loop {
            let asked = Instant::now();
            let answer = self.ask_with(request, &[]);
            let hung_up = matches!(answer, Err(CliError::NoAnswer | CliError::Connection { .. }));
            // One that has served us for a while is another than the one before.
            if asked.elapsed() > DYING {
                first = None;
            }
            let since: Instant = *first.get_or_insert_with(Instant::now);
            match &self.instance {
                Some(instance) if hung_up && may_be_repeated(request) && since.elapsed() <= DYING => {
                    std::thread::sleep(RETRY_PAUSE);
                    *self = instance.connect()?;
                }
                Some(_) | None => return answer,
            }
        }
    }

    /// Asks, with descriptors that ride along, and waits for the answer. What a supervisor has not read is sent to the next.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn ask_with(
        &mut self,
        request: &Request,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<Response, CliError> {
        let again = self.again();
        loop {
            match self.send(request, descriptors).and_then(|()| self.receive()) {
                Err(CliError::Unread) => *self = again.next()?,
                answer => return answer,
            }
        }
    }

    /// Where the next supervisor can be had, if this one does not read a request.
    pub(crate) fn again(&self) -> Again {
        Again { instance: self.instance.clone(), until: Instant::now() + RESENDING }
    }

    /// Asks, with descriptors that ride along.
    ///
    /// # Errors
    /// [`CliError::Unread`] if the supervisor hung up, which can then not have read it whole; or if the connection fails.
    pub(crate) fn send(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<(), CliError> {
        const HUNG_UP: [io::ErrorKind; 2] = [io::ErrorKind::BrokenPipe, io::ErrorKind::ConnectionReset];
        match self.connection.send_with(request, descriptors) {
            Err(ConnectionError::Io(error)) if HUNG_UP.contains(&error.kind()) => Err(CliError::Unread),
            sent => sent.map_err(connection_error),
        }
    }

    /// Waits for the answer to the oldest open request.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn receive(&mut self) -> Result<Response, CliError> {
        self.heard()?.ok_or_else(timed_out)
    }

    /// `None` when nothing came in the time that is set.
    fn heard(&mut self) -> Result<Option<Response>, CliError> {
        match self.connection.receive().map_err(connection_error)? {
            Received::Message(Response::Error(error)) => Err(error.into()),
            Received::Message(response) => Ok(Some(response)),
            Received::NotYet => Ok(None),
            Received::Closed if self.connection.has_left_unread() => Err(CliError::Unread),
            Received::Closed => Err(CliError::NoAnswer),
        }
    }

    /// Asks and waits no longer than `deadline`.
    ///
    /// # Errors
    /// As [`Client::ask`], and when the time is over.
    pub(crate) fn ask_within(&mut self, request: &Request, deadline: Duration) -> Result<Response, CliError> {
        self.wait_no_longer_than(deadline)?;
        self.ask(request)
    }

    /// Asks once and waits no longer than `deadline`, which holds for all that is waited for on this connection from now on;
    /// `None` when the time is over.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn answer_within(
        &mut self,
        request: &Request,
        deadline: Duration,
    ) -> Result<Option<Response>, CliError> {
        self.wait_no_longer_than(deadline)?;
        self.send(request, &[])?;
        self.heard()
    }

    fn wait_no_longer_than(&self, deadline: Duration) -> Result<(), CliError> {
        let set = self.connection.socket().set_read_timeout(Some(deadline));
        set.map_err(|source| CliError::Call { action: "set a deadline", source })
    }

    /// The process that listens, as the kernel has kept it: unix(7), SO_PEERCRED.
    pub(crate) fn peer(&self) -> Option<i32> {
        let peer = rustix::net::sockopt::socket_peercred(self.connection.socket()).ok()?;
        Some(peer.pid.as_raw_nonzero().get())
    }

    /// Asks for something that has no answer but that it was done.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn demand(&mut self, request: &Request) -> Result<(), CliError> {
        let Response::Done = self.ask(request)? else { return Err(CliError::WrongAnswer) };
        Ok(())
    }

    /// One container.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn inspect(&mut self, container: &str) -> Result<ContainerInfo, CliError> {
        let request = Request::Inspect { container: container.to_owned() };
        let Response::Containers(mut list) = self.ask(&request)? else { return Err(CliError::WrongAnswer) };
        list.pop().ok_or(CliError::WrongAnswer)
    }

    /// One container, as [`Client::inspect`], waiting no longer than `deadline`.
    ///
    /// # Errors
    /// As [`Client::ask`], and when the time is over.
    pub(crate) fn inspect_within(
        &mut self,
        container: &str,
        deadline: Duration,
    ) -> Result<ContainerInfo, CliError> {
        // A deadline of nothing would be none.
        self.wait_no_longer_than(deadline.max(Duration::from_millis(1)))?;
        self.inspect(container)
    }

    /// The supervisor.
    ///
    /// # Errors
    /// As [`Client::ask`].
    pub(crate) fn info(&mut self) -> Result<SupervisorInfo, CliError> {
        let Response::Info(info) = self.ask(&Request::Info)? else { return Err(CliError::WrongAnswer) };
        Ok(*info)
    }

    /// The same connection, whose end is not made up for by another one.
    pub(crate) fn asked_once(self) -> Self {
        Self { instance: None, ..self }
    }

    /// Waits until the supervisor hangs up.
    pub(crate) fn wait_for_end(&mut self) {
        // A broken connection is an end too.
        while let Ok(Received::Message(_)) = self.connection.receive::<Response>() {}
    }

    /// Over a connected socket.
    #[cfg(test)]
    pub(crate) fn over(socket: UnixStream) -> Self {
        Self { connection: Connection::new(socket), instance: None }
    }

    /// The bare connection, for poll(2).
    pub(crate) fn into_connection(self) -> Connection {
        self.connection
    }
}

/// For a request that was not read: where the next supervisor is, and until when it is asked.
#[derive(Debug)]
pub(crate) struct Again {
    instance: Option<Instance>,
    until: Instant,
}

impl Again {
    /// A connection to the next one.
    ///
    /// # Errors
    /// [`CliError::Unread`] when no other is to be asked, or it was tried for too long; or if none can be started.
    pub(crate) fn next(&self) -> Result<Client, CliError> {
        match &self.instance {
            Some(instance) if Instant::now() < self.until => {
                std::thread::sleep(RETRY_PAUSE);
                instance.connect()
            }
            Some(_) | None => Err(CliError::Unread),
        }
    }
}

/// Whether a request means the same when it is made twice.
fn may_be_repeated(request: &Request) -> bool {
    match request {
        Request::Info
        | Request::Wait { .. }
        | Request::List
        | Request::Inspect { .. }
        | Request::Top { .. }
        | Request::Stop { .. }
        | Request::Images
        | Request::Heal
        | Request::Image(
            ImageRequest::List
            | ImageRequest::Inspect { .. }
            | ImageRequest::History { .. }
            | ImageRequest::Manifest { .. }
            | ImageRequest::Tag { .. },
        )
        | Request::Storage(
            StorageRequest::CreateVolume { name: Some(_), .. }
            | StorageRequest::ListVolumes
            | StorageRequest::InspectVolume { .. }
            | StorageRequest::DiskUsage,
        ) => true,
        Request::Create(_)
        | Request::Run { .. }
        | Request::Start { .. }
        | Request::Restart { .. }
        | Request::Kill { .. }
        | Request::Remove { .. }
        | Request::Rename { .. }
        | Request::Import { .. }
        | Request::RemoveImage { .. }
        | Request::Image(
            ImageRequest::Import { .. }
            | ImageRequest::Load
            | ImageRequest::Save { .. }
            | ImageRequest::Prune { .. }
            | ImageRequest::Verify { .. }
            | ImageRequest::Receive { .. },
        )
        | Request::Storage(
            StorageRequest::CreateVolume { name: None, .. }
            | StorageRequest::RemoveVolume { .. }
            | StorageRequest::PruneVolumes { .. },
        )
        | Request::Commit(_)
        | Request::Shutdown { .. }
        | Request::Unknown => false,
    }
}

fn timed_out() -> CliError {
    WireError::new(ErrorCode::Timeout, "the supervisor did not answer in time").into()
}

/// A failed connection as the supervisor's.
pub(crate) fn connection_error(source: ConnectionError) -> CliError {
    CliError::Connection { peer: "the supervisor", source }
}
