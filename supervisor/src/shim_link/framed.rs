//! Messages over a tokio Unix socket: the adapter around ipc's decoder, for clients and shims alike.

use std::{
    collections::VecDeque,
    io,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    time::Duration,
};

use mysup_ipc::{
    codec::{CodecError, Message},
    fds,
    frame::Decoder,
};
use tokio::{io::Interest, net::UnixStream, time::timeout};

/// Bytes of one read. On the stack of the poll, so that an idle connection holds no buffer; longer frames take
/// several reads.
const READ: usize = 16 << 10;
/// The most descriptors that may wait to be taken; a peer that sends more is cut off.
const WAITING_DESCRIPTORS: usize = fds::MAX_DESCRIPTORS;

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FramedError {
    /// The socket.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The other side closed in the middle of a message.
    #[error("connection closed in the middle of a message")]
    Torn,
    /// More descriptors than any message has.
    #[error("too many descriptors on the connection")]
    Descriptors,
    /// The other side does not read.
    #[error("a message was not taken within {0:?}")]
    Stuck(Duration),
}

/// A connection of whole messages.
#[derive(Debug)]
pub(crate) struct Framed {
    socket: UnixStream,
    decoder: Decoder,
    received: VecDeque<OwnedFd>,
}

impl Framed {
    /// Takes over a connected socket.
    pub(crate) fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), received: VecDeque::new() }
    }

    /// The next message, `None` when the other side is done. Cancelling it loses nothing.
    pub(crate) async fn receive<M: Message>(&mut self) -> Result<Option<M>, FramedError> {
        loop {
            if let Some(frame) = self.decoder.next_frame().map_err(CodecError::from)? {
                return Ok(Some(M::from_frame(&frame)?));
            }
            match self.read().await? {
                0 if self.decoder.has_partial() => return Err(FramedError::Torn),
                0 => return Ok(None),
                _more => {}
            }
        }
    }

    /// Waits until the other side is gone, or says something although it has no answer yet. Cancelling it loses
    /// nothing.
    pub(crate) async fn interrupted(&mut self) -> Interruption {
        if self.decoder.has_partial() {
            return Interruption::Early;
        }
        match self.read().await {
            Ok(0) | Err(_) => Interruption::Gone,
            Ok(_more) => Interruption::Early,
        }
    }

    async fn read(&mut self) -> Result<usize, FramedError> {
        loop {
            self.socket.readable().await?;
            let (socket, decoder, received) = (&self.socket, &mut self.decoder, &mut self.received);
            let outcome = socket.try_io(Interest::READABLE, || {
                let mut buffer = [0; READ];
                let mut descriptors = Vec::new();
                let count = fds::receive(socket.as_fd(), &mut buffer, &mut descriptors)?;
                decoder.push(&buffer[..count]);
                received.extend(descriptors);
                Ok(count)
            });
            match outcome {
                Ok(count) if self.received.len() <= WAITING_DESCRIPTORS => return Ok(count),
                Ok(_count) => return Err(FramedError::Descriptors),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Sends a message. After an error, or when cancelled, the connection is of no further use.
    pub(crate) async fn send<M: Message>(
        &mut self,
        message: &M,
        deadline: Duration,
    ) -> Result<(), FramedError> {
        self.send_with(message, &[], deadline).await
    }

    /// Sends a message with descriptors, as [`Framed::send`].
    pub(crate) async fn send_with<M: Message>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
        deadline: Duration,
    ) -> Result<(), FramedError> {
        let bytes = message.to_frame()?;
        match timeout(deadline, self.write(&bytes, descriptors)).await {
            Ok(outcome) => outcome,
            Err(_elapsed) => Err(FramedError::Stuck(deadline)),
        }
    }

    async fn write(&self, mut rest: &[u8], mut descriptors: &[BorrowedFd<'_>]) -> Result<(), FramedError> {
        while !rest.is_empty() {
            self.socket.writable().await?;
            let outcome =
                self.socket.try_io(Interest::WRITABLE, || fds::send(self.socket.as_fd(), rest, descriptors));
            match outcome {
                Ok(count) => {
                    rest = &rest[count..];
                    // They went with the first byte.
                    descriptors = &[];
                }
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The oldest descriptor that came and was not taken yet.
    pub(crate) fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }
}

/// What ended a wait for the other side's silence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interruption {
    /// It hung up.
    Gone,
    /// It sent another message before it had the answer to the last one.
    Early,
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read as _};

    use mysup_ipc::{blocking::Connection, shim::ToShim};

    use super::*;

    fn pair() -> (Framed, Connection) {
        let (left, right) = std::os::unix::net::UnixStream::pair().unwrap();
        left.set_nonblocking(true).unwrap();
        (Framed::new(UnixStream::from_std(left).unwrap()), Connection::new(right))
    }

    #[tokio::test]
    async fn messages_longer_than_a_read_come_whole_with_their_descriptor() {
        let (mut framed, mut other) = pair();
        let long = ToShim::Stdin(vec![7; 3 * READ]);
        let sent = long.clone();
        let sender = tokio::task::spawn_blocking(move || {
            let file = File::open("/proc/self/comm").unwrap();
            other.send_with(&sent, &[file.as_fd()]).unwrap();
            other.send(&ToShim::StdinEnd).unwrap();
        });
        assert_eq!(framed.receive().await.unwrap(), Some(long));
        assert_eq!(framed.receive().await.unwrap(), Some(ToShim::StdinEnd));
        let mut text = String::new();
        File::from(framed.take_descriptor().unwrap()).read_to_string(&mut text).unwrap();
        assert!(!text.is_empty());
        sender.await.unwrap();
        assert_eq!(framed.receive::<ToShim>().await.unwrap(), None);
    }

    #[tokio::test]
    async fn a_reader_that_stops_costs_its_deadline_and_no_more() {
        let (mut framed, other) = pair();
        let big = ToShim::Stdin(vec![0; 3 << 20]);
        let error = framed.send(&big, Duration::from_millis(20)).await.unwrap_err();
        assert!(matches!(error, FramedError::Stuck(_)), "{error:?}");
        drop(other);
        assert_eq!(framed.interrupted().await, Interruption::Gone);
    }

    #[tokio::test]
    async fn a_torn_message_and_an_early_one_are_told_apart_from_the_end() {
        let (mut framed, mut other) = pair();
        other.send(&ToShim::StdinEnd).unwrap();
        assert_eq!(framed.interrupted().await, Interruption::Early);
        assert_eq!(framed.interrupted().await, Interruption::Early, "it stays so");
        assert_eq!(framed.receive().await.unwrap(), Some(ToShim::StdinEnd));
        let frame = ToShim::StdinEnd.to_frame().unwrap();
        std::io::Write::write_all(&mut other.socket(), &frame[..5]).unwrap();
        drop(other);
        assert!(matches!(framed.receive::<ToShim>().await, Err(FramedError::Torn)));
    }
}
