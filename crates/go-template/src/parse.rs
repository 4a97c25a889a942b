//! Text to nodes: Go's template syntax.

use std::iter::Peekable;
use std::str::Chars;

use serde_json::Value;

use super::{Base, Branch, BranchKind, Node, Operand, Pipeline, TemplateError, error};

/// Blocks and parentheses within each other: parsing recurses so deep, and nobody types more.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq)]
enum Token {
    Constant(Value),
    Identifier(String),
    /// `.`, `.A.B`
    Fields(Vec<String>),
    /// `$`, `$x.A`
    Variable(String, Vec<String>),
    Open,
    /// `)`, `).A`
    Close(Vec<String>),
    Pipe,
    Comma,
    Declare,
    Assign,
}

/// A piece of the template: text, or what stands between `{{` and `}}`.
enum Piece {
    Text(String),
    Action(Vec<Token>),
}

pub(super) fn parse(text: &str) -> Result<Vec<Node>, TemplateError> {
    let mut pieces = pieces(text)?.into_iter();
    let (nodes, end) = block(&mut pieces, 0)?;
    match end {
        Ending::Template => Ok(nodes),
        Ending::End => error("unexpected {{end}}"),
        Ending::Else(_) => error("unexpected {{else}}"),
    }
}

/// How a block ended.
enum Ending {
    Template,
    End,
    /// With what follows the word: `{{else if x}}`.
    Else(Vec<Token>),
}

fn block(
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<(Vec<Node>, Ending), TemplateError> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let Some((Token::Identifier(word), rest)) = tokens.split_first() else {
            nodes.push(Node::Print(pipeline(&tokens)?));
            continue;
        };
        match word.as_str() {
            "if" | "with" | "range" => nodes.push(branch(word, rest, pieces, depth + 1)?),
            "end" => return Ok((nodes, Ending::End)),
            "else" => return Ok((nodes, Ending::Else(rest.to_vec()))),
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "define" | "template" | "block" => {
                return error(format!("{word} is not supported"));
            }
            _ => nodes.push(Node::Print(pipeline(&tokens)?)),
        }
    }
    Ok((nodes, Ending::Template))
}

fn branch(
    word: &str,
    tokens: &[Token],
    pieces: &mut std::vec::IntoIter<Piece>,
    depth: usize,
) -> Result<Node, TemplateError> {
    if depth > MAX_DEPTH {
        return error("too deep");
    }
    let kind = match word {
        "if" => BranchKind::If,
        "with" => BranchKind::With,
        _ => BranchKind::Range,
    };
    let pipeline = pipeline(tokens)?;
    let (then, end) = block(pieces, depth)?;
    let otherwise = match end {
        Ending::End => Vec::new(),
        Ending::Else(rest) => match rest.split_first() {
            None => match block(pieces, depth)? {
                (nodes, Ending::End) => nodes,
                (_, Ending::Else(_)) => return error("unexpected {{else}}"),
                (_, Ending::Template) => return error("{{end}} is missing"),
            },
            Some((Token::Identifier(again), rest))
                if again == word && kind != BranchKind::Range =>
            {
                // Its {{end}} is ours, too.
                vec![branch(again, rest, pieces, depth + 1)?]
            }
            Some(_) => return error(format!("what follows else is not {word}")),
        },
        Ending::Template => return error("{{end}} is missing"),
    };
    Ok(Node::Branch(Branch {
        kind,
        pipeline,
        then,
        otherwise,
    }))
}

/// `$i, $x := first | second`, all of the tokens.
fn pipeline(tokens: &[Token]) -> Result<Pipeline, TemplateError> {
    let mut tokens = tokens.iter().peekable();
    let pipeline = piped(&mut tokens, 0)?;
    match tokens.next() {
        None => Ok(pipeline),
        Some(_) => error("unexpected )"),
    }
}

type Tokens<'a> = Peekable<std::slice::Iter<'a, Token>>;

fn piped(tokens: &mut Tokens<'_>, depth: usize) -> Result<Pipeline, TemplateError> {
    let (variables, assigns) = declaration(tokens)?;
    let mut commands = Vec::new();
    loop {
        let mut command = Vec::new();
        while let Some(token) = tokens.peek() {
            match token {
                Token::Pipe | Token::Close(_) => break,
                _ => command.push(operand(tokens, depth)?),
            }
        }
        if command.is_empty() {
            return error("there is nothing to print in one of the {{ }}");
        }
        commands.push(command);
        if tokens.next_if(|token| **token == Token::Pipe).is_none() {
            return Ok(Pipeline {
                variables,
                assigns,
                commands,
            });
        }
    }
}

