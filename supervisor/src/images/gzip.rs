//! gzip on several processors: the text is cut into pieces, each is compressed by itself with the end of the one before
//! it for a dictionary, and together they are one gzip member (RFC 1952) as any other.
//!
//! The pieces are the same whatever the number of threads: the same bytes always become the same bytes.

use std::{
    collections::VecDeque,
    io::{self, Write},
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
};

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

/// Between zlib's default, 6, and its fastest: a root file system becomes 1.5 % larger in three quarters of the time.
const LEVEL: u32 = 4;
/// Bytes of a piece.
const PIECE: usize = 256 << 10;
/// How far deflate looks back (RFC 1951).
const WINDOW: usize = 32 << 10;
/// Threads of one compressor, each with less than 1 MiB.
const THREADS: usize = 4;
/// No flags, no name, no time, of an unknown system: nothing that differs between two hosts.
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// A piece that is to be compressed.
struct Job {
    /// What it begins with is the dictionary.
    text: Vec<u8>,
    dictionary: usize,
    flush: FlushCompress,
    done: SyncSender<io::Result<Done>>,
}

/// A piece that was compressed.
struct Done {
    compressed: Vec<u8>,
    crc: Crc,
}

/// Compresses on the way to a writer.
pub(super) struct Gzip<W: Write> {
    writer: W,
    /// What was written since the last piece, after the end of that.
    text: Vec<u8>,
    dictionary: usize,
    /// To the threads. Without any, the caller's own does their work.
    jobs: Option<SyncSender<Job>>,
    /// In the order of the text.
    pending: VecDeque<Receiver<io::Result<Done>>>,
    at_once: usize,
    crc: Crc,
}

impl<W: Write> Gzip<W> {
    /// Starts the threads; they end with it.
    ///
    /// # Errors
    /// If the header cannot be written.
    pub(super) fn new(writer: W) -> io::Result<Self> {
        Self::with_threads(writer, thread::available_parallelism().map_or(1, usize::from).min(THREADS))
    }

    fn with_threads(mut writer: W, threads: usize) -> io::Result<Self> {
        writer.write_all(&HEADER)?;
        let (jobs, queue) = sync_channel(threads);
        let queue = Arc::new(Mutex::new(queue));
        let mut at_once = 0;
        for _ in 0..threads {
            let queue = Arc::clone(&queue);
            // Detached: it has nothing but memory, and ends when there are no more jobs. With fewer it takes longer.
            if thread::Builder::new().name("gzip".to_owned()).spawn(move || work(&queue)).is_err() {
                break;
            }
            at_once += 2;
        }
        let jobs = (at_once > 0).then_some(jobs);
        let pending = VecDeque::with_capacity(at_once);
        Ok(Self { writer, text: Vec::new(), dictionary: 0, jobs, pending, at_once, crc: Crc::new() })
    }

    /// Writes what is left, and gives the writer back.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn finish(mut self) -> io::Result<W> {
        self.piece(FlushCompress::Finish)?;
        while !self.pending.is_empty() {
            self.write_next()?;
        }
        self.writer.write_all(&self.crc.sum().to_le_bytes())?;
        self.writer.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.writer)
    }

    /// Hands the text on.
    fn piece(&mut self, flush: FlushCompress) -> io::Result<()> {
        while self.pending.len() >= self.at_once.max(1) {
            self.write_next()?;
        }
        let tail = self.text.len().saturating_sub(WINDOW);
        let mut next = Vec::with_capacity(WINDOW + PIECE);
        next.extend_from_slice(self.text.get(tail..).unwrap_or_default());
        let (done, result) = sync_channel(1);
        let dictionary = std::mem::replace(&mut self.dictionary, next.len());
        let job = Job { text: std::mem::replace(&mut self.text, next), dictionary, flush, done };
        self.pending.push_back(result);
        match &self.jobs {
            Some(jobs) => jobs.send(job).map_err(|_gone| ended()),
            None => {
                job.run();
                Ok(())
            }
        }
    }

    fn write_next(&mut self) -> io::Result<()> {
        let Some(result) = self.pending.pop_front() else { return Ok(()) };
        let done = result.recv().map_err(|_gone| ended())??;
        self.crc.combine(&done.crc);
        self.writer.write_all(&done.compressed)
    }
}

impl<W: Write> Write for Gzip<W> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let room = (self.dictionary + PIECE).saturating_sub(self.text.len());
        let taken = buffer.get(..room.min(buffer.len())).unwrap_or_default();
        self.text.extend_from_slice(taken);
        if taken.len() == room {
            self.piece(FlushCompress::Sync)?;
        }
        Ok(taken.len())
    }

    /// Nothing is handed on before its piece is full: where pieces end must not depend on this.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// One of the threads.
