//! Volumes that are on their way out: decided by the registry, and not yet gone from the disk.

use std::{
    collections::BTreeSet,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
};

use mysup_ipc::id::VolumeName;

/// Which volumes are leaving. Clones are the same.
#[derive(Debug, Clone, Default)]
pub(super) struct Exits(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    names: Mutex<BTreeSet<VolumeName>>,
    changed: Condvar,
}

/// A volume that may be removed: nobody has it, and whoever wants one of this name waits until this is dropped.
#[derive(Debug)]
pub(crate) struct Leaving {
    name: VolumeName,
    exits: Exits,
}

impl Exits {
    /// Marks a volume; `None` if somebody else is removing it. Never waits.
    pub(super) fn begin(&self, name: &VolumeName) -> Option<Leaving> {
        let begun = self.names().insert(name.clone());
        begun.then(|| Leaving { name: name.clone(), exits: self.clone() })
    }

    /// Waits until nobody removes it. That takes a rename and a sync.
    pub(super) fn wait_for(&self, name: &VolumeName) {
        let names = self.names();
        drop(
            self.0
                .changed
                .wait_while(names, |names| names.contains(name))
                .unwrap_or_else(PoisonError::into_inner),
        );
    }

    fn names(&self) -> MutexGuard<'_, BTreeSet<VolumeName>> {
        // A set of names is whole whoever panicked.
        self.0.names.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Leaving {
    /// Which volume.
    pub(crate) fn name(&self) -> &VolumeName {
        &self.name
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        self.exits.names().remove(&self.name);
        self.exits.0.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::{thread, time::Duration};

    use super::*;

    #[test]
    fn who_wants_a_leaving_volume_waits_until_it_is_gone() {
        let exits = Exits::default();
        let name: VolumeName = "data".parse().unwrap();
        let leaving = exits.begin(&name).expect("nobody removes it");
        assert!(exits.begin(&name).is_none(), "two must not remove it at once");
        let (waiting, wanted) = (exits.clone(), name.clone());
        let waiter = thread::spawn(move || waiting.wait_for(&wanted));
        exits.wait_for(&"other".parse().unwrap());
        thread::sleep(Duration::from_millis(20));
        assert!(!waiter.is_finished());
        drop(leaving);
        waiter.join().unwrap();
        assert!(exits.begin(&name).is_some());
    }
}
