//! `--format` templates: the part of Go's text/template that docker's users type, over JSON values.
//!
//! Known: `{{.A.B}}`, `{{$.A}}`, `{{json .A}}`, pipes, `{{index .A 0}}`, `{{range}}` with `{{else}}` and variables,
//! `{{if}}` with `{{else if}}`, `{{with}}`, `{{- trim -}}`, comments, and the functions of `eval.rs`.

mod eval;
mod lexer;
mod parser;

use serde_json::Value;

/// Why a template cannot be parsed or applied; one line for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template: {0}")]
pub(crate) struct TemplateError(String);

impl TemplateError {
    fn new(line: impl Into<String>) -> Self {
        Self(line.into())
    }
}

/// A parsed template.
#[derive(Debug)]
pub(crate) struct Template {
    nodes: Vec<parser::Node>,
}

impl Template {
    /// Parses.
    ///
    /// # Errors
    /// If it is no template.
    pub(crate) fn parse(text: &str) -> Result<Self, TemplateError> {
        Ok(Self { nodes: parser::parse(text)? })
    }

    /// Applies it to a value.
    ///
    /// # Errors
    /// If a field does not exist or a function cannot take what it gets.
    pub(crate) fn render(&self, value: &Value) -> Result<String, TemplateError> {
        let mut output = String::new();
        eval::run(&self.nodes, &mut eval::Scope::new(value), value, &mut output)?;
        Ok(output)
    }

    /// The names of all fields of the topmost value, in order, for a table's header.
    pub(crate) fn fields(&self) -> Vec<&str> {
        let mut names = Vec::new();
        parser::collect_fields(&self.nodes, &mut names);
        names
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn render(text: &str) -> Result<String, TemplateError> {
        let value = json!({
            "Name": "/c1",
            "State": {"Status": "running", "Pid": 42, "Paused": false, "Error": ""},
            "Mounts": [{"Source": "/a", "RW": true}, {"Source": "/b", "RW": false}],
            "Labels": {"b": "2", "a": "1"},
            "Cmd": ["sh", "-c", "x y"],
            "None": null,
            "Empty": [],
        });
        Template::parse(text)?.render(&value)
    }

    #[test]
    fn fields_functions_and_blocks() {
        let cases = [
            ("plain", "plain"),
            ("{{.Name}} is {{.State.Status}}", "/c1 is running"),
            ("{{ .State.Pid }}", "42"),
            ("{{json .State.Paused}}", "false"),
            ("{{json .Mounts}}", r#"[{"RW":true,"Source":"/a"},{"RW":false,"Source":"/b"}]"#),
            ("{{.Mounts | len}}", "2"),
            ("{{index .Cmd 0}}", "sh"),
            ("{{index .Labels \"a\"}}", "1"),
            ("{{index .Labels \"zz\"}}", ""),
            ("{{(index .Mounts 1).Source}}", "/b"),
            ("{{range .Mounts}}{{.Source}};{{end}}", "/a;/b;"),
            ("{{range .Empty}}x{{else}}none{{end}}", "none"),
            ("{{range $k, $v := .Labels}}{{$k}}={{$v}} {{end}}", "a=1 b=2 "),
            ("{{range $i, $m := .Mounts}}{{$i}}{{$m.Source}}{{$.Name}}{{end}}", "0/a/c11/b/c1"),
            ("{{if .State.Paused}}p{{else if .State.Pid}}r{{else}}s{{end}}", "r"),
            ("{{if and .State.Pid (not .State.Paused)}}yes{{end}}", "yes"),
            ("{{if eq .State.Status \"running\" \"paused\"}}yes{{end}}", "yes"),
            ("{{with .State}}{{.Status}}{{end}}", "running"),
            ("{{upper .Name}} {{lower \"ABC\"}} {{title \"running\"}}", "/C1 abc Running"),
            ("{{join .Cmd \",\"}}", "sh,-c,x y"),
            ("{{index (split .Name \"c\") 1}}", "1"),
            ("{{truncate .State.Status 3}}", "run"),
            ("{{println .Name .State.Pid}}", "/c1 42\n"),
            ("{{printf \"%s-%d-%v%%\" .Name .State.Pid .State.Paused}}", "/c1-42-false%"),
            ("{{.Cmd}} {{.Labels}}", "[sh -c x y] map[a:1 b:2]"),
            ("a {{- .Name -}} b{{/* comment */}}", "a/c1b"),
            ("{{.None}}", "<no value>"),
            ("{{.Labels.zz}}", "<no value>"),
            ("{{`raw \\t`}}{{\"a\\tb\"}}", "raw \\ta\tb"),
            ("{{json .}}", ""),
        ];
        for (text, wanted) in cases {
            let got = render(text).unwrap_or_else(|error| panic!("{text}: {error}"));
            if wanted.is_empty() && text == "{{json .}}" {
                assert!(got.starts_with('{'), "{got}");
            } else {
                assert_eq!(got, wanted, "{text}");
            }
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        for text in [
            "{{",
            "{{.Name",
            "{{end}}",
            "{{if .Name}}",
            "{{range}}{{end}}",
            "{{.Nope}}",
            "{{.State.Nope}}",
            "{{nope .Name}}",
            "{{json}}",
            "{{index .Cmd 9}}",
            "{{.Name.Foo}}",
            "{{\"open}}",
            "{{else}}",
            "{{$x}}",
            "{{(.Name}}",
            "{{truncate .Name}}",
            "{{}}",
        ] {
            assert!(render(text).is_err(), "{text}: {:?}", render(text));
        }
    }

    #[test]
    fn fields_for_a_header() {
        let template =
            Template::parse("{{.ID}}\t{{upper .Names}}\t{{if .State}}{{.Status}}{{end}}").expect("valid");
        assert_eq!(template.fields(), ["ID", "Names", "State", "Status"]);
    }
}
