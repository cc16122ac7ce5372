//! `images --filter KEY=VALUE` and `images NAME`.

use mysup_ipc::{
    api::{ImageInfo, Request},
    images::{ImageDetails, ImageRequest, ImageResponse},
};

use super::ask;
use crate::cli::{client::Client, error::CliError, values::Invalid};

const KEYS: &str = "dangling, reference, label, before, since";

/// What is to be listed.
#[derive(Debug, Default)]
pub(super) struct Filters {
    dangling: Option<bool>,
    references: Vec<String>,
    labels: Vec<(String, Option<String>)>,
    before: Vec<String>,
    since: Vec<String>,
}

/// Times between which an image must have been made.
#[derive(Debug)]
pub(super) struct Bounds {
    before: u64,
    since: Option<u64>,
}

impl Filters {
    /// From the flags and the name.
    ///
    /// # Errors
    /// If a key is unknown or a value impossible.
    pub(super) fn parse(texts: &[String], name: Option<&str>) -> Result<Self, CliError> {
        let mut filters =
            Self { references: name.map(str::to_owned).into_iter().collect(), ..Self::default() };
        for text in texts {
            filters.add(text).map_err(|reason| CliError::Flag { flag: "--filter", reason })?;
        }
        Ok(filters)
    }

    fn add(&mut self, text: &str) -> Result<(), Invalid> {
        let unknown =
            || Invalid::new(format!("invalid filter \"{text}\": KEY=VALUE is allowed, KEY one of {KEYS}"));
        let (key, value) = text.split_once('=').ok_or_else(unknown)?;
        match key {
            "dangling" => match value {
                "true" | "1" => self.dangling = Some(true),
                "false" | "0" => self.dangling = Some(false),
                _ => {
                    return Err(Invalid::new(format!("invalid filter \"{text}\": true or false is allowed")));
                }
            },
            "reference" => self.references.push(value.to_owned()),
            "label" => self.labels.push(match value.split_once('=') {
                Some((key, value)) => (key.to_owned(), Some(value.to_owned())),
                None => (value.to_owned(), None),
            }),
            "before" => self.before.push(value.to_owned()),
            "since" => self.since.push(value.to_owned()),
            _ => return Err(unknown()),
        }
        Ok(())
    }

    /// Looks up the images of `before` and `since`.
    ///
    /// # Errors
    /// If there is none of that name.
    pub(super) fn bounds(&self, client: &mut Client) -> Result<Bounds, CliError> {
        let mut made = |image: &String| {
            let request = Request::Image(ImageRequest::Inspect { image: image.clone() });
            let ImageResponse::Images(found) = ask(client, &request)? else {
                return Err(CliError::WrongAnswer);
            };
            found.first().map(|image| image.info.created_at).ok_or(CliError::WrongAnswer)
        };
        let before = self.before.iter().map(&mut made).collect::<Result<Vec<_>, _>>()?;
        let since = self.since.iter().map(&mut made).collect::<Result<Vec<_>, _>>()?;
        Ok(Bounds { before: before.into_iter().min().unwrap_or(u64::MAX), since: since.into_iter().max() })
    }

    /// Whether this one is to be listed.
    pub(super) fn take(&self, image: &ImageDetails) -> bool {
        let has = |(key, value): &(String, Option<String>)| {
            image.labels.iter().any(|(own, is)| own == key && value.as_ref().is_none_or(|value| value == is))
        };
        self.dangling.is_none_or(|dangling| dangling == image.info.names.is_empty())
            && self.labels.iter().all(has)
            && (self.references.is_empty() || image.info.names.iter().any(|name| self.fits(name)))
    }

    /// Without the names that were not asked for.
    pub(super) fn with_fitting_names(&self, mut image: ImageDetails) -> ImageDetails {
        if !self.references.is_empty() {
            image.info.names.retain(|name| self.fits(name));
        }
        image
    }

    fn fits(&self, name: &str) -> bool {
        let repository = name.rsplit_once(':').map_or(name, |(repository, _)| repository);
        self.references.iter().any(|pattern| {
            let has_tag = pattern.rsplit_once(':').is_some_and(|(_, tag)| !tag.contains('/'));
            matches(pattern.as_bytes(), if has_tag { name } else { repository }.as_bytes())
        })
    }
}

impl Bounds {
    /// Whether it was made in between.
    pub(super) fn take(&self, image: &ImageInfo) -> bool {
        image.created_at < self.before && self.since.is_none_or(|since| image.created_at > since)
    }
}

/// `*` is any text and `?` any letter, neither of them a slash.
fn matches(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.split_first(), text.split_first()) {
        (None, None) => true,
        (Some((b'*', rest)), _) => {
            let ends = text.iter().position(|letter| *letter == b'/').unwrap_or(text.len());
            (0..=ends).any(|length| matches(rest, text.get(length..).unwrap_or_default()))
        }
        (Some((b'?', pattern)), Some((letter, text))) => *letter != b'/' && matches(pattern, text),
        (Some((own, pattern)), Some((letter, text))) => own == letter && matches(pattern, text),
        (Some(_), None) | (None, Some(_)) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_dockers() {
        for (pattern, name, fits) in [
            ("bb", "bb:1", true),
            ("bb", "me/bb:1", false),
            ("b*", "bb:1", true),
            ("*", "me/bb:1", false),
            ("*/b?", "me/bb:1", true),
            ("bb:2", "bb:1", false),
            ("bb:*", "bb:1", true),
            ("host:5/bb", "host:5/bb:1", true),
        ] {
            let filters = Filters::parse(&[format!("reference={pattern}")], None).expect("a filter");
            assert_eq!(filters.fits(name), fits, "{pattern} {name}");
        }
        assert!(Filters::parse(&["colour=red".to_owned()], None).is_err());
    }
}
