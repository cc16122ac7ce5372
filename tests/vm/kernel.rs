//! Debian's packaged kernel, downloaded once and never installed: its image, and the one module that is needed.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use crate::harness::command::repository;

/// It depends on the newest kernel of this Debian, built for virtual machines: ext4, NVMe and serial lines are built in.
const PACKAGE: &str = "linux-image-cloud-amd64";

/// Seconds for a download.
const PATIENCE: &str = "180";

/// A kernel that can be booted.
#[derive(Debug, Clone)]
pub(super) struct Kernel {
    /// `vmlinuz`.
    pub(super) image: PathBuf,
    /// `overlay.ko`.
    pub(super) overlay: PathBuf,
    /// Package and version.
    pub(super) name: String,
}

/// The kernel, from the cache below `target` or from Debian.
///
/// # Errors
/// Why there is none, in one line; nothing is left behind.
pub(super) fn get() -> Result<Kernel, String> {
    static KERNEL: OnceLock<Result<Kernel, String>> = OnceLock::new();
    KERNEL.get_or_init(find).clone()
}

fn find() -> Result<Kernel, String> {
    let cache = repository().join("target/vm/kernel");
    if !cache.exists() {
        download(&cache)?;
    }
    let name =
        fs::read_to_string(cache.join("name")).map_err(|error| format!("{}: {error}", cache.display()))?;
    Ok(Kernel {
        image: cache.join("vmlinuz"),
        overlay: cache.join("overlay.ko"),
        name: name.trim().to_owned(),
    })
}

/// Fills `cache`, which is there wholly or not at all.
fn download(cache: &Path) -> Result<(), String> {
    let place = cache.with_extension(format!("new-{}", std::process::id()));
    fs::create_dir_all(&place).map_err(|error| format!("{}: {error}", place.display()))?;
    let filled = fill(&place)
        .and_then(|()| fs::rename(&place, cache).map_err(|error| format!("{}: {error}", cache.display())));
    if filled.is_err() {
        let _ = run(&place, "rm", &["-rf", "--", &place.to_string_lossy()]);
    }
    filled
}

fn fill(place: &Path) -> Result<(), String> {
    let package = match fetch(place) {
        Ok(package) => package,
        // The lists of packages may be old, or not there at all.
        Err(_) => {
            run(place, "timeout", &[PATIENCE, "apt-get", "update", "-qq"])?;
            fetch(place)?
        }
    };
    let archive = single(place, |name| name.ends_with(".deb"))?;
    run(place, "dpkg", &["-x", &archive.to_string_lossy(), "content"])?;
    let image = single(&place.join("content/boot"), |name| name.starts_with("vmlinuz-"))?;
    let modules = single(&place.join("content/lib/modules"), |_| true)?;
    let overlay = modules.join("kernel/fs/overlayfs/overlay.ko");
    for (from, to) in [(image, "vmlinuz"), (overlay, "overlay.ko")] {
        fs::rename(&from, place.join(to)).map_err(|error| format!("{}: {error}", from.display()))?;
    }
    fs::write(place.join("name"), package).map_err(|error| format!("{}: {error}", place.display()))?;
    run(place, "rm", &["-rf", "content", &archive.to_string_lossy()]).map(drop)
}

/// Downloads the package that [`PACKAGE`] depends on; its name.
fn fetch(place: &Path) -> Result<String, String> {
    let text = run(place, "apt-cache", &["depends", PACKAGE])?;
    let package = text.lines().find_map(|line| line.trim().strip_prefix("Depends: "));
    let package = package.ok_or_else(|| format!("apt-cache knows no kernel behind {PACKAGE}"))?.to_owned();
    run(place, "timeout", &[PATIENCE, "apt-get", "download", "-qq", &package])?;
    Ok(package)
}

fn single(directory: &Path, wanted: impl Fn(&str) -> bool) -> Result<PathBuf, String> {
    let entries = fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    let found = paths.find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(&wanted));
    found.ok_or_else(|| format!("{} has not what a kernel's package has", directory.display()))
}

/// Runs a program; its output, or one line that says what it said.
pub(super) fn run(place: &Path, program: &str, arguments: &[&str]) -> Result<String, String> {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(place).stdin(Stdio::null());
    let output = command.output().map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    let said = errors.lines().rfind(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    Err(format!("{program} {}: {}: {said}", arguments.join(" "), output.status))
}
