//! Reads what `mysup inspect` prints.

use serde_json::Value;

/// One step of the teardown as shown to people.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// `processes`, `volume`, `rootfs`, `mountpoint`, `write-layer`, `cgroups`, ...
    pub(crate) name: String,
    /// On what, or empty.
    pub(crate) target: String,
    /// When it began, as shown.
    pub(crate) at: String,
    /// All of it as text, to look for errors and holders.
    pub(crate) text: String,
}

/// `State.ExitCode`, `State.Status` and other fields by a dotted path; `Null` when there is none.
pub(crate) fn field<'a>(container: &'a Value, path: &str) -> &'a Value {
    path.split('.').fold(container, |value, name| &value[name])
}

/// A field as text; a string without its quotes.
pub(crate) fn text(container: &Value, path: &str) -> String {
    let value = field(container, path);
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A field as a number.
#[track_caller]
pub(crate) fn number(container: &Value, path: &str) -> i64 {
    field(container, path).as_i64().unwrap_or_else(|| panic!("inspect has no number {path}:\n{container:#}"))
}

/// The steps of the last teardown, in the order shown.
#[track_caller]
pub(crate) fn teardown(container: &Value) -> Vec<Step> {
    let shown = [field(container, "Teardown"), field(container, "State.Teardown")];
    let list = shown
        .iter()
        .find_map(|value| value.as_array().or_else(|| value["Steps"].as_array()))
        .unwrap_or_else(|| panic!("inspect shows no list Teardown:\n{container:#}"));
    list.iter()
        .map(|step| {
            let of =
                |names: &[&str]| names.iter().find_map(|name| step[*name].as_str()).unwrap_or("").to_owned();
            Step {
                name: of(&["Step", "Name", "Kind"]).to_lowercase(),
                target: of(&["Target", "Path"]),
                at: of(&["At", "Time", "StartedAt"]),
                text: step.to_string(),
            }
        })
        .collect()
}
