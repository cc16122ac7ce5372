//! The one runtime, and a thread of it that is always there. tokio panics when it can make neither the sockets for its
//! signals nor its first thread for jobs that block (`Registry`, `SpawnError::NoThreads` in its source): the former can
//! only be at its start, where it becomes an error here, and the latter is kept from coming later. A host without a
//! free pid or free memory then makes jobs wait for a thread, and loses none.

use std::{
    any::Any,
    io,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use tokio::{
    runtime::{Builder, Runtime},
    task::spawn_blocking,
    time::sleep,
};

use crate::error::Error;

/// An idle thread ends after this long.
const IDLE: Duration = Duration::from_secs(60);
/// One is woken so often, and so at least one never ends.
const BREATH: Duration = Duration::from_secs(20);

/// Makes the runtime and its first thread.
///
/// # Errors
/// If the host has no thread, socket or descriptor left for it; nothing is left then.
pub(super) fn start() -> Result<Runtime, Error> {
    let failed = Error::system("start the runtime (is the host out of processes, files or memory?)");
    quietly(|| {
        let runtime = Builder::new_current_thread().enable_all().thread_keep_alive(IDLE).build()?;
        // Waited for: the thread is there when the first job comes.
        runtime.block_on(runtime.spawn_blocking(|| ())).map_err(io::Error::other)?;
        runtime.spawn(breathe());
        Ok(runtime)
    })
    .map_err(failed)
}

async fn breathe() {
    loop {
        sleep(BREATH).await;
        // It does nothing; that it was woken is all.
        let _ = spawn_blocking(|| ()).await;
    }
}

/// Turns a panic into an error, without the report that is made of one.
fn quietly<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    let hook = panic::take_hook();
    panic::set_hook(Box::new(|_| {}));
    let made = panic::catch_unwind(AssertUnwindSafe(make));
    panic::set_hook(hook);
    made.unwrap_or_else(|payload| Err(io::Error::other(text_of(&*payload))))
}

fn text_of(payload: &(dyn Any + Send)) -> String {
    let text = payload.downcast_ref::<&str>().map(|text| (*text).to_owned());
    text.or_else(|| payload.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "it cannot be made".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn panic_becomes_an_error_with_its_text() {
        let error = quietly(|| -> io::Result<()> { panic!("no {}", "threads") }).unwrap_err();
        assert_eq!(error.to_string(), "no threads");
        let error = quietly(|| -> io::Result<()> { panic!("no sockets") }).unwrap_err();
        assert_eq!(error.to_string(), "no sockets");
    }
}
