//! `ps --filter KEY=VALUE`: the same key twice means either (labels: both), different keys mean all of them.

use mysup_ipc::{container::ContainerInfo, exit::ExitStatus, plan::MountSource};

use super::{error::CliError, ps, values::Invalid};

const KEYS: &str = "id, name, label, exited, status, ancestor, before, since, volume";
const STATES: [&str; 9] =
    ["created", "running", "paused", "restarting", "removing", "exited", "dead", "leftover", "unreachable"];

/// What is to be listed.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    ids: Vec<String>,
    names: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    codes: Vec<u8>,
    states: Vec<String>,
    ancestors: Vec<String>,
    before: Vec<String>,
    since: Vec<String>,
    volumes: Vec<String>,
}

impl Filters {
    /// From the flags.
    ///
    /// # Errors
    /// If a key is unknown or a value impossible.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, CliError> {
        let mut filters = Self::default();
        for text in texts {
            filters.add(text).map_err(|reason| CliError::Flag { flag: "--filter", reason })?;
        }
        Ok(filters)
    }

    fn add(&mut self, text: &str) -> Result<(), Invalid> {
        let unknown =
            || Invalid::new(format!("invalid filter \"{text}\": KEY=VALUE is allowed, KEY one of {KEYS}"));
        let (key, value) = text.split_once('=').ok_or_else(unknown)?;
        let owned = value.to_owned();
        match key {
            "id" => self.ids.push(owned),
            "name" => self.names.push(owned),
            "label" => self.labels.push(match value.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (owned, None),
            }),
            "exited" => self.codes.push(value.parse().map_err(|_| {
                Invalid::new(format!("invalid filter \"{text}\": an exit code from 0 to 255 is allowed"))
            })?),
            "status" if STATES.contains(&value) => self.states.push(owned),
            "status" => {
                let known = STATES.join(", ");
                return Err(Invalid::new(format!("invalid filter \"{text}\": allowed are {known}")));
            }
            "ancestor" => self.ancestors.push(owned),
            "before" => self.before.push(owned),
            "since" => self.since.push(owned),
            "volume" => self.volumes.push(owned),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Whether containers that do not run are asked for, as docker sees it.
    pub(crate) fn ask_for_state(&self) -> bool {
        !self.states.is_empty() || !self.codes.is_empty() || !self.before.is_empty() || !self.since.is_empty()
    }

    /// Whether this one of all is to be listed.
    ///
    /// # Errors
    /// If `before` or `since` names no container.
    pub(crate) fn take(&self, info: &ContainerInfo, all: &[ContainerInfo]) -> Result<bool, CliError> {
        let name = info.name.as_ref().map_or("", |name| name.as_str());
        let labels = info.config.as_ref().map_or(&[][..], |config| &config.labels);
        let fits = any(&self.ids, |id| matches(info.id.as_str(), id))
            && any(&self.names, |pattern| matches(name, pattern) || matches(&format!("/{name}"), pattern))
            && self.labels.iter().all(|(key, value)| {
                labels
                    .iter()
                    .any(|(known, has)| known == key && value.as_ref().is_none_or(|value| value == has))
            })
            && any(&self.codes, |code| ended_with(info, *code))
            && any(&self.states, |state| info.state.word() == state)
            && any(&self.ancestors, |image| is_made_from(info, image))
            && any(&self.volumes, |volume| has_volume(info, volume));
        if !fits {
            return Ok(false);
        }
        for other in &self.before {
            if info.created_at >= find(all, other)?.created_at {
                return Ok(false);
            }
        }
        for other in &self.since {
            if info.created_at <= find(all, other)?.created_at {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn any<T>(wanted: &[T], fits: impl Fn(&T) -> bool) -> bool {
    wanted.is_empty() || wanted.iter().any(fits)
}

/// The part of docker's patterns that people use: a text anywhere, or at the start (`^`) or end (`$`).
fn matches(text: &str, pattern: &str) -> bool {
    let (start, pattern) = pattern.strip_prefix('^').map_or((false, pattern), |rest| (true, rest));
    let (end, pattern) = pattern.strip_suffix('$').map_or((false, pattern), |rest| (true, rest));
    match (start, end) {
        (true, true) => text == pattern,
        (true, false) => text.starts_with(pattern),
        (false, true) => text.ends_with(pattern),
        (false, false) => text.contains(pattern),
    }
}

/// An unknown status is no code, not even 255.
fn ended_with(info: &ContainerInfo, code: u8) -> bool {
    let ended = !info.state.is_running();
    ended
        && info
            .exit
            .as_ref()
            .is_some_and(|report| report.status != ExitStatus::Unknown && report.status.shell_code() == code)
}

fn is_made_from(info: &ContainerInfo, image: &str) -> bool {
    let label = info.config.as_ref().map_or("", |config| config.image.label());
    let tagged = |name: &str| if name.contains(':') { name.to_owned() } else { format!("{name}:latest") };
    let id = ps::image_id(info);
    let hex = id.strip_prefix("sha256:").unwrap_or(&id);
    tagged(label) == tagged(image)
        || image.len() >= 4 && hex.starts_with(image.strip_prefix("sha256:").unwrap_or(image))
}

/// By the name of a volume, or by the place where anything is mounted.
fn has_volume(info: &ContainerInfo, wanted: &str) -> bool {
    let mounts = info.config.as_ref().map_or(&[][..], |config| &config.mounts);
    mounts.iter().any(|mount| {
        mount.destination == wanted
            || mount.volume().is_some_and(|volume| volume.name == wanted)
            || matches!(&mount.source, MountSource::Bind { path, .. } if path == wanted)
    })
}

fn find<'a>(all: &'a [ContainerInfo], wanted: &str) -> Result<&'a ContainerInfo, CliError> {
    let exact = all.iter().find(|info| {
        info.id.as_str() == wanted || info.name.as_ref().is_some_and(|name| name.as_str() == wanted)
    });
    let prefix = || {
        let mut found = all.iter().filter(|info| info.id.as_str().starts_with(wanted));
        found.next().filter(|_| found.next().is_none())
    };
    exact.or_else(prefix).ok_or_else(|| CliError::Flag {
        flag: "--filter",
        reason: Invalid::new(format!("No such container: {wanted}")),
    })
}

#[cfg(test)]
mod tests {
    use mysup_ipc::container::ContainerState;

    use super::{super::ps::tests::sample, *};

    fn names(filters: &[&str]) -> Vec<String> {
        let mut older = sample('a', "web1", ContainerState::Exited);
        older.created_at -= 1;
        let all = [sample('b', "web2", ContainerState::Created), older];
        let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
        let filters = Filters::parse(&texts).expect("valid");
        all.iter()
            .filter(|info| filters.take(info, &all).expect("decided"))
            .map(|info| info.name.as_ref().expect("named").to_string())
            .collect()
    }

    #[test]
    fn filters_choose() {
        let cases: [(&[&str], &[&str]); 14] = [
            (&[], &["web2", "web1"]),
            (&["name=web"], &["web2", "web1"]),
            (&["name=^/web1$"], &["web1"]),
            (&["name=web1", "name=web2"], &["web2", "web1"]),
            (&["name=web1", "status=created"], &[]),
            (&["id=aaaa"], &["web1"]),
            (&["label=tier"], &["web2", "web1"]),
            (&["label=tier=web", "label=none"], &[]),
            (&["status=exited"], &["web1"]),
            (&["ancestor=busybox:latest"], &["web2", "web1"]),
            (&["ancestor=eeee"], &["web2", "web1"]),
            (&["before=web2"], &["web1"]),
            (&["since=aaa"], &["web2"]),
            (&["exited=0"], &[]),
        ];
        for (filters, wanted) in cases {
            assert_eq!(names(filters), wanted, "{filters:?}");
        }
    }

    #[test]
    fn unknown_filters_are_refused() {
        for bad in ["name", "colour=red", "status=happy", "exited=x", "exited=256"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }
}
