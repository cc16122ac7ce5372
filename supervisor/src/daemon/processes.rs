//! The processes of a container: those of its init's cgroup and the cgroups below.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The most processes that are listed: a container cannot make the answer longer than a frame.
const BOUND: usize = 100_000;

/// Pids on the host, the init first. Blocks.
pub(super) fn of(init: u32) -> io::Result<Vec<u32>> {
    let mut found = vec![init];
    if let Some(directory) = cgroup_directory(init)? {
        collect(&directory, &mut found)?;
    }
    let rest = found.split_off(1);
    let mut rest: Vec<u32> = rest.into_iter().filter(|pid| *pid != init).collect();
    rest.sort_unstable();
    rest.dedup();
    found.extend(rest);
    Ok(found)
}

/// The directory of the cgroup a process is in: of the unified tree where it is in one of its own there, else of the
/// pids hierarchy.
fn cgroup_directory(pid: u32) -> io::Result<Option<PathBuf>> {
    let membership = fs::read_to_string(format!("/proc/{pid}/cgroup"))?;
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let path_of = |wanted: &str| {
        membership.lines().find_map(|line| {
            let mut parts = line.splitn(3, ':');
            let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
            let fits = controllers.split(',').any(|controller| controller == wanted);
            (fits && path != "/").then(|| path.trim_start_matches('/').to_owned())
        })
    };
    let mount_of = |kind: &str, option: &str| {
        mounts.lines().find_map(|line| {
            let mut parts = line.split(' ').skip(1);
            let (target, found, options) = (parts.next()?, parts.next()?, parts.next()?);
            let fits = found == kind && (option.is_empty() || options.split(',').any(|one| one == option));
            fits.then(|| PathBuf::from(target))
        })
    };
    let unified = path_of("").zip(mount_of("cgroup2", ""));
    let place = unified.or_else(|| path_of("pids").zip(mount_of("cgroup", "pids")));
    Ok(place.map(|(path, mount)| mount.join(path)))
}

fn collect(directory: &Path, found: &mut Vec<u32>) -> io::Result<()> {
    let listed = match fs::read_to_string(directory.join("cgroup.procs")) {
        Ok(listed) => listed,
        // Removed since, or a threaded cgroup, whose processes are listed above it.
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::Unsupported) => {
            return Ok(());
        }
        Err(error) => return Err(error),
    };
    found.extend(listed.lines().filter_map(|line| line.parse::<u32>().ok()));
    if found.len() > BOUND {
        return Ok(());
    }
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            collect(&entry.path(), found)?;
        }
    }
    Ok(())
}
