//! `--change` of `import` and `commit`: instructions of a Dockerfile that change the configuration of an image.

use serde_json::{Map, Value, json};

use super::error::ImageError;

/// What is to be changed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Change {
    instructions: Vec<Instruction>,
    message: Option<String>,
}

/// One instruction as typed.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Instruction {
    typed: String,
    word: String,
    rest: String,
}

impl Change {
    /// Takes what was typed. Whether it makes sense [`Change::apply`] says.
    pub(crate) fn new(typed: &[String], message: Option<String>) -> Self {
        let instructions = typed.iter().map(|text| {
            let (word, rest) = text.trim().split_once(char::is_whitespace).unwrap_or((text.trim(), ""));
            Instruction { typed: text.clone(), word: word.to_uppercase(), rest: rest.trim().to_owned() }
        });
        Self { instructions: instructions.collect(), message }
    }

    /// Whether nothing is changed.
    pub(super) fn is_none(&self) -> bool {
        *self == Self::default()
    }

    /// The changed text of a configuration; the very same one if nothing is changed.
    ///
    /// # Errors
    /// If an instruction makes no sense.
    pub(super) fn apply(&self, configuration: String) -> Result<String, ImageError> {
        if self.is_none() {
            return Ok(configuration);
        }
        let form = |error: serde_json::Error| ImageError::system("read", "the configuration", error);
        let mut whole: Map<String, Value> = serde_json::from_str(&configuration).map_err(form)?;
        let config = whole.entry("config").or_insert_with(|| json!({}));
        let mut fields = config.as_object().cloned().unwrap_or_default();
        for instruction in &self.instructions {
            instruction
                .apply(&mut fields)
                .map_err(|reason| ImageError::Change { change: instruction.typed.clone(), reason })?;
        }
        *config = Value::Object(fields);
        if let Some(message) = &self.message {
            let history = whole.entry("history").or_insert_with(|| json!([]));
            if let Some(lines) = history.as_array_mut() {
                lines.push(json!({ "comment": message }));
            }
        }
        Ok(Value::Object(whole).to_string())
    }
}

impl Instruction {
    fn apply(&self, config: &mut Map<String, Value>) -> Result<(), String> {
        let rest = self.rest.as_str();
        if rest.is_empty() {
            return Err("something must follow the instruction".to_owned());
        }
        match self.word.as_str() {
            "CMD" => set(config, "Cmd", json!(command(rest))),
            "ENTRYPOINT" => set(config, "Entrypoint", json!(command(rest))),
            "USER" => set(config, "User", json!(rest)),
            "STOPSIGNAL" => set(config, "StopSignal", json!(rest)),
            "WORKDIR" => {
                let before = config.get("WorkingDir").and_then(Value::as_str).unwrap_or("/").to_owned();
                let path = if rest.starts_with('/') {
                    rest.to_owned()
                } else {
                    format!("{}/{rest}", before.trim_end_matches('/'))
                };
                set(config, "WorkingDir", json!(path));
            }
            "ONBUILD" => list(config, "OnBuild").push(json!(rest)),
            "ENV" => {
                for (name, value) in pairs(rest)? {
                    let variables = list(config, "Env");
                    let start = format!("{name}=");
                    variables.retain(|known| known.as_str().is_none_or(|known| !known.starts_with(&start)));
                    variables.push(json!(format!("{name}={value}")));
                }
            }
            "LABEL" => {
                for (name, value) in pairs(rest)? {
                    map(config, "Labels").insert(name, json!(value));
                }
            }
            "EXPOSE" => {
                for word in words(rest)? {
                    map(config, "ExposedPorts").insert(port(&word)?, json!({}));
                }
            }
            "VOLUME" => {
                let paths = json_words(rest).map_or_else(|| words(rest), Ok)?;
                for path in paths {
                    map(config, "Volumes").insert(path, json!({}));
                }
            }
            "HEALTHCHECK" => set(config, "Healthcheck", health(rest)?),
            _ => {
                return Err("CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME and \
                            WORKDIR are allowed"
                    .to_owned());
            }
        }
        Ok(())
    }
}

