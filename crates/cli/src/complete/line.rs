//! Command lines as shells quote them: taken apart, and what is put in the place of the last word.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

/// What a shell gives a special meaning in a word.
const SPECIAL: &[u8] = b" \t'\"\\$`!&|;<>()*?[]{}#~^";

/// The word at the cursor, as it was typed.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct LastWord {
    /// The quote that is open.
    quote: Option<u8>,
    /// How many of its unquoted bytes stand before what bash takes for the word to replace: up to
    /// the last character that ends words for completion, or to the open quote.
    kept: usize,
}

/// Takes apart what was typed up to the cursor; `breaks` are bash's `COMP_WORDBREAKS`. The last
/// word is the one at the cursor, empty behind a space.
pub(super) fn split(typed: &[u8], breaks: &[u8]) -> (Vec<OsString>, LastWord) {
    let mut words = Vec::new();
    let (mut word, mut quote, mut is_word, mut kept) = (Vec::new(), None, false, 0);
    let mut bytes = typed.iter().copied();
    while let Some(byte) = bytes.next() {
        match (quote, byte) {
            (None, b' ' | b'\t') => {
                if is_word {
                    words.push(OsString::from_vec(std::mem::take(&mut word)));
                }
                (is_word, kept) = (false, 0);
                continue;
            }
            (None, b'\'' | b'"') => {
                quote = Some(byte);
                kept = word.len();
            }
            (Some(open), _) if byte == open => quote = None,
            // Within double quotes it only takes the meaning of these.
            (None | Some(b'"'), b'\\') => {
                if let Some(next) = bytes.next() {
                    if quote.is_some() && !b"$`\"\\".contains(&next) {
                        word.push(b'\\');
                    }
                    word.push(next);
                }
            }
            (_, byte) => {
                word.push(byte);
                if quote.is_none() && breaks.contains(&byte) {
                    kept = word.len();
                }
            }
        }
        is_word = true;
    }
    words.push(OsString::from_vec(word));
    (words, LastWord { quote, kept })
}

/// A single word without its quotes.
pub(super) fn unquoted(typed: &[u8]) -> OsString {
    let (words, _) = split(typed, b"");
    words.into_iter().next_back().unwrap_or_default()
}

/// What bash is to put in the place of the last word, so that it reads `value` there.
pub(super) fn for_bash(value: &[u8], last: &LastWord) -> Vec<u8> {
    let value = value.get(last.kept..).unwrap_or_default();
    let mut text = Vec::new();
    for byte in value {
        match last.quote {
            None if SPECIAL.contains(byte) => text.extend([b'\\', *byte]),
            Some(b'"') if b"$`\"\\".contains(byte) => text.extend([b'\\', *byte]),
            Some(b'\'') if *byte == b'\'' => text.extend(b"'\\''"),
            _ => text.push(*byte),
        }
    }
    // More may follow right behind a directory, an option that wants a value, a registry's name.
    if !value.ends_with(b"/") && !value.ends_with(b"=") && !value.ends_with(b":") {
        text.extend(last.quote);
        text.push(b' ');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    const BREAKS: &[u8] = b" \t\n\"'><=;|&(:";

    #[test]
    fn lines_are_taken_apart() {
        let check = |typed: &str, expected: &[&str], quote: Option<char>, kept: usize| {
            let (words, last) = split(typed.as_bytes(), BREAKS);
            assert_eq!(words, expected, "{typed}");
            let quote = quote.map(|quote| u8::try_from(quote).unwrap());
            assert_eq!(last, LastWord { quote, kept }, "{typed}");
        };
        check("imgfs", &["imgfs"], None, 0);
        check("imgfs ls ", &["imgfs", "ls", ""], None, 0);
        check("imgfs  ls go", &["imgfs", "ls", "go"], None, 0);
        check("ls host:5000/na", &["ls", "host:5000/na"], None, 5);
        check("ls --pull=al", &["ls", "--pull=al"], None, 7);
        check(r"ls x a\ b\:c", &["ls", "x", "a b:c"], None, 0);
        check("ls x 'a b:c", &["ls", "x", "a b:c"], Some('\''), 0);
        check("ls x \"a $b\\\"", &["ls", "x", "a $b\""], Some('"'), 0);
        check("ls x pre'a b", &["ls", "x", "prea b"], Some('\''), 3);
        check("ls x ''", &["ls", "x", ""], None, 0);
        check("ls x a\\", &["ls", "x", "a"], None, 0);
    }

    #[test]
    fn what_is_put_in_reads_as_what_was_meant() {
        let check = |typed: &str, value: &str, expected: &str| {
            let (_, last) = split(typed.as_bytes(), BREAKS);
            let text = String::from_utf8(for_bash(value.as_bytes(), &last)).unwrap();
            assert_eq!(text, expected, "{typed} -> {value}");
        };
        check("ls go", "golang:latest", "golang:latest ");
        check("ls golang:l", "golang:latest", "latest ");
        check("ls localhost:5000/x:", "localhost:5000/x:1", "1 ");
        check("ls --pull=", "--pull=always", "always ");
        check("ls x /a", "/a b/", "/a\\ b/");
        check("ls x /a", "/a'$b", "/a\\'\\$b ");
        check("ls x '/a", "/a'b", "/a'\\''b' ");
        check("ls x \"/a", "/a$b", "/a\\$b\" ");
        check("ls x \"local:", "local:1", "local:1\" ");
    }
}
