//! What mysup told its user, and when: all of it must be true after a power cut, and nothing else may be made up.

use std::collections::BTreeMap;

/// What a user was told of one container or image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Fact {
    /// A container with this id is there.
    Container(String, Life),
    /// No container has this name.
    NoContainer,
    /// The name, or the id itself, is this image.
    Image(String),
    /// No image has this name or id.
    NoImage,
    /// A volume of this name is there.
    Volume(String),
    /// No volume has this name.
    NoVolume(String),
}

/// How far a container came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Life {
    /// It was made and never started.
    Created,
    /// It was started.
    Started,
    /// It was said to have ended with this code.
    Ended(i32),
}

/// Everything that was told, with how much had come to the disk by then.
#[derive(Debug, Clone, Default)]
pub(super) struct Told {
    /// Position in the disk's log, about whom, and what; nothing when a command was begun that may change it.
    words: Vec<(usize, String, Option<Fact>)>,
    /// The codes with which the programs of a container end, by its names.
    codes: BTreeMap<String, Vec<i32>>,
    /// The ids that an image of this name may have.
    images: BTreeMap<String, Vec<String>>,
}

impl Told {
    /// The user was told, or a command was begun.
    pub(super) fn note(&mut self, at: usize, whom: &str, fact: Option<Fact>) {
        if let Some(Fact::Image(id)) = &fact {
            self.images.entry(whom.to_owned()).or_default().push(id.clone());
        }
        self.words.push((at, whom.to_owned(), fact));
    }

    /// A program of this container ends with this code, if it ends by itself.
    pub(super) fn ends_with(&mut self, name: &str, code: i32) {
        self.codes.entry(name.to_owned()).or_default().push(code);
    }

    /// What must be true when this much of the log came to the disk.
    pub(super) fn by(&self, at: usize) -> BTreeMap<&str, &Fact> {
        let mut facts = BTreeMap::new();
        for (when, whom, fact) in &self.words {
            match fact {
                Some(fact) if *when <= at => facts.insert(whom.as_str(), fact),
                // Begun before the cut, perhaps done: neither the old nor the new must be true.
                None if *when <= at => facts.remove(whom.as_str()),
                Some(_) | None => None,
            };
        }
        facts
    }

    /// Whether a program of this container may have ended with this code.
    pub(super) fn may_end(&self, name: &str, code: i64) -> bool {
        self.codes.get(name).is_some_and(|codes| codes.iter().any(|known| i64::from(*known) == code))
    }

    /// Whether the name was ever to be a container's.
    pub(super) fn knows(&self, name: &str) -> bool {
        self.words.iter().any(|(_, whom, _)| whom == name)
    }
}
