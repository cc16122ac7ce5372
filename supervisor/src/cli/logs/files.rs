//! A container's log files as one sequence of records, oldest first, while the shim goes on writing and rotating them.
//!
//! A file is known by its inode: `log` becomes `log.1` under our feet. What is open stays readable whatever becomes of
//! its name.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use mysup_ipc::{
    layout,
    log::{HEADER, MAX_RECORD, RecordHeader},
};

use super::{super::error::CliError, lines::Flow};

/// Bytes of one read; some records at once.
const CHUNK: usize = 4 * (HEADER + MAX_RECORD);
/// How often the list of files is read again because it was rotated meanwhile. A rotation takes microseconds, and
/// the next one has to wait for a full file.
const TRIES: usize = 100;

/// What is done with each record.
pub(crate) type Each<'a> = &'a mut dyn FnMut(RecordHeader, &[u8]) -> Result<Flow, CliError>;

/// All log files of a container, from the oldest record on.
#[derive(Debug)]
pub(crate) struct LogSequence {
    directory: PathBuf,
    /// The one that is read, and those after it.
    files: Vec<LogFile>,
}

impl LogSequence {
    /// Opens all there are; a container that never ran has none.
    pub(crate) fn open(directory: &Path) -> Result<Self, CliError> {
        Ok(Self {
            directory: directory.to_owned(),
            files: open_all(directory).map_err(|error| failed(directory, error))?,
        })
    }

    /// Reads what is there and was not read yet.
    pub(crate) fn read(&mut self, each: Each<'_>) -> Result<Flow, CliError> {
        loop {
            if let Some(current) = self.files.first_mut()
                && current.read(each)? == Flow::Past
            {
                return Ok(Flow::Past);
            }
            if self.files.len() > 1 {
                self.files.remove(0);
                continue;
            }
            if !self.find_newer().map_err(|error| failed(&self.directory, error))? {
                return Ok(Flow::GoOn);
            }
        }
    }

    /// Opens what was begun after the current file; whether there is such.
    fn find_newer(&mut self) -> io::Result<bool> {
        let newest = match fs::metadata(self.directory.join(layout::LOG)) {
            Ok(metadata) => metadata.ino(),
            // Not written yet, or removed with the container.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            Err(error) => return Err(error),
        };
        let Some(current) = self.files.first() else {
            self.files = open_all(&self.directory)?;
            return Ok(!self.files.is_empty());
        };
        if newest == current.inode {
            return Ok(false);
        }
        let mut files = open_all(&self.directory)?;
        // If the current one is not there any more, more than it was rotated away, and all are newer.
        let newer = files.iter().position(|file| file.inode == current.inode).map_or(0, |at| at + 1);
        files.drain(..newer);
        // The current one stays the first: it may have grown before it was rotated.
        let found = !files.is_empty();
        self.files.extend(files);
        Ok(found)
    }
}

fn failed(directory: &Path, source: io::Error) -> CliError {
    CliError::File { action: "read the log in", path: directory.to_owned(), source }
}

/// All log files, oldest first, as they stood at one moment.
fn open_all(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut files = open_once(directory)?;
    for _ in 0..TRIES {
        let again = open_once(directory)?;
        let same = |files: &[LogFile]| files.iter().map(|file| file.inode).collect::<Vec<_>>();
        if same(&files) == same(&again) {
            return Ok(files);
        }
        files = again;
    }
    Err(io::Error::other("the log is rotated faster than it can be opened"))
}