/// The variables before `:=` or `=`, if it begins so.
fn declaration(tokens: &mut Tokens<'_>) -> Result<(Vec<String>, bool), TemplateError> {
    let mut ahead = tokens.clone();
    let mut names = Vec::new();
    while let Some(Token::Variable(name, fields)) = ahead.next() {
        if !fields.is_empty() {
            break;
        }
        names.push(name.clone());
        match ahead.next() {
            Some(Token::Comma) => {}
            Some(token @ (Token::Declare | Token::Assign)) if names.len() <= 2 => {
                *tokens = ahead;
                return Ok((names, *token == Token::Assign));
            }
            Some(Token::Declare | Token::Assign) => return error("too many variables"),
            _ => break,
        }
    }
    Ok((Vec::new(), false))
}

fn operand(tokens: &mut Tokens<'_>, depth: usize) -> Result<Operand, TemplateError> {
    let path = |base, fields: &Vec<String>| Operand::Path {
        base,
        fields: fields.clone(),
    };
    match tokens.next() {
        Some(Token::Constant(value)) => Ok(Operand::Constant(value.clone())),
        Some(Token::Identifier(name)) => Ok(Operand::Function(name.clone())),
        Some(Token::Fields(fields)) => Ok(path(Base::Dot, fields)),
        Some(Token::Variable(name, fields)) => Ok(path(Base::Variable(name.clone()), fields)),
        Some(Token::Open) => {
            if depth >= MAX_DEPTH {
                return error("too deep");
            }
            let inner = piped(tokens, depth + 1)?;
            match tokens.next() {
                Some(Token::Close(fields)) => Ok(path(Base::Pipeline(Box::new(inner)), fields)),
                _ => error(") is missing"),
            }
        }
        Some(Token::Comma) => error("unexpected ,"),
        Some(Token::Assign) => error("unexpected ="),
        Some(Token::Declare) => error("unexpected :="),
        Some(Token::Close(_)) => error("unexpected )"),
        Some(Token::Pipe) | None => error("there is nothing to print in one of the {{ }}"),
    }
}

/// Cuts the template, trimming where `{{-` and `-}}` say so.
fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut pieces = Vec::new();
    let mut rest = text;
    let mut trims = false;
    loop {
        let (plain, action) = match rest.split_once("{{") {
            Some((plain, action)) => (plain, Some(action)),
            None => (rest, None),
        };
        let plain = if trims { plain.trim_start() } else { plain };
        let trimmed = action.and_then(|action| {
            let after = action.strip_prefix('-')?;
            after.starts_with(char::is_whitespace).then_some(after)
        });
        let plain = if trimmed.is_some() {
            plain.trim_end()
        } else {
            plain
        };
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain.to_owned()));
        }
        let Some(action) = trimmed.or(action) else {
            return Ok(pieces);
        };
        if let Some(comment) = action.trim_start().strip_prefix("/*") {
            let Some((_, after)) = comment.split_once("*/") else {
                return error("*/ is missing");
            };
            let after = after.trim_start();
            trims = after.starts_with("-}}");
            match after.trim_start_matches('-').strip_prefix("}}") {
                Some(after) => rest = after,
                None => return error("a comment has to end with */}}"),
            }
            continue;
        }
        let (tokens, after, trims_next) = action_tokens(action)?;
        pieces.push(Piece::Action(tokens));
        (rest, trims) = (after, trims_next);
    }
}

/// The tokens up to `}}`, what follows it, and whether that is to be trimmed.
fn action_tokens(text: &str) -> Result<(Vec<Token>, &str, bool), TemplateError> {
    let mut tokens = Vec::new();
    let mut chars = text.chars();
    loop {
        let rest = chars.as_str();
        if let Some(after) = rest.strip_prefix("}}") {
            return Ok((tokens, after, false));
        }
        let spaceless = rest.trim_start();
        if spaceless.len() < rest.len()
            && let Some(after) = spaceless.strip_prefix("-}}")
        {
            return Ok((tokens, after, true));
        }
        let Some(c) = chars.next() else {
            return error("}} is missing");
        };
        tokens.push(match c {
            c if c.is_whitespace() => continue,
            '|' => Token::Pipe,
            ',' => Token::Comma,
            '(' => Token::Open,
            ')' => Token::Close(fields(&mut chars)),
            '=' => Token::Assign,
            ':' if chars.as_str().starts_with('=') => {
                chars.next();
                Token::Declare
            }
            '"' => Token::Constant(Value::String(quoted(&mut chars, '"')?)),
            '`' => Token::Constant(Value::String(raw(&mut chars)?)),
            '\'' => Token::Constant(character(&mut chars)?),
            '$' => Token::Variable(word(&mut chars), fields(&mut chars)),
            '.' if !chars.as_str().starts_with(|c: char| c.is_ascii_digit()) => {
                let mut names = vec![word(&mut chars)];
                names.retain(|name| !name.is_empty());
                if !names.is_empty() {
                    names.extend(fields(&mut chars));
                }
                Token::Fields(names)
            }
            '0'..='9' | '.' | '-' | '+' => {
                chars = rest.chars();
                Token::Constant(number(&mut chars)?)
            }
            c if c == '_' || c.is_alphabetic() => {
                chars = rest.chars();
                match word(&mut chars).as_str() {
                    "true" => Token::Constant(true.into()),
                    "false" => Token::Constant(false.into()),
                    "nil" => Token::Constant(Value::Null),
                    name => Token::Identifier(name.to_owned()),
                }
            }
            c => return error(format!("unexpected {c}")),
        });
    }
}

