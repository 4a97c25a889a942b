//! The functions of Go's text/template and of Docker's `--format`.

use std::cmp::Ordering;

use serde_json::Value;

use super::printf::printf;
use super::{TemplateError, error, is_true, text_of};

/// Spaces that `pad` adds on each side, at most.
const MAX_PADDING: u64 = 1000;

/// What a template is run on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    Rows,
    /// Of a table: functions that change a value's text leave a heading alone.
    Headings,
}

pub(super) fn call(name: &str, arguments: &[Value], purpose: Use) -> Result<Value, TemplateError> {
    let is_of_text = matches!(
        name,
        "json" | "split" | "join" | "title" | "lower" | "upper" | "pad" | "truncate"
    );
    if purpose == Use::Headings
        && (is_of_text || matches!(name, "len" | "index" | "slice"))
        && let Some(first) = arguments.first()
    {
        return Ok(first.clone());
    }
    let least = match name {
        "and" | "or" | "eq" | "slice" | "index" | "printf" | "not" | "len" | "json" | "title"
        | "lower" | "upper" => 1,
        "ne" | "lt" | "le" | "gt" | "ge" | "split" | "join" | "truncate" => 2,
        "pad" => 3,
        "print" | "println" => 0,
        _ => return error(format!("no function {name}")),
    };
    let is_open = matches!(
        name,
        "and" | "or" | "eq" | "slice" | "index" | "print" | "println" | "printf"
    );
    if arguments.len() < least || arguments.len() > least && !is_open {
        let more = if is_open { " or more" } else { "" };
        return error(format!(
            "{name} takes {least}{more} arguments, not {}",
            arguments.len()
        ));
    }
    let no_value = Value::Null;
    let argument = |i: usize| arguments.get(i).unwrap_or(&no_value);
    let text = |i: usize| text_of(argument(i));
    let (first, second) = (argument(0), argument(1));
    Ok(match name {
        "and" | "or" => arguments.last().cloned().unwrap_or_default(),
        "not" => (!is_true(first)).into(),
        "eq" => arguments
            .iter()
            .skip(1)
            .any(|other| equal(first, other))
            .into(),
        "ne" => (!equal(first, second)).into(),
        "lt" => (order(first, second)?).is_lt().into(),
        "le" => (order(first, second)?).is_le().into(),
        "gt" => (order(first, second)?).is_gt().into(),
        "ge" => (order(first, second)?).is_ge().into(),
        "len" => length(first)?.into(),
        "index" => {
            let mut value = first.clone();
            for key in arguments.iter().skip(1) {
                value = index(&value, key)?;
            }
            value
        }
        "slice" => slice(first, arguments.get(1), arguments.get(2))?,
        "print" => print(arguments).into(),
        "println" => {
            let texts: Vec<String> = arguments.iter().map(text_of).collect();
            format!("{}\n", texts.join(" ")).into()
        }
        "printf" => printf(&text(0), arguments.get(1..).unwrap_or_default())?.into(),
        "json" => first.to_string().into(),
        "split" => {
            let (text, separator) = (text(0), text(1));
            let parts: Vec<&str> = if separator.is_empty() {
                text.split("").filter(|part| !part.is_empty()).collect()
            } else {
                text.split(&separator).collect()
            };
            parts.into()
        }
        "join" => match first {
            Value::Array(items) => {
                let items: Vec<String> = items.iter().map(text_of).collect();
                items.join(&text(1)).into()
            }
            _ => return error(format!("join of {}, which is no list", text(0))),
        },
        "title" => title(&text(0)).into(),
        "lower" => text(0).to_lowercase().into(),
        "upper" => text(0).to_uppercase().into(),
        "pad" => pad(&text(0), argument(1), argument(2))?.into(),
        _ => {
            let length = usize::try_from(whole(second)?).unwrap_or(0);
            text(0).chars().take(length).collect::<String>().into()
        }
    })
}

/// A whole number.
fn whole(value: &Value) -> Result<i64, TemplateError> {
    match value.as_i64() {
        Some(number) => Ok(number),
        None => error(format!("{} is not a whole number", text_of(value))),
    }
}

fn equal(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(_), Value::Number(_)) => order(one, other).is_ok_and(Ordering::is_eq),
        _ => one == other,
    }
}

