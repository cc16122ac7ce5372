//! Manifests and indexes: which image of several is meant, and what it is made of. Strangers' documents: what can be read
//! in two ways is refused.

use mysup_ipc::id::Digest;
use oci_client::manifest as kinds;
use serde::Deserialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What we ask for.
pub(super) const ACCEPTED: [&str; 4] = [
    kinds::OCI_IMAGE_MEDIA_TYPE,
    kinds::OCI_IMAGE_INDEX_MEDIA_TYPE,
    kinds::IMAGE_MANIFEST_MEDIA_TYPE,
    kinds::IMAGE_MANIFEST_LIST_MEDIA_TYPE,
];
const CONFIGURATIONS: [&str; 2] =
    ["application/vnd.oci.image.config.v1+json", "application/vnd.docker.container.image.v1+json"];
/// Bytes of a document; registries have the same limit.
pub(super) const DOCUMENT: u64 = 4 << 20;
/// Bytes of all layers, as they are compressed: as many as the store takes of one, uncompressed.
const ALL_LAYERS: u64 = 1 << 40;
/// Layers of one image, as in the store.
const LAYERS: usize = 480;

/// Something that a document names.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Descriptor {
    #[serde(default)]
    pub(super) media_type: String,
    pub(super) digest: Digest,
    pub(super) size: u64,
    pub(super) platform: Option<Platform>,
}

/// A kind of machine.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    pub(super) os: String,
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: String,
}

/// A document of one of the two kinds.
#[derive(Debug)]
pub(super) enum Document {
    Manifest(Manifest),
    Index(Vec<Descriptor>),
}

/// What an image is made of.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Manifest {
    #[serde(rename = "mediaType", default)]
    pub(super) media_type: String,
    pub(super) config: Descriptor,
    pub(super) layers: Vec<Descriptor>,
}

impl Document {
    /// Reads one.
    ///
    /// # Errors
    /// Says what is wrong with it.
    pub(super) fn parse(text: &[u8]) -> Result<Self, String> {
        let value: Value = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        let has = |field: &str| value.get(field).is_some();
        if has("fsLayers") || value.get("schemaVersion").and_then(Value::as_u64) != Some(2) {
            return Err("it is a manifest of an old form (schema 1), or none".to_owned());
        }
        match (has("manifests"), has("config") || has("layers")) {
            (true, true) => Err("it is a manifest and an index at once".to_owned()),
            (true, false) => {
                let index: Index = serde_json::from_value(value).map_err(|error| error.to_string())?;
                Ok(Document::Index(index.manifests))
            }
            (false, _) => {
                let mut manifest: Manifest =
                    serde_json::from_value(value).map_err(|error| error.to_string())?;
                manifest.check()?;
                if manifest.media_type.is_empty() {
                    // docker's always say so.
                    kinds::OCI_IMAGE_MEDIA_TYPE.clone_into(&mut manifest.media_type);
                }
                Ok(Document::Manifest(manifest))
            }
        }
    }
}

#[derive(Debug, Deserialize)]
struct Index {
    manifests: Vec<Descriptor>,
}

impl Manifest {
    fn check(&self) -> Result<(), String> {
        if !CONFIGURATIONS.contains(&self.config.media_type.as_str()) {
            return Err(format!("it is no image of a container, but {}", self.config.media_type));
        }
        if self.config.size > DOCUMENT {
            return Err(format!("its configuration is longer than {DOCUMENT} bytes"));
        }
        if self.layers.len() > LAYERS {
            return Err(format!("it has {} layers, at most {LAYERS} are allowed", self.layers.len()));
        }
        let all = self.layers.iter().try_fold(0_u64, |sum, layer| sum.checked_add(layer.size));
        match all {
            Some(all) if all <= ALL_LAYERS => Ok(()),
            _ => Err(format!("its layers are longer than {ALL_LAYERS} bytes")),
        }
    }
}

impl Platform {
    /// This machine, or what the user typed: `OS/ARCH[/VARIANT]`.
    ///
    /// # Errors
    /// Says what is allowed.
    pub(super) fn wanted(typed: Option<&str>) -> Result<Self, String> {
        let native = || match std::env::consts::ARCH {
            "x86_64" => "amd64".to_owned(),
            "aarch64" => "arm64".to_owned(),
            other => other.to_owned(),
        };
        let Some(typed) = typed else {
            return Ok(Self { os: "linux".to_owned(), architecture: native(), variant: String::new() });
        };
        let parts: Vec<&str> = typed.split('/').collect();
        let (architecture, variant) = match parts.as_slice() {
            ["linux", architecture] => (*architecture, ""),
            ["linux", architecture, variant] => (*architecture, *variant),
            _ => return Err(format!("invalid platform \"{typed}\": linux/ARCH[/VARIANT] is allowed")),
        };
        let architecture = match architecture {
            "x86_64" | "x86-64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Ok(Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.to_owned(),
        })
    }

    fn fits(&self, found: &Platform) -> bool {
        // arm64 is v8, whether that is said or not.
        let variant = |platform: &Platform| match (platform.architecture.as_str(), platform.variant.as_str())
        {
            ("arm64", "") => "v8".to_owned(),
            (_, variant) => variant.to_owned(),
        };
        self.os == found.os
            && self.architecture == found.architecture
            && (self.variant.is_empty() || variant(self) == variant(found))
    }

    /// The first one that fits.
    pub(super) fn choose<'d>(&self, all: &'d [Descriptor]) -> Option<&'d Descriptor> {
        all.iter().find(|one| one.platform.as_ref().is_some_and(|platform| self.fits(platform)))
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{}/{}", self.os, self.architecture)?;
        if self.variant.is_empty() { Ok(()) } else { write!(formatter, "/{}", self.variant) }
    }
}

