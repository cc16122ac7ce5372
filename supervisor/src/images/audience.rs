//! Who is told how far something long has come. Never: a wait for him.

use std::{
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use mysup_ipc::{
    codec::Message,
    progress::{PAUSE, Progress, ProgressStep},
};
use rustix::net::SendFlags;

/// A client that wants to know, or nobody. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(crate) struct Audience(Option<Arc<OwnedFd>>);

/// Tells of one part. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Meter(Option<Arc<Part>>);

#[derive(Debug)]
struct Part {
    socket: Arc<OwnedFd>,
    name: String,
    step: ProgressStep,
    total: u64,
    done: AtomicU64,
    told: Mutex<Option<Instant>>,
}

impl Audience {
    /// The client at the other end of a socket, if there is one.
    pub(crate) fn new(socket: Option<OwnedFd>) -> Self {
        Self(socket.map(Arc::new))
    }

    /// Something that will be done with a part of so many bytes; 0 if nobody knows.
    pub(super) fn part(&self, name: &str, step: ProgressStep, total: u64) -> Meter {
        let part = |socket: &Arc<OwnedFd>| Part {
            socket: Arc::clone(socket),
            name: name.to_owned(),
            step,
            total,
            done: AtomicU64::new(0),
            told: Mutex::new(None),
        };
        Meter(self.0.as_ref().map(|socket| Arc::new(part(socket))))
    }
}

impl Meter {
    /// It begins, maybe once more.
    pub(super) fn begin(&self) {
        if let Some(part) = &self.0 {
            part.done.store(0, Ordering::Relaxed);
            part.tell_sometimes(0);
        }
    }

    /// So many bytes more are done.
    pub(super) fn add(&self, bytes: u64) {
        if let Some(part) = &self.0 {
            let done = part.done.fetch_add(bytes, Ordering::Relaxed) + bytes;
            part.tell_sometimes(done);
        }
    }

    /// It is done.
    pub(super) fn finish(&self, step: ProgressStep) {
        if let Some(part) = &self.0 {
            part.tell(step, part.done.load(Ordering::Relaxed).max(part.total));
        }
    }
}

impl Part {
    fn tell_sometimes(&self, done: u64) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= PAUSE) {
            *told = Some(Instant::now());
            drop(told);
            self.tell(self.step, done);
        }
    }

    fn tell(&self, step: ProgressStep, done: u64) {
        let progress = Progress { part: self.name.clone(), step, done, total: self.total };
        let Ok(frame) = progress.to_frame() else { return };
        // What does not fit is lost: a client that does not read holds nobody. So few bytes go whole or not at all, as
        // unix_stream_sendmsg() puts them into one buffer.
        let _ = rustix::net::send(&*self.socket, &frame, SendFlags::DONTWAIT | SendFlags::NOSIGNAL);
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use mysup_ipc::blocking::{Connection, Received};

    use super::*;

    #[test]
    fn nobody_waits_for_who_does_not_read() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let audience = Audience::new(Some(theirs.into()));
        for at in 0..100_000 {
            audience.part(&format!("part {at}"), ProgressStep::Writing, 10).finish(ProgressStep::Written);
        }
        drop(audience);
        let mut reader = Connection::new(ours);
        let mut count = 0;
        while let Received::Message(Progress { part, step, done, total }) = reader.receive().expect("whole") {
            assert_eq!(
                (part.as_str(), step, done, total),
                (format!("part {count}").as_str(), ProgressStep::Written, 10, 10)
            );
            count += 1;
        }
        assert!((10..100_000).contains(&count), "{count}");
    }

    #[test]
    fn what_is_told_is_not_told_too_often() {
        let (ours, theirs) = UnixStream::pair().expect("socketpair");
        let meter = Audience::new(Some(theirs.into())).part("a", ProgressStep::Writing, 1000);
        meter.begin();
        (0..1000).for_each(|_| meter.add(1));
        meter.finish(ProgressStep::Written);
        drop(meter);
        let mut reader = Connection::new(ours);
        let mut told = Vec::new();
        while let Received::Message(Progress { step, done, .. }) = reader.receive().expect("whole") {
            told.push((step, done));
        }
        assert!(told.len() < 20, "{told:?}");
        assert_eq!(told.last(), Some(&(ProgressStep::Written, 1000)));
    }
}
