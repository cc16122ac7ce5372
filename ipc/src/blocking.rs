//! Messages over a Unix socket for programs without an async runtime: the command line and the shim.

use std::{
    collections::VecDeque,
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
};

use crate::{
    codec::{CodecError, Message},
    fds,
    frame::{Decoder, Frame},
};

/// Why a message could not be sent or received.
#[derive(Debug, thiserror::Error)]
pub enum ConnectionError {
    /// The socket.
    #[error("connection failed")]
    Io(#[from] io::Error),
    /// What came is no message.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// The other side closed in the middle of a message.
    #[error("connection closed in the middle of a message")]
    Torn,
}

/// A connection that sends and receives whole messages. Works on a non-blocking socket too, for reading.
#[derive(Debug)]
pub struct Connection {
    socket: UnixStream,
    decoder: Decoder,
    received: VecDeque<OwnedFd>,
    left_unread: bool,
}

/// What a read of a connection gave.
#[derive(Debug)]
pub enum Received<M> {
    /// A message.
    Message(M),
    /// Nothing yet (non-blocking sockets only).
    NotYet,
    /// The other side is done.
    Closed,
}

impl Connection {
    /// Takes over a connected socket.
    pub fn new(socket: UnixStream) -> Self {
        Self { socket, decoder: Decoder::new(), received: VecDeque::new(), left_unread: false }
    }

    /// The socket, for poll(2) and deadlines.
    pub fn socket(&self) -> &UnixStream {
        &self.socket
    }

    /// Sends a message and blocks until it is gone.
    ///
    /// # Errors
    /// If the other side is gone or the message is over the frame bound.
    pub fn send<M: Message>(&mut self, message: &M) -> Result<(), ConnectionError> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors.
    ///
    /// # Errors
    /// As [`Connection::send`].
    pub fn send_with<M: Message>(
        &mut self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> Result<(), ConnectionError> {
        let bytes = message.to_frame()?;
        let mut rest = &bytes[..];
        let mut descriptors = descriptors;
        while !rest.is_empty() {
            match fds::send(self.socket.as_fd(), rest, descriptors) {
                Ok(count) => {
                    rest = &rest[count..];
                    descriptors = &[];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The next message.
    ///
    /// # Errors
    /// If the socket fails or what came is no such message.
    pub fn receive<M: Message>(&mut self) -> Result<Received<M>, ConnectionError> {
        let mut buffer = vec![0; 1 << 16];
        loop {
            if let Some(message) = self.buffered()? {
                return Ok(Received::Message(message));
            }
            let mut descriptors = Vec::new();
            match fds::receive(self.socket.as_fd(), &mut buffer, &mut descriptors) {
                Ok(0) if self.decoder.has_partial() => return Err(ConnectionError::Torn),
                Ok(0) => return Ok(Received::Closed),
                Ok(count) => self.decoder.push(&buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Received::NotYet),
                // The other side closed without reading all that we sent; what it sent has come before this.
                Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
                    self.left_unread = true;
                    return if self.decoder.has_partial() {
                        Err(ConnectionError::Torn)
                    } else {
                        Ok(Received::Closed)
                    };
                }
                Err(error) => return Err(error.into()),
            }
            self.received.extend(descriptors);
        }
    }

    /// After its end: whether the other side closed without having read all that we sent. What came last of it was then no
    /// whole message there.
    pub fn has_left_unread(&self) -> bool {
        self.left_unread
    }

    /// A message that was already read, without touching the socket.
    ///
    /// # Errors
    /// If what came is no such message.
    pub fn buffered<M: Message>(&mut self) -> Result<Option<M>, ConnectionError> {
        let frame: Option<Frame> = self.decoder.next_frame().map_err(CodecError::from)?;
        Ok(frame.as_ref().map(M::from_frame).transpose()?)
    }

    /// The oldest descriptor that came and was not taken yet.
    pub fn take_descriptor(&mut self) -> Option<OwnedFd> {
        self.received.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::File, io::Read};

    use super::*;
    use crate::shim::ToShim;

    #[test]
    fn descriptors_ride_with_their_message() {
        let (left, right) = UnixStream::pair().expect("socketpair");
        let (mut left, mut right) = (Connection::new(left), Connection::new(right));
        let file = File::open("/proc/self/comm").expect("proc");
        left.send_with(&ToShim::Signal(1), &[file.as_fd()]).expect("send");
        left.send(&ToShim::StdinEnd).expect("send");
        assert!(matches!(right.receive().expect("receive"), Received::Message(ToShim::Signal(1))));
        assert!(matches!(right.receive().expect("receive"), Received::Message(ToShim::StdinEnd)));
        let mut text = String::new();
        File::from(right.take_descriptor().expect("came along")).read_to_string(&mut text).expect("read");
        assert!(!text.is_empty());
        drop(left);
        assert!(matches!(right.receive::<ToShim>().expect("receive"), Received::Closed));
        assert!(!right.has_left_unread());
    }

    #[test]
    fn what_the_other_side_has_not_read_is_told_from_what_it_has() {
        for reads in [true, false] {
            let (left, right) = UnixStream::pair().expect("socketpair");
            let (mut left, mut right) = (Connection::new(left), Connection::new(right));
            left.send(&ToShim::Signal(1)).expect("send");
            if reads {
                assert!(matches!(right.receive().expect("receive"), Received::Message(ToShim::Signal(1))));
            }
            drop(right);
            assert!(matches!(left.receive::<ToShim>().expect("receive"), Received::Closed));
            assert_eq!(left.has_left_unread(), !reads);
        }
    }
}
