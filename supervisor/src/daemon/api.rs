//! From a request to an answer. No state of its own, no policy: registry and images decide.

use std::{collections::VecDeque, future::Future, os::fd::OwnedFd};

use mysup_ipc::{
    api::{Request, Response},
    error::{ErrorCode, WireError},
    exit::ExitReport,
    images::ImageRequest,
};

use super::{
    commits, image_requests, info,
    operations::{Client, Launch, Operations, Prepared, Removal, Volumes},
    processes,
    shutdown::Shutdown,
    storage_requests,
};
use crate::{error::system_failure, registry::plan::Attach, shim_link::spawn::is_socket, sys};

/// Answers requests. Clones are the same.
#[derive(Debug, Clone)]
pub(super) struct Api {
    operations: Operations,
    shutdown: Shutdown,
    started_at: u64,
}

type Answer = Result<Response, WireError>;

impl Api {
    /// An API that answers from now on.
    pub(super) fn new(operations: Operations, shutdown: Shutdown) -> Self {
        Self { operations, shutdown, started_at: sys::now() }
    }

    /// The answer to a request with its descriptors. Dropping this future (the client hung up) ends a wait or an
    /// import; anything else that was begun goes on.
    pub(super) async fn answer(&self, request: Request, descriptors: VecDeque<OwnedFd>) -> Response {
        if self.shutdown.is_closing() {
            let message = "the supervisor is shutting down";
            return Response::Error(WireError::new(ErrorCode::Conflict, message));
        }
        self.dispatch(request, descriptors).await.unwrap_or_else(Response::Error)
    }

    async fn dispatch(&self, request: Request, mut descriptors: VecDeque<OwnedFd>) -> Answer {
        let operations = self.operations.clone();
        let registry = &self.operations.registry;
        match request {
            Request::Info => Ok(Response::Info(Box::new(info::collect(&operations, self.started_at).await?))),
            Request::Create(config) => {
                let prepared = operations.prepare(*config, descriptors.pop_front(), Launch::Later).await?;
                let id = finished(operations.create(prepared)).await?;
                Ok(Response::Created { id, warnings: Vec::new() })
            }
            Request::Run { config, attach } => {
                let stdin = config.interactive;
                let client = take_client(attach, stdin, &mut descriptors)?;
                let prepared = operations.prepare(*config, descriptors.pop_front(), Launch::AtOnce).await?;
                self.run(prepared, client).await
            }
            Request::Start { container, attach, stdin } => {
                let id = registry.resolve(&container).await?;
                let client = take_client(attach, stdin, &mut descriptors)?;
                finished(operations.start(id.clone(), client)).await?;
                Ok(Response::Created { id, warnings: Vec::new() })
            }
            Request::Stop { container, signal, timeout } => {
                let id = registry.resolve(&container).await?;
                finished(operations.stop(id, signal, timeout)).await.map(done)
            }
            Request::Restart { container, timeout } => {
                let id = registry.resolve(&container).await?;
                finished(operations.restart(id, timeout)).await.map(done)
            }
            Request::Kill { container, signal } => {
                let id = registry.resolve(&container).await?;
                finished(operations.kill(id, signal)).await.map(done)
            }
            Request::Wait { container } => {
                let id = registry.resolve(&container).await?;
                registry.wait(&id).await.map(exited)
            }
            Request::Remove { container, force, volumes } => {
                let id = registry.resolve(&container).await?;
                finished(operations.remove(id, Removal::of(force), Volumes::of(volumes))).await.map(done)
            }
            Request::Rename { container, name } => {
                let id = registry.resolve(&container).await?;
                let name = name.parse().map_err(|error| invalid(&error))?;
                registry.rename(&id, name).await.map(done)
            }
            Request::List => registry.list().await.map(Response::Containers),
            Request::Inspect { container } => {
                let id = registry.resolve(&container).await?;
                registry.inspect(&id).await.map(|one| Response::Containers(vec![one]))
            }
            Request::Top { container } => self.top(&container).await,
            Request::Import { name } => {
                let plain = ImageRequest::Import { name, changes: Vec::new(), message: None };
                image_requests::answer(&operations, plain, descriptors).await
            }
            Request::Images => Ok(Response::Images(operations.images.list())),
            Request::RemoveImage { image, force } => {
                finished(async move { operations.images.remove(image, force, &operations.registry).await })
                    .await
                    .map(Response::Removed)
            }
            Request::Heal => finished(storage_requests::heal(operations)).await.map(done),
            Request::Unknown => Err(unknown_request()),
            Request::Shutdown { containers } => Ok(self.shut_down(containers).await),
            Request::Commit(request) => commits::answer(&operations, request, descriptors).await,
            Request::Image(request) => image_requests::answer(&operations, request, descriptors).await,
            Request::Storage(request) => storage_requests::answer(&operations, request).await,
        }
    }

    async fn shut_down(&self, containers: bool) -> Response {
        if !containers {
            // From now on nothing is read any more: a refusal would be no use to a client that can ask the next one.
            self.shutdown.finish();
            return Response::Done;
        }
        self.shutdown.close();
        if let Err(error) = finished(self.operations.clone().stop_all()).await {
            // The end was asked for, and comes.
            tracing::warn!(error = %error.message, "cannot stop all containers, continuing");
        }
        Response::Done
    }

    async fn run(&self, prepared: Prepared, client: Option<Client>) -> Answer {
        let id = finished(self.operations.clone().run(prepared, client)).await?;
        Ok(Response::Created { id, warnings: Vec::new() })
    }

    async fn top(&self, container: &str) -> Answer {
        let registry = &self.operations.registry;
        let id = registry.resolve(container).await?;
        let Some(pid) = registry.inspect(&id).await?.state.pid() else {
            let message = format!("container {id} is not running");
            return Err(WireError::new(ErrorCode::Conflict, message));
        };
        let listed = tokio::task::spawn_blocking(move || processes::of(pid))
            .await
            .map_err(|panic| system_failure("cannot list processes", &panic))?;
        listed.map(Response::Processes).map_err(|error| system_failure("cannot list processes", &error))
    }
}

/// Runs an operation to its end, even if nobody waits for it any more.
pub(super) async fn finished<T: Send + 'static>(
    operation: impl Future<Output = Result<T, WireError>> + Send + 'static,
) -> Result<T, WireError> {
    match tokio::spawn(operation).await {
        Ok(outcome) => outcome,
        Err(panic) => Err(system_failure("the request was broken off", &panic)),
    }
}

/// The attached client's socket is the last descriptor.
fn take_client(
    attach: bool,
    stdin: bool,
    descriptors: &mut VecDeque<OwnedFd>,
) -> Result<Option<Client>, WireError> {
    if !attach {
        return Ok(None);
    }
    match descriptors.pop_back().filter(is_socket) {
        Some(socket) => {
            Ok(Some(Client { socket, attach: if stdin { Attach::Both } else { Attach::Output } }))
        }
        None => Err(WireError::new(ErrorCode::Invalid, "the socket of the attached client is missing")),
    }
}

fn done(_: ()) -> Response {
    Response::Done
}

fn exited(report: ExitReport) -> Response {
    Response::Exited { status: report.status, error: report.error }
}

fn unknown_request() -> WireError {
    let message = "the supervisor does not know this request, it is older than this program: replace it with mysup start \
        --replace, its containers go on";
    WireError::new(ErrorCode::Protocol, message)
}

fn invalid(error: &dyn std::error::Error) -> WireError {
    WireError::new(ErrorCode::Invalid, error.to_string())
}
