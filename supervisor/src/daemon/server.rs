//! Accepts clients and speaks with each in a task of its own: one request, one answer, in order.

use std::{sync::Arc, time::Duration};

use mysup_ipc::{
    api::{Request, Response},
    error::{ErrorCode, WireError},
};
use tokio::{
    net::{UnixListener, UnixStream},
    sync::Semaphore,
    time::{sleep, timeout},
};

use super::{api::Api, shutdown::Shutdown};
use crate::{
    error::{Error, chain},
    shim_link::framed::{Framed, Interruption},
    sys,
};

/// Connections at once; more wait in the kernel's queue. Each may hold a few descriptors.
const CONNECTIONS: usize = 1024;
/// After an accept that failed for want of descriptors or memory: others must get a chance to give some back.
const BACK_OFF: Duration = Duration::from_millis(100);
/// A client that does not take its answer is cut off.
const ANSWER: Duration = Duration::from_secs(30);
/// What requests under way may take when the end has come; what they have begun goes on without us.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves until the end.
pub(super) async fn serve(listener: UnixListener, api: Api, shutdown: Shutdown) -> Result<(), Error> {
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let signals = shutdown.clone();
    // Detached: it ends with the runtime.
    drop(tokio::spawn(async move {
        if let Err(error) = signals.on_signal().await {
            tracing::error!(%error, "cannot hear signals");
        }
    }));
    loop {
        let accepted = async {
            // Never closed while we hold it.
            let slot = Arc::clone(&slots).acquire_owned().await;
            (slot, listener.accept().await)
        };
        let (slot, accepted) = tokio::select! {
            // The end comes first, however many knock.
            biased;
            () = shutdown.over() => break,
            accepted = accepted => accepted,
        };
        match accepted {
            Ok((socket, _)) => {
                let (api, shutdown) = (api.clone(), shutdown.clone());
                // Detached: a panic in it ends this connection only.
                drop(tokio::spawn(async move {
                    let _slot = slot;
                    converse(socket, api, shutdown).await;
                }));
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection, continuing");
                sleep(BACK_OFF).await;
            }
        }
    }
    drop(listener);
    let all = u32::try_from(CONNECTIONS).unwrap_or(u32::MAX);
    if timeout(DRAIN, slots.acquire_many(all)).await.is_err() {
        tracing::warn!("some requests are still under way, continuing");
    }
    Ok(())
}

async fn converse(socket: UnixStream, api: Api, shutdown: Shutdown) {
    match socket.peer_cred() {
        Ok(peer) if peer.uid() == sys::effective_uid() => {}
        Ok(peer) => return tracing::warn!(uid = peer.uid(), "a connection of another user was refused"),
        Err(error) => return tracing::warn!(%error, "a connection without a known user was refused"),
    }
    let mut client = Framed::new(socket);
    loop {
        let request = tokio::select! {
            // What is not read now is seen by its client to be unread, and sent to the next supervisor.
            biased;
            () = shutdown.over() => return,
            // No deadline: a client may keep a connection open, it costs one slot.
            request = client.receive::<Request>() => request,
        };
        let response = match request {
            Ok(Some(request)) => {
                let last = matches!(request, Request::Shutdown { .. });
                let descriptors = std::iter::from_fn(|| client.take_descriptor()).collect();
                let response = if last {
                    // Not even a client that hangs up stops the end once it has begun.
                    api.answer(request, descriptors).await
                } else {
                    tokio::select! {
                        // An answer that is ready is given before anybody looks whether the client is still there.
                        biased;
                        // No deadline: what can hang has its own below; waits for a container's end may take years.
                        response = api.answer(request, descriptors) => response,
                        interruption = client.interrupted() => match interruption {
                            Interruption::Gone => return,
                            Interruption::Early => early(),
                        },
                    }
                };
                if last && !matches!(response, Response::Error(_)) {
                    // The client waits for our end after this; if it is gone already, we end all the same.
                    let _ = client.send(&response, ANSWER).await;
                    shutdown.keep(client);
                    return shutdown.finish();
                }
                response
            }
            Ok(None) => return,
            Err(error) => {
                let message = format!("not a request: {}", chain(&error));
                Response::Error(WireError::new(ErrorCode::Protocol, message))
            }
        };
        let fatal = matches!(&response, Response::Error(error) if error.code == ErrorCode::Protocol);
        if let Err(error) = client.send(&response, ANSWER).await {
            return tracing::debug!(error = %chain(&error), "a client did not take its answer");
        }
        if fatal {
            return;
        }
    }
}

fn early() -> Response {
    let message = "a request came before the answer to the last one";
    Response::Error(WireError::new(ErrorCode::Protocol, message))
}
