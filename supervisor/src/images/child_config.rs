//! The configuration of an image that is made from a container: that of the container's image, with what the container was
//! started with in the place of its defaults, one more layer, and one more step in its history, as docker has them.

use std::collections::BTreeMap;

use mysup_ipc::id::Digest;
use serde_json::{Map, Value, json};

use super::{change::Change, error::ImageError};

/// Of the part `config` what docker's and OCI's documents have beside it and what is true of one image only.
const OF_ANOTHER: [&str; 5] = ["container", "container_config", "id", "parent", "docker_version"];

/// What a new image is to be besides its files.
#[derive(Debug, Clone, Default)]
pub(crate) struct Draft {
    /// `name[:tag]`.
    pub(crate) name: Option<String>,
    /// Who says so.
    pub(crate) author: String,
    /// For the history.
    pub(crate) message: String,
    /// Instructions of a Dockerfile.
    pub(crate) change: Change,
    /// What the container was started with.
    pub(crate) defaults: Defaults,
}

/// What a container was started with; `None` is what its image says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Defaults {
    /// `K=V` each, added to the image's.
    pub(crate) env: Vec<String>,
    /// The command; none with an entrypoint of its own takes the image's away.
    pub(crate) command: Vec<String>,
    /// The entrypoint; empty is none.
    pub(crate) entrypoint: Option<Vec<String>>,
    /// The working directory.
    pub(crate) workdir: Option<String>,
    /// The user.
    pub(crate) user: Option<String>,
    /// A number.
    pub(crate) stop_signal: Option<u8>,
    /// All of them, the image's included.
    pub(crate) labels: BTreeMap<String, String>,
}

/// The text of the new configuration. Without a layer nothing was changed.
///
/// # Errors
/// If a change makes no sense, or the parent's text is none.
pub(super) fn child(
    parent: &str,
    layer: Option<&Digest>,
    draft: &Draft,
    created: &str,
) -> Result<String, ImageError> {
    let form = |error: serde_json::Error| ImageError::system("read", "the configuration", error);
    let mut whole: Map<String, Value> = serde_json::from_str(parent).map_err(form)?;
    for key in OF_ANOTHER {
        whole.remove(key);
    }
    let mut config = whole.get("config").and_then(Value::as_object).cloned().unwrap_or_default();
    draft.defaults.put_into(&mut config);
    let created_by = words(config.get("Cmd")).join(" ");
    whole.insert("config".to_owned(), Value::Object(config));
    whole.insert("created".to_owned(), json!(created));
    match draft.author.as_str() {
        "" => drop(whole.remove("author")),
        author => drop(whole.insert("author".to_owned(), json!(author))),
    }
    let mut step = Map::new();
    step.insert("created".to_owned(), json!(created));
    for (key, value) in [("author", &draft.author), ("created_by", &created_by), ("comment", &draft.message)]
    {
        if !value.is_empty() {
            step.insert(key.to_owned(), json!(value));
        }
    }
    if layer.is_none() {
        step.insert("empty_layer".to_owned(), json!(true));
    }
    let layers = whole.get("rootfs").and_then(|files| files.get("diff_ids")).and_then(Value::as_array);
    let layers = layers.map_or(0, Vec::len);
    let history = whole.entry("history").or_insert(Value::Null);
    complete(history, layers);
    push(history, Value::Object(step));
    if let Some(layer) = layer {
        let files = whole.entry("rootfs").or_insert_with(|| json!({ "type": "layers" }));
        if let Some(files) = files.as_object_mut() {
            push(files.entry("diff_ids").or_insert(Value::Null), json!(layer));
        }
    }
    draft.change.apply(Value::Object(whole).to_string())
}

impl Defaults {
    fn put_into(&self, config: &mut Map<String, Value>) {
        let mut set = |key: &str, value: Value| {
            config.insert(key.to_owned(), value);
        };
        if let Some(entrypoint) = &self.entrypoint {
            let is_none = entrypoint.iter().all(String::is_empty);
            set("Entrypoint", if is_none { Value::Null } else { json!(entrypoint) });
            set("Cmd", if self.command.is_empty() { Value::Null } else { json!(self.command) });
        } else if !self.command.is_empty() {
            set("Cmd", json!(self.command));
        }
        if let Some(workdir) = &self.workdir {
            set("WorkingDir", json!(workdir));
        }
        if let Some(user) = &self.user {
            set("User", json!(user));
        }
        if let Some(signal) = self.stop_signal {
            set("StopSignal", json!(signal.to_string()));
        }
        if !self.labels.is_empty() {
            set("Labels", json!(self.labels));
        }
        if !self.env.is_empty() {
            let mut all = words(config.get("Env"));
            for variable in &self.env {
                let name = variable.split('=').next().unwrap_or_default();
                let start = format!("{name}=");
                match all.iter_mut().find(|known| known.starts_with(&start)) {
                    Some(known) => known.clone_from(variable),
                    None => all.push(variable.clone()),
                }
            }
            config.insert("Env".to_owned(), json!(all));
        }
    }
}

