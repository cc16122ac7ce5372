//! Everything the child needs, made before the clone; the clone; and the release.

use std::{
    ffi::{CString, c_char},
    io::Read,
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use mysup_ipc::{
    init_status, layout,
    plan::{ContainerPlan, Network},
};
use rustix::fs::{FlockOperation, Mode, OFlags};

use super::{
    child::{self, CgroupMount, ChildPlan},
    report::{REPORT_SIZE, Report},
};
use crate::{
    cgroup::{Cgroups, Version},
    error::{Call, Reason, StartError, Step, SysError},
    namespace,
    sys::{
        mount::{Attributes, set_attributes},
        process::{self, Cloned},
    },
    user::User,
};

/// Name of our program when it is PID 1 of a container (`--init`).
pub(crate) const INIT_NAME: &str = "mysup-init";

/// The three ends that become fd 0, 1 and 2 of the program.
#[derive(Debug)]
pub(crate) struct StdioEnds {
    /// fd 0, 1 and 2.
    pub(crate) ends: [OwnedFd; 3],
    /// They are a terminal, which becomes the controlling one.
    pub(crate) terminal: bool,
}

/// A child in all its parts, none of which has to be allocated any more.
pub(crate) struct Prepared {
    texts: Texts,
    hostname: CString,
    cwd: CString,
    candidates: Vec<CString>,
    cgroups: Vec<CgroupMount>,
    rlimits: Vec<(u32, libc::rlimit)>,
    user: User,
    capabilities: u64,
    own_init: Option<OwnInit>,
}

/// What `--init` needs.
pub(crate) struct OwnInit {
    /// Our own program on a mount that cannot be written.
    executable: OwnedFd,
    /// Where it leaves the end of its program. No other process in the container ever has it open.
    status: OwnedFd,
}

/// Arguments and environment with the pointer arrays that execve(2) wants.
struct Texts {
    _args: Vec<CString>,
    _env: Vec<CString>,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
}

/// An init that exists and waits before it sets itself up.
#[derive(Debug)]
pub(crate) struct Held {
    /// Its pid on the host.
    pub(crate) pid: u32,
    /// Itself.
    pub(crate) pidfd: OwnedFd,
    sync: UnixStream,
    /// Locked by us too, which says nothing as long as we live.
    _start: OwnedFd,
    program: String,
    searched: bool,
}

impl Prepared {
    /// Makes the parts.
    pub(crate) fn new(
        plan: &ContainerPlan,
        user: User,
        cgroups: &Cgroups,
        own_init: Option<OwnInit>,
    ) -> Result<Self, StartError> {
        let mut env = plan.process.env.clone();
        if !env.iter().any(|entry| entry.starts_with("HOME=")) {
            env.push(format!("HOME={}", user.home));
        }
        let path = env.iter().rev().find_map(|entry| entry.strip_prefix("PATH=")).unwrap_or_default();
        let program = plan.process.args.first().map(String::as_str).unwrap_or_default();
        let candidates = candidates(program, path)?;
        let mut args = plan.process.args.clone();
        if let Some(own) = &own_init {
            args.splice(0..0, [INIT_NAME.to_owned(), own.status.as_raw_fd().to_string()]);
        }
        let rlimit = |limit: &mysup_ipc::plan::Rlimit| {
            (limit.resource, libc::rlimit { rlim_cur: limit.soft, rlim_max: limit.hard })
        };
        Ok(Self {
            texts: Texts::new(&args, &env)?,
            hostname: c_string(&plan.hostname, "the host name")?,
            cwd: c_string(&plan.process.cwd, "the working directory")?,
            candidates,
            cgroups: cgroup_mounts(cgroups),
            rlimits: plan.process.rlimits.iter().map(rlimit).collect(),
            user,
            capabilities: plan.process.capabilities.iter().fold(0, |set, number| set | 1 << (number & 63))
                & own_capabilities().step("read the own capabilities")?,
            own_init,
        })
    }

    /// Clones the init into its namespaces and cgroups. It waits for [`Held::release`], and ends if this process does.
    pub(crate) fn spawn(
        &self,
        plan: &ContainerPlan,
        cgroups: &Cgroups,
        stdio: &StdioEnds,
        lock: BorrowedFd<'_>,
        start: OwnedFd,
    ) -> Result<Held, StartError> {
        let (ours, theirs) = UnixStream::pair().call(|| "socketpair()").step("start the init")?;
        let mut flags = libc::CLONE_NEWPID | libc::CLONE_NEWNS | libc::CLONE_NEWUTS | libc::CLONE_NEWIPC;
        if plan.network == Network::None {
            flags |= libc::CLONE_NEWNET;
        }
        let child = ChildPlan {
            sync: theirs.as_raw_fd(),
            parent_end: ours.as_raw_fd(),
            lock: lock.as_raw_fd(),
            start: start.as_raw_fd(),
            stdio: [0, 1, 2].map(|index: usize| stdio.ends[index].as_raw_fd()),
            terminal: stdio.terminal,
            hostname: &self.hostname,
            loopback: plan.network == Network::None,
            privileged: plan.privileged,
            cgroups: &self.cgroups,
            rlimits: &self.rlimits,
            uid: self.user.uid,
            gid: self.user.gid,
            groups: &self.user.groups,
            capabilities: self.capabilities,
            no_new_privileges: plan.process.no_new_privileges,
            cwd: &self.cwd,
            candidates: &self.candidates,
            argv: &self.texts.argv,
            envp: &self.texts.envp,
            own_init: self.own_init.as_ref().map(|own| (own.executable.as_raw_fd(), own.status.as_raw_fd())),
        };
        match process::clone_into(flags, cgroups.unified()).call(|| "clone3()").step("start the init")? {
            Cloned::Child => child::run(&child),
            Cloned::Parent { pid, pidfd } => {
                drop(theirs);
                let program = plan.process.args.first().cloned().unwrap_or_default();
                let searched = !program.contains('/');
                let held = Held { pid, pidfd, sync: ours, _start: start, program, searched };
                // On an error the child reads the end of its socket and leaves.
                cgroups.adopt(pid).step("move the init into its cgroups")?;
                Ok(held)
            }
        }
    }
}

/// The file that tells those who come after a dead shim whether its init executed the program.
pub(crate) fn open_start(run_directory: BorrowedFd<'_>) -> Result<OwnedFd, SysError> {
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = rustix::fs::openat(run_directory, layout::START, flags, Mode::RUSR | Mode::WUSR)
        .call(|| "openat(\"start\", O_CREAT)")?;
    rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive).call(|| "flock(\"start\", LOCK_EX)")?;
    Ok(fd)
}

