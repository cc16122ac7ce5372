//! `--filter` of `volume ls` and of what prunes: the same key twice means either (labels: both), different keys mean all.

use mysup_ipc::storage::VolumeInfo;

use crate::cli::{
    error::CliError,
    values::{Invalid, time},
};

/// Labels that must be there, and labels that must not.
#[derive(Debug, Default)]
pub(crate) struct Labels {
    with: Vec<(String, Option<String>)>,
    without: Vec<(String, Option<String>)>,
}

/// What is to be pruned.
#[derive(Debug, Default)]
pub(crate) struct Prunes {
    labels: Labels,
    /// Only what was made before, nanoseconds since 1970.
    until: Option<u64>,
}

/// What is to be listed.
#[derive(Debug, Default)]
pub(crate) struct Filters {
    labels: Labels,
    dangling: Option<bool>,
    names: Vec<String>,
    drivers: Vec<String>,
}

impl Labels {
    /// Takes `label=K[=V]` and `label!=K[=V]`; false if it is another key.
    fn add(&mut self, key: &str, value: &str) -> bool {
        let label = match value.split_once('=') {
            Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
            None => (value.to_owned(), None),
        };
        match key {
            "label" => self.with.push(label),
            "label!" => self.without.push(label),
            _ => return false,
        }
        true
    }

    /// Whether these fit.
    pub(crate) fn take(&self, labels: &[(String, String)]) -> bool {
        let has = |(key, value): &(String, Option<String>)| {
            labels.iter().any(|(own, is)| own == key && value.as_ref().is_none_or(|value| value == is))
        };
        self.with.iter().all(has) && !self.without.iter().any(has)
    }
}

fn key_and_value<'a>(text: &'a str, keys: &str) -> Result<(&'a str, &'a str), CliError> {
    text.split_once('=').ok_or_else(|| unknown(text, keys))
}

fn unknown(text: &str, keys: &str) -> CliError {
    let reason = Invalid::new(format!("invalid filter \"{text}\": KEY=VALUE is allowed, KEY one of {keys}"));
    CliError::Flag { flag: "--filter", reason }
}

impl Prunes {
    /// From the flags; `now` in nanoseconds since 1970.
    ///
    /// # Errors
    /// If a key is unknown or a value impossible.
    pub(crate) fn parse(texts: &[String], now: u64) -> Result<Self, CliError> {
        const KEYS: &str = "label, label!, until";
        let mut filters = Self::default();
        for text in texts {
            let (key, value) = key_and_value(text, KEYS)?;
            if key == "until" {
                let until = time::parse(value, now);
                filters.until = Some(until.map_err(|reason| CliError::Flag { flag: "--filter", reason })?);
            } else if !filters.labels.add(key, value) {
                return Err(unknown(text, KEYS));
            }
        }
        Ok(filters)
    }

    /// Whether something with these labels, made then, may go.
    pub(crate) fn take(&self, labels: &[(String, String)], created_at: u64) -> bool {
        self.labels.take(labels) && self.until.is_none_or(|until| created_at < until)
    }
}

impl Filters {
    /// From the flags.
    ///
    /// # Errors
    /// If a key is unknown or a value impossible.
    pub(crate) fn parse(texts: &[String]) -> Result<Self, CliError> {
        const KEYS: &str = "dangling, driver, label, name";
        let mut filters = Self::default();
        for text in texts {
            let (key, value) = key_and_value(text, KEYS)?;
            match (key, value) {
                ("dangling", "true" | "1") => filters.dangling = Some(true),
                ("dangling", "false" | "0") => filters.dangling = Some(false),
                ("driver", _) => filters.drivers.push(value.to_owned()),
                ("name", _) => filters.names.push(value.to_owned()),
                ("label", _) => {
                    filters.labels.add(key, value);
                }
                _ => return Err(unknown(text, KEYS)),
            }
        }
        Ok(filters)
    }

    /// Whether this one is to be listed.
    pub(crate) fn take(&self, volume: &VolumeInfo) -> bool {
        let any =
            |wanted: &[String], fits: &dyn Fn(&String) -> bool| wanted.is_empty() || wanted.iter().any(fits);
        self.labels.take(&volume.labels)
            && self.dangling.is_none_or(|dangling| dangling == volume.users.is_empty())
            && any(&self.names, &|part| volume.name.as_str().contains(part.as_str()))
            && any(&self.drivers, &|driver| driver == "local")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn volume() -> VolumeInfo {
        VolumeInfo {
            name: "data".parse().expect("a name"),
            created_at: 5,
            labels: vec![("tier".to_owned(), "db".to_owned())],
            anonymous: false,
            mountpoint: String::new(),
            users: vec![],
            damage: None,
            size: None,
        }
    }

    #[test]
    fn volumes_are_chosen() {
        for (filters, fits) in [
            (&[][..], true),
            (&["dangling=true", "driver=local"], true),
            (&["dangling=false"], false),
            (&["name=at"], true),
            (&["name=x"], false),
            (&["label=tier", "label=tier=db"], true),
            (&["label=tier=web"], false),
            (&["driver=nfs"], false),
        ] {
            let texts: Vec<String> = filters.iter().map(|&text| text.to_owned()).collect();
            assert_eq!(Filters::parse(&texts).expect("valid").take(&volume()), fits, "{filters:?}");
        }
        for bad in ["dangling=maybe", "colour=red", "name"] {
            assert!(Filters::parse(&[bad.to_owned()]).is_err(), "{bad}");
        }
    }

    #[test]
    fn what_is_kept_by_label_is_not_pruned() {
        let fits = |text: &str| {
            let filters = Prunes::parse(&[text.to_owned()], 1_000_000_000_000).expect("valid");
            filters.take(&volume().labels, volume().created_at)
        };
        assert!(fits("label=tier") && fits("label!=keep") && fits("until=10s"));
        assert!(!fits("label!=tier") && !fits("label!=tier=db") && !fits("until=1000s"));
        assert!(Prunes::parse(&["dangling=true".to_owned()], 0).is_err());
    }
}
