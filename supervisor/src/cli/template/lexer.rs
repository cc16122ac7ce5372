//! The inside of an action, `{{...}}`, as tokens.

use super::TemplateError;

/// One token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Token {
    /// `.A.B`; `.` alone has no names.
    Field(Vec<String>),
    /// `$x.A.B`; `$` alone has the empty name.
    Variable(String, Vec<String>),
    /// A keyword or a function.
    Word(String),
    /// `"..."` or a raw one.
    Text(String),
    /// A whole number.
    Number(i64),
    /// `(`
    Open,
    /// `)`, and the fields taken of what it encloses.
    Close(Vec<String>),
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Assign,
}

/// Splits the inside of an action.
pub(super) fn tokens(text: &str) -> Result<Vec<Token>, TemplateError> {
    let mut rest = text;
    let mut tokens = Vec::new();
    loop {
        rest = rest.trim_start();
        let Some(first) = rest.chars().next() else { return Ok(tokens) };
        let (token, tail) = match first {
            '(' => (Token::Open, &rest[1..]),
            ')' => {
                let (names, tail) = names(&rest[1..]);
                (Token::Close(names), tail)
            }
            '|' => (Token::Pipe, &rest[1..]),
            ',' => (Token::Comma, &rest[1..]),
            ':' if rest.starts_with(":=") => (Token::Assign, &rest[2..]),
            '.' => {
                let (names, tail) = names(rest);
                let tail = if names.is_empty() { &tail[1..] } else { tail };
                (Token::Field(names), tail)
            }
            '$' => {
                let (name, tail) = word(&rest[1..]);
                let (names, tail) = names(tail);
                (Token::Variable(name.to_owned(), names), tail)
            }
            '"' => quoted(rest)?,
            '`' => {
                let (raw, tail) = rest[1..].split_once('`').ok_or_else(|| unfinished(text))?;
                (Token::Text(raw.to_owned()), tail)
            }
            '-' | '0'..='9' => number(rest)?,
            _ => {
                let (name, tail) = word(rest);
                if name.is_empty() {
                    return Err(TemplateError::new(format!("unexpected \"{first}\" in \"{}\"", text.trim())));
                }
                (Token::Word(name.to_owned()), tail)
            }
        };
        tokens.push(token);
        rest = tail;
    }
}

fn unfinished(text: &str) -> TemplateError {
    TemplateError::new(format!("unterminated quoted string in \"{}\"", text.trim()))
}

fn word(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(text.len()))
}

/// `.A.B` at the start of a text.
fn names(mut text: &str) -> (Vec<String>, &str) {
    let mut names = Vec::new();
    while let Some(tail) = text.strip_prefix('.') {
        let (name, tail) = word(tail);
        if name.is_empty() {
            break;
        }
        names.push(name.to_owned());
        text = tail;
    }
    (names, text)
}

fn number(text: &str) -> Result<(Token, &str), TemplateError> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (number, tail) = text.split_at(text.len() - digits.len() + end);
    let value = number.parse().map_err(|_| TemplateError::new(format!("bad number \"{number}\"")))?;
    Ok((Token::Number(value), tail))
}

fn quoted(text: &str) -> Result<(Token, &str), TemplateError> {
    let mut value = String::new();
    let mut characters = text.char_indices().skip(1);
    while let Some((at, character)) = characters.next() {
        match character {
            '"' => return Ok((Token::Text(value), &text[at + 1..])),
            '\\' => match characters.next() {
                Some((_, 'n')) => value.push('\n'),
                Some((_, 't')) => value.push('\t'),
                Some((_, 'r')) => value.push('\r'),
                Some((_, other @ ('"' | '\\' | '\''))) => value.push(other),
                Some((_, other)) => return Err(TemplateError::new(format!("unknown escape \"\\{other}\""))),
                None => break,
            },
            other => value.push(other),
        }
    }
    Err(unfinished(text))
}