/// `.A.B` as far as it goes.
fn fields(chars: &mut Chars<'_>) -> Vec<String> {
    let mut names = Vec::new();
    loop {
        let mut ahead = chars.clone();
        if ahead.next() != Some('.') {
            return names;
        }
        let name = word(&mut ahead);
        if name.is_empty() {
            return names;
        }
        names.push(name);
        *chars = ahead;
    }
}

fn word(chars: &mut Chars<'_>) -> String {
    take_while(chars, |c| c == '_' || c.is_alphanumeric())
}

fn take_while(chars: &mut Chars<'_>, belongs: impl Fn(char) -> bool) -> String {
    let text = chars.as_str();
    let rest = text.trim_start_matches(belongs);
    *chars = rest.chars();
    text.get(..text.len() - rest.len())
        .unwrap_or_default()
        .to_owned()
}

fn number(chars: &mut Chars<'_>) -> Result<Value, TemplateError> {
    let text = take_while(chars, |c| {
        c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '+')
    });
    let plain = text.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let (digits, radix) = match digits.get(..2) {
        Some("0x" | "0X") => (&digits[2..], 16),
        Some("0o" | "0O") => (&digits[2..], 8),
        Some("0b" | "0B") => (&digits[2..], 2),
        _ => (digits, 10),
    };
    let is_plain = !digits.starts_with(['-', '+']);
    if let Ok(number) = i64::from_str_radix(digits, radix)
        && is_plain
    {
        return Ok((sign * number).into());
    }
    let number = plain.parse::<f64>().ok().filter(|_| is_plain);
    match number.and_then(serde_json::Number::from_f64) {
        Some(number) => Ok(Value::Number(number)),
        None => error(format!("bad number {text}")),
    }
}

fn raw(chars: &mut Chars<'_>) -> Result<String, TemplateError> {
    let text = chars.as_str();
    match text.split_once('`') {
        Some((inside, rest)) => {
            *chars = rest.chars();
            Ok(inside.to_owned())
        }
        None => error("unterminated text: ` is missing"),
    }
}

fn character(chars: &mut Chars<'_>) -> Result<Value, TemplateError> {
    let text = quoted(chars, '\'')?;
    let mut inside = text.chars();
    match (inside.next(), inside.next()) {
        (Some(c), None) => Ok(u32::from(c).into()),
        _ => error(format!("'{text}' is not one character")),
    }
}

/// Text up to the closing quote, its escapes resolved.
fn quoted(chars: &mut Chars<'_>, quote: char) -> Result<String, TemplateError> {
    let mut text = String::new();
    loop {
        match chars.next() {
            None => return error(format!("unterminated text: {quote} is missing")),
            Some(c) if c == quote => return Ok(text),
            Some('\\') => text.push(escaped(chars)?),
            Some(c) => text.push(c),
        }
    }
}

fn escaped(chars: &mut Chars<'_>) -> Result<char, TemplateError> {
    let digits = match chars.next() {
        Some('n') => return Ok('\n'),
        Some('t') => return Ok('\t'),
        Some('r') => return Ok('\r'),
        Some(c @ ('\\' | '"' | '\'')) => return Ok(c),
        Some('x') => 2,
        Some('u') => 4,
        Some('U') => 8,
        _ => return error("bad escape in a text"),
    };
    let code: String = chars.by_ref().take(digits).collect();
    let is_hex = code.len() == digits && code.bytes().all(|byte| byte.is_ascii_hexdigit());
    let code = u32::from_str_radix(&code, 16).ok().filter(|_| is_hex);
    match code.and_then(char::from_u32) {
        Some(c) => Ok(c),
        None => error("bad escape in a text"),
    }
}
