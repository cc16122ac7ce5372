//! What the registry does with each message. Nothing here waits.

use std::sync::Arc;

use mysup_ipc::{
    container::ContainerInfo,
    error::{ErrorCode, WireError},
    exit::{ExitReport, ExitStatus},
    id::{ContainerId, ContainerName},
    plan::StopPlan,
};
use tokio::sync::oneshot;

use super::{
    Message, Registry, Reply,
    container::{Container, Hold},
    gone,
    handle::{Draft, ImageUser, Look, StartOrder},
    is_in_use, jobs, names,
    record::Record,
    state::{self, Event, Refusal, State, Want},
    volumes::Anonymous,
};
use crate::{
    shim_link::{
        Command,
        entry::{Entry, Launch},
    },
    sys,
};

/// How a container whose record is damaged is stopped.
const DEFAULT_STOP: StopPlan = StopPlan { signal: 15, grace_ms: Some(10_000) };

impl Registry {
    /// Answers a message, now or when what it asks for has happened.
    pub(super) fn answer(&mut self, message: Message) {
        match message {
            Message::Resolve(typed, reply) => give(reply, self.resolve(&typed)),
            Message::Create(draft, reply) => self.create(*draft, reply),
            Message::Look(id, reply) => give(reply, self.look(&id)),
            Message::Start(id, order, reply) => self.start(&id, *order, reply),
            Message::Stop(id, signal, grace, reply) => self.stop(&id, signal, grace, reply),
            Message::Settle(id, reply) => self.settle(&id, reply),
            Message::Retry(id, reply) => self.retry(&id, reply),
            Message::Kill(id, signal, reply) => give(reply, self.kill(&id, signal)),
            Message::Wait(id, reply) => self.wait(&id, reply),
            Message::Remove(id, anonymous, reply) => self.remove(&id, &anonymous, reply),
            Message::Doom(id, anonymous, reply) => give(reply, self.doom(&id, &anonymous)),
            Message::Hold(id, reply) => give(reply, self.hold(&id)),
            Message::Rename(id, name, reply) => self.rename(&id, name, reply),
            Message::List(reply) => {
                // A client that hung up needs no list.
                let _ = reply.send(self.list());
            }
            Message::Inspect(id, reply) => give(reply, self.inspect(&id)),
            Message::ImageUsers(reply) => {
                // A client that hung up needs no list.
                let _ = reply.send(self.image_users());
            }
            Message::VolumeUsers(reply) => {
                // A client that hung up needs no list.
                let _ = reply.send(self.volume_users());
            }
            Message::LeaveVolumes(names, reply) => {
                // One that hung up removes none: what was marked is not any more when it is dropped.
                let _ = reply.send(self.leave_volumes(&names));
            }
            Message::Heal(reply) => self.heal(reply),
            Message::Unreachable(reply) => {
                let silent = |container: &&Container| matches!(container.state, State::Unreachable(_));
                // Asked by the start, which waits for it.
                let _ = reply.send(self.containers.values().filter(silent).count());
            }
        }
    }

    fn look(&self, id: &ContainerId) -> Result<Look, WireError> {
        let container = self.containers.get(id).ok_or_else(|| gone(id))?;
        Ok(Look {
            record: container.record.clone(),
            state: container.state.clone(),
            busy: container.is_busy() || container.state == State::New,
        })
    }

    fn create(&mut self, draft: Draft, reply: Reply<ContainerId>) {
        let name = match &draft.config.name {
            Some(name) => match self.names.get(name) {
                Some(owner) => return give(reply, Err(name_conflict(name, owner))),
                None => name.clone(),
            },
            None => names::generate(draft.random, |name| self.names.contains_key(name)),
        };
        if self.containers.contains_key(&draft.id) {
            // 256 random bits came twice: the source of randomness is broken.
            let message = format!("the id {} is in use already", draft.id);
            return give(reply, Err(WireError::new(ErrorCode::Conflict, message)));
        }
        let record = Arc::new(Record {
            id: draft.id.clone(),
            name: name.clone(),
            created_at: sys::now(),
            config: draft.config,
            image: draft.image,
            program: draft.program,
            launched: draft.launch,
        });
        self.names.insert(name, draft.id.clone());
        let container = Container::new(draft.id.clone(), Ok(Arc::clone(&record)), State::New);
        self.containers.insert(draft.id.clone(), container);
        self.job_create(draft.id, record, reply);
    }

