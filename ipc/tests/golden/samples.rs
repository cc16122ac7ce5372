//! One value of every variant, each field other than zero where it can be.

use std::{collections::BTreeMap, fmt::Debug};

use mysup_ipc::{
    api::{ImageInfo, Request, Response, SupervisorInfo},
    codec::Message,
    container::{ContainerConfig, ContainerInfo, ContainerState, ImageSource},
    error::{ErrorCode, WireError},
    exit::{ExitReport, ExitStatus},
    frame::Frame,
    id::{ContainerId, Digest},
    images::{ArchiveCompression, ArchiveFormat, HistoryLine, ImageDetails, ImageRequest, ImageResponse},
    plan::{
        AttachPlan, ContainerPlan, Lifetime, Limits, LogPlan, MountPlan, MountSource, Network, ProcessPlan,
        Rlimit, RootfsPlan, StopPlan, StorageDriver, TerminalSize,
    },
    progress::ProgressStep,
    shim::{AdoptOrder, FromShim, Role, ShimReport, Stream, TeardownOrder, ToShim},
    stop::StopUnderWay,
    teardown::{Holder, JournalEntry, Outcome, StepKind, TeardownReport, TeardownStep},
};

use crate::{
    commits::commit_requests,
    named::Named,
    registry::{from_registry, progress, to_registry},
    storage,
};

/// A message or record with its bytes of today.
pub(crate) struct Sample {
    /// `Type.Variant.number`.
    pub(crate) label: String,
    /// The frame.
    pub(crate) bytes: Vec<u8>,
    /// Whether a frame is understood as this type, and exactly as this value.
    pub(crate) understands: Box<Understands>,
}

type Understands = dyn Fn(&Frame, bool) -> Result<(), String>;

const ERRORS: [ErrorCode; 10] = [
    ErrorCode::NotFound,
    ErrorCode::Ambiguous,
    ErrorCode::Conflict,
    ErrorCode::Invalid,
    ErrorCode::CommandNotFound,
    ErrorCode::CommandNotExecutable,
    ErrorCode::System,
    ErrorCode::Timeout,
    ErrorCode::Leftover,
    ErrorCode::Protocol,
];
const STEPS: [StepKind; 8] = [
    StepKind::Processes,
    StepKind::Volume,
    StepKind::Rootfs,
    StepKind::Mountpoint,
    StepKind::WriteLayer,
    StepKind::Cgroups,
    StepKind::RunDirectory,
    StepKind::StateDirectory,
];
const STATUSES: [ExitStatus; 3] = [ExitStatus::Code(7), ExitStatus::Signal(9), ExitStatus::Unknown];
const LIFETIMES: [Lifetime; 3] = [Lifetime::Nothing, Lifetime::Record, Lifetime::WriteLayer];
const DRIVERS: [StorageDriver; 2] = [StorageDriver::Overlay, StorageDriver::Aufs];
const NETWORKS: [Network; 2] = [Network::None, Network::Host];
const ROLES: [Role; 4] =
    [Role::Supervisor, Role::Attach(AttachPlan { stdin: true }), Role::LogFollower, Role::Pause];
const STREAMS: [Stream; 2] = [Stream::Stdout, Stream::Stderr];
const SIZE: TerminalSize = TerminalSize { rows: 24, columns: 80 };

pub(crate) fn text(words: &str) -> String {
    words.to_owned()
}

pub(crate) fn texts(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| text(word)).collect()
}

pub(crate) fn id() -> ContainerId {
    "ab".repeat(32).parse().expect("an id")
}

pub(crate) fn digest() -> Digest {
    format!("sha256:{}", "cd".repeat(32)).parse().expect("a digest")
}

fn mount_sources() -> Vec<MountSource> {
    vec![
        MountSource::Bind { path: text("/data"), create: true },
        MountSource::Tmpfs { size: Some(1 << 20), mode: 0o1777, exec: true },
        MountSource::Volume(storage::volume_mount()),
    ]
}

