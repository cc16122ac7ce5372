//! What is wrong beside the containers: the trash, the supervisor, and what others have put into our directories.

use std::path::Path;

use mysup_ipc::layout;

use super::{
    finding::{Cure, Finding, Kind},
    mounts::Mount,
    snapshot::Snapshot,
    territory::{Overlay, Territory},
};
use crate::config::Config;

/// What is wrong.
pub(super) fn findings(config: &Config, territory: &Territory, seen: &Snapshot) -> Vec<Finding> {
    let mut found: Vec<Finding> = supervisor(config, seen).into_iter().collect();
    found.extend(seen.strangers.iter().map(|path| stranger(path)));
    let in_the_way: Vec<&Mount> = seen.host.iter().filter(|mount| is_in_the_way(mount, territory)).collect();
    found.extend(in_the_way.iter().map(|mount| mount_in_the_way(mount)));
    for (_, path) in &seen.trash {
        let blocking = in_the_way.iter().find(|mount| Path::new(&mount.point).starts_with(path));
        if blocking.is_some() || !is_being_swept(path, territory, seen) {
            found.push(trash(path, blocking.map(|mount| mount.point.as_str())));
        }
    }
    found
}

fn plain(kind: Kind, what: String, place: String, cure: Cure, remedy: String) -> Finding {
    Finding { kind, container: None, what, places: vec![place], holders: Vec::new(), cure, remedy }
}

fn supervisor(config: &Config, seen: &Snapshot) -> Option<Finding> {
    let socket = config.socket();
    let place = socket.display().to_string();
    match seen.supervisor() {
        Some(supervisor) if supervisor.is_stopped => {
            let what = "the supervisor was stopped by a signal: it answers nobody".to_owned();
            let remedy = format!("kill -CONT {}", supervisor.pid);
            let holders = vec![supervisor.holder()];
            Some(Finding { holders, ..plain(Kind::Stopped, what, place, Cure::Person, remedy) })
        }
        Some(_) => None,
        None if socket.symlink_metadata().is_ok() => {
            let what =
                "the supervisor died without removing its socket; containers go on without it".to_owned();
            let remedy = "mysup start, or mysup doctor --fix".to_owned();
            Some(plain(Kind::Socket, what, place, Cure::Recovery, remedy))
        }
        None => None,
    }
}

fn stranger(path: &Path) -> Finding {
    let what = "this is no container; mysup did not make it and does not touch it".to_owned();
    let remedy = "look what it is, and move it away".to_owned();
    plain(Kind::UnknownEntry, what, path.display().to_string(), Cure::Person, remedy)
}

/// Inside one of the directories in which nothing of the host's is mounted while all is well.
fn is_in_the_way(mount: &Mount, territory: &Territory) -> bool {
    let point = Path::new(&mount.point);
    let is_inside = |rest: &Path, areas: &[&str]| {
        let mut parts = rest.iter();
        let area = parts.next().and_then(|part| part.to_str());
        area.is_some_and(|area| areas.contains(&area)) && parts.next().is_some()
    };
    let root = [layout::CONTAINERS, layout::TRASH, "images", "layers"];
    let in_root = territory.below_root(point).is_some_and(|rest| is_inside(rest, &root));
    let in_run_root = territory.below_run_root(point).is_some_and(|rest| is_inside(rest, &root[..2]));
    let is_ours = mount.kind == "overlay" && matches!(territory.overlay(&mount.options), Overlay::Ours(_));
    (in_root || in_run_root) && !is_ours
}

fn mount_in_the_way(mount: &Mount) -> Finding {
    let what = format!(
        "somebody has mounted {} ({}) here; mysup neither unmounts it nor removes anything below it",
        mount.root, mount.kind
    );
    let remedy = format!("umount {}", mount.point);
    plain(Kind::MountInTheWay, what, mount.point.clone(), Cure::Person, remedy)
}

fn is_being_swept(path: &Path, territory: &Territory, seen: &Snapshot) -> bool {
    let trash = Some(Path::new(layout::TRASH));
    let is_run = territory.below_run_root(path).is_some();
    let sweeps = |directory: &Path| match is_run {
        true => territory.below_run_root(directory) == trash,
        false => territory.below_root(directory) == trash,
    };
    let mut working = seen.processes.iter().filter(|process| !process.is_stopped);
    working.any(|process| process.sweeps.as_deref().is_some_and(sweeps))
}

fn trash(path: &Path, blocking: Option<&str>) -> Finding {
    let place = path.display().to_string();
    match blocking {
        Some(point) => {
            let what = format!("it waits to be removed, and something is mounted in it at {point}");
            let remedy = format!("umount {point}, then mysup doctor --fix");
            plain(Kind::Trash, what, place, Cure::Person, remedy)
        }
        None => {
            let what = "it waits to be removed, and nobody removes it".to_owned();
            let remedy = "mysup doctor --fix; the next start of the supervisor sweeps it".to_owned();
            plain(Kind::Trash, what, place, Cure::Recovery, remedy)
        }
    }
}