impl Held {
    /// When it was started, in clock ticks since the machine was: with its pid that is this process and no other. 0 if that cannot
    /// be read: then its cgroup has to tell.
    pub(crate) fn start(&self, proc: BorrowedFd<'_>) -> u64 {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let mut stat = String::new();
        let read = rustix::fs::openat(proc, format!("{}/stat", self.pid), flags, Mode::empty())
            .map_err(std::io::Error::from)
            .and_then(|file| std::fs::File::from(file).read_to_string(&mut stat));
        read.ok().and_then(|_| init_status::start_in(&stat)).unwrap_or(0)
    }

    /// Lets it go on to exec, and waits until it has, or says why it could not.
    pub(crate) fn release(&mut self) -> Result<(), StartError> {
        use std::io::Write;
        self.sync.write_all(&[1]).call(|| "write(sync)").step("release the init")?;
        let mut bytes = [0; REPORT_SIZE];
        match self.sync.read_exact(&mut bytes) {
            // exec closed the other end.
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(()),
            Err(error) => Err(SysError::new("read(sync)", error)).step("start the init"),
            Ok(()) => Err(self.failure(Report::from_bytes(bytes))),
        }
    }

    fn failure(&self, report: Report) -> StartError {
        let program = self.program.clone();
        let reason = Reason(report.errno);
        if !report.is_exec() {
            return StartError::Child { step: report.step_name(), reason };
        }
        match report.errno {
            libc::ENOENT | libc::ENOTDIR if self.searched => StartError::CommandNotFound(program),
            libc::ENOENT | libc::ENOTDIR => StartError::CommandMissing(program),
            _ => StartError::CommandNotExecutable { program, reason },
        }
    }
}