    fn start(&mut self, id: &ContainerId, order: StartOrder, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Err(gone(id))) };
        let record = match &container.record {
            Ok(record) => Arc::clone(record),
            Err(_) => return give(reply, Err(damaged_error(container))),
        };
        let wanted = if container.is_busy() {
            Err(Refusal::Busy)
        } else {
            state::next(&container.state, Event::Wanted(Want::Start))
        };
        match wanted {
            Ok(state) => {
                container.state = state;
                container.exit = None;
                container.teardown = None;
                container.failure = None;
                container.early_stop = None;
                container.sent_stop = None;
                container.starters.push(reply);
                if !record.launched {
                    container.record = Ok(Arc::new(Record { launched: true, ..Record::clone(&record) }));
                }
            }
            // As docker: who starts what is starting waits with the first one, and what runs is started.
            Err(Refusal::Starting) => return container.starters.push(reply),
            Err(Refusal::Running) => return give(reply, Ok(())),
            Err(refusal) => return give(reply, Err(refused(container, refusal, "start"))),
        }
        let places = self.means.config.places(id);
        let launch = Launch {
            prepare: Box::new(move || jobs::prepare_start(&places, &record)),
            plan: Box::new(order.plan),
            attach: order.attach,
        };
        let link = self.link(id, Entry::Launch(launch));
        if let Some(container) = self.containers.get_mut(id) {
            container.link = Some(link);
        }
    }

    fn stop(&mut self, id: &ContainerId, signal: Option<u8>, grace: Option<Option<u64>>, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Err(gone(id))) };
        let plan = container.record.as_ref().map_or(DEFAULT_STOP, |record| record.program.stop);
        let (signal, grace_ms) = (signal.unwrap_or(plan.signal), grace.unwrap_or(plan.grace_ms));
        match state::next(&container.state, Event::Wanted(Want::Stop)) {
            Ok(state) => {
                if container.send_stop(signal, grace_ms) {
                    container.state = state;
                } else if !container.is_over() {
                    return give(reply, Err(container.unreachable_error()));
                }
                container.watchers.push(reply);
            }
            Err(Refusal::Starting) => {
                container.early_stop = Some((signal, grace_ms));
                container.watchers.push(reply);
            }
            Err(Refusal::TearingDown | Refusal::Removing) => container.watchers.push(reply),
            Err(Refusal::NotRunning | Refusal::Busy) => give(reply, Ok(())),
            Err(
                refusal @ (Refusal::Running | Refusal::Leftover | Refusal::Unreachable | Refusal::OutOfOrder),
            ) => {
                give(reply, Err(refused(container, refusal, "stop")));
            }
        }
    }

    fn settle(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Ok(())) };
        match state::next(&container.state, Event::Wanted(Want::Retry)) {
            Err(Refusal::TearingDown | Refusal::Removing) => container.watchers.push(reply),
            Ok(_)
            | Err(
                Refusal::Busy
                | Refusal::Starting
                | Refusal::Running
                | Refusal::NotRunning
                | Refusal::Leftover
                | Refusal::Unreachable
                | Refusal::OutOfOrder,
            ) => give(reply, Ok(())),
        }
    }

    fn retry(&mut self, id: &ContainerId, reply: Reply<()>) {
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Err(gone(id))) };
        match state::next(&container.state, Event::Wanted(Want::Retry)) {
            Ok(state) => container.state = state,
            Err(Refusal::TearingDown) => return container.watchers.push(reply),
            Err(Refusal::NotRunning) => return give(reply, Ok(())),
            Err(refusal) => return give(reply, Err(refused(container, refusal, "tear down"))),
        }
        container.watchers.push(reply);
        self.go_on_with_teardown(id);
    }

    /// By its shim, or by one that is started for it.
    pub(super) fn go_on_with_teardown(&mut self, id: &ContainerId) {
        let Some(container) = self.containers.get(id) else { return };
        if container.command(Command::Retry) {
            return;
        }
        let ending = container.exit.clone();
        let link = self.link(id, Entry::TearDown { ending });
        if let Some(container) = self.containers.get_mut(id) {
            container.link = Some(link);
        }
    }

    fn kill(&mut self, id: &ContainerId, signal: u8) -> Result<(), WireError> {
        let container = self.containers.get(id).ok_or_else(|| gone(id))?;
        if matches!(container.state, State::Unreachable(_)) {
            return Err(container.unreachable_error());
        }
        if container.running_pid().is_none() {
            let message =
                format!("Cannot kill container: {}: container {id} is not running", container.label());
            return Err(WireError::new(ErrorCode::Conflict, message));
        }
        if container.command(Command::Signal(signal)) || container.is_over() {
            Ok(())
        } else {
            Err(container.unreachable_error())
        }
    }

    fn wait(&mut self, id: &ContainerId, reply: oneshot::Sender<ExitReport>) {
        // A reply that is dropped tells the caller that there is no such container.
        let Some(container) = self.containers.get_mut(id) else { return };
        let known = match (&container.exit, &container.state) {
            (Some(report), _) => Some(report.clone()),
            (None, State::Exited | State::Removing { ran: true }) => Some(unknown_exit()),
            (None, State::Created) => Some(never_ran()),
            (None, State::New | State::Removing { ran: false } | State::Live(_) | State::Unreachable(_)) => {
                None
            }
        };
        match known {
            // A client that hung up does not wait any more.
            Some(report) => drop(reply.send(report)),
            None => {
                // Clients that hung up must not fill it.
                container.waiters.retain(|waiter| !waiter.is_closed());
                container.waiters.push(reply);
            }
        }
    }

    fn remove(&mut self, id: &ContainerId, anonymous: &Anonymous, reply: Reply<()>) {
        let Some(container) = self.containers.get(id) else { return give(reply, Err(gone(id))) };
        let leaving = self.leaving_with(container, anonymous);
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Err(gone(id))) };
        let wanted = if container.is_busy() {
            Err(Refusal::Busy)
        } else {
            state::next(&container.state, Event::Wanted(Want::Remove))
        };
        match wanted {
            Ok(state) => {
                let leaving = match leaving {
                    Ok(leaving) => leaving,
                    Err(error) => return give(reply, Err(error)),
                };
                container.state = state;
                container.watchers.push(reply);
                self.job_bury(id, leaving);
            }
            Err(Refusal::Removing) => container.watchers.push(reply),
            Err(refusal) => give(reply, Err(refused(container, refusal, "remove"))),
        }
    }

    /// One that is at rest has just come to it: whoever asks looks again.
    fn doom(&mut self, id: &ContainerId, anonymous: &Anonymous) -> Result<(), WireError> {
        let container = self.containers.get_mut(id).ok_or_else(|| gone(id))?;
        match container.state {
            State::Live(_) | State::Unreachable(_) => {
                container.doom();
                container.volumes_go |= *anonymous != Anonymous::Stay;
                Ok(())
            }
            State::New | State::Created | State::Exited | State::Removing { .. } => {
                Err(refused(container, Refusal::Busy, "remove"))
            }
        }
    }

    fn hold(&mut self, id: &ContainerId) -> Result<Hold, WireError> {
        let container = self.containers.get_mut(id).ok_or_else(|| gone(id))?;
        match container.state {
            State::Created | State::Exited if !container.busy => Ok(container.hold()),
            State::New
            | State::Created
            | State::Exited
            | State::Removing { .. }
            | State::Live(_)
            | State::Unreachable(_) => Err(refused(container, Refusal::Busy, "read")),
        }
    }

    fn rename(&mut self, id: &ContainerId, name: ContainerName, reply: Reply<()>) {
        if let Some(owner) = self.names.get(&name) {
            let conflict = name_conflict(&name, owner);
            return give(reply, Err(conflict));
        }
        let Some(container) = self.containers.get_mut(id) else { return give(reply, Err(gone(id))) };
        let Ok(record) = &container.record else { return give(reply, Err(damaged_error(container))) };
        // A start writes the record too.
        let starting = state::next(&container.state, Event::Wanted(Want::Start)) == Err(Refusal::Starting);
        if container.is_busy() || starting || matches!(container.state, State::New | State::Removing { .. }) {
            return give(reply, Err(refused(container, Refusal::Busy, "rename")));
        }
        let renamed = Arc::new(Record { name: name.clone(), ..Record::clone(record) });
        container.busy = true;
        self.names.insert(name, id.clone());
        self.job_rename(id, renamed, reply);
    }

    fn list(&self) -> Vec<ContainerInfo> {
        // One whose record is not durable yet may vanish in a power cut: it is not shown.
        let shown = self.containers.values().filter(|container| container.state != State::New);
        let mut all: Vec<ContainerInfo> = shown.map(|container| container.info(&self.means.config)).collect();
        all.sort_by_key(|container| std::cmp::Reverse(container.created_at));
        all
    }

    fn inspect(&self, id: &ContainerId) -> Result<ContainerInfo, WireError> {
        let container = self.containers.get(id).ok_or_else(|| gone(id))?;
        Ok(container.info(&self.means.config))
    }

    fn image_users(&self) -> Vec<ImageUser> {
        let user = |container: &Container| {
            let image = container.record.as_ref().ok()?.image.clone()?;
            Some((image, container.id.clone(), is_in_use(&container.state)))
        };
        self.containers.values().filter_map(user).collect()
    }
}

