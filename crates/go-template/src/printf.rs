//! Go's `printf`, for the values a template has.

use serde_json::Value;

use super::{TemplateError, error, text_of};

/// Width and precision, at most.
const MAX_WIDTH: usize = 1000;

#[expect(clippy::struct_excessive_bools, reason = "they are Go's flags")]
/// `%[flags][width][.precision]verb`
#[derive(Default)]
struct Verb {
    minus: bool,
    plus: bool,
    space: bool,
    zero: bool,
    sharp: bool,
    width: usize,
    precision: Option<usize>,
}

/// Fills `format`. What does not fit is said in the text, as Go does.
pub(super) fn printf(format: &str, arguments: &[Value]) -> Result<String, TemplateError> {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut verb = Verb::default();
        while let Some(flag) = chars.next_if(|c| "-+ 0#".contains(*c)) {
            match flag {
                '-' => verb.minus = true,
                '+' => verb.plus = true,
                ' ' => verb.space = true,
                '0' => verb.zero = true,
                _ => verb.sharp = true,
            }
        }
        verb.width = amount(&mut chars, &mut arguments, &mut verb.minus)?.unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            verb.precision = Some(amount(&mut chars, &mut arguments, &mut false)?.unwrap_or(0));
        }
        match chars.next() {
            None => out += "%!(NOVERB)",
            Some('%') => out.push('%'),
            Some(letter) => match arguments.next() {
                None => out.extend(["%!", &letter.to_string(), "(MISSING)"]),
                Some(value) => out += &verb.write(letter, value),
            },
        }
    }
    let extra: Vec<String> = arguments
        .map(|value| format!("{}={}", kind(value), text_of(value)))
        .collect();
    if !extra.is_empty() {
        out = out + "%!(EXTRA " + &extra.join(", ") + ")";
    }
    Ok(out)
}

/// A width or precision: digits, or `*` for the next argument, where a negative one aligns left.
fn amount(
    chars: &mut std::iter::Peekable<std::str::Chars<'_>>,
    arguments: &mut std::slice::Iter<'_, Value>,
    left: &mut bool,
) -> Result<Option<usize>, TemplateError> {
    let mut number: Option<usize> = None;
    if chars.next_if_eq(&'*').is_some() {
        let given = arguments.next().and_then(Value::as_i64).unwrap_or(0);
        *left |= given < 0;
        number = Some(usize::try_from(given.unsigned_abs()).unwrap_or(usize::MAX));
    } else {
        while let Some(digit) = chars.peek().and_then(|c| c.to_digit(10)) {
            chars.next();
            let before = number.unwrap_or(0);
            number = Some(before.saturating_mul(10).saturating_add(digit as usize));
        }
    }
    if number.is_some_and(|number| number > MAX_WIDTH) {
        return error(format!("printf: a width is at most {MAX_WIDTH}"));
    }
    Ok(number)
}

impl Verb {
    fn write(&self, letter: char, value: &Value) -> String {
        match (letter, value) {
            (_, Value::Array(items)) if "sqvdxX".contains(letter) => {
                let items: Vec<String> = (items.iter())
                    .map(|item| self.write(letter, item))
                    .collect();
                format!("[{}]", items.join(" "))
            }
            ('s' | 'v', Value::String(text)) => self.pad(&self.cut(text), false),
            ('q', Value::String(text)) => self.pad(&format!("{:?}", self.cut(text)), false),
            ('x' | 'X', Value::String(text)) => {
                let digit = |four: u8| char::from_digit(u32::from(four), 16).unwrap_or('0');
                let hex: String = (text.bytes())
                    .flat_map(|byte| [digit(byte >> 4), digit(byte & 15)])
                    .collect();
                let hex = if letter == 'X' {
                    hex.to_uppercase()
                } else {
                    hex
                };
                self.pad(&hex, false)
            }
            ('t', Value::Bool(_)) | ('v', Value::Bool(_) | Value::Null | Value::Object(_)) => {
                self.pad(&text_of(value), false)
            }
            (_, Value::Number(number)) => {
                let text = match (number.as_i64(), number.as_f64()) {
                    (Some(number), _) => self.integer(letter, number),
                    (None, Some(number)) => self.float(letter, number),
                    (None, None) => None,
                };
                text.unwrap_or_else(|| misfit(letter, value))
            }
            _ => misfit(letter, value),
        }
    }

    fn integer(&self, letter: char, number: i64) -> Option<String> {
        let size = number.unsigned_abs();
        let digits = match letter {
            'd' | 'v' => size.to_string(),
            'x' => format!("{size:x}"),
            'X' => format!("{size:X}"),
            'o' => format!("{size:o}"),
            'b' => format!("{size:b}"),
            'c' => {
                let c = u32::try_from(number).ok().and_then(char::from_u32);
                let c = c.unwrap_or(char::REPLACEMENT_CHARACTER);
                return Some(self.pad(&c.to_string(), false));
            }
            _ => return None,
        };
        let prefix = match letter {
            'x' if self.sharp => "0x",
            'X' if self.sharp => "0X",
            'o' if self.sharp => "0",
            _ => "",
        };
        Some(self.number(number < 0, prefix, &digits))
    }

    fn float(&self, letter: char, number: f64) -> Option<String> {
        let size = number.abs();
        let precision = self.precision.unwrap_or(6);
        let digits = match letter {
            'f' | 'F' => format!("{size:.precision$}"),
            'e' => {
                let text = format!("{size:.precision$e}");
                let (mantissa, exponent) = text.split_once('e')?;
                let exponent: i32 = exponent.parse().ok()?;
                let sign = if exponent < 0 { '-' } else { '+' };
                format!("{mantissa}e{sign}{:02}", exponent.unsigned_abs())
            }
            'g' | 'v' => size.to_string(),
            _ => return None,
        };
        Some(self.number(number < 0.0, "", &digits))
    }

    /// Sign, prefix and digits, with zeros between if asked for.
    fn number(&self, is_negative: bool, prefix: &str, digits: &str) -> String {
        let sign = match (is_negative, self.plus, self.space) {
            (true, _, _) => "-",
            (_, true, _) => "+",
            (_, _, true) => " ",
            _ => "",
        };
        let zeros = if self.zero && !self.minus {
            self.width
                .saturating_sub(sign.len() + prefix.len() + digits.len())
        } else {
            0
        };
        self.pad(
            &format!("{sign}{prefix}{}{digits}", "0".repeat(zeros)),
            true,
        )
    }

    fn cut(&self, text: &str) -> String {
        let length = self.precision.unwrap_or(usize::MAX);
        text.chars().take(length).collect()
    }

    fn pad(&self, text: &str, is_number: bool) -> String {
        let missing = self.width.saturating_sub(text.chars().count());
        // Go fills texts with zeros, too.
        let zero = self.zero && !self.minus && !is_number;
        let filling = if zero { "0" } else { " " }.repeat(missing);
        if self.minus {
            format!("{text}{filling}")
        } else {
            format!("{filling}{text}")
        }
    }
}

fn misfit(letter: char, value: &Value) -> String {
    format!("%!{letter}({}={})", kind(value), text_of(value))
}

/// Go's name of the type.
fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float64",
        Value::Number(_) => "int",
        Value::String(_) => "string",
        Value::Array(_) => "[]string",
        Value::Object(_) => "map[string]string",
    }
}
