//! Applies a template's tree to a value.

use serde_json::Value;

use super::{
    TemplateError,
    parser::{Expression, Node},
};

/// Variables, the innermost last; `$` is the first.
pub(super) struct Scope {
    variables: Vec<(String, Value)>,
}

impl Scope {
    /// With nothing but `$`.
    pub(super) fn new(root: &Value) -> Self {
        Self { variables: vec![(String::new(), root.clone())] }
    }

    fn value(&self, name: &str) -> Result<&Value, TemplateError> {
        let found = self.variables.iter().rev().find(|(known, _)| known == name);
        found
            .map(|(_, value)| value)
            .ok_or_else(|| TemplateError::new(format!("undefined variable \"${name}\"")))
    }
}

/// Appends what the nodes show for `dot`.
pub(super) fn run(
    nodes: &[Node],
    scope: &mut Scope,
    dot: &Value,
    output: &mut String,
) -> Result<(), TemplateError> {
    for node in nodes {
        match node {
            Node::Text(text) => output.push_str(text),
            Node::Show(expression) => output.push_str(&shown(&value_of(expression, scope, dot)?)),
            Node::If(condition, body, otherwise) => {
                let chosen = if is_true(&value_of(condition, scope, dot)?) { body } else { otherwise };
                run(chosen, scope, dot, output)?;
            }
            Node::With(subject, body, otherwise) => {
                let subject = value_of(subject, scope, dot)?;
                if is_true(&subject) {
                    run(body, scope, &subject, output)?;
                } else {
                    run(otherwise, scope, dot, output)?;
                }
            }
            Node::Range { key, value, over, body, otherwise } => {
                let items = items(value_of(over, scope, dot)?)?;
                if items.is_empty() {
                    run(otherwise, scope, dot, output)?;
                }
                let depth = scope.variables.len();
                for (item_key, item) in items {
                    if let Some(name) = key {
                        scope.variables.push((name.clone(), item_key));
                    }
                    if let Some(name) = value {
                        scope.variables.push((name.clone(), item.clone()));
                    }
                    run(body, scope, &item, output)?;
                    scope.variables.truncate(depth);
                }
            }
        }
    }
    Ok(())
}

fn items(value: Value) -> Result<Vec<(Value, Value)>, TemplateError> {
    match value {
        Value::Array(list) => {
            Ok(list.into_iter().enumerate().map(|(at, item)| (Value::from(at), item)).collect())
        }
        Value::Object(map) => Ok(map.into_iter().map(|(key, item)| (Value::from(key), item)).collect()),
        Value::Null => Ok(Vec::new()),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            Err(TemplateError::new(format!("range can't iterate over {}", shown(&value))))
        }
    }
}

fn value_of(expression: &Expression, scope: &Scope, dot: &Value) -> Result<Value, TemplateError> {
    match expression {
        Expression::Constant(value) => Ok(value.clone()),
        Expression::Field(names) => field(dot, names).cloned(),
        Expression::Variable(name, names) => field(scope.value(name)?, names).cloned(),
        Expression::Of(inner, names) => field(&value_of(inner, scope, dot)?, names).cloned(),
        Expression::Call(name, arguments) => {
            let arguments: Vec<Value> = arguments
                .iter()
                .map(|argument| value_of(argument, scope, dot))
                .collect::<Result<_, TemplateError>>()?;
            call(name, &arguments)
        }
    }
}

/// Fields of a value. A missing one is an error if it is written like a field of docker's (upper case), and no value
/// if it is written like a key.
fn field<'v>(value: &'v Value, names: &[String]) -> Result<&'v Value, TemplateError> {
    let mut value = value;
    for name in names {
        let Value::Object(map) = value else {
            return Err(TemplateError::new(format!("can't evaluate field {name} in {}", shown(value))));
        };
        value = match map.get(name) {
            Some(value) => value,
            None if name.starts_with(char::is_uppercase) => {
                return Err(TemplateError::new(format!("there is no field \"{name}\"")));
            }
            None => &Value::Null,
        };
    }
    Ok(value)
}