fn work(queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        job.run();
    }
}

impl Job {
    fn run(self) {
        let (dictionary, text) = self.text.split_at(self.dictionary.min(self.text.len()));
        // Nobody waits for it any more: then the writer has failed.
        let _ = self.done.send(compressed(dictionary, text, self.flush));
    }
}

fn compressed(dictionary: &[u8], text: &[u8], flush: FlushCompress) -> io::Result<Done> {
    // A new one for each piece: after a reset zlib-rs (0.6.8) finds other matches than a new one, so that the bytes would
    // depend on which thread had which piece before.
    let mut compress = Compress::new(Compression::new(LEVEL), false);
    if !dictionary.is_empty() {
        compress.set_dictionary(dictionary)?;
    }
    let mut crc = Crc::new();
    crc.update(text);
    let mut compressed = Vec::with_capacity(text.len() / 2 + 64);
    loop {
        // No overflow: it is at most what the text has.
        let taken = usize::try_from(compress.total_in()).unwrap_or(usize::MAX);
        let rest = text.get(taken..).unwrap_or_default();
        let status = compress.compress_vec(rest, &mut compressed, flush)?;
        let has_room = compressed.len() < compressed.capacity();
        let is_done = match flush {
            FlushCompress::Finish => status == Status::StreamEnd,
            FlushCompress::None | FlushCompress::Partial | FlushCompress::Sync | FlushCompress::Full => {
                has_room && compress.total_in() == text.len() as u64
            }
            _ => true,
        };
        if is_done {
            return Ok(Done { compressed, crc });
        }
        if !has_room {
            compressed.reserve(text.len() / 2 + 64);
        }
    }
}

fn ended() -> io::Error {
    io::Error::other("a thread of the compressor has ended")
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    /// Compresses well in some places and not at all in others.
    fn text(length: usize) -> Vec<u8> {
        let mut state = 1_u64;
        (0..length)
            .map(|at| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                if at / 100_000 % 2 == 0 { state.to_be_bytes()[0] } else { state.to_be_bytes()[0] & 3 }
            })
            .collect()
    }

    #[test]
    fn any_length_is_one_member_that_does_not_depend_on_the_threads() {
        let whole = text(3 * PIECE + 5);
        for length in [0, 1, PIECE - 1, PIECE, PIECE + 1, 2 * PIECE, 3 * PIECE + 5] {
            let compressed: Vec<Vec<u8>> = [(0, 777), (1, 1 << 20), (3, 4096)]
                .into_iter()
                .map(|(threads, at_once)| {
                    let mut gzip = Gzip::with_threads(Vec::new(), threads).expect("a vector takes all");
                    for part in whole[..length].chunks(at_once) {
                        gzip.write_all(part).expect("a vector takes all");
                    }
                    gzip.finish().expect("a vector takes all")
                })
                .collect();
            assert!(compressed.iter().all(|other| *other == compressed[0]), "{length}");
            let mut read = Vec::new();
            // Of one member: what comes after it would be left.
            let mut decoder = flate2::bufread::GzDecoder::new(compressed[0].as_slice());
            decoder.read_to_end(&mut read).expect("it is gzip");
            assert!(read == whole[..length] && decoder.into_inner().is_empty(), "{length}");
        }
    }

    #[test]
    fn what_a_thread_did_before_does_not_show() {
        // Words, as in sources: there are many matches to choose from.
        let (mut state, mut whole) = (7_u64, Vec::new());
        while whole.len() < 8 * PIECE {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let word = (state >> 40) % 3000;
            whole.extend_from_slice(format!("{:x}", word * word * 7919).as_bytes());
            whole.push(if state >> 61 == 0 { b'\n' } else { b' ' });
        }
        let packed = |threads| {
            let mut gzip = Gzip::with_threads(Vec::new(), threads).expect("a vector takes all");
            gzip.write_all(&whole).expect("a vector takes all");
            gzip.finish().expect("a vector takes all")
        };
        let expected = packed(0);
        assert!((0..8).all(|round| packed(round % 4) == expected));
    }

    #[test]
    fn a_writer_that_fails_ends_it() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
                if buffer == HEADER { Ok(buffer.len()) } else { Err(io::ErrorKind::StorageFull.into()) }
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let mut gzip = Gzip::new(Full).expect("the header goes");
        let written = gzip.write_all(&text(100 * PIECE));
        assert_eq!(written.map_err(|error| error.kind()), Err(io::ErrorKind::StorageFull));
    }
}
