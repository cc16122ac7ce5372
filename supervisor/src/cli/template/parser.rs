//! From a template's text to a tree.

use serde_json::Value;

use super::{
    TemplateError,
    lexer::{self, Token},
};

/// A piece of a template.
#[derive(Debug)]
pub(super) enum Node {
    /// Text outside of actions.
    Text(String),
    /// The value of a pipe.
    Show(Expression),
    /// `{{if}}`
    If(Expression, Vec<Node>, Vec<Node>),
    /// `{{with}}`
    With(Expression, Vec<Node>, Vec<Node>),
    /// `{{range}}`, with the variables for key and value.
    Range {
        key: Option<String>,
        value: Option<String>,
        over: Expression,
        body: Vec<Node>,
        otherwise: Vec<Node>,
    },
}

/// Something that has a value.
#[derive(Debug, Clone)]
pub(super) enum Expression {
    /// A constant.
    Constant(Value),
    /// Fields of dot.
    Field(Vec<String>),
    /// Fields of a variable.
    Variable(String, Vec<String>),
    /// Fields of an expression.
    Of(Box<Expression>, Vec<String>),
    /// A function.
    Call(String, Vec<Expression>),
}

/// A part of a template: text, or the inside of an action.
enum Part<'a> {
    Text(&'a str),
    Action(&'a str),
}

/// Parses a template.
pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let parts = parts(text)?;
    let mut parts = parts.into_iter();
    let (nodes, end) = block(&mut parts)?;
    match end {
        End::Text => Ok(nodes),
        End::Block | End::Else(_) => Err(TemplateError::new("unexpected {{end}} or {{else}}")),
    }
}

/// Splits at `{{` and `}}`; `{{-` and `-}}` eat the white space beside them.
fn parts(text: &str) -> Result<Vec<Part<'_>>, TemplateError> {
    let mut parts = Vec::new();
    let mut rest = text;
    let mut trim_next = false;
    loop {
        let (before, after) = match rest.split_once("{{") {
            Some((before, after)) => (before, Some(after)),
            None => (rest, None),
        };
        let before = if trim_next { before.trim_start() } else { before };
        let trims = after.is_some_and(|after| after.starts_with("- "));
        let before = if trims { before.trim_end() } else { before };
        if !before.is_empty() {
            parts.push(Part::Text(before));
        }
        let Some(after) = after else { return Ok(parts) };
        let after = if trims { &after[1..] } else { after };
        let end = action_end(after).ok_or_else(|| TemplateError::new("unclosed action: }} is missing"))?;
        let (action, tail) = after.split_at(end);
        trim_next = action.ends_with(" -");
        let action = if trim_next { &action[..action.len() - 1] } else { action };
        let action = action.trim();
        if !(action.starts_with("/*") && action.ends_with("*/")) {
            parts.push(Part::Action(action));
        }
        rest = &tail[2..];
    }
}

/// Where `}}` is, outside of quotes.
fn action_end(text: &str) -> Option<usize> {
    let mut quote = None;
    let mut escaped = false;
    for (at, character) in text.char_indices() {
        match (quote, character) {
            (None, '"' | '`') => quote = Some(character),
            (None, '}') if text[at..].starts_with("}}") => return Some(at),
            (Some('"'), '\\') if !escaped => {
                escaped = true;
                continue;
            }
            (Some(open), close) if open == close && !escaped => quote = None,
            _ => {}
        }
        escaped = false;
    }
    None
}

/// What ended a block.
enum End {
    /// The end of the text.
    Text,
    /// `{{end}}`
    Block,
    /// `{{else}}` with what follows it.
    Else(Vec<Token>),
}

