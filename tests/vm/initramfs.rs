//! What the machine boots into: an archive of our static programs, and a disk.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::kernel::{self, Kernel};
use crate::harness::command;

/// Its first program.
const INIT: &str = include_str!("init");

/// Room for images and write layers, of which little is used.
const DISK: u64 = 1 << 30;

/// Makes the archive that all boots have in common; needs busybox.
///
/// # Errors
/// What could not be done, in one line.
pub(super) fn build(place: &Path, kernel: &Kernel) -> Result<PathBuf, String> {
    let tree = place.join("initramfs");
    let bin = tree.join("bin");
    fs::create_dir_all(&bin).map_err(said(&bin))?;
    let own = std::env::current_exe().map_err(|error| format!("/proc/self/exe: {error}"))?;
    let mysup = command::program();
    let shim = mysup.with_file_name("mysup-shim");
    let busybox = ["/bin/busybox", "/usr/bin/busybox"].map(Path::new).into_iter().find(|path| path.exists());
    let busybox = busybox.ok_or("busybox is not there: apt-get install busybox-static")?;
    for (from, to) in [
        (own.as_path(), "bin/suite"),
        (mysup, "bin/mysup"),
        (&shim, "bin/mysup-shim"),
        (busybox, "bin/busybox"),
        (&kernel.overlay, "overlay.ko"),
    ] {
        fs::copy(from, tree.join(to)).map_err(said(from))?;
    }
    let init = tree.join("init");
    fs::write(&init, INIT).map_err(said(&init))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755)).map_err(said(&init))?;
    pack(&tree, &place.join("initramfs.cpio"))
}

/// The archive of one boot: the common one and a file behind it, which the kernel unpacks one after the other.
///
/// # Errors
/// What could not be done, in one line.
pub(super) fn with_file(place: &Path, base: &Path, name: &str, text: &str) -> Result<PathBuf, String> {
    let tree = place.join("boot");
    fs::create_dir_all(&tree).map_err(said(&tree))?;
    fs::write(tree.join(name), text).map_err(said(&tree))?;
    let more = pack(&tree, &place.join("boot.cpio"))?;
    let whole = place.join("initrd");
    let mut out = File::create(&whole).map_err(said(&whole))?;
    for part in [base, &more] {
        File::open(part).and_then(|mut part| io::copy(&mut part, &mut out)).map_err(said(part))?;
    }
    Ok(whole)
}

fn pack(tree: &Path, archive: &Path) -> Result<PathBuf, String> {
    let line = format!("find . | busybox cpio -o -H newc > '{}'", archive.display());
    kernel::run(tree, "bash", &["-o", "pipefail", "-c", &line])?;
    Ok(archive.to_owned())
}

/// Makes the disk: ext4, empty.
///
/// # Errors
/// What could not be done, in one line.
pub(super) fn disk(place: &Path) -> Result<PathBuf, String> {
    let disk = place.join("disk");
    File::create(&disk).and_then(|file| file.set_len(DISK)).map_err(said(&disk))?;
    kernel::run(place, "mkfs.ext4", &["-q", "-F", &disk.to_string_lossy()])?;
    Ok(disk)
}

fn said(path: &Path) -> impl Fn(io::Error) -> String {
    let path = path.display().to_string();
    move |error| format!("{path}: {error}")
}
