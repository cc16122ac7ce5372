//! `history`.

use mysup_ipc::{
    api::Request,
    images::{HistoryLine, ImageRequest, ImageResponse},
};
use serde_json::{Value, json};

use super::ask;
use crate::cli::{
    args::image::HistoryArgs, client::Instance, describe, error::CliError, output, table::Listing,
};

/// Characters of a step in the table.
const STEP_WIDTH: usize = 45;
/// What docker shows for a step that is no image.
const MISSING: &str = "<missing>";

const LISTING: Listing = Listing {
    columns: "{{.ID}}\t{{.CreatedSince}}\t{{.CreatedBy}}\t{{.Size}}\t{{.Comment}}",
    heads: &[
        ("ID", "IMAGE"),
        ("CreatedSince", "CREATED"),
        ("CreatedAt", "CREATED AT"),
        ("CreatedBy", "CREATED BY"),
        ("Size", "SIZE"),
        ("Comment", "COMMENT"),
    ],
};

/// Prints the steps, the newest first.
///
/// # Errors
/// If there is no such image or the format makes no sense.
pub(crate) fn history(instance: &Instance, args: &HistoryArgs) -> Result<u8, CliError> {
    let mut client = instance.connect()?;
    let request = ImageRequest::Inspect { image: args.image.clone() };
    let ImageResponse::Images(found) = ask(&mut client, &Request::Image(request))? else {
        return Err(CliError::WrongAnswer);
    };
    let id = found.first().ok_or(CliError::WrongAnswer)?.info.id.clone();
    let request = ImageRequest::History { image: id.to_string() };
    let ImageResponse::History(lines) = ask(&mut client, &Request::Image(request))? else {
        return Err(CliError::WrongAnswer);
    };
    let shown = if args.no_trunc { id.as_str() } else { id.short() };
    let ids = std::iter::once(shown).chain(std::iter::repeat(MISSING));
    if args.quiet && args.format.is_none() {
        for (id, _) in ids.zip(&lines) {
            output::print_line(id)?;
        }
        return Ok(0);
    }
    let human = !matches!(args.human.as_str(), "false" | "0");
    let rows: Vec<Value> = ids.zip(&lines).map(|(id, line)| row(id, line, human, args.no_trunc)).collect();
    LISTING.print(&rows, args.format.as_deref())?;
    Ok(0)
}

fn row(id: &str, line: &HistoryLine, human: bool, whole: bool) -> Value {
    let made = line.created.as_deref().and_then(|created| created.parse::<jiff::Timestamp>().ok());
    let made = made.and_then(|time| u64::try_from(time.as_nanosecond()).ok());
    let since = made.map_or_else(|| "N/A".to_owned(), |made| describe::ago(made, describe::now()));
    let at = line.created.clone().unwrap_or_default();
    let step = one_line(&line.created_by);
    let step = match step.chars().count() > STEP_WIDTH && !whole {
        true => format!("{}…", step.chars().take(STEP_WIDTH - 1).collect::<String>()),
        false => step,
    };
    json!({
        "ID": id,
        "CreatedSince": if human { since } else { at.clone() },
        "CreatedAt": at,
        "CreatedBy": step,
        "Size": if human { describe::size(line.size) } else { line.size.to_string() },
        "Comment": one_line(&line.comment),
    })
}

/// A stranger's text: no line of its own, and no control characters for the terminal.
fn one_line(text: &str) -> String {
    let plain = |letter: char| if letter.is_control() { ' ' } else { letter };
    text.chars().map(plain).collect()
}