impl Texts {
    fn new(args: &[String], env: &[String]) -> Result<Self, StartError> {
        let strings = |texts: &[String], what: &'static str| {
            texts.iter().map(|text| c_string(text, what)).collect::<Result<Vec<_>, _>>()
        };
        let args = strings(args, "an argument")?;
        let env = strings(env, "the environment")?;
        let pointers = |texts: &[CString]| {
            texts.iter().map(|text| text.as_ptr()).chain([std::ptr::null()]).collect::<Vec<_>>()
        };
        let (argv, envp) = (pointers(&args), pointers(&env));
        Ok(Self { _args: args, _env: env, argv, envp })
    }
}

/// Nobody can give what he does not have: a host may lack some (in a virtual machine, in a container).
fn own_capabilities() -> Result<u64, SysError> {
    let own = rustix::thread::capabilities(None).call(|| "capget()")?;
    Ok(own.permitted.bits())
}

fn c_string(text: &str, what: &'static str) -> Result<CString, StartError> {
    CString::new(text).map_err(|_| StartError::Nul(what))
}

/// Where execve(2) is tried, in order.
fn candidates(program: &str, path: &str) -> Result<Vec<CString>, StartError> {
    let join = |directory: &str| match directory {
        // An empty entry of PATH is the working directory (environ(7)).
        "" => format!("./{program}"),
        directory => format!("{directory}/{program}"),
    };
    let texts: Vec<String> = match program {
        "" => Vec::new(),
        program if program.contains('/') => vec![program.to_owned()],
        _ => path.split(':').map(join).collect(),
    };
    texts.iter().map(|text| c_string(text, "the program")).collect()
}

/// How the container sees its cgroups: the unified tree alone, or a directory for each hierarchy it is in.
fn cgroup_mounts(cgroups: &Cgroups) -> Vec<CgroupMount> {
    let mut mounts = Vec::new();
    for hierarchy in cgroups.hierarchies() {
        let name = hierarchy.mount_point.file_name().and_then(|name| name.to_str()).unwrap_or("cgroup");
        let v2 = hierarchy.version == Version::V2;
        let options = if v2 { &[][..] } else { &hierarchy.controllers[..] };
        let options = options.iter().filter_map(|option| CString::new(option.as_str()).ok()).collect();
        if let Ok(name) = CString::new(name) {
            mounts.push(CgroupMount { kind: if v2 { c"cgroup2" } else { c"cgroup" }, options, name });
        }
    }
    mounts
}

impl OwnInit {
    /// Makes both, the file in the run directory.
    pub(crate) fn prepare(run_directory: BorrowedFd<'_>) -> Result<Self, SysError> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let mode = Mode::RUSR | Mode::WUSR;
        let status = rustix::fs::openat(run_directory, layout::INIT_STATUS, flags, mode)
            .call(|| "openat(\"init-status\", O_CREAT|O_EXCL)")?;
        rustix::io::pwrite(&status, &init_status::RUNNING, 0).call(|| "pwrite(\"init-status\")")?;
        Ok(Self { executable: sealed_executable()?, status })
    }
}

/// Our own program on a detached read-only mount: what a container's PID 1 shows as /proc/1/exe cannot be opened for
/// writing by anyone (CVE-2019-5736).
fn sealed_executable() -> Result<OwnedFd, SysError> {
    let own = rustix::fs::open("/proc/self/exe", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .call(|| "open(\"/proc/self/exe\")")?;
    let clone = namespace::clone_tree(own.as_fd(), "", false)?;
    let attributes = Attributes {
        set: libc::MOUNT_ATTR_RDONLY | libc::MOUNT_ATTR_NOSUID,
        private: false,
        recursive: false,
    };
    set_attributes(clone.as_fd(), attributes).call(|| "mount_setattr(own program, MOUNT_ATTR_RDONLY)")?;
    Ok(clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_tried_in_every_directory_of_path() {
        let texts = |program, path| {
            let list = candidates(program, path).expect("no NUL");
            list.iter().map(|text| text.to_str().expect("ascii").to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(texts("sh", "/bin::/usr/bin"), ["/bin/sh", "./sh", "/usr/bin/sh"]);
        assert_eq!(texts("./sh", "/bin"), ["./sh"]);
        assert!(texts("", "/bin").is_empty());
    }
}