fn set(config: &mut Map<String, Value>, key: &str, value: Value) {
    config.insert(key.to_owned(), value);
}

/// A list of the configuration, which is made if it is not there or null.
fn list<'c>(config: &'c mut Map<String, Value>, key: &str) -> &'c mut Vec<Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_array() {
        *value = json!([]);
    }
    value.as_array_mut().expect("it was just made one")
}

fn map<'c>(config: &'c mut Map<String, Value>, key: &str) -> &'c mut Map<String, Value> {
    let value = config.entry(key).or_insert(Value::Null);
    if !value.is_object() {
        *value = json!({});
    }
    value.as_object_mut().expect("it was just made one")
}

/// A JSON array of words; otherwise the text is for a shell.
fn command(text: &str) -> Vec<String> {
    json_words(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

/// `A=b C="d e"`, or `A the whole rest`.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let first = text.split_whitespace().next().unwrap_or_default();
    if !first.contains('=') {
        let (name, value) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
        return match value.trim() {
            "" => Err(format!("{name} has no value")),
            value => Ok(vec![(name.to_owned(), value.to_owned())]),
        };
    }
    let pair = |word: String| match word.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err(format!("{word} is not NAME=VALUE")),
    };
    words(text)?.into_iter().map(pair).collect()
}

/// Words as a shell splits them: quotes and backslashes.
fn words(text: &str) -> Result<Vec<String>, String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut letters = text.chars();
    while let Some(letter) = letters.next() {
        match (letter, quote) {
            ('\\', None | Some('"')) => {
                let next = letters.next().ok_or("a backslash at the end quotes nothing")?;
                word.get_or_insert_default().push(next);
            }
            ('"' | '\'', None) => {
                quote = Some(letter);
                word.get_or_insert_default();
            }
            (letter, Some(open)) if letter == open => quote = None,
            (letter, None) if letter.is_whitespace() => words.extend(word.take()),
            (letter, _) => word.get_or_insert_default().push(letter),
        }
    }
    words.extend(word);
    match quote {
        None => Ok(words),
        Some(quote) => Err(format!("a {quote} is not closed")),
    }
}

