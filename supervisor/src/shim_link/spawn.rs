//! Starting `mysup-shim`: its arguments, its three descriptors and its environment.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd, OwnedFd},
        unix::{fs::MetadataExt, net::UnixStream, process::CommandExt},
    },
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::Arc,
};

use mysup_ipc::point;

use crate::{error::Error, log, sys};

const NAME: &str = "mysup-shim";

/// Starts shims. The program is looked for once and held open: an upgrade on disk, or a removal, does not change a running
/// instance, whose containers must find a shim that adopts them whatever has become of the file.
#[derive(Debug, Clone)]
pub(crate) struct Spawner {
    program: Arc<Program>,
}

#[derive(Debug)]
struct Program {
    path: PathBuf,
    held: File,
}

/// A shim that was started.
#[derive(Debug)]
pub(crate) struct Spawned {
    /// Its pid, for the log.
    pub(crate) pid: u32,
    /// Our end of the control connection, non-blocking.
    pub(crate) control: UnixStream,
}

impl Spawner {
    /// Finds the shim beside this program or in `../libexec/mysup`.
    pub(crate) fn find() -> Result<Self, Error> {
        let own = std::env::current_exe().map_err(Error::system("find this program's own path"))?;
        let directory = own.parent().unwrap_or(Path::new("/"));
        Self::find_near(directory)
    }

    /// Finds the shim as seen from the directory of a program.
    pub(crate) fn find_near(directory: &Path) -> Result<Self, Error> {
        let mut places = vec![directory.join(NAME), directory.join("../libexec/mysup").join(NAME)];
        // Test programs are built into a directory below the one of the programs.
        if directory.ends_with("deps") {
            places.push(directory.join("..").join(NAME));
        }
        match places.iter().find(|place| place.is_file()) {
            // Opened by every container: a symbolic link in the way would be followed anew each time.
            Some(place) => place
                .canonicalize()
                .and_then(Program::hold)
                .map(|program| Self { program: Arc::new(program) })
                .map_err(Error::file("resolve", place.clone())),
            None => Err(Error::NoShim {
                looked_at: places.iter().map(|place| place.display().to_string()).collect(),
            }),
        }
    }

    /// Starts `mysup-shim run`; `attach` becomes its standard output.
    pub(crate) fn run(&self, attach: Option<OwnedFd>) -> io::Result<Spawned> {
        self.with_control("run", attach)
    }

    /// Starts `mysup-shim adopt`.
    pub(crate) fn adopt(&self) -> io::Result<Spawned> {
        self.with_control("adopt", None)
    }

    /// Starts `mysup-shim teardown`.
    pub(crate) fn teardown(&self) -> io::Result<Spawned> {
        self.with_control("teardown", None)
    }

    /// Starts `mysup-shim sweep` of a trash directory and returns its pid.
    pub(crate) fn sweep(&self, directory: &Path) -> io::Result<u32> {
        let mut command = self.command("sweep");
        command.arg(directory).stdin(Stdio::null()).stdout(Stdio::null());
        spawn(&mut command)
    }

    fn with_control(&self, mode: &str, attach: Option<OwnedFd>) -> io::Result<Spawned> {
        let (control, theirs) = UnixStream::pair()?;
        control.set_nonblocking(true)?;
        let mut command = self.command(mode);
        command.stdin(Stdio::from(OwnedFd::from(theirs)));
        command.stdout(attach.map_or_else(Stdio::null, Stdio::from));
        point::before(point::Step::Spawn);
        let pid = spawn(&mut command)?;
        point::after(point::Step::Spawn);
        Ok(Spawned { pid, control })
    }

    fn command(&self, mode: &str) -> Command {
        let mut command = Command::new(self.program.current());
        command.arg0(&self.program.path);
        // Standard error is ours: the shim's trace goes to our log. No pre_exec: std can then use vfork.
        command.arg(mode).env_clear().current_dir("/").stderr(Stdio::inherit());
        for name in [log::VARIABLE].into_iter().chain(point::VARIABLE) {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command
    }
}

impl Program {
    fn hold(path: PathBuf) -> io::Result<Self> {
        let held = sys::open_path(&path)?;
        Ok(Self { path, held })
    }

    /// A path that leads to the program that is held: its own, unless that is another file's by now, or nobody's.
    fn current(&self) -> PathBuf {
        let identity = |found: std::fs::Metadata| (found.dev(), found.ino());
        let own = self.held.metadata().map(identity);
        match (own, std::fs::metadata(&self.path).map(identity)) {
            (Ok(own), Ok(there)) if own == there => self.path.clone(),
            // By our number, not `self`: who is started this way may have to open it again.
            _ => PathBuf::from(format!("/proc/{}/fd/{}", process::id(), self.held.as_raw_fd())),
        }
    }
}

/// The child is not waited for here: children.rs reaps all of them.
fn spawn(command: &mut Command) -> io::Result<u32> {
    Ok(command.spawn()?.id())
}

/// An attached client's descriptor must be a stream of frames; anything else would only fail later and elsewhere.
pub(crate) fn is_socket(descriptor: &OwnedFd) -> bool {
    descriptor.as_fd().try_clone_to_owned().is_ok_and(|copy| UnixStream::from(copy).local_addr().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_error_says_where_the_shim_was_looked_for() {
        let message = Spawner::find_near(Path::new("/nowhere/bin")).unwrap_err().to_string();
        assert!(message.contains("/nowhere/bin/mysup-shim"), "{message}");
        assert!(message.contains("/nowhere/bin/../libexec/mysup/mysup-shim"), "{message}");
    }

    #[test]
    fn only_sockets_are_sockets() {
        let (left, _right) = UnixStream::pair().unwrap();
        assert!(is_socket(&left.into()));
        assert!(!is_socket(&std::fs::File::open("/dev/null").unwrap().into()));
    }
}
