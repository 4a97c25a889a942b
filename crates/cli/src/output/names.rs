//! Names and text from images: bytes that an image chose, made harmless for terminals and
//! unambiguous for scripts.
//!
//! ```text
//! on a terminal, in tables   control characters, bytes that are no UTF-8 and backslashes are escaped: \n \u{1b} \xff \\
//! elsewhere                  the bytes as they are, as ls, find and grep do it
//! in JSON                    the text itself; what is not UTF-8 has U+FFFD there, and all its bytes in FIELD_base64
//! ```

use std::io::IsTerminal;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// A name from an image: escaped on a terminal only.
pub(crate) fn name(bytes: &[u8]) -> Vec<u8> {
    if std::io::stdout().is_terminal() {
        printable_name(bytes).into_bytes()
    } else {
        bytes.to_vec()
    }
}

/// A name as text that no other name has: backslashes are escaped, too.
pub(crate) fn printable_name(bytes: &[u8]) -> String {
    escaped(bytes, |c| is_harmful(c) || c == '\\')
}

/// Text of any kind, without what could harm a terminal.
pub(crate) fn printable(bytes: &[u8]) -> String {
    escaped(bytes, is_harmful)
}

/// A line of a file: on a terminal without what could harm it, tabs as they are; elsewhere as it
/// is.
pub(crate) fn shown_text(bytes: &[u8]) -> Vec<u8> {
    if std::io::stdout().is_terminal() {
        escaped(bytes, |c| is_harmful(c) && c != '\t').into_bytes()
    } else {
        bytes.to_vec()
    }
}

/// Text for JSON: what is not UTF-8 is replaced, [`json_base64`] has it.
pub(crate) fn json_text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// All the bytes, if [`json_text`] cannot hold them.
pub(crate) fn json_base64(bytes: &[u8]) -> Option<String> {
    std::str::from_utf8(bytes)
        .is_err()
        .then(|| STANDARD.encode(bytes))
}

/// The same JSON with those characters as `\uXXXX` that would do something to a terminal and that
/// JSON allows in strings (it has them nowhere else).
pub(super) fn harmless_json(json: String) -> String {
    if !json.contains(|c| is_harmful(c) && c != '\n') {
        return json;
    }
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        // All of them are in the plane that needs one such escape.
        if is_harmful(c) && c != '\n' {
            out.extend(["\\u", &format!("{:04x}", u32::from(c))]);
        } else {
            out.push(c);
        }
    }
    out
}

/// Whether a character does something to a terminal: controls, and those that turn the direction of
/// writing around.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

fn escaped(bytes: &[u8], is_escaped: impl Fn(char) -> bool) -> String {
    let mut out = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if !is_escaped(c) {
                out.push(c);
            } else if c.is_ascii() {
                out.extend(c.escape_default());
            } else {
                out.extend(c.escape_unicode());
            }
        }
        for byte in chunk.invalid() {
            out.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_move_the_cursor() {
        assert_eq!(printable(b"a\x1b[2Jb\xff\n\\"), "a\\u{1b}[2Jb\\xff\\n\\");
        assert_eq!(
            printable_name("x\u{202e}y\u{9b}".as_bytes()),
            "x\\u{202e}y\\u{9b}"
        );
    }

    #[test]
    fn no_two_names_look_the_same() {
        assert_eq!(printable_name(b"a\nb"), "a\\nb");
        assert_eq!(printable_name(b"a\\nb"), "a\\\\nb");
    }

    #[test]
    fn json_is_exact_and_harmless() {
        assert_eq!(json_base64("\u{e4}\n".as_bytes()), None);
        assert_eq!(json_base64(b"\xff").as_deref(), Some("/w=="));
        assert_eq!(json_text(b"a\xff"), "a\u{fffd}");
        let json = serde_json::to_string("a\u{9b}\u{202e}\x1b").unwrap();
        let harmless = harmless_json(json.clone());
        assert_eq!(harmless, r#""a\u009b\u202e\u001b""#);
        let (a, b): (String, String) = (
            serde_json::from_str(&json).unwrap(),
            serde_json::from_str(&harmless).unwrap(),
        );
        assert_eq!(a, b);
    }
}