fn port(word: &str) -> Result<String, String> {
    let (number, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let is_range = number.split('-').count() <= 2
        && number.split('-').all(|end| end.parse::<u16>().is_ok_and(|end| end > 0));
    match protocol.to_lowercase().as_str() {
        protocol @ ("tcp" | "udp" | "sctp") if is_range => Ok(format!("{number}/{protocol}")),
        _ => Err(format!("{word} is no port: PORT[/tcp|/udp|/sctp] is allowed")),
    }
}

/// `NONE`, or `[--interval=30s] [--timeout=..] [--start-period=..] [--retries=N] CMD ...`.
fn health(text: &str) -> Result<Value, String> {
    if text.eq_ignore_ascii_case("none") {
        return Ok(json!({ "Test": ["NONE"] }));
    }
    let mut check = Map::new();
    let mut rest = text;
    while let Some(option) = rest.strip_prefix("--") {
        let (option, after) = option.split_once(char::is_whitespace).unwrap_or((option, ""));
        let (name, value) = option.split_once('=').ok_or_else(|| format!("--{option} has no value"))?;
        let (key, value) = match name {
            "interval" => ("Interval", duration(value)?),
            "timeout" => ("Timeout", duration(value)?),
            "start-period" => ("StartPeriod", duration(value)?),
            "start-interval" => ("StartInterval", duration(value)?),
            "retries" => ("Retries", value.parse().map_err(|_fault| format!("{value} is no number"))?),
            _ => return Err(format!("--{name} is not known")),
        };
        check.insert(key.to_owned(), json!(value));
        rest = after.trim_start();
    }
    let (word, program) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !word.eq_ignore_ascii_case("cmd") || program.trim().is_empty() {
        return Err("NONE, or CMD and a program are allowed".to_owned());
    }
    let test = match json_words(program.trim()) {
        Some(words) => [vec!["CMD".to_owned()], words].concat(),
        None => vec!["CMD-SHELL".to_owned(), program.trim().to_owned()],
    };
    check.insert("Test".to_owned(), json!(test));
    Ok(Value::Object(check))
}

/// Nanoseconds of a duration as Go writes them: `1m30s`.
fn duration(text: &str) -> Result<u64, String> {
    let fault = || format!("{text} is no duration like 30s or 1m30s");
    let mut total = 0_u64;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|letter: char| !letter.is_ascii_digit()).ok_or_else(fault)?;
        let (number, after) = rest.split_at(digits);
        let unit = after.find(|letter: char| letter.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(unit);
        let scale = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(fault()),
        };
        let number: u64 = number.parse().map_err(|_fault| fault())?;
        total = number.checked_mul(scale).and_then(|part| total.checked_add(part)).ok_or_else(fault)?;
        rest = after;
    }
    if text.is_empty() { Err(fault()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(typed: &[&str]) -> Value {
        let typed: Vec<String> = typed.iter().map(|text| (*text).to_owned()).collect();
        let text = Change::new(&typed, None)
            .apply("{\"config\":{\"Env\":[\"A=0\"]}}".to_owned())
            .expect("it makes sense");
        serde_json::from_str::<Value>(&text).expect("it is JSON")["config"].clone()
    }

    #[test]
    fn instructions_change_what_they_name() {
        for (typed, key, value) in [
            ("CMD [\"a\", \"b c\"]", "Cmd", json!(["a", "b c"])),
            ("cmd echo $HOME", "Cmd", json!(["/bin/sh", "-c", "echo $HOME"])),
            ("ENTRYPOINT [\"x\"]", "Entrypoint", json!(["x"])),
            ("ENV A=1 B=\"two words\"", "Env", json!(["A=1", "B=two words"])),
            ("ENV B the rest of it", "Env", json!(["A=0", "B=the rest of it"])),
            ("LABEL a=b 'c d'=e\\ f", "Labels", json!({"a": "b", "c d": "e f"})),
            ("EXPOSE 80 53/udp", "ExposedPorts", json!({"80/tcp": {}, "53/udp": {}})),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            ("VOLUME [\"/a b\"]", "Volumes", json!({"/a b": {}})),
            ("USER 5:6", "User", json!("5:6")),
            ("WORKDIR sub", "WorkingDir", json!("/sub")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
            ("ONBUILD RUN x", "OnBuild", json!(["RUN x"])),
            ("HEALTHCHECK NONE", "Healthcheck", json!({"Test": ["NONE"]})),
            (
                "HEALTHCHECK --interval=1m30s --retries=2 CMD true",
                "Healthcheck",
                json!({"Interval": 90_000_000_000_u64, "Retries": 2, "Test": ["CMD-SHELL", "true"]}),
            ),
        ] {
            assert_eq!(changed(&[typed])[key], value, "{typed}");
        }
        assert_eq!(changed(&["WORKDIR /a", "WORKDIR b"])["WorkingDir"], "/a/b");
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for typed in [
            "RUN x",
            "",
            "CMD",
            "ENV A",
            "ENV =b",
            "LABEL a='b",
            "EXPOSE http",
            "EXPOSE 80/x",
            "HEALTHCHECK x",
        ] {
            let result = Change::new(&[typed.to_owned()], None).apply("{}".to_owned());
            assert!(matches!(result, Err(ImageError::Change { .. })), "{typed}");
        }
    }

    #[test]
    fn without_a_change_not_one_byte_differs() {
        let text = "{ \"config\" :{} }";
        assert_eq!(Change::default().apply(text.to_owned()).expect("nothing to do"), text);
    }
}