fn order(one: &Value, other: &Value) -> Result<Ordering, TemplateError> {
    let order = match (one, other) {
        (Value::String(one), Value::String(other)) => Some(one.cmp(other)),
        (Value::Number(one), Value::Number(other)) => match (one.as_i64(), other.as_i64()) {
            (Some(one), Some(other)) => Some(one.cmp(&other)),
            _ => one
                .as_f64()
                .zip(other.as_f64())
                .and_then(|(one, other)| one.partial_cmp(&other)),
        },
        _ => None,
    };
    match order {
        Some(order) => Ok(order),
        None => error(format!(
            "{} and {} cannot be compared",
            text_of(one),
            text_of(other)
        )),
    }
}

/// Of text in bytes, as in Go.
fn length(value: &Value) -> Result<usize, TemplateError> {
    match value {
        Value::String(text) => Ok(text.len()),
        Value::Array(items) => Ok(items.len()),
        Value::Object(fields) => Ok(fields.len()),
        _ => error(format!("len of {}", text_of(value))),
    }
}

fn index(value: &Value, key: &Value) -> Result<Value, TemplateError> {
    let position = || -> Result<(i64, Option<usize>), TemplateError> {
        let number = whole(key)?;
        Ok((number, usize::try_from(number).ok()))
    };
    let (number, found) = match value {
        Value::Object(fields) => {
            let found = key.as_str().and_then(|name| fields.get(name));
            return Ok(found.cloned().unwrap_or_default());
        }
        Value::Array(items) => {
            let (number, at) = position()?;
            (number, at.and_then(|at| items.get(at).cloned()))
        }
        Value::String(text) => {
            let (number, at) = position()?;
            let byte = at.and_then(|at| text.as_bytes().get(at).copied());
            (number, byte.map(Value::from))
        }
        _ => return error(format!("index of {}", text_of(value))),
    };
    found.ok_or_else(|| TemplateError(format!("index {number} is out of range")))
}

fn slice(value: &Value, from: Option<&Value>, to: Option<&Value>) -> Result<Value, TemplateError> {
    let length = match value {
        Value::Array(_) | Value::String(_) => length(value)?,
        _ => return error(format!("slice of {}", text_of(value))),
    };
    let bound = |bound: Option<&Value>, usual: usize| match bound {
        None => Ok(usual),
        Some(bound) => Ok(usize::try_from(whole(bound)?).unwrap_or(usize::MAX)),
    };
    let (from, to) = (bound(from, 0)?, bound(to, length)?);
    if from > to || to > length {
        return error(format!("slice: {from} to {to} is out of range of {length}"));
    }
    if let Value::Array(items) = value {
        return Ok(items.get(from..to).unwrap_or_default().into());
    }
    match value.as_str().unwrap_or_default().get(from..to) {
        Some(part) => Ok(part.into()),
        None => error(format!(
            "slice: {from} is not between characters, or {to} is not"
        )),
    }
}

/// Go puts a space between two operands unless one is text.
fn print(arguments: &[Value]) -> String {
    let mut text = String::new();
    let mut before: Option<&Value> = None;
    for argument in arguments {
        if before.is_some_and(|before| !before.is_string() && !argument.is_string()) {
            text.push(' ');
        }
        text += &text_of(argument);
        before = Some(argument);
    }
    text
}

fn title(text: &str) -> String {
    let mut out = String::new();
    let mut begins = true;
    for c in text.chars() {
        if begins {
            out.extend(c.to_uppercase());
        } else {
            out.push(c);
        }
        begins = !(c.is_alphanumeric() || c == '_' || c == '\'');
    }
    out
}

/// Docker's: so many spaces before and after, none around nothing.
fn pad(text: &str, before: &Value, after: &Value) -> Result<String, TemplateError> {
    let spaces = |count: &Value| -> Result<String, TemplateError> {
        let count = u64::try_from(whole(count)?).unwrap_or(0);
        if count > MAX_PADDING {
            return error(format!("pad adds at most {MAX_PADDING} spaces"));
        }
        Ok(" ".repeat(usize::try_from(count).unwrap_or(0)))
    };
    let (before, after) = (spaces(before)?, spaces(after)?);
    if text.is_empty() {
        return Ok(String::new());
    }
    Ok(format!("{before}{text}{after}"))
}
