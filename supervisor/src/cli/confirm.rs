//! A question before something is removed.

use std::io::{self, BufRead};

use super::{error::CliError, output, terminal, values::Invalid};

/// More names than this are counted, not shown.
const SHOWN: usize = 20;

/// Says what will happen and asks for a yes.
///
/// # Errors
/// Without a terminal: there is nobody to ask.
pub(crate) fn is_wanted(what: &str) -> Result<bool, CliError> {
    if !terminal::stdin_is_terminal() {
        let text = "standard input is no terminal, so nobody can be asked whether to remove anything: -f does not ask";
        return Err(Invalid::new(text).into());
    }
    output::print(&format!("WARNING! {what}\nAre you sure you want to continue? [y/N] "))?;
    let mut answer = String::new();
    let failed = |source| CliError::Call { action: "read the answer", source };
    io::stdin().lock().read_line(&mut answer).map_err(failed)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

/// The end of a sentence that names them, or says that there are none.
pub(crate) fn listed(names: &[String]) -> String {
    let mut text = match names.len() {
        0 => ": there is none".to_owned(),
        count => format!(" ({count}):"),
    };
    for name in names.iter().take(SHOWN) {
        text.push_str(&format!("\n  - {name}"));
    }
    if names.len() > SHOWN {
        text.push_str(&format!("\n  - and {} more", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_shown_up_to_a_number() {
        assert_eq!(listed(&[]), ": there is none");
        assert_eq!(listed(&["a".to_owned()]), " (1):\n  - a");
        assert!(listed(&vec!["a".to_owned(); 25]).ends_with("and 5 more"));
    }
}
