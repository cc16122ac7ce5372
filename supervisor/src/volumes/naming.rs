//! Which volumes a container gets: those it was asked for with, and those that its image wants.

use mysup_ipc::{
    container::ContainerConfig,
    error::{ErrorCode, WireError},
    id::{ContainerId, VolumeName},
    plan::{MountPlan, MountSource, VolumeMount},
};

use super::making::Draft;

/// An image that wants more volumes than this is up to something.
const MOST_OF_IMAGE: usize = 256;

/// Checks the names of volumes, makes up those that are missing, and adds the volumes of the image where nothing else is
/// mounted.
///
/// # Errors
/// If a name is none, the image wants too many, or there is no randomness.
pub(crate) fn complete(
    config: &mut ContainerConfig,
    of_image: &[String],
    mut random: impl FnMut() -> Result<[u8; 32], WireError>,
) -> Result<(), WireError> {
    if of_image.len() > MOST_OF_IMAGE {
        let message = format!(
            "the image wants {} volumes, {MOST_OF_IMAGE} are allowed; import it without them",
            of_image.len()
        );
        return Err(WireError::new(ErrorCode::Invalid, message));
    }
    for path in of_image {
        // The image is data: what makes no sense in it is no reason not to run.
        let Some(destination) = destination(path) else {
            tracing::warn!(path, "an image's volume at an impossible place is left out, continuing");
            continue;
        };
        if !config.mounts.iter().any(|mount| mount.destination.trim_end_matches('/') == destination) {
            let source = MountSource::Volume(VolumeMount::default());
            config.mounts.push(MountPlan { destination, read_only: false, source });
        }
    }
    for mount in &mut config.mounts {
        let MountSource::Volume(volume) = &mut mount.source else { continue };
        if volume.name.is_empty() {
            volume.name = VolumeName::from_random(random()?).to_string();
            volume.anonymous = true;
        } else {
            let name: Result<VolumeName, _> = volume.name.parse();
            name.map_err(|error| WireError::new(ErrorCode::Invalid, error.to_string()))?;
            volume.anonymous = false;
        }
        volume.ephemeral = volume.anonymous && config.remove;
        volume.directory.clear();
    }
    Ok(())
}

/// An absolute path without needless parts; nothing of the kernel's, and not the root.
fn destination(path: &str) -> Option<String> {
    let parts: Vec<&str> = path.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let sound = path.starts_with('/')
        && !path.contains('\0')
        && !parts.contains(&"..")
        && parts.first().is_some_and(|first| !matches!(*first, "proc" | "sys"));
    sound.then(|| format!("/{}", parts.join("/")))
}

/// The volumes that must be there before a container is started.
pub(crate) fn wanted(id: &ContainerId, mounts: &[MountPlan]) -> Vec<Draft> {
    let draft = |volume: &VolumeMount| {
        Some(Draft {
            name: volume.name.parse().ok()?,
            labels: Vec::new(),
            anonymous: volume.anonymous,
            made_for: volume.anonymous.then(|| id.clone()),
            ephemeral: volume.ephemeral,
        })
    };
    super::store::of_mounts(mounts).filter_map(draft).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::record::tests::config;

    fn mount(destination: &str, name: &str) -> MountPlan {
        let source = MountSource::Volume(VolumeMount { name: name.into(), ..VolumeMount::default() });
        MountPlan { destination: destination.into(), read_only: false, source }
    }

    #[test]
    fn names_are_made_up_and_the_images_volumes_are_added() {
        let mut config = config();
        config.remove = true;
        config.mounts = vec![mount("/named", "data"), mount("/free/", "")];
        let of_image = ["/named/", "/own//x/.", "/", "/proc/x", "/sys", "relative", "/a/../b", "/free"];
        complete(&mut config, &of_image.map(str::to_owned), || Ok([0xab; 32])).unwrap();
        let shown: Vec<(&str, &str, bool, bool)> = config
            .mounts
            .iter()
            .map(|mount| (mount.destination.as_str(), mount.volume().unwrap()))
            .map(|(path, volume)| (path, &volume.name[..4], volume.anonymous, volume.ephemeral))
            .collect();
        assert_eq!(
            shown,
            [
                ("/named", "data", false, false),
                ("/free/", "abab", true, true),
                ("/own/x", "abab", true, true)
            ]
        );
    }

    #[test]
    fn a_claim_of_a_client_is_not_believed() {
        let mut config = config();
        config.mounts = vec![mount("/d", "data"), mount("/e", "../../etc")];
        if let MountSource::Volume(volume) = &mut config.mounts[0].source {
            volume.anonymous = true;
            volume.directory = "/etc".into();
        }
        assert!(complete(&mut config, &[], || Ok([1; 32])).is_err(), "a path is no name");
        config.mounts.pop();
        complete(&mut config, &[], || Ok([1; 32])).unwrap();
        let volume = config.mounts[0].volume().unwrap();
        assert!(!volume.anonymous && volume.directory.is_empty());
    }
}