fn mount(source: MountSource) -> MountPlan {
    MountPlan { destination: text("/m"), read_only: true, source }
}

/// Without volumes: those came later than what is made of these.
fn mounts() -> Vec<MountPlan> {
    mount_sources().into_iter().take(2).map(mount).collect()
}

/// A plan, changed.
fn plan_with(change: impl FnOnce(&mut ContainerPlan)) -> ToShim {
    let mut plan = plan(Lifetime::Record, StorageDriver::Overlay, Network::None);
    if let ToShim::Plan(plan) = &mut plan {
        change(plan);
    }
    plan
}

fn image_sources() -> Vec<ImageSource> {
    vec![
        ImageSource::Named(text("busybox")),
        ImageSource::Archive(text("./b.tar")),
        ImageSource::Directory(text("/root")),
    ]
}

fn states() -> Vec<ContainerState> {
    vec![
        ContainerState::Created,
        ContainerState::Starting,
        ContainerState::Running { pid: 11, since: 12 },
        ContainerState::Stopping { pid: 13, since: 14 },
        ContainerState::TearingDown,
        ContainerState::Exited,
        ContainerState::Leftover,
        ContainerState::Unreachable,
        ContainerState::Damaged(text("torn")),
    ]
}

fn outcomes() -> Vec<Outcome> {
    let holders = vec![Holder { pid: 5, program: text("sh") }];
    vec![Outcome::Done, Outcome::Failed { error: text("umount: busy"), holders }]
}

fn limits() -> Limits {
    Limits {
        memory: Some(1 << 26),
        memory_swap: Some(-1),
        nano_cpus: Some(1_500_000_000),
        cpu_shares: Some(512),
        cpuset_cpus: Some(text("0-1")),
        pids: Some(32),
    }
}

fn rlimits() -> Vec<Rlimit> {
    vec![Rlimit { resource: 7, soft: 1024, hard: u64::MAX }]
}

fn plan(lifetime: Lifetime, driver: StorageDriver, network: Network) -> ToShim {
    let process = ProcessPlan {
        args: texts(&["sh", "-c", "exit 7"]),
        env: texts(&["PATH=/bin"]),
        cwd: text("/work"),
        user: text("1000:1000"),
        terminal: Some(SIZE),
        stdin: true,
        capabilities: vec![0, 7],
        no_new_privileges: true,
        rlimits: rlimits(),
        init: true,
    };
    ToShim::Plan(Box::new(ContainerPlan {
        id: id(),
        state_dir: text("/var/lib/mysup/containers/ab"),
        run_dir: text("/run/mysup/containers/ab"),
        trash_dir: text("/var/lib/mysup/trash"),
        own_roots: texts(&["/var/lib/mysup", "/run/mysup"]),
        lifetime,
        rootfs: RootfsPlan { driver, layers: texts(&["/top", "/bottom"]), read_only: true },
        mounts: mounts(),
        hostname: text("host"),
        process,
        network,
        privileged: true,
        limits: limits(),
        log: LogPlan { max_size: 1000, max_files: 2 },
        stop: StopPlan { signal: 15, grace_ms: Some(10_000) },
        attach: Some(AttachPlan { stdin: true }),
    }))
}

fn config(image: ImageSource) -> ContainerConfig {
    ContainerConfig {
        name: Some("one".parse().expect("a name")),
        image,
        command: texts(&["true"]),
        entrypoint: Some(texts(&["sh"])),
        env: texts(&["A=b"]),
        workdir: Some(text("/work")),
        user: Some(text("nobody")),
        hostname: Some(text("host")),
        terminal: Some(SIZE),
        interactive: true,
        remove: true,
        keep: true,
        init: true,
        mounts: mounts(),
        read_only: true,
        network: Network::Host,
        storage_driver: StorageDriver::Overlay,
        privileged: true,
        cap_add: texts(&["ALL"]),
        cap_drop: texts(&["CHOWN"]),
        no_new_privileges: true,
        limits: limits(),
        rlimits: rlimits(),
        labels: vec![(text("key"), text("value"))],
        stop_signal: Some(2),
        stop_timeout: Some(-1),
        log: LogPlan { max_size: 1000, max_files: 2 },
    }
}