impl Container {
    /// Passes a command to its shim; false if that cannot be done.
    pub(super) fn command(&self, command: Command) -> bool {
        self.link.as_ref().is_some_and(|link| link.command(command))
    }
}

/// Answers; a client that hung up needs none.
fn give<T>(reply: Reply<T>, answer: Result<T, WireError>) {
    // The operation itself is not undone by a client that went away.
    let _ = reply.send(answer);
}

fn unknown_exit() -> ExitReport {
    ExitReport {
        status: ExitStatus::Unknown,
        oom_killed: false,
        started_at: None,
        finished_at: 0,
        error: "its exit record cannot be read".into(),
    }
}

/// docker's and podman's answer for what does not run and never did: at once, and the 0 that `inspect` shows.
fn never_ran() -> ExitReport {
    ExitReport {
        status: ExitStatus::Code(0),
        oom_killed: false,
        started_at: None,
        finished_at: 0,
        error: String::new(),
    }
}

fn name_conflict(name: &ContainerName, owner: &ContainerId) -> WireError {
    let message = format!(
        "Conflict. The container name \"/{name}\" is already in use by container \"{owner}\". You have to remove (or \
         rename) that container to be able to reuse that name."
    );
    WireError::new(ErrorCode::Conflict, message)
}

/// The record of a container cannot be read.
pub(super) fn damaged_error(container: &Container) -> WireError {
    let reason = container.record.as_ref().err().map_or("", String::as_str);
    let message = format!(
        "the record of container {} is damaged ({reason}): it can only be removed, with force",
        container.label()
    );
    WireError::new(ErrorCode::Conflict, message)
}

/// Why it cannot be done now.
fn refused(container: &Container, refusal: Refusal, verb: &str) -> WireError {
    let label = container.label();
    let reason = match refusal {
        Refusal::Leftover => return container.leftover_error(),
        Refusal::Unreachable => return container.unreachable_error(),
        Refusal::Running | Refusal::Starting if verb == "remove" => {
            "container is running: stop the container before removing or force remove"
        }
        Refusal::Running => "container is running",
        Refusal::Starting => "container is being started",
        Refusal::NotRunning => "container is not running",
        Refusal::TearingDown => "its teardown is under way: try again",
        Refusal::Removing => "it is being removed",
        Refusal::Busy => "its record is being written, or its changes are being read: try again",
        Refusal::OutOfOrder => "it is not in a state for that",
    };
    WireError::new(ErrorCode::Conflict, format!("cannot {verb} container \"{label}\": {reason}"))
}
