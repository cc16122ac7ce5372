//! `--volumes-from`: the volumes and directories of another container, at the same places.

use mysup_ipc::{container::ContainerConfig, plan::MountSource};

use super::{client::Client, error::CliError, values::Invalid};

/// Adds what these containers have mounted, as far as nothing else is to be mounted there. Memory is not shared.
///
/// # Errors
/// If a container is not there, or its record cannot be read.
pub(crate) fn add(
    client: &mut Client,
    from: &[String],
    config: &mut ContainerConfig,
) -> Result<(), CliError> {
    for text in from {
        let (container, read_only) = match text.rsplit_once(':') {
            Some((container, "ro")) => (container, Some(true)),
            Some((container, "rw")) => (container, None),
            Some((_, mode)) => {
                let reason =
                    Invalid::new(format!("invalid mode \"{mode}\" in \"{text}\": ro and rw are allowed"));
                return Err(CliError::Flag { flag: "--volumes-from", reason });
            }
            None => (text.as_str(), None),
        };
        let Some(theirs) = client.inspect(container)?.config else {
            let reason = Invalid::new(format!("the record of container {container} is damaged"));
            return Err(CliError::Flag { flag: "--volumes-from", reason });
        };
        for mut mount in theirs.mounts {
            let is_taken = config.mounts.iter().any(|own| own.destination == mount.destination);
            if is_taken || matches!(mount.source, MountSource::Tmpfs { .. }) {
                continue;
            }
            mount.read_only |= read_only.unwrap_or(false);
            config.mounts.push(mount);
        }
    }
    Ok(())
}
