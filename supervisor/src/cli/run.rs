//! `run`, `create` and `start`: what makes and starts containers.

use std::{
    fs::File,
    io::{self, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use mysup_ipc::{
    api::{Request, Response},
    container::{ContainerConfig, ContainerState},
    error::{ErrorCode, WireError},
    exit::ExitStatus,
    id::{ContainerId, ContainerName},
    layout,
};

use super::{
    args::{RunArgs, StartArgs, container::ContainerArgs},
    attach::{
        self, Ended, Wish,
        rest::{Rest, Shown},
    },
    client::{Client, Instance, connect_in},
    error::CliError,
    output,
    registry::{self, Policy},
    resolve::{self, Resolved},
    targets, terminal,
    values::Invalid,
    volumes_from,
};

/// How long the supervisor may take to find out how a container ended whose shim died.
const STATUS_DEADLINE: Duration = Duration::from_secs(60);
/// How long a container without a shim is taken for one that gets another.
const ADOPTION_DEADLINE: Duration = Duration::from_secs(20);
/// How long the supervisor may take to hear that a `--rm` container is gone.
const REMOVAL_DEADLINE: Duration = Duration::from_secs(5);
/// Pause between two looks for that.
const REMOVAL_PAUSE: Duration = Duration::from_micros(500);
/// Pause between two looks for the new shim.
const ADOPTION_PAUSE: Duration = Duration::from_millis(10);
/// What a shell shows for a program that died of SIGPIPE: our output was cut, the container goes on.
const OUTPUT_CUT: u8 = 141;

/// `run`; the container's exit code, or 0 with `-d`.
///
/// # Errors
/// If the container could not be made or started.
pub(crate) fn run(instance: &Instance, args: &RunArgs) -> Result<u8, CliError> {
    with_image(instance, &args.container, "mysup run", || run_once(instance, args))
}

/// Makes a container, and pulls its image before, or when it was missing.
fn with_image(
    instance: &Instance,
    args: &ContainerArgs,
    verb: &'static str,
    make: impl Fn() -> Result<u8, CliError>,
) -> Result<u8, CliError> {
    let policy = registry::policy(args)?;
    if policy == Policy::Always {
        registry::always(instance, args, verb)?;
    }
    match make() {
        Err(refusal) if policy == Policy::Missing => {
            registry::missing(instance, args, verb, refusal)?;
            make()
        }
        made => made,
    }
}

fn run_once(instance: &Instance, args: &RunArgs) -> Result<u8, CliError> {
    let wish = Wish { stdin: args.container.interactive, terminal: args.container.tty };
    if !args.detach {
        check_terminal(wish)?;
    }
    let Resolved { mut config, archive } = resolve::resolve(&args.container, "mysup run")?;
    let name = config.name.clone();
    let cid_file = CidFile::reserve(args.container.cidfile.as_deref())?;
    let mut client = match connected(instance, &args.container, &mut config) {
        Ok(client) => client,
        Err(error) => return Err(cid_file.abandon(error)),
    };
    let request = Request::Run { config, attach: !args.detach };
    if args.detach {
        let descriptors: Vec<_> = archive.iter().map(AsFd::as_fd).collect();
        let answer = client.ask_with(&request, &descriptors);
        let id = match answer.and_then(created) {
            Ok(id) => id,
            Err(error) => return Err(cid_file.abandon(error)),
        };
        cid_file.fill(&id)?;
        output::print_line(id.as_str())?;
        return Ok(0);
    }
    let mut known = None;
    let ended = attach::attached(client, &request, archive.as_ref(), wish, &mut |id, warnings| {
        warn(warnings);
        known = Some(id.as_str().to_owned());
        cid_file.fill(id)
    });
    match ended {
        Ok(ended) => {
            let container = known.or_else(|| own_container(instance, &ended, name.as_ref()));
            let code = code_of(instance, ended, wish, container.as_deref());
            if let Some(container) = container.filter(|_| args.container.rm) {
                wait_until_removed(instance, &container);
            }
            code
        }
        Err(error) if known.is_none() => Err(cid_file.abandon(error)),
        Err(error) => Err(error),
    }
}

/// `create`; prints the id.
///
/// # Errors
/// If the container could not be made.
pub(crate) fn create(instance: &Instance, args: &ContainerArgs) -> Result<u8, CliError> {
    with_image(instance, args, "mysup create", || create_once(instance, args))
}

fn create_once(instance: &Instance, args: &ContainerArgs) -> Result<u8, CliError> {
    let Resolved { mut config, archive } = resolve::resolve(args, "mysup create")?;
    // What is made by hand is kept until it is removed by hand, unless it was to go at its end.
    config.keep = !config.remove;
    let cid_file = CidFile::reserve(args.cidfile.as_deref())?;
    let answer = connected(instance, args, &mut config).and_then(|mut client| {
        let descriptors: Vec<_> = archive.iter().map(AsFd::as_fd).collect();
        client.ask_with(&Request::Create(config), &descriptors)
    });
    match answer.and_then(created) {
        Ok(id) => {
            cid_file.fill(&id)?;
            output::print_line(id.as_str())?;
            Ok(0)
        }
        Err(error) => Err(cid_file.abandon(error)),
    }
}

/// A connection, and what had to be asked over it first.
fn connected(
    instance: &Instance,
    args: &ContainerArgs,
    config: &mut ContainerConfig,
) -> Result<Client, CliError> {
    let mut client = instance.connect()?;
    volumes_from::add(&mut client, &args.volumes_from, config)?;
    Ok(client)
}

/// `start` with containers.
///
/// # Errors
/// If one is to be attached to and cannot be started; without `-a`, errors are printed as they come.
pub(crate) fn start(instance: &Instance, args: &StartArgs) -> Result<u8, CliError> {
    if !args.attach && !args.interactive {
        return targets::each(instance, &args.containers, |container| Request::Start {
            container: container.to_owned(),
            attach: false,
            stdin: false,
        });
    }
    let [container] = &args.containers[..] else {
        return Err(Invalid::new("you cannot start and attach multiple containers at once").into());
    };
    let mut client = instance.connect()?;
    let info = client.inspect(container)?;
    let id = info.id.as_str().to_owned();
    let config = info.config.as_ref();
    let wish = Wish {
        stdin: args.interactive && config.is_some_and(|config| config.interactive),
        terminal: config.is_some_and(|config| config.terminal.is_some()),
    };
    check_terminal(wish)?;
    let request = Request::Start { container: id.clone(), attach: true, stdin: wish.stdin };
    let ended = attach::attached(client, &request, None, wish, &mut |_, warnings| {
        warn(warnings);
        Ok(())
    })?;
    code_of(instance, ended, wish, Some(&id))
}

/// Refuses input from something else than a terminal for a container with one.
fn check_terminal(wish: Wish) -> Result<(), CliError> {
    if wish.terminal && wish.stdin && !terminal::stdin_is_terminal() {
        return Err(CliError::NotATerminal);
    }
    Ok(())
}

fn created(response: Response) -> Result<ContainerId, CliError> {
    let Response::Created { id, warnings } = response else { return Err(CliError::WrongAnswer) };
    warn(&warnings);
    Ok(id)
}

fn warn(warnings: &[String]) {
    for warning in warnings {
        output::complain(&format!("warning: {warning}"));
    }
}

fn code_of(
    instance: &Instance,
    mut ended: Ended,
    wish: Wish,
    container: Option<&str>,
) -> Result<u8, CliError> {
    let mut rest = None;
    while let (Ended::Lost { shown, terminal, .. }, Some(container)) = (&mut ended, container) {
        if rest.is_none() {
            rest = rest_of_output(instance, container, shown);
        }
        match connect_to_new_shim(instance, container)? {
            Some(shim) => ended = attach::again(shim, wish, rest.as_mut(), std::mem::take(terminal))?,
            None => break,
        }
    }
    match ended {
        Ended::Status(status) => Ok(status.shell_code()),
        Ended::Detached => Ok(0),
        Ended::ReaderGone => Ok(OUTPUT_CUT),
        Ended::Interrupted(signal) => Ok(ExitStatus::Signal(signal).shell_code()),
        Ended::Lost { started: false, .. }
            if container.is_some_and(|container| never_ran(instance, container)) =>
        {
            Err(CliError::NoAnswer)
        }
        Ended::Lost { started, .. } => {
            let code = container.map(|container| ask_for_code(instance, container));
            match rest.as_mut().map_or(Ok(()), Rest::show) {
                Err(CliError::ReaderGone) => return Ok(OUTPUT_CUT),
                other => other?,
            }
            match code {
                // Its supervisor died before it was made: there never was one.
                Some(Err(CliError::StatusUnknown(_))) if !started => Err(CliError::NoAnswer),
                Some(code) => code,
                None => Err(CliError::NoAnswer),
            }
        }
    }
}

/// Whether a container is there that was never started.
fn never_ran(instance: &Instance, container: &str) -> bool {
    let info = instance.connect().and_then(|mut client| client.inspect(container));
    info.is_ok_and(|info| info.state == ContainerState::Created && info.exit.is_none())
}

/// What the program wrote and nobody could send us, since its shim is dead. Without it we miss some output, no more.
fn rest_of_output(instance: &Instance, container: &str, shown: &Shown) -> Option<Rest> {
    let info = instance.connect().ok()?.inspect(container).ok()?;
    Rest::open(&info, shown)
}

/// The container of a `run` whose supervisor died before it told the id. Only one that is known to run under this very
/// name is ours: a name may look like the beginning of a stranger's id, or be a stranger's.
fn own_container(instance: &Instance, ended: &Ended, name: Option<&ContainerName>) -> Option<String> {
    let (Ended::Lost { started: true, .. }, Some(name)) = (ended, name) else { return None };
    let info = instance.connect().ok()?.inspect(name.as_str()).ok()?;
    (info.name.as_ref() == Some(name)).then(|| info.id.as_str().to_owned())
}

/// `--rm`: as docker, name and id are free when this returns. The shim has taken everything down; the supervisor, if one
/// runs, hears of it in the same moment as we do.
fn wait_until_removed(instance: &Instance, container: &str) {
    let deadline = Instant::now() + REMOVAL_DEADLINE;
    while let Ok(Some(mut client)) = instance.connect_running() {
        let left = deadline.saturating_duration_since(Instant::now());
        match client.inspect_within(container, left) {
            Ok(info) if !left.is_zero() && !needs_attention(&info.state) => {
                std::thread::sleep(REMOVAL_PAUSE);
            }
            // Gone; or it is left over, which was said; or the supervisor is stuck, which is not our container's fault.
            Ok(_) | Err(_) => return,
        }
    }
}

/// Whether a container stays as it is until somebody does something. In any other state the supervisor has only not heard
/// yet what we have heard: under load not even of the start.
fn needs_attention(state: &ContainerState) -> bool {
    match state {
        ContainerState::Leftover | ContainerState::Unreachable | ContainerState::Damaged(_) => true,
        ContainerState::Created
        | ContainerState::Starting
        | ContainerState::Running { .. }
        | ContainerState::Stopping { .. }
        | ContainerState::TearingDown
        | ContainerState::Exited => false,
    }
}

/// The shim is dead. If its container lives, the supervisor (a new one, if need be) gives it to another shim in a moment.
fn connect_to_new_shim(instance: &Instance, container: &str) -> Result<Option<UnixStream>, CliError> {
    let deadline = Instant::now() + ADOPTION_DEADLINE;
    loop {
        let info = match instance.connect()?.inspect(container) {
            Ok(info) => info,
            // --rm: it has ended, and nothing is left of it.
            Err(CliError::Refused(WireError { code: ErrorCode::NotFound, .. })) => return Ok(None),
            Err(error) => return Err(error),
        };
        if !info.state.is_running() || Instant::now() >= deadline {
            return Ok(None);
        }
        // Refused while there is no new shim yet.
        if let Ok(shim) = connect_in(Path::new(&info.run_dir), layout::SHIM_SOCKET) {
            return Ok(Some(shim));
        }
        std::thread::sleep(ADOPTION_PAUSE);
    }
}

/// The shim is dead: the supervisor (a new one, if need be) finds out how the container ended.
fn ask_for_code(instance: &Instance, container: &str) -> Result<u8, CliError> {
    let request = Request::Wait { container: container.to_owned() };
    match instance.connect()?.ask_within(&request, STATUS_DEADLINE) {
        Ok(Response::Exited { status: ExitStatus::Unknown, error }) => {
            let reason = if error.is_empty() { String::new() } else { format!(": {error}") };
            output::complain(&format!("the exit status of container {container} is not known{reason}"));
            Ok(ExitStatus::Unknown.shell_code())
        }
        Ok(Response::Exited { status, .. }) => Ok(status.shell_code()),
        Ok(_) => Err(CliError::WrongAnswer),
        // A --rm container leaves no record.
        Err(CliError::Refused(WireError { code: ErrorCode::NotFound, .. })) => {
            Err(CliError::StatusUnknown(container.to_owned()))
        }
        Err(error) => Err(error),
    }
}

/// `--cidfile`: made before the container, so that a container never is without it, and removed if none was made.
struct CidFile {
    reserved: Option<(PathBuf, File)>,
}

impl CidFile {
    fn reserve(path: Option<&Path>) -> Result<Self, CliError> {
        let Some(path) = path else { return Ok(Self { reserved: None }) };
        match File::create_new(path) {
            Ok(file) => Ok(Self { reserved: Some((path.to_owned(), file)) }),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Err(CliError::Flag {
                flag: "--cidfile",
                reason: Invalid::new(format!(
                    "container ID file found, make sure the other container isn't running or delete {}",
                    path.display()
                )),
            }),
            Err(source) => {
                Err(CliError::File { action: "make the container ID file", path: path.to_owned(), source })
            }
        }
    }

    fn fill(&self, id: &ContainerId) -> Result<(), CliError> {
        let Some((path, file)) = &self.reserved else { return Ok(()) };
        let mut file = file;
        file.write_all(id.as_str().as_bytes()).map_err(|source| CliError::File {
            action: "write the container ID file",
            path: path.clone(),
            source,
        })
    }

    fn abandon(&self, error: CliError) -> CliError {
        if let Some((path, _)) = &self.reserved {
            // The error that is told is the one that came first.
            let _ = std::fs::remove_file(path);
        }
        error
    }
}