fn words(list: Option<&Value>) -> Vec<String> {
    let list = list.and_then(Value::as_array);
    list.into_iter().flatten().filter_map(Value::as_str).map(str::to_owned).collect()
}

/// Imported layers have no history: readers count its steps, and would take the next one for that of such a layer.
fn complete(history: &mut Value, layers: usize) {
    let is_layer = |step: &&Value| step.get("empty_layer").and_then(Value::as_bool) != Some(true);
    let known = history.as_array().into_iter().flatten().filter(is_layer).count();
    let missing = layers.saturating_sub(known);
    let steps = history.as_array().cloned().unwrap_or_default();
    *history = Value::Array(std::iter::repeat_n(json!({}), missing).chain(steps).collect());
}

/// Onto a list, which is made if it is none.
fn push(list: &mut Value, value: Value) {
    if !list.is_array() {
        *list = json!([]);
    }
    if let Some(list) = list.as_array_mut() {
        list.push(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(parent: &str, draft: &Draft) -> Value {
        let layer = format!("sha256:{}", "a".repeat(64)).parse().expect("a digest");
        let text = child(parent, Some(&layer), draft, "2026-01-02T03:04:05Z").expect("it makes sense");
        serde_json::from_str(&text).expect("JSON")
    }

    const PARENT: &str = r#"{"architecture":"amd64","os":"linux","container":"x","config":{"Env":["A=1","B=2"],
        "Cmd":["a","b"],"Entrypoint":["e"],"Healthcheck":{"Test":["NONE"]}},"history":[{"created_by":"x"}],
        "rootfs":{"type":"layers","diff_ids":["sha256:0"]}}"#;

    #[test]
    fn the_parents_configuration_stays_but_for_what_the_container_has() {
        let defaults = Defaults {
            env: vec!["B=3".to_owned(), "C=4".to_owned()],
            command: vec!["sh".to_owned(), "-c".to_owned()],
            ..Defaults::default()
        };
        let draft = Draft {
            author: "me".to_owned(),
            message: "why".to_owned(),
            change: Change::new(&["ENV D=5".to_owned()], None),
            defaults,
            ..Draft::default()
        };
        let value = made(PARENT, &draft);
        assert_eq!(value["config"]["Env"], json!(["A=1", "B=3", "C=4", "D=5"]));
        assert_eq!(
            (&value["config"]["Cmd"], &value["config"]["Entrypoint"]),
            (&json!(["sh", "-c"]), &json!(["e"]))
        );
        assert_eq!(value["config"]["Healthcheck"]["Test"], json!(["NONE"]));
        assert_eq!((&value["author"], value.get("container")), (&json!("me"), None));
        assert_eq!(value["rootfs"]["diff_ids"].as_array().map(Vec::len), Some(2));
        assert_eq!(value["history"].as_array().map(Vec::len), Some(2));
        let step = &value["history"][1];
        assert_eq!(
            (&step["author"], &step["comment"], &step["created_by"]),
            (&json!("me"), &json!("why"), &json!("sh -c"))
        );
    }

    #[test]
    fn an_entrypoint_of_the_container_takes_the_images_command_away() {
        let defaults = Defaults { entrypoint: Some(vec!["other".to_owned()]), ..Defaults::default() };
        let value = made(PARENT, &Draft { defaults, ..Draft::default() });
        assert_eq!(
            (&value["config"]["Cmd"], &value["config"]["Entrypoint"]),
            (&Value::Null, &json!(["other"]))
        );
        let defaults = Defaults { entrypoint: Some(vec![String::new()]), ..Defaults::default() };
        let value = made("{}", &Draft { defaults, ..Draft::default() });
        assert_eq!((&value["config"]["Entrypoint"], value.get("author")), (&Value::Null, None));
        let imported = r#"{"rootfs":{"type":"layers","diff_ids":["sha256:0"]}}"#;
        let value = made(imported, &Draft::default());
        assert_eq!(value["history"].as_array().map(Vec::len), Some(2), "each layer has its step");
    }
}
