//! Lists: a table with docker's gaps, one JSON object on each line, or a template.

use serde_json::{Map, Value};

use super::{
    error::CliError,
    output,
    template::{Template, TemplateError},
};

/// Least width of a column with its gap, and the gap; docker's tabwriter has these.
const COLUMN_MIN: usize = 10;
const GAP: usize = 3;

/// One kind of list: the columns of its table, and the heads of all fields that a template may name.
#[derive(Debug)]
pub(crate) struct Listing {
    /// The template of the plain table.
    pub(crate) columns: &'static str,
    /// Field and head.
    pub(crate) heads: &'static [(&'static str, &'static str)],
}

impl Listing {
    /// Prints the rows as `--format` says.
    ///
    /// # Errors
    /// If the format makes no sense or nobody reads.
    pub(crate) fn print(&self, rows: &[Value], format: Option<&str>) -> Result<(), CliError> {
        output::print(&self.render(rows, format)?)
    }

    fn render(&self, rows: &[Value], format: Option<&str>) -> Result<String, TemplateError> {
        let format = format.unwrap_or("table").trim();
        if format == "json" {
            return Ok(rows.iter().map(|row| format!("{row}\n")).collect());
        }
        let table = match format.strip_prefix("table") {
            Some("") => Some(self.columns),
            Some(template) if template.starts_with([' ', '\t', '{', '\\']) => Some(template.trim()),
            _ => None,
        };
        let template = Template::parse(&unescape(table.unwrap_or(format)))?;
        let mut lines = Vec::with_capacity(rows.len() + 1);
        if table.is_some() {
            lines.push(template.render(&self.head(&template))?);
        }
        for row in rows {
            lines.push(template.render(row)?);
        }
        if table.is_some() {
            return Ok(aligned(&lines));
        }
        Ok(lines.iter().map(|line| format!("{line}\n")).collect())
    }

    fn head(&self, template: &Template) -> Value {
        let mut head: Map<String, Value> =
            self.heads.iter().map(|(field, head)| ((*field).to_owned(), Value::from(*head))).collect();
        for field in template.fields() {
            // What has no head of its own is an error when the rows are shown; with no rows it does no harm.
            head.entry(field.to_owned()).or_insert_with(|| Value::from(field.to_uppercase()));
        }
        Value::Object(head)
    }
}

/// `\t` and `\n` as people type them in a shell.
pub(crate) fn unescape(text: &str) -> String {
    text.replace("\\t", "\t").replace("\\n", "\n")
}

/// Lines with cells that end in tabs, as columns.
pub(crate) fn aligned(lines: &[String]) -> String {
    let rows: Vec<Vec<&str>> =
        lines.iter().flat_map(|text| text.split('\n')).map(|line| line.split('\t').collect()).collect();
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        let longest = rows
            .iter()
            // The last cell of a line ends in no tab and is in no column.
            .filter(|row| row.len() > column + 1)
            .map(|row| row[column].chars().count())
            .max();
        longest.map_or(0, |longest| (longest + GAP).max(COLUMN_MIN))
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for row in &rows {
        for (column, cell) in row.iter().enumerate() {
            text.push_str(cell);
            if column + 1 < row.len() {
                let fill = widths[column].saturating_sub(cell.chars().count());
                text.extend(std::iter::repeat_n(' ', fill));
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const LISTING: Listing = Listing {
        columns: "{{.ID}}\t{{.Ports}}\t{{.Names}}",
        heads: &[("ID", "CONTAINER ID"), ("Ports", "PORTS"), ("Names", "NAMES")],
    };

    fn rows() -> Vec<Value> {
        vec![
            json!({"ID": "0123456789ab", "Ports": "", "Names": "web"}),
            json!({"ID": "b", "Ports": "", "Names": "ü"}),
        ]
    }

    #[test]
    fn tables_have_dockers_gaps() {
        let text = LISTING.render(&rows(), None).expect("renders");
        assert_eq!(
            text,
            "CONTAINER ID   PORTS     NAMES\n0123456789ab             web\nb                        ü\n"
        );
        assert_eq!(LISTING.render(&[], None).expect("renders"), "CONTAINER ID   PORTS     NAMES\n");
    }

    #[test]
    fn formats() {
        let render = |format| LISTING.render(&rows(), Some(format));
        assert_eq!(render("{{.ID}}\\t{{.Names}}").expect("renders"), "0123456789ab\tweb\nb\tü\n");
        assert_eq!(
            render("table {{.Names}}\\t{{.ID}}").expect("renders"),
            "NAMES     CONTAINER ID\nweb       0123456789ab\nü         b\n"
        );
        assert_eq!(render("json").expect("renders").lines().count(), 2);
        assert!(render("{{.Nope}}").is_err() && render("table {{.Nope}}").is_err());
        assert!(render("{{.ID").is_err());
    }
}