fn exit(status: ExitStatus) -> ExitReport {
    ExitReport { status, oom_killed: true, started_at: Some(21), finished_at: 22, error: text("why") }
}

fn step(kind: StepKind, outcome: Outcome) -> TeardownStep {
    TeardownStep { kind, target: text("/mnt"), at: 31, took: 32, outcome }
}

fn teardown() -> TeardownReport {
    TeardownReport { steps: outcomes().into_iter().map(|outcome| step(StepKind::Rootfs, outcome)).collect() }
}

fn info(state: ContainerState) -> ContainerInfo {
    ContainerInfo {
        id: id(),
        name: Some("one".parse().expect("a name")),
        created_at: 41,
        config: Some(config(ImageSource::Named(text("busybox")))),
        image: Some(digest()),
        args: texts(&["sh"]),
        env: texts(&["A=b"]),
        workdir: text("/work"),
        state,
        exit: Some(exit(ExitStatus::Code(7))),
        teardown: Some(teardown()),
        state_dir: text("/var/lib/mysup/containers/ab"),
        run_dir: text("/run/mysup/containers/ab"),
    }
}

pub(crate) fn image() -> ImageInfo {
    ImageInfo { id: digest(), names: texts(&["a:b"]), created_at: 51, size: 52, layers: vec![digest()] }
}

fn requests() -> Vec<Request> {
    let container = || text("one");
    let create = |image| Request::Create(Box::new(config(image)));
    let mut all: Vec<Request> = image_sources().into_iter().map(create).collect();
    all.extend([
        Request::Info,
        Request::Run { config: Box::new(config(ImageSource::Named(text("b")))), attach: true },
        Request::Start { container: container(), attach: true, stdin: true },
        Request::Stop { container: container(), signal: Some(2), timeout: Some(-1) },
        Request::Restart { container: container(), timeout: Some(3) },
        Request::Kill { container: container(), signal: 64 },
        Request::Wait { container: container() },
        Request::Remove { container: container(), force: true, volumes: true },
        Request::Rename { container: container(), name: text("two") },
        Request::List,
        Request::Inspect { container: container() },
        Request::Top { container: container() },
        Request::Import { name: Some(text("a:b")) },
        Request::Images,
        Request::RemoveImage { image: text("a"), force: true },
        Request::Shutdown { containers: true },
        Request::Heal,
    ]);
    all.extend(image_requests().map(Request::Image));
    all.extend(storage::requests().map(Request::Storage));
    all.extend(commit_requests().map(Request::Commit));
    all
}

fn image_requests() -> impl Iterator<Item = ImageRequest> {
    let images = || texts(&["a", "b:c"]);
    let save = |format, compression| ImageRequest::Save { images: images(), format, compression };
    [
        ImageRequest::Import {
            name: Some(text("a:b")),
            changes: texts(&["CMD x"]),
            message: Some(text("m")),
        },
        ImageRequest::Load,
        save(ArchiveFormat::Docker, ArchiveCompression::None),
        save(ArchiveFormat::Oci, ArchiveCompression::Gzip),
        save(ArchiveFormat::OciDirectory, ArchiveCompression::Zstd),
        ImageRequest::Tag { image: text("a"), name: text("b") },
        ImageRequest::List,
        ImageRequest::Inspect { image: text("a") },
        ImageRequest::History { image: text("a") },
        ImageRequest::Prune { all: true },
        ImageRequest::Verify { images: images() },
        ImageRequest::Receive { names: texts(&["a:b"]) },
        ImageRequest::Manifest { image: text("a") },
    ]
    .into_iter()
}

