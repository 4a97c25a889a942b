//! Patterns of names as `fnmatch(3)` has them: `*`, `?`, `[a-z]`, `[!a]`, `[[:digit:]]`, `\*`. A
//! `/` is a character as any other, and so is a dot at the beginning: find(1) wants both so.

use anyhow::Context;

/// The classes that `[[:class:]]` can name.
const CLASSES: [&str; 12] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

/// A pattern. Of names in UTF-8 `?` is a character, of others a byte.
pub(super) struct Glob {
    text: Option<regex::Regex>,
    bytes: regex::bytes::Regex,
}

impl Glob {
    pub(super) fn new(pattern: &[u8], ignore_case: bool) -> anyhow::Result<Self> {
        let case = if ignore_case { "i" } else { "" };
        let text = std::str::from_utf8(pattern).ok().map(|pattern| {
            let pattern = translate(pattern.chars(), |c| regex::escape(&c.to_string()));
            regex::Regex::new(&format!("(?s{case})^{pattern}$"))
        });
        let escape = |c: char| format!(r"\x{:02x}", u32::from(c));
        let bytes = translate(pattern.iter().map(|byte| char::from(*byte)), escape);
        let bytes = regex::bytes::Regex::new(&format!("(?s{case}-u)^{bytes}$"));
        let bad = || format!("bad pattern {}", pattern.escape_ascii());
        Ok(Self {
            text: text.transpose().with_context(bad)?,
            bytes: bytes.with_context(bad)?,
        })
    }

    pub(super) fn matches(&self, name: &[u8]) -> bool {
        match (&self.text, std::str::from_utf8(name)) {
            (Some(text), Ok(name)) => text.is_match(name),
            _ => self.bytes.is_match(name),
        }
    }
}

/// The same as a regular expression; `escape` writes a character that stands for itself.
fn translate(pattern: impl Iterator<Item = char>, escape: impl Fn(char) -> String) -> String {
    let pattern: Vec<char> = pattern.collect();
    let mut rest = &pattern[..];
    let mut out = String::new();
    while let [first, after @ ..] = rest {
        rest = after;
        match first {
            '*' => out += ".*",
            '?' => out.push('.'),
            '[' => {
                if let Some((set, behind)) = bracket(after, &escape) {
                    out += &set;
                    rest = behind;
                } else {
                    out += &escape('[');
                }
            }
            '\\' => {
                let [escaped, behind @ ..] = after else {
                    out += &escape('\\');
                    break;
                };
                out += &escape(*escaped);
                rest = behind;
            }
            c => out += &escape(*c),
        }
    }
    out
}

/// A bracket expression whose `[` is taken, and what follows it; `None` if it is none, so that the
/// `[` is one character.
fn bracket<'p>(
    pattern: &'p [char],
    escape: &impl Fn(char) -> String,
) -> Option<(String, &'p [char])> {
    let mut rest = pattern;
    let mut set = String::from("[");
    if let ['!' | '^', after @ ..] = rest {
        set.push('^');
        rest = after;
    }
    let mut is_first = true;
    loop {
        match rest {
            [']', after @ ..] if !is_first => {
                set.push(']');
                return Some((set, after));
            }
            ['[', ':', after @ ..] => {
                let end = after.windows(2).position(|pair| pair == [':', ']'])?;
                let class: String = after.get(..end)?.iter().collect();
                CLASSES.contains(&class.as_str()).then_some(())?;
                set.extend(["[:", &class, ":]"]);
                rest = after.get(end + 2..)?;
            }
            [from, '-', to, after @ ..] if *to != ']' && from <= to => {
                set.extend([&escape(*from), "-", &escape(*to)]);
                rest = after;
            }
            ['\\', c, after @ ..] | [c, after @ ..] => {
                set += &escape(*c);
                rest = after;
            }
            [] => return None,
        }
        is_first = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_fnmatch_does() {
        #[track_caller]
        fn check(pattern: &str, name: &[u8], expected: bool) {
            let glob = Glob::new(pattern.as_bytes(), false).unwrap();
            assert_eq!(glob.matches(name), expected, "{pattern} {name:?}");
        }
        check("*", b".hidden", true);
        check("*", b"line\nbreak", true);
        check("*.rs", b"a.rs", true);
        check("*.rs", b"a.rs~", false);
        check("a.c", b"abc", false);
        check("{a,b}", b"a", false);
        check("{a,b}", b"{a,b}", true);
        check("/usr/*", b"/usr/bin/x", true);
        check("?", "\u{e4}".as_bytes(), true);
        check("??", "\u{e4}".as_bytes(), false);
        check("?", b"\xff", true);
        check("[a-c]x", b"bx", true);
        check("[!a-c]x", b"bx", false);
        check("[^a-c]x", b"dx", true);
        check("[]a]", b"]", true);
        check("[[:digit:]_]*", b"1a", true);
        check("[[:digit:]_]*", b"a1", false);
        check("[a-]", b"-", true);
        check("[&~]", b"&", true);
        check("[a", b"[a", true);
        check("a\\*", b"a*", true);
        check("a\\*", b"ab", false);
        check("a\\", b"a\\", true);
        check("", b"", true);
        let glob = Glob::new(b"README*", true).unwrap();
        assert!(glob.matches(b"readme.md") && glob.matches(b"Readme\xff"));
        assert!(Glob::new(b"\xff*", false).unwrap().matches(b"\xffx"));
        check("[[:odd:]]", b"o", false);
    }
}
