//! From a plan to an init that waits: every part of a container, in the order in which it can be undone.

use std::os::{
    fd::{AsFd, OwnedFd},
    unix::net::UnixListener,
};

use mysup_ipc::{
    layout,
    plan::{ContainerPlan, Lifetime},
    point,
    record::{self, Durability},
    shim::ToShim,
    teardown::JournalEntry,
};
use rustix::{
    fs::{FlockOperation, Mode, OFlags},
    io::Errno,
};

use crate::{
    cgroup::{self, Cgroups, Directory},
    error::{Call, StartError, Step, SysError},
    init::{self, Held, OwnInit, Prepared},
    mountinfo,
    namespace::{self, HostNamespace},
    rootfs::{self, DetachedRoot, HostDevices, Sources, own_volumes},
    stdio::Stdio,
    teardown::{OwedRecord, boot_id, journal::Journal},
};

/// The lock that says this container's shim lives. Held until the process ends, whatever way that is.
#[derive(Debug)]
pub(crate) struct LifeLock(OwnedFd);

impl LifeLock {
    /// Takes it; another holder is an error (`EWOULDBLOCK`): two shims must never work on one container.
    pub(crate) fn take(state_dir: &str) -> Result<Self, SysError> {
        let path = format!("{state_dir}/{}", layout::LOCK);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).call(|| format!("open(\"{path}\")"))?;
        rustix::fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)
            .call(|| format!("flock(\"{path}\", LOCK_EX|LOCK_NB)"))?;
        Ok(Self(fd))
    }
}

/// What a shim has of its container before any of it is made.
#[derive(Debug)]
pub(crate) struct Ground {
    /// The container's run directory.
    pub(crate) run: OwnedFd,
    /// Its state directory.
    pub(crate) state: OwnedFd,
    /// What is to be undone.
    pub(crate) journal: Journal,
    /// /proc of the host, which no path reaches from the private namespace.
    pub(crate) proc: OwnedFd,
    /// Where supervisors and clients connect.
    pub(crate) listener: UnixListener,
    /// The container's cgroups as far as they are made; no path reaches them from the private namespace either.
    pub(crate) cgroups: Vec<Directory>,
}

impl Ground {
    /// Opens the directories, makes room for the record of the end, begins the journal, keeps the plan for a shim that may have to adopt, and listens.
    pub(crate) fn prepare(plan: &ContainerPlan) -> Result<Self, SysError> {
        let run = rootfs::open_directory(&plan.run_dir)?;
        let state = rootfs::open_directory(&plan.state_dir)?;
        let proc = rootfs::open_directory("/proc")?;
        if plan.lifetime != Lifetime::Nothing {
            OwedRecord::reserve(&state)?;
        }
        let mut journal = Journal::create(run.as_fd())?;
        journal.append(&JournalEntry::Begin { boot_id: boot_id(), lifetime: plan.lifetime })?;
        let kept = ToShim::Plan(Box::new(plan.clone()));
        record::write(run.as_fd(), layout::PLAN, &kept, Durability::Volatile).call(|| "write(\"plan\")")?;
        let listener = listen(&run)?;
        point::after(point::Step::Begin);
        Ok(Self { run, state, journal, proc, listener, cgroups: Vec::new() })
    }
}

/// Binds in the run directory by a relative path: an address holds 108 bytes, a path may be longer (unix(7)).
fn listen(run: &OwnedFd) -> Result<UnixListener, SysError> {
    rustix::process::fchdir(run).call(|| "fchdir(run directory)")?;
    let listener = UnixListener::bind(layout::SHIM_SOCKET).call(|| "bind(\"shim.sock\")")?;
    listener.set_nonblocking(true).call(|| "fcntl(O_NONBLOCK)")?;
    rustix::process::chdir("/").call(|| "chdir(\"/\")")?;
    Ok(listener)
}

/// A container whose init waits to be released.
pub(crate) struct Made {
    /// The init.
    pub(crate) held: Held,
    /// Its input and output.
    pub(crate) stdio: Stdio,
    /// Its cgroups.
    pub(crate) cgroups: Vec<Directory>,
}

/// Makes everything. After an error `host` tells whether the private namespace was entered already.
pub(crate) fn make(
    plan: &ContainerPlan,
    ground: &mut Ground,
    lock: &LifeLock,
    host: &mut Option<HostNamespace>,
) -> Result<Made, StartError> {
    let mounts = mountinfo::read().step("read the mount table")?;
    let mut volumes = Sources::new(plan, &mounts).step("look at mysup's own directories")?.open_all(plan)?;
    let hierarchies = cgroup::find_hierarchies(&mounts);
    let cgroups = Cgroups::create(plan, &hierarchies, &mut ground.journal)?;
    ground.cgroups = cgroups.directories().step("open the cgroups")?;
    let root = DetachedRoot::create(plan, &mut ground.journal)?;
    volumes.extend(own_volumes::open_all(plan, root.union())?);
    let devices =
        if plan.privileged { HostDevices::read().step("read /dev")? } else { HostDevices::default() };
    let own_init = if plan.process.init {
        Some(OwnInit::prepare(ground.run.as_fd()).step("prepare --init")?)
    } else {
        None
    };
    make_mountpoint(ground).step("make the mountpoint")?;
    point::before(point::Step::Namespace);
    *host = Some(namespace::enter(&plan.run_dir).step("make a mount namespace")?);
    point::after(point::Step::Namespace);
    point::before(point::Step::Attach);
    let root = root.attach(plan, volumes, &devices)?;
    point::after(point::Step::Attach);
    let user = root.user(&plan.process.user)?;
    point::before(point::Step::Stdio);
    let (stdio, ends) = Stdio::create(ground.run.as_fd(), &root, &plan.process, &user)
        .step("make standard input and output")?;
    point::after(point::Step::Stdio);
    let prepared = Prepared::new(plan, user, &cgroups, own_init)?;
    // Not open any more when the root is to be unmounted.
    drop(root);
    let start = init::open_start(ground.run.as_fd()).step("start the init")?;
    point::before(point::Step::Clone);
    let held = prepared.spawn(plan, &cgroups, &ends, lock.0.as_fd(), start)?;
    point::after(point::Step::Clone);
    Ok(Made { held, stdio, cgroups: cgroups.directories().step("open the cgroups")? })
}

fn make_mountpoint(ground: &mut Ground) -> Result<(), SysError> {
    ground.journal.append(&JournalEntry::Mountpoint)?;
    match rustix::fs::mkdirat(&ground.run, layout::MOUNTPOINT, Mode::from_raw_mode(0o700)) {
        Ok(()) | Err(Errno::EXIST) => {}
        result => result.call(|| "mkdirat(\"mnt\")")?,
    }
    point::after(point::Step::Mountpoint);
    Ok(())
}