fn image_responses() -> impl Iterator<Item = ImageResponse> {
    let details = ImageDetails {
        info: image(),
        labels: vec![(text("k"), text("v"))],
        manifest: Some(digest()),
        configuration: text("{}"),
        directories: texts(&["/a"]),
    };
    let line = HistoryLine { created: Some(text("t")), created_by: text("b"), comment: text("c"), size: 53 };
    [
        ImageResponse::Loaded(vec![(digest(), texts(&["a:b"]))]),
        ImageResponse::Images(vec![details]),
        ImageResponse::History(vec![line]),
        ImageResponse::Pruned(texts(&["Deleted: a"]), 54),
        ImageResponse::Verified(vec![(image(), texts(&["why"]))]),
        ImageResponse::Manifest(Some(text("{}"))),
    ]
    .into_iter()
}

fn responses() -> Vec<Response> {
    let mut all: Vec<Response> =
        ERRORS.map(|code| Response::Error(WireError::new(code, "why"))).into_iter().collect();
    all.extend(STATUSES.map(|status| Response::Exited { status, error: text("why") }));
    all.extend([
        Response::Done,
        Response::Created { id: id(), warnings: texts(&["careful"]) },
        Response::Containers(states().into_iter().map(info).collect()),
        Response::Processes(vec![1, 2]),
        Response::Image(image()),
        Response::Images(vec![image(), image()]),
        Response::Removed(texts(&["Untagged: a"])),
        Response::Info(Box::new(SupervisorInfo {
            version: text("0.1.0"),
            pid: 61,
            started_at: 62,
            root: text("/var/lib/mysup"),
            run_root: text("/run/mysup"),
            storage_drivers: texts(&["overlay"]),
            cgroup_version: text("hybrid"),
            kernel: text("6.1"),
            containers: vec![(text("running"), 3)],
            images: 4,
        })),
    ]);
    all.extend(image_responses().map(Response::ImageAnswer));
    all.extend(storage::responses().map(Response::StorageAnswer));
    all
}

fn to_shim() -> Vec<ToShim> {
    let (state_dir, run_dir) = (text("/var/lib/mysup/containers/ab"), text("/run/mysup/containers/ab"));
    let mut all: Vec<ToShim> =
        LIFETIMES.map(|lifetime| plan(lifetime, StorageDriver::Overlay, Network::None)).into_iter().collect();
    all.extend(DRIVERS.map(|driver| plan(Lifetime::Record, driver, Network::Host)));
    all.extend(ROLES.map(ToShim::Hello));
    all.extend([
        ToShim::Teardown(TeardownOrder {
            state_dir: state_dir.clone(),
            run_dir: run_dir.clone(),
            trash_dir: text("/var/lib/mysup/trash"),
            exit: Some(exit(ExitStatus::Unknown)),
        }),
        ToShim::Stop { signal: 15, grace_ms: Some(1000) },
        ToShim::Signal(1),
        ToShim::Stdin(vec![0, 255]),
        ToShim::StdinEnd,
        ToShim::Resize(SIZE),
        ToShim::RetryTeardown,
        ToShim::Adopt(AdoptOrder { state_dir, run_dir }),
        ToShim::InitReaped { status: 256 },
        plan_with(|plan| plan.mounts = mount_sources().into_iter().map(mount).collect()),
    ]);
    all
}

fn from_shim() -> Vec<FromShim> {
    let mut all: Vec<FromShim> =
        STREAMS.map(|stream| FromShim::Output { stream, bytes: vec![0, 255] }).into_iter().collect();
    all.extend(STATUSES.map(|status| FromShim::Exited(exit(status))));
    all.extend(STEPS.map(|kind| FromShim::Step(step(kind, Outcome::Done))));
    all.extend([
        FromShim::Created { init_pid: 71 },
        FromShim::Started { at: 72 },
        FromShim::Failed(WireError::new(ErrorCode::CommandNotFound, "why")),
        FromShim::LogGrew,
        FromShim::TornDown(teardown()),
        FromShim::Leftover(teardown()),
        FromShim::Report(ShimReport {
            init_pid: Some(73),
            started_at: Some(74),
            exit: Some(exit(ExitStatus::Signal(9))),
            stopping: true,
            leftover: Some(teardown()),
        }),
        FromShim::Paused,
    ]);
    all
}

