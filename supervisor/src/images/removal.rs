//! Whether an image may be removed, and what goes: docker's rules and words (`docker rmi`, moby image_delete.go).

use mysup_ipc::id::{ContainerId, Digest};

use super::{config::Image, error::ImageError};

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Removal {
    /// Names to take from it.
    pub(super) names: Vec<String>,
    pub(super) image: Fate,
}

/// What becomes of the image itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fate {
    /// Other names are left, or a running container needs it.
    Stays,
    /// Not shown any more; its layers stay as long as stopped containers need them, as docker's do.
    Hidden,
    /// Record and layers go.
    Goes,
}

/// Decides about the removal of `image`, which the user called `reference`. `users` are all containers.
///
/// # Errors
/// If it would take something from a container, or was not clear enough for that without force.
pub(super) fn decide(
    image: &Image,
    reference: &str,
    by_name: Option<&str>,
    force: bool,
    users: &[(Digest, ContainerId, bool)],
) -> Result<Removal, ImageError> {
    let users = || users.iter().filter(|(used, _, _)| *used == image.id);
    let running = users().find(|(_, _, running)| *running).map(|(_, id, _)| id.short().to_owned());
    let stopped = users().find(|(_, _, running)| !*running).map(|(_, id, _)| id.short().to_owned());
    let short = || image.id.short().to_owned();
    let all = image.names.clone();
    let goes = if stopped.is_some() { Fate::Hidden } else { Fate::Goes };
    if let Some(name) = by_name {
        let names = vec![name.to_owned()];
        if all.len() > 1 {
            return Ok(Removal { names, image: Fate::Stays });
        }
        return match running.or(stopped.clone()) {
            Some(container) if !force => {
                Err(ImageError::NameInUse { reference: reference.to_owned(), container, image: short() })
            }
            _ if users().any(|(_, _, running)| *running) => Ok(Removal { names, image: Fate::Stays }),
            _ => Ok(Removal { names, image: goes }),
        };
    }
    match (running, stopped) {
        (Some(container), _) => Err(ImageError::UsedByRunning { image: short(), container }),
        (None, _) if all.len() > 1 && !force => Err(ImageError::ManyNames { image: short() }),
        (None, Some(container)) if !force => Err(ImageError::UsedByStopped { image: short(), container }),
        (None, _) => Ok(Removal { names: all, image: goes }),
    }
}

/// Whether an image that is damaged may be removed. A container that has ended cannot be started from it any more.
///
/// # Errors
/// If a container runs on its layers, or one that has ended is to be given up with it and there was no force.
pub(super) fn decide_damaged(
    id: &Digest,
    force: bool,
    users: &[(Digest, ContainerId, bool)],
) -> Result<(), ImageError> {
    let image = id.short().to_owned();
    let mut users: Vec<_> = users.iter().filter(|(used, _, _)| used == id).collect();
    users.sort_by_key(|(_, _, running)| !*running);
    match users.first() {
        Some((_, container, true)) => {
            Err(ImageError::UsedByRunning { image, container: container.short().to_owned() })
        }
        Some((_, container, false)) if !force => {
            Err(ImageError::UsedByStopped { image, container: container.short().to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}
