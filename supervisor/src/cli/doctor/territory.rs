//! What is this instance's, by path: the one place that decides about ownership. A name, a program or a number proves
//! nothing; a path below one of our roots does, as the kernel shows it for an open file, a lock or an overlay.

use std::path::{Path, PathBuf};

use mysup_ipc::{id::ContainerId, layout};

use super::mounts;
use crate::config::Config;

/// What the kernel appends to the path of an open file whose name is gone.
const DELETED: &str = " (deleted)";

/// Where the lock of a shim is now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum LockPlace {
    /// In its container's directory.
    Home,
    /// In the trash: the container's directory was thrown away.
    Trash,
    /// Nowhere below our roots: the container's directory was removed, or moved away.
    Removed,
}

/// Both roots of an instance, as they were given and as the kernel spells them.
#[derive(Debug, Clone)]
pub(super) struct Territory {
    roots: Vec<PathBuf>,
    run_roots: Vec<PathBuf>,
}

impl Territory {
    /// Of an instance.
    pub(super) fn of(config: &Config) -> Self {
        Self { roots: spellings(&config.root), run_roots: spellings(&config.run_root) }
    }

    /// Whether a path is below one of the roots.
    pub(super) fn holds(&self, path: &Path) -> bool {
        self.below_root(path).or_else(|| self.below_run_root(path)).is_some()
    }

    /// The rest of a path below the state root.
    pub(super) fn below_root<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.roots.iter().find_map(|root| path.strip_prefix(root).ok())
    }

    /// The rest of a path below the run root.
    pub(super) fn below_run_root<'a>(&self, path: &'a Path) -> Option<&'a Path> {
        self.run_roots.iter().find_map(|root| path.strip_prefix(root).ok())
    }

    /// The container whose lock an open file is, by the link of its descriptor.
    pub(super) fn lock(&self, link: &str) -> Option<(ContainerId, LockPlace)> {
        let (path, removed) = link.strip_suffix(DELETED).map_or((link, false), |path| (path, true));
        let [area, name, layout::LOCK] = parts(self.below_root(Path::new(path))?)?[..] else { return None };
        let (id, place) = match area {
            layout::CONTAINERS => (name.parse().ok()?, LockPlace::Home),
            layout::TRASH => (id_in(name)?, LockPlace::Trash),
            _ => return None,
        };
        Some((id, if removed { LockPlace::Removed } else { place }))
    }

    /// Whose write layer an overlay has, by the options of its superblock.
    pub(super) fn overlay(&self, options: &str) -> Overlay {
        let Some(upper) = options.split(',').find_map(|option| option.strip_prefix("upperdir=")) else {
            return Overlay::Other;
        };
        let upper = mounts::unescape(upper);
        // Some kernels show it as it was given, with each backslash doubled.
        let given = upper.replace("\\\\", "\\");
        let path = Path::new(if self.holds(Path::new(&upper)) { &upper } else { &given });
        if let Some(rest) = self.below_root(path) {
            let parts = parts(rest).unwrap_or_default();
            return match parts[..] {
                [layout::CONTAINERS, id, _] => id.parse().map_or(Overlay::Other, Overlay::Ours),
                _ => Overlay::Other,
            };
        }
        let id = path.parent().and_then(Path::file_name).and_then(|name| name.to_str()?.parse().ok());
        id.map_or(Overlay::Other, Overlay::OfAnotherInstance)
    }
}

/// Whose an overlay is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Overlay {
    /// Of a container of this instance.
    Ours(ContainerId),
    /// Of a container with this id below another root: a copied state root has the ids of the original.
    OfAnotherInstance(ContainerId),
    /// Not of a container.
    Other,
}

/// The id of the container that something in a trash was of.
pub(super) fn id_in(name: &str) -> Option<ContainerId> {
    // A layer's name is a digest, which has the same form, and so has that of an anonymous volume.
    if ["layer-", "volumes-"].iter().any(|other| name.starts_with(other)) {
        return None;
    }
    name.split(|letter: char| !letter.is_ascii_hexdigit()).find_map(|part| part.parse().ok())
}

/// The components of a relative path; `None` if one is no text.
fn parts(path: &Path) -> Option<Vec<&str>> {
    path.iter().map(|part| part.to_str()).collect()
}

fn spellings(root: &Path) -> Vec<PathBuf> {
    let mut all = vec![root.to_owned()];
    // A root that is not there has nothing below it.
    all.extend(root.canonicalize().ok().filter(|path| path != root));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    fn territory() -> Territory {
        Territory::of(&Config {
            root: "/no/where/s".into(),
            run_root: "/no/where/r".into(),
            ..Config::default()
        })
    }

    fn id() -> ContainerId {
        "ab".repeat(32).parse().expect("an id")
    }

    #[test]
    fn only_a_lock_file_below_the_root_is_a_lock() {
        let id = id();
        let cases = [
            (format!("/no/where/s/containers/{id}/lock"), Some(LockPlace::Home)),
            (format!("/no/where/s/containers/{id}/lock (deleted)"), Some(LockPlace::Removed)),
            (format!("/no/where/s/trash/containers-{id}-17/lock"), Some(LockPlace::Trash)),
            (format!("/no/where/s/trash/containers-{id}-17/lock (deleted)"), Some(LockPlace::Removed)),
            (format!("/no/where/s2/containers/{id}/lock"), None),
            (format!("/no/where/s/containers/{id}/log"), None),
            (format!("/no/where/s/containers/{id}/upper/lock"), None),
            (format!("/no/where/r/containers/{id}/lock"), None),
            ("/no/where/s/lock".to_owned(), None),
            ("socket:[17]".to_owned(), None),
        ];
        for (link, wanted) in cases {
            assert_eq!(territory().lock(&link), wanted.map(|place| (id.clone(), place)), "{link}");
        }
    }

    #[test]
    fn only_an_upper_directory_below_the_root_makes_an_overlay_ours() {
        let id = id();
        let cases = [
            (
                format!("rw,lowerdir=/l,upperdir=/no/where/s/containers/{id}/upper,workdir=/w"),
                Overlay::Ours(id.clone()),
            ),
            (
                format!("rw,upperdir=/no/where/s\\134\\134\\054/containers/{id}/upper"),
                Overlay::OfAnotherInstance(id.clone()),
            ),
            (format!("rw,upperdir=/other/containers/{id}/upper"), Overlay::OfAnotherInstance(id.clone())),
            (format!("rw,lowerdir=/no/where/s/containers/{id}/init"), Overlay::Other),
            ("rw,upperdir=/var/lib/docker/overlay2/x/diff".to_owned(), Overlay::Other),
            ("rw".to_owned(), Overlay::Other),
        ];
        for (options, wanted) in cases {
            assert_eq!(territory().overlay(&options), wanted, "{options}");
        }
    }

    #[test]
    fn names_in_the_trash_tell_their_container_and_layers_tell_none() {
        let id = id();
        for name in
            [format!("{id}"), format!("{id}.upper"), format!("containers-{id}-1764"), format!("{id}-work-3")]
        {
            assert_eq!(id_in(&name), Some(id.clone()), "{name}");
        }
        assert_eq!(id_in(&format!("layer-{id}-00ff")), None);
        assert_eq!(id_in("something"), None);
    }
}