/// The platforms of an index, for people.
pub(super) fn platforms(all: &[Descriptor]) -> String {
    let known =
        all.iter().filter_map(|one| one.platform.as_ref()).filter(|platform| platform.os != "unknown");
    let names: Vec<String> = known.map(ToString::to_string).take(20).collect();
    if names.is_empty() { "none".to_owned() } else { names.join(", ") }
}

/// What of a configuration must be known before anything is fetched.
#[derive(Debug, Deserialize)]
pub(super) struct Configuration {
    pub(super) os: String,
    pub(super) architecture: String,
    #[serde(default)]
    pub(super) variant: String,
    pub(super) rootfs: RootFs,
}

/// Its layers.
#[derive(Debug, Deserialize)]
pub(super) struct RootFs {
    #[serde(default)]
    pub(super) diff_ids: Vec<Digest>,
}

impl Configuration {
    /// What it is for.
    pub(super) fn platform(&self) -> Platform {
        let Self { os, architecture, variant, .. } = self;
        Platform { os: os.clone(), architecture: architecture.clone(), variant: variant.clone() }
    }

    /// Whether it is for such a machine.
    pub(super) fn is_for(&self, wanted: &Platform) -> bool {
        wanted.fits(&self.platform())
    }
}

/// The digest of some bytes.
pub(super) fn digest_of(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(platforms: &[(&str, &str, &str)]) -> Vec<Descriptor> {
        let one = |(at, (os, architecture, variant)): (usize, &(&str, &str, &str))| {
            let text = format!(
                "{{\"mediaType\":\"m\",\"digest\":\"sha256:{at:064}\",\"size\":1,\"platform\":{{\"os\":\"{os}\",\
                 \"architecture\":\"{architecture}\",\"variant\":\"{variant}\"}}}}"
            );
            serde_json::from_str(&text).expect("a descriptor")
        };
        platforms.iter().enumerate().map(one).collect()
    }

    #[test]
    fn the_first_platform_that_fits_is_chosen() {
        let all = index(&[
            ("windows", "amd64", ""),
            ("linux", "arm", "v6"),
            ("linux", "arm", "v7"),
            ("linux", "arm64", "v8"),
            ("linux", "amd64", ""),
            ("unknown", "unknown", ""),
        ]);
        let chosen = |typed: &str| {
            let wanted = Platform::wanted(Some(typed)).expect(typed);
            wanted.choose(&all).map(|one| one.digest.hex().trim_start_matches('0').to_owned())
        };
        assert_eq!(chosen("linux/amd64").as_deref(), Some("4"));
        assert_eq!(chosen("linux/x86_64").as_deref(), Some("4"));
        assert_eq!(chosen("linux/arm").as_deref(), Some("1"));
        assert_eq!(chosen("linux/arm/v7").as_deref(), Some("2"));
        assert_eq!(chosen("linux/arm64").as_deref(), Some("3"));
        assert_eq!(chosen("linux/s390x"), None);
        for bad in ["", "linux", "windows/amd64", "linux/a/b/c"] {
            assert!(Platform::wanted(Some(bad)).is_err(), "{bad}");
        }
        let shown = "windows/amd64, linux/arm/v6, linux/arm/v7, linux/arm64/v8, linux/amd64";
        assert_eq!(platforms(&all), shown);
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let descriptor = "{\"mediaType\":\"application/vnd.oci.image.config.v1+json\",\"size\":1,\"digest\":\"sha256:0000000000000000000000000000000000000000000000000000000000000000\"}";
        let manifest = format!("{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[]}}");
        assert!(matches!(Document::parse(manifest.as_bytes()), Ok(Document::Manifest(_))));
        let both = format!("{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[],\"manifests\":[]}}");
        assert!(Document::parse(both.as_bytes()).unwrap_err().contains("at once"));
        assert!(Document::parse(b"{\"schemaVersion\":1,\"fsLayers\":[]}").unwrap_err().contains("schema 1"));
        let artifact = manifest.replace("vnd.oci.image.config", "vnd.cncf.helm.config");
        assert!(Document::parse(artifact.as_bytes()).unwrap_err().contains("helm"));
        let huge = format!(
            "{{\"schemaVersion\":2,\"config\":{descriptor},\"layers\":[{}]}}",
            descriptor.replace("\"size\":1", "\"size\":18446744073709551615")
        );
        assert!(Document::parse(huge.as_bytes()).unwrap_err().contains("longer"));
        for bad in ["", "[]", "null", "{}", "{\"schemaVersion\":2}"] {
            assert!(Document::parse(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
