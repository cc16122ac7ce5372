//! The image of the tests: busybox and the few files a small system has, made once for each run of the suite.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use tar::{Builder, EntryType, Header};

/// Name under which sandboxes import it.
pub(crate) const NAME: &str = "busybox";

/// The users of the image: `tester` is in two groups.
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ntester:x:1000:1000:Tester:/home/tester:/bin/sh\n";
const GROUP: &str = "root:x:0:\ntester:x:1000:\nwheel:x:10:tester\naudio:x:29:tester\n";

/// Where the finished tar is.
pub(crate) fn tar_path(base: &Path) -> &'static Path {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    PATH.get_or_init(|| {
        let path = base.join("busybox.tar");
        fs::write(&path, tar_bytes(&[])).expect("the directory of the suite is writable");
        path
    })
}

/// The same image with something that makes its digest another one.
pub(crate) fn tar_bytes(extra: &[(&str, &str)]) -> Vec<u8> {
    let busybox = busybox();
    let program = fs::read(&busybox).expect("busybox can be read");
    let mut archive = TarWriter::new();
    for (path, mode) in [
        ("bin", 0o755),
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("root", 0o700),
        ("tmp", 0o1777),
        ("usr", 0o755),
        ("usr/bin", 0o755),
        ("var", 0o755),
    ] {
        archive.directory(path, mode);
    }
    archive.file("bin/busybox", 0o755, &program);
    for applet in applets(&busybox) {
        archive.link(EntryType::Symlink, &format!("bin/{applet}"), "busybox");
    }
    archive.file("etc/passwd", 0o644, PASSWD.as_bytes());
    archive.file("etc/group", 0o644, GROUP.as_bytes());
    archive.file("etc/plain", 0o644, b"not a program\n");
    for (path, text) in extra {
        archive.file(path, 0o644, text.as_bytes());
    }
    archive.finish()
}

fn busybox() -> PathBuf {
    ["/bin/busybox", "/usr/bin/busybox"]
        .iter()
        .map(PathBuf::from)
        .find(|path| path.exists())
        .expect("busybox is there: apt-get install busybox-static")
}

fn applets(busybox: &Path) -> Vec<String> {
    let output = Command::new(busybox).arg("--list").output().expect("busybox runs");
    let text = String::from_utf8(output.stdout).expect("applet names are ASCII");
    text.lines().filter(|name| *name != "busybox" && !name.contains('/')).map(str::to_owned).collect()
}

/// A tar written entry by entry, hostile ones too: names go in unchecked.
pub(crate) struct TarWriter(Builder<Vec<u8>>);

impl TarWriter {
    /// An empty archive.
    pub(crate) fn new() -> TarWriter {
        TarWriter(Builder::new(Vec::new()))
    }

    fn entry(&mut self, kind: EntryType, name: &str, mode: u32, target: &str, data: &[u8], size: u64) {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_700_000_000);
        header.set_size(size);
        raw_field(&mut header.as_old_mut().name, name);
        raw_field(&mut header.as_old_mut().linkname, target);
        if kind == EntryType::Char || kind == EntryType::Block {
            header.set_device_major(1).expect("a GNU header has devices");
            header.set_device_minor(3).expect("a GNU header has devices");
        }
        header.set_cksum();
        self.0.append(&header, data).expect("writing to memory");
    }

    /// A directory.
    pub(crate) fn directory(&mut self, name: &str, mode: u32) {
        self.entry(EntryType::Directory, name, mode, "", &[], 0);
    }

    /// A regular file.
    pub(crate) fn file(&mut self, name: &str, mode: u32, data: &[u8]) {
        self.entry(EntryType::Regular, name, mode, "", data, u64::try_from(data.len()).unwrap_or(0));
    }

    /// A symbolic or hard link.
    pub(crate) fn link(&mut self, kind: EntryType, name: &str, target: &str) {
        self.entry(kind, name, 0o777, target, &[], 0);
    }

    /// A device node 1:3.
    pub(crate) fn device(&mut self, name: &str) {
        self.entry(EntryType::Char, name, 0o666, "", &[], 0);
    }

    /// A file whose header promises more bytes than follow.
    pub(crate) fn lying_file(&mut self, name: &str, promised: u64, data: &[u8]) {
        self.entry(EntryType::Regular, name, 0o644, "", data, promised);
    }

    /// The archive's bytes.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0.into_inner().expect("writing to memory")
    }

    /// The archive's bytes with no end mark, cut where the last entry ends.
    pub(crate) fn cut(mut self) -> Vec<u8> {
        self.0.get_mut().flush().expect("writing to memory");
        self.0.get_ref().clone()
    }
}

fn raw_field(field: &mut [u8], text: &str) {
    field.fill(0);
    field[..text.len()].copy_from_slice(text.as_bytes());
}