fn block<'a>(parts: &mut impl Iterator<Item = Part<'a>>) -> Result<(Vec<Node>, End), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(part) = parts.next() {
        let action = match part {
            Part::Text(text) => {
                nodes.push(Node::Text(text.to_owned()));
                continue;
            }
            Part::Action(action) => action,
        };
        let mut tokens = lexer::tokens(action)?;
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.clone(),
            _ => String::new(),
        };
        match keyword.as_str() {
            "end" => return Ok((nodes, End::Block)),
            "else" => return Ok((nodes, End::Else(tokens.split_off(1)))),
            "if" | "with" | "range" => nodes.push(control(&keyword, &tokens[1..], parts)?),
            _ => nodes.push(Node::Show(expression(&tokens, action)?)),
        }
    }
    Ok((nodes, End::Text))
}

fn control<'a>(
    keyword: &str,
    tokens: &[Token],
    parts: &mut impl Iterator<Item = Part<'a>>,
) -> Result<Node, TemplateError> {
    let (names, tokens) = match tokens.iter().position(|token| *token == Token::Assign) {
        Some(at) if keyword == "range" => (variables(&tokens[..at])?, &tokens[at + 1..]),
        Some(_) => return Err(TemplateError::new("variables are made by range only")),
        None => ((None, None), tokens),
    };
    let subject = expression(tokens, keyword)?;
    let (body, end) = block(&mut *parts)?;
    let otherwise = match end {
        End::Block => Vec::new(),
        End::Text => return Err(TemplateError::new(format!("{{{{{keyword}}}}} has no {{{{end}}}}"))),
        End::Else(rest) if rest.is_empty() => match block(&mut *parts)? {
            (nodes, End::Block) => nodes,
            (_, End::Text | End::Else(_)) => {
                return Err(TemplateError::new(format!("{{{{{keyword}}}}} has no {{{{end}}}}")));
            }
        },
        End::Else(rest) => match rest.first() {
            Some(Token::Word(word)) if word == keyword && keyword != "range" => {
                vec![control(keyword, &rest[1..], parts)?]
            }
            _ => return Err(TemplateError::new("only {{else}} or {{else if}} is allowed")),
        },
    };
    Ok(match keyword {
        "if" => Node::If(subject, body, otherwise),
        "with" => Node::With(subject, body, otherwise),
        _ => Node::Range { key: names.0, value: names.1, over: subject, body, otherwise },
    })
}

fn variables(tokens: &[Token]) -> Result<(Option<String>, Option<String>), TemplateError> {
    match tokens {
        [Token::Variable(value, _)] => Ok((None, Some(value.clone()))),
        [Token::Variable(key, _), Token::Comma, Token::Variable(value, _)] => {
            Ok((Some(key.clone()), Some(value.clone())))
        }
        _ => Err(TemplateError::new("range takes $value := or $key, $value :=")),
    }
}

/// A pipe: the value of each stage is the last argument of the next.
fn expression(tokens: &[Token], action: &str) -> Result<Expression, TemplateError> {
    let mut value: Option<Expression> = None;
    for stage in stages(tokens) {
        value = Some(command(stage, value, action)?);
    }
    value.ok_or_else(|| missing(action))
}

fn missing(action: &str) -> TemplateError {
    TemplateError::new(format!("missing value in \"{action}\""))
}

/// Splits at `|` outside of parentheses.
fn stages(tokens: &[Token]) -> Vec<&[Token]> {
    let mut depth = 0usize;
    tokens
        .split(|token| {
            match token {
                Token::Open => depth += 1,
                Token::Close(_) => depth = depth.saturating_sub(1),
                Token::Pipe if depth == 0 => return true,
                Token::Pipe
                | Token::Field(_)
                | Token::Variable(..)
                | Token::Word(_)
                | Token::Text(_)
                | Token::Number(_)
                | Token::Comma
                | Token::Assign => {}
            }
            false
        })
        .collect()
}