const STOPS: [StopUnderWay; 2] =
    [StopUnderWay { signal: 15, kill_at: Some(83) }, StopUnderWay { signal: 2, kill_at: None }];

fn journal() -> Vec<JournalEntry> {
    let begin = |lifetime| JournalEntry::Begin { boot_id: text("0-1"), lifetime };
    let mut all: Vec<JournalEntry> = LIFETIMES.map(begin).into_iter().collect();
    all.extend([
        JournalEntry::Cgroup { path: text("/sys/fs/cgroup/mysup/ab") },
        JournalEntry::WriteLayer,
        JournalEntry::Mountpoint,
        JournalEntry::Released { init_pid: 81, at: 82, init_start: 84 },
    ]);
    all
}

const PROGRESS: [ProgressStep; 11] = [
    ProgressStep::Unpacking,
    ProgressStep::Unpacked,
    ProgressStep::Writing,
    ProgressStep::Written,
    ProgressStep::Downloading,
    ProgressStep::Resuming,
    ProgressStep::Downloaded,
    ProgressStep::Present,
    ProgressStep::Uploading,
    ProgressStep::Uploaded,
    ProgressStep::KnownThere,
];

/// All samples.
pub(crate) fn all() -> Vec<Sample> {
    let mut samples = of("Request", requests());
    samples.extend(of("Response", responses()));
    samples.extend(of("ToShim", to_shim()));
    samples.extend(of("FromShim", from_shim()));
    samples.extend(of("ExitReport", STATUSES.map(exit).into()));
    samples.extend(of("TeardownReport", vec![teardown()]));
    samples.extend(of("StopUnderWay", STOPS.into()));
    samples.extend(of("JournalEntry", journal()));
    samples.extend(of("Progress", PROGRESS.map(progress).into()));
    samples.extend(of("ToRegistry", to_registry()));
    samples.extend(of("FromRegistry", from_registry()));
    samples
}

fn of<M: Message + Named + PartialEq + Debug + 'static>(type_name: &str, values: Vec<M>) -> Vec<Sample> {
    let mut counts = BTreeMap::new();
    let label = |value: M| {
        let count = counts.entry(value.name()).and_modify(|count| *count += 1).or_insert(1);
        crate::sample(crate::label(type_name, &value, *count), value)
    };
    values.into_iter().map(label).collect()
}

type Names = (&'static str, &'static [&'static str], Vec<&'static str>);

/// Of each enum its name, the names of its variants, and those that are in a sample.
pub(crate) fn names() -> Vec<Names> {
    fn names<T: Named>(type_name: &'static str, values: impl IntoIterator<Item = T>) -> Names {
        (type_name, T::ALL, values.into_iter().map(|value| value.name()).collect())
    }
    vec![
        names("Request", requests()),
        names("Response", responses()),
        names("ToShim", to_shim()),
        names("FromShim", from_shim()),
        names("JournalEntry", journal()),
        names("ToRegistry", to_registry()),
        names("FromRegistry", from_registry()),
        names("ProgressStep", PROGRESS),
        names("ExitStatus", STATUSES),
        names("ErrorCode", ERRORS),
        names("StepKind", STEPS),
        names("Outcome", outcomes()),
        names("Lifetime", LIFETIMES),
        names("StorageDriver", DRIVERS),
        names("Network", NETWORKS),
        names("MountSource", mount_sources()),
        names("ImageSource", image_sources()),
        names("ContainerState", states()),
        names("Role", ROLES),
        names("Stream", STREAMS),
    ]
}