fn open_once(directory: &Path) -> io::Result<Vec<LogFile>> {
    let mut ages = Vec::new();
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    for entry in entries {
        if let Some(age) = entry?.file_name().to_str().and_then(age) {
            ages.push(age);
        }
    }
    ages.sort_unstable_by(|left, right| right.cmp(left));
    let mut files: Vec<LogFile> = Vec::with_capacity(ages.len());
    for age in ages {
        let name = if age == 0 { layout::LOG.to_owned() } else { format!("{}.{age}", layout::LOG) };
        match File::open(directory.join(name)) {
            Ok(file) => {
                let file = LogFile::new(file)?;
                // Renamed between two opens it would be there twice.
                if files.iter().all(|known| known.inode != file.inode) {
                    files.push(file);
                }
            }
            // Rotated away; the second look will tell.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(files)
}

/// 0 for the current log, N for `log.N`.
fn age(name: &str) -> Option<u32> {
    if name == layout::LOG {
        return Some(0);
    }
    let digits = name.strip_prefix(layout::LOG)?.strip_prefix('.')?;
    digits.parse().ok().filter(|age: &u32| *age > 0 && age.to_string() == digits)
}

/// One file and how far it was read.
#[derive(Debug)]
struct LogFile {
    file: File,
    inode: u64,
    /// Where the next read starts.
    offset: u64,
    /// Read and not yet taken: less than a record at its end.
    buffer: Vec<u8>,
    taken: usize,
    /// What came next was no record: nothing after it can be trusted.
    damaged: bool,
}

impl LogFile {
    fn new(file: File) -> io::Result<Self> {
        let inode = file.metadata()?.ino();
        Ok(Self { file, inode, offset: 0, buffer: Vec::new(), taken: 0, damaged: false })
    }

    /// Reads all whole records; a torn one at the end is left until it is whole.
    fn read(&mut self, each: Each<'_>) -> Result<Flow, CliError> {
        loop {
            while let Some((header, end)) = self.next_record() {
                let bytes = &self.buffer[self.taken + HEADER..end];
                let flow = each(header, bytes)?;
                self.taken = end;
                if flow == Flow::Past {
                    return Ok(flow);
                }
            }
            if self.damaged
                || !self.fill().map_err(|source| CliError::Call { action: "read the log", source })?
            {
                return Ok(Flow::GoOn);
            }
        }
    }

    /// The next whole record in the buffer and where it ends.
    fn next_record(&mut self) -> Option<(RecordHeader, usize)> {
        let rest = self.buffer.get(self.taken..)?;
        let header: &[u8; HEADER] = rest.first_chunk()?;
        let Some(header) = RecordHeader::from_bytes(header) else {
            self.damaged = true;
            return None;
        };
        let end = self.taken + HEADER + usize::try_from(header.length).ok()?;
        (end <= self.buffer.len()).then_some((header, end))
    }

    /// Reads on; whether something came.
    fn fill(&mut self) -> io::Result<bool> {
        self.buffer.drain(..self.taken);
        self.taken = 0;
        let kept = self.buffer.len();
        self.buffer.resize(kept + CHUNK, 0);
        let count = loop {
            match self.file.read_at(&mut self.buffer[kept..], self.offset) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other,
            }
        };
        self.buffer.truncate(kept + *count.as_ref().unwrap_or(&0));
        let count = count?;
        self.offset += u64::try_from(count).unwrap_or(0);
        Ok(count > 0)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use mysup_ipc::shim::Stream;

    use super::*;

    /// A directory of its own for each test, removed with what it holds.
    struct Directory(PathBuf);

    impl Directory {
        fn new(name: &str) -> Self {
            let path = std::env::temp_dir().join(format!("mysup-logs-{name}-{}", std::process::id()));
            fs::create_dir_all(&path).expect("directory");
            Self(path)
        }

        fn append(&self, name: &str, bytes: &[u8]) {
            let path = self.0.join(name);
            let mut file = File::options().create(true).append(true).open(path).expect("log file");
            file.write_all(bytes).expect("written");
        }
    }

    impl Drop for Directory {
        fn drop(&mut self) {
            for entry in fs::read_dir(&self.0).into_iter().flatten().flatten() {
                let _ = fs::remove_file(entry.path());
            }
            let _ = fs::remove_dir(&self.0);
        }
    }

    fn record(text: &str) -> Vec<u8> {
        let length = u32::try_from(text.len()).expect("small");
        let header = RecordHeader { stream: Stream::Stdout, length, time: 1 };
        [&header.to_bytes()[..], text.as_bytes()].concat()
    }

    fn read(sequence: &mut LogSequence) -> String {
        let mut text = String::new();
        let flow = sequence.read(&mut |_, bytes| {
            text.push_str(std::str::from_utf8(bytes).expect("text"));
            Ok(Flow::GoOn)
        });
        assert_eq!(flow.expect("reads"), Flow::GoOn);
        text
    }

    #[test]
    fn oldest_first_and_noise_is_left_out() {
        let directory = Directory::new("order");
        for (name, text) in
            [("log.10", "a"), ("log.2", "b"), ("log.1", "c"), ("log", "d"), ("log.x", "X"), ("log.01", "Y")]
        {
            directory.append(name, &record(text));
        }
        assert_eq!(read(&mut LogSequence::open(&directory.0).expect("opens")), "abcd");
    }

    #[test]
    fn a_torn_tail_is_read_when_it_is_whole() {
        let directory = Directory::new("torn");
        let second = record("second");
        directory.append("log", &record("first"));
        directory.append("log", &second[..10]);
        let mut sequence = LogSequence::open(&directory.0).expect("opens");
        assert_eq!(read(&mut sequence), "first");
        directory.append("log", &second[10..20]);
        assert_eq!(read(&mut sequence), "");
        directory.append("log", &second[20..]);
        directory.append("log", &record("third"));
        assert_eq!(read(&mut sequence), "secondthird");
        directory.append("log", &[0; 32]);
        directory.append("log", &record("after noise"));
        assert_eq!(read(&mut sequence), "");
    }

    #[test]
    fn rotation_loses_nothing() {
        let directory = Directory::new("rotation");
        directory.append("log", &record("1"));
        let mut sequence = LogSequence::open(&directory.0).expect("opens");
        assert_eq!(read(&mut sequence), "1");
        // It grows, is rotated twice, and the current one grows again before we look.
        directory.append("log", &record("2"));
        fs::rename(directory.0.join("log"), directory.0.join("log.1")).expect("renamed");
        directory.append("log", &record("3"));
        fs::rename(directory.0.join("log.1"), directory.0.join("log.2")).expect("renamed");
        fs::rename(directory.0.join("log"), directory.0.join("log.1")).expect("renamed");
        directory.append("log", &record("4"));
        assert_eq!(read(&mut sequence), "234");
        // The one we are at is removed, and others too.
        for name in ["log", "log.1", "log.2"] {
            fs::remove_file(directory.0.join(name)).expect("removed");
        }
        directory.append("log.1", &record("5"));
        directory.append("log", &record("6"));
        assert_eq!(read(&mut sequence), "56");
    }

    #[test]
    fn a_container_without_log_has_an_empty_one() {
        let directory = Directory::new("empty");
        let mut sequence = LogSequence::open(&directory.0).expect("opens");
        assert_eq!(read(&mut sequence), "");
        directory.append("log", &record("now"));
        assert_eq!(read(&mut sequence), "now");
        assert_eq!(read(&mut LogSequence::open(Path::new("/nonexistent/mysup")).expect("opens")), "");
    }
}