fn command(tokens: &[Token], piped: Option<Expression>, action: &str) -> Result<Expression, TemplateError> {
    let (operands, function) = match tokens.split_first() {
        Some((Token::Word(name), rest)) if !matches!(name.as_str(), "true" | "false" | "nil") => {
            (operands(rest, action)?, Some(name.clone()))
        }
        Some(_) => (operands(tokens, action)?, None),
        None => return Err(missing(action)),
    };
    match function {
        Some(name) => Ok(Expression::Call(name, operands.into_iter().chain(piped).collect())),
        None if operands.len() == 1 && piped.is_none() => {
            operands.into_iter().next().ok_or_else(|| missing(action))
        }
        None => Err(TemplateError::new(format!("\"{action}\" is no function call"))),
    }
}

fn operands(mut tokens: &[Token], action: &str) -> Result<Vec<Expression>, TemplateError> {
    let mut operands = Vec::new();
    while let Some((token, rest)) = tokens.split_first() {
        tokens = rest;
        operands.push(match token {
            Token::Field(names) => Expression::Field(names.clone()),
            Token::Variable(name, names) => Expression::Variable(name.clone(), names.clone()),
            Token::Text(text) => Expression::Constant(Value::from(text.as_str())),
            Token::Number(number) => Expression::Constant(Value::from(*number)),
            Token::Word(word) => match word.as_str() {
                "true" => Expression::Constant(Value::Bool(true)),
                "false" => Expression::Constant(Value::Bool(false)),
                "nil" => Expression::Constant(Value::Null),
                // A function without arguments; only real ones get through the evaluator.
                _ => Expression::Call(word.clone(), Vec::new()),
            },
            Token::Open => {
                let (inner, names, rest) = enclosed(tokens, action)?;
                tokens = rest;
                Expression::Of(Box::new(expression(inner, action)?), names)
            }
            Token::Close(_) | Token::Pipe | Token::Comma | Token::Assign => {
                return Err(TemplateError::new(format!("unexpected punctuation in \"{action}\"")));
            }
        });
    }
    Ok(operands)
}

type Enclosed<'t> = (&'t [Token], Vec<String>, &'t [Token]);

/// What stands in parentheses, the fields taken of it, and what follows.
fn enclosed<'t>(tokens: &'t [Token], action: &str) -> Result<Enclosed<'t>, TemplateError> {
    let mut depth = 1usize;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            Token::Open => depth += 1,
            Token::Close(names) => {
                depth -= 1;
                if depth == 0 {
                    return Ok((&tokens[..at], names.clone(), &tokens[at + 1..]));
                }
            }
            Token::Field(_)
            | Token::Variable(..)
            | Token::Word(_)
            | Token::Text(_)
            | Token::Number(_)
            | Token::Pipe
            | Token::Comma
            | Token::Assign => {}
        }
    }
    Err(TemplateError::new(format!("unclosed left parenthesis in \"{action}\"")))
}

/// The first names of all fields of dot, outside of blocks that change dot.
pub(super) fn collect_fields<'n>(nodes: &'n [Node], names: &mut Vec<&'n str>) {
    for node in nodes {
        match node {
            Node::Text(_) => {}
            Node::Show(expression) => collect_from(expression, names),
            Node::If(condition, body, otherwise) => {
                collect_from(condition, names);
                collect_fields(body, names);
                collect_fields(otherwise, names);
            }
            Node::With(subject, _, otherwise) | Node::Range { over: subject, otherwise, .. } => {
                collect_from(subject, names);
                collect_fields(otherwise, names);
            }
        }
    }
}

fn collect_from<'n>(expression: &'n Expression, names: &mut Vec<&'n str>) {
    match expression {
        Expression::Field(path) => {
            if let Some(name) = path.first().filter(|name| !names.contains(&name.as_str())) {
                names.push(name);
            }
        }
        Expression::Of(inner, _) => collect_from(inner, names),
        Expression::Call(_, arguments) => arguments.iter().for_each(|argument| collect_from(argument, names)),
        Expression::Constant(_) | Expression::Variable(..) => {}
    }
}
