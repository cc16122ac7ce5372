//! Who has which volume, worked out from the records of containers whenever it is asked, and whether volumes may go. Both
//! are one step of the registry's task, so that no container can come in between.

use mysup_ipc::{
    error::{ErrorCode, WireError},
    id::{ContainerId, VolumeName},
    storage::VolumeUser,
};

use super::{Registry, container::Container};
use crate::volumes::{Leaving, of_mounts};

/// What becomes of a container's anonymous volumes when it is removed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Anonymous {
    /// They stay, as docker does.
    #[default]
    Stay,
    /// They go, as far as nobody else has them; of a container whose record is damaged these.
    Go(Vec<VolumeName>),
}

/// Who has what.
#[derive(Debug, Default)]
pub(crate) struct VolumeUsers {
    /// Volume and container.
    pub(crate) users: Vec<(String, VolumeUser)>,
}

/// Why a volume may not go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Staying {
    /// Containers have it.
    Used(Vec<VolumeUser>),
    /// A container may have it: its record cannot be read.
    Unknown(ContainerId),
    /// Somebody else is removing it.
    Leaving,
}

impl VolumeUsers {
    /// Who has this one.
    pub(crate) fn of(&self, volume: &VolumeName) -> Vec<VolumeUser> {
        let has = |(name, _): &&(String, VolumeUser)| name == volume.as_str();
        self.users.iter().filter(has).map(|(_, user)| user.clone()).collect()
    }
}

impl Staying {
    /// For the user.
    pub(crate) fn to_wire(&self, volume: &VolumeName) -> WireError {
        let message = match self {
            Staying::Used(users) => {
                let users: Vec<String> =
                    users.iter().map(|user| format!("{} ({})", user.name, user.id.short())).collect();
                format!("remove {volume}: volume is in use - by container {}", users.join(", "))
            }
            Staying::Unknown(id) => format!(
                "remove {volume}: the record of container {id} cannot be read, and it may have the volume: no volume is \
                 removed as long as that container is there (mysup rm -f {})",
                id.short()
            ),
            Staying::Leaving => format!("remove {volume}: it is being removed"),
        };
        WireError::new(ErrorCode::Conflict, message)
    }
}

impl Registry {
    pub(super) fn volume_users(&self) -> VolumeUsers {
        let mut found = VolumeUsers::default();
        for container in self.containers.values() {
            let Ok(record) = &container.record else { continue };
            for volume in of_mounts(&record.config.mounts) {
                let user = VolumeUser { id: container.id.clone(), name: record.name.to_string() };
                found.users.push((volume.name.clone(), user));
            }
        }
        found
    }

    /// The volumes of one container. Its shim may have died while it filled one.
    pub(super) fn volumes_of(&self, id: &ContainerId) -> Vec<VolumeName> {
        let record = self.containers.get(id).and_then(|container| container.record.as_ref().ok());
        let mounts = record.map_or(&[][..], |record| &record.config.mounts);
        of_mounts(mounts).filter_map(|volume| volume.name.parse().ok()).collect()
    }

    /// Marks volumes as leaving, each of which no container has, or says why not.
    pub(super) fn leave_volumes(&self, names: &[VolumeName]) -> Vec<Result<Leaving, Staying>> {
        let users = self.volume_users();
        names.iter().map(|name| self.leave(name, &users, None)).collect()
    }

    /// As far as anybody but `leaver` is concerned.
    fn leave(
        &self,
        name: &VolumeName,
        users: &VolumeUsers,
        leaver: Option<&ContainerId>,
    ) -> Result<Leaving, Staying> {
        let is_other = |id: &ContainerId| leaver != Some(id);
        let mut damaged = self.containers.values().filter(|one| one.record.is_err());
        if let Some(unknown) = damaged.find(|one| is_other(&one.id)) {
            return Err(Staying::Unknown(unknown.id.clone()));
        }
        let others: Vec<_> = users.of(name).into_iter().filter(|user| is_other(&user.id)).collect();
        if !others.is_empty() {
            return Err(Staying::Used(others));
        }
        self.means.volumes.leave(name).ok_or(Staying::Leaving)
    }

    /// The volumes that go with a container that is about to be buried. One that others have stays with them.
    ///
    /// # Errors
    /// If it cannot be known whether others have them.
    pub(super) fn leaving_with(
        &self,
        container: &Container,
        anonymous: &Anonymous,
    ) -> Result<Vec<Leaving>, WireError> {
        let ephemeral = container.record.as_ref().is_ok_and(|record| record.config.remove);
        let also: &[VolumeName] = match anonymous {
            Anonymous::Go(also) => also,
            Anonymous::Stay if ephemeral || container.volumes_go => &[],
            Anonymous::Stay => return Ok(Vec::new()),
        };
        let mounts = container.record.as_ref().map_or(&[][..], |record| &record.config.mounts);
        let own = of_mounts(mounts).filter(|volume| volume.anonymous);
        let own = own.filter_map(|volume| volume.name.parse().ok());
        let names: Vec<VolumeName> = own.chain(also.iter().cloned()).collect();
        let users = if names.is_empty() { VolumeUsers::default() } else { self.volume_users() };
        let mut leaving = Vec::new();
        for name in names {
            match self.leave(&name, &users, Some(&container.id)) {
                Ok(volume) => leaving.push(volume),
                Err(Staying::Used(_)) if ephemeral => self.means.volumes.owe(),
                Err(Staying::Used(_) | Staying::Leaving) => {}
                Err(staying @ Staying::Unknown(_)) => return Err(staying.to_wire(&name)),
            }
        }
        Ok(leaving)
    }
}
