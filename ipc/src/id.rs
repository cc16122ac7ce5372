//! Names that may become path components or are typed by people: validated once, here.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Why a text is not an identifier; the message is shown to the user as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 64 lower-case hexadecimal digits.
    #[error("\"{0}\" is not a container id: it has 64 lower-case hexadecimal digits")]
    ContainerId(String),
    /// Not a container name.
    #[error(
        "invalid container name \"{0}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 128 characters"
    )]
    ContainerName(String),
    /// Not a volume's name.
    #[error(
        "invalid volume name \"{0}\": only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, 2 to 200 characters; a directory of the \
         host is an absolute path, or one that starts with ./ or ../"
    )]
    VolumeName(String),
    /// Not a digest.
    #[error("\"{0}\" is not a digest: it is sha256: and 64 lower-case hexadecimal digits")]
    Digest(String),
}

macro_rules! validated_string {
    ($(#[$doc:meta])* $name:ident, $error:ident, $valid:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// The text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                let valid: fn(&str) -> bool = $valid;
                if valid(&text) { Ok(Self(text)) } else { Err(IdError::$error(text)) }
            }
        }

        impl std::str::FromStr for $name {
            type Err = IdError;

            fn from_str(text: &str) -> Result<Self, IdError> {
                Self::try_from(text.to_owned())
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

validated_string!(
    /// The 64 hexadecimal digits that name a container on disk, in cgroups and on the wire.
    ContainerId,
    ContainerId,
    is_hex_64
);

validated_string!(
    /// A container's name as docker allows it.
    ContainerName,
    ContainerName,
    |text| is_word(text, 128)
);

validated_string!(
    /// A volume's name as docker allows it, and the name of its directory. Shorter than a file name may be: what is to be
    /// removed or is not made yet has more around it.
    VolumeName,
    VolumeName,
    |text| is_word(text, 200)
);

validated_string!(
    /// `sha256:` and 64 hexadecimal digits: names images and layers.
    Digest,
    Digest,
    |text| text.strip_prefix("sha256:").is_some_and(is_hex_64)
);

impl VolumeName {
    /// A name that nobody made up, from 32 random bytes: 64 hexadecimal digits, as docker's.
    pub fn from_random(bytes: [u8; 32]) -> Self {
        Self(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// Whether it may be such a name. A person may have typed one, too.
    pub fn is_made_up(&self) -> bool {
        is_hex_64(&self.0)
    }
}

impl ContainerId {
    /// An id from 32 random bytes. Ids whose short form is all digits are refused (`None`): a shell user could
    /// take them for a number, and docker never makes one either.
    pub fn from_random(bytes: [u8; 32]) -> Option<Self> {
        let text: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let id = Self(text);
        if id.short().bytes().all(|digit| digit.is_ascii_digit()) { None } else { Some(id) }
    }

    /// The 12 digits shown to people.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

impl Digest {
    /// The digits without `sha256:`, usable as a file name.
    pub fn hex(&self) -> &str {
        &self.0["sha256:".len()..]
    }

    /// The 12 digits shown to people.
    pub fn short(&self) -> &str {
        &self.hex()[..12]
    }

    /// The digest of 32 hashed bytes.
    pub fn from_sha256(bytes: [u8; 32]) -> Self {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        Self(format!("sha256:{hex}"))
    }
}

fn is_hex_64(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
}

fn is_word(text: &str, longest: usize) -> bool {
    let mut bytes = text.bytes();
    (2..=longest).contains(&text.len())
        && bytes.next().is_some_and(|first| first.is_ascii_alphanumeric())
        && bytes.all(|byte| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn container_names_follow_docker() {
        for good in ["c1", "a.b", "nostalgic_stallman", "0-x"] {
            assert!(good.parse::<ContainerName>().is_ok(), "{good}");
        }
        for bad in ["", "a", ".a", "-a", "a/b", "..", "a b", "ä1", &"x".repeat(129)] {
            assert!(bad.parse::<ContainerName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn volume_names_follow_docker_and_are_no_paths() {
        for good in ["v1", "a.b", "data_1", &"x".repeat(65), &"x".repeat(200)] {
            assert!(good.parse::<VolumeName>().is_ok(), "{good}");
        }
        for bad in
            ["", "a", ".a", "..", "-a", "a/b", "/a", "../a", "a b", "a\nb", "a:b", "ä1", &"x".repeat(201)]
        {
            assert!(bad.parse::<VolumeName>().is_err(), "{bad}");
        }
        let made_up = VolumeName::from_random([0xab; 32]);
        assert!(made_up.as_str() == "ab".repeat(32) && made_up.is_made_up());
    }

    #[test]
    fn ids_that_look_like_numbers_are_not_made() {
        assert!(ContainerId::from_random([0x11; 32]).is_none());
        let id = ContainerId::from_random([0xab; 32]).expect("letters in it");
        assert_eq!(id.short(), "abababababab");
        assert!("../../etc".parse::<ContainerId>().is_err());
    }
}