fn call(name: &str, arguments: &[Value]) -> Result<Value, TemplateError> {
    let wrong = || TemplateError::new(format!("wrong arguments for function \"{name}\""));
    let text = |value: &Value| value.as_str().map(str::to_owned).ok_or_else(wrong);
    match (name, arguments) {
        ("json", [value]) => Ok(Value::from(value.to_string())),
        ("lower", [value]) => Ok(Value::from(text(value)?.to_lowercase())),
        ("upper", [value]) => Ok(Value::from(text(value)?.to_uppercase())),
        ("title", [value]) => Ok(Value::from(title(&text(value)?))),
        ("split", [value, separator]) => {
            Ok(text(value)?.split(&text(separator)?).map(Value::from).collect::<Vec<_>>().into())
        }
        ("join", [Value::Array(list), separator]) => {
            Ok(Value::from(list.iter().map(shown).collect::<Vec<_>>().join(&text(separator)?)))
        }
        ("join", [Value::Null, _]) => Ok(Value::from("")),
        ("truncate", [value, length]) => {
            let length = length.as_u64().and_then(|length| usize::try_from(length).ok()).ok_or_else(wrong)?;
            Ok(Value::from(text(value)?.chars().take(length).collect::<String>()))
        }
        ("println", values) => {
            Ok(Value::from(format!("{}\n", values.iter().map(shown).collect::<Vec<_>>().join(" "))))
        }
        ("print", values) => Ok(Value::from(values.iter().map(shown).collect::<String>())),
        ("printf", [format, values @ ..]) => {
            formatted(&text(format)?, values).map(Value::from).ok_or_else(wrong)
        }
        ("len", [Value::Array(list)]) => Ok(Value::from(list.len())),
        ("len", [Value::Object(map)]) => Ok(Value::from(map.len())),
        ("len", [Value::String(text)]) => Ok(Value::from(text.len())),
        ("len", [Value::Null]) => Ok(Value::from(0)),
        ("index", [value, keys @ ..]) => index(value, keys),
        ("not", [value]) => Ok(Value::Bool(!is_true(value))),
        ("and", [first, rest @ ..]) => {
            let chosen = std::iter::once(first).chain(rest).find(|value| !is_true(value));
            Ok(chosen.or(rest.last()).unwrap_or(first).clone())
        }
        ("or", [first, rest @ ..]) => {
            let chosen = std::iter::once(first).chain(rest).find(|value| is_true(value));
            Ok(chosen.or(rest.last()).unwrap_or(first).clone())
        }
        ("eq", [first, rest @ ..]) if !rest.is_empty() => Ok(Value::Bool(rest.contains(first))),
        ("ne", [first, second]) => Ok(Value::Bool(first != second)),
        ("lt" | "le" | "gt" | "ge", [first, second]) => compared(name, first, second).ok_or_else(wrong),
        (
            "json" | "lower" | "upper" | "title" | "split" | "join" | "truncate" | "printf" | "len" | "index"
            | "not" | "and" | "or" | "eq" | "ne" | "lt" | "le" | "gt" | "ge",
            _,
        ) => Err(wrong()),
        _ => Err(TemplateError::new(format!("function \"{name}\" not defined"))),
    }
}

fn compared(name: &str, first: &Value, second: &Value) -> Option<Value> {
    let order = match (first, second) {
        (Value::Number(first), Value::Number(second)) => first.as_f64()?.partial_cmp(&second.as_f64()?)?,
        (Value::String(first), Value::String(second)) => first.cmp(second),
        _ => return None,
    };
    Some(Value::Bool(match name {
        "lt" => order.is_lt(),
        "le" => order.is_le(),
        "gt" => order.is_gt(),
        _ => order.is_ge(),
    }))
}

fn index(value: &Value, keys: &[Value]) -> Result<Value, TemplateError> {
    let mut value = value.clone();
    for key in keys {
        value = match (&value, key) {
            (Value::Array(list), Value::Number(at)) => {
                let item = at.as_u64().and_then(|at| usize::try_from(at).ok()).and_then(|at| list.get(at));
                item.cloned().ok_or_else(|| TemplateError::new(format!("index out of range: {at}")))?
            }
            // Go's zero value of a map of texts.
            (Value::Object(map), Value::String(name)) => {
                map.get(name).cloned().unwrap_or_else(|| Value::from(""))
            }
            (Value::Null, Value::String(_)) => Value::from(""),
            (other, key) => {
                return Err(TemplateError::new(format!("can't index {} with {}", shown(other), shown(key))));
            }
        };
    }
    Ok(value)
}

/// `%s`, `%d`, `%v`, `%q` and `%%`, which is what people use.
fn formatted(format: &str, values: &[Value]) -> Option<String> {
    let mut output = String::new();
    let mut values = values.iter();
    let mut characters = format.chars();
    while let Some(character) = characters.next() {
        if character != '%' {
            output.push(character);
            continue;
        }
        match characters.next()? {
            '%' => output.push('%'),
            's' | 'd' | 'v' => output.push_str(&shown(values.next()?)),
            'q' => output.push_str(&Value::from(shown(values.next()?)).to_string()),
            _ => return None,
        }
    }
    values.next().is_none().then_some(output)
}

fn title(text: &str) -> String {
    let mut start = true;
    let upper = |character: char| character.to_uppercase().next().unwrap_or(character);
    text.chars()
        .map(|character| {
            let shown = if start { upper(character) } else { character };
            start = character.is_whitespace();
            shown
        })
        .collect()
}

/// Go's truth: not empty, not zero, not nil.
fn is_true(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(list) => !list.is_empty(),
        Value::Object(map) => !map.is_empty(),
    }
}

/// As Go prints it.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => text.clone(),
        Value::Array(list) => format!("[{}]", list.iter().map(shown).collect::<Vec<_>>().join(" ")),
        Value::Object(map) => {
            let entries: Vec<String> =
                map.iter().map(|(key, value)| format!("{key}:{}", shown(value))).collect();
            format!("map[{}]", entries.join(" "))
        }
    }
}
