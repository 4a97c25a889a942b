//! URLs and server texts made fit for messages and logs.

use url::Url;

/// Query keys that are no secrets. Everything else (signatures, tokens, policies) is replaced.
const PUBLIC_KEYS: [&str; 6] = ["client_id", "scope", "service", "ns", "n", "artifactType"];

/// Longest server text shown, in characters.
const MAX_SERVER_TEXT: usize = 200;

/// A URL without password and without the values of query keys that may be secrets: the query of a
/// redirected URL is a credential.
pub(super) fn redact_url(url: &Url) -> String {
    let mut shown = url.clone();
    // Both fail only for URLs that cannot have credentials.
    let _cannot_have: Result<(), ()> = shown.set_username("");
    let _cannot_have: Result<(), ()> = shown.set_password(None);
    shown.set_fragment(None);
    if url.query().is_some() {
        let pairs: Vec<(String, String)> = url
            .query_pairs()
            .map(|(key, value)| {
                let public = PUBLIC_KEYS.contains(&key.as_ref());
                let value = if public { value.as_ref() } else { "***" };
                (key.into_owned(), value.to_owned())
            })
            .collect();
        shown.query_pairs_mut().clear().extend_pairs(pairs);
    }
    shown.into()
}

/// Host and port as people write them.
pub(super) fn host_of(url: &Url) -> String {
    match (url.host_str(), url.port()) {
        (Some(host), Some(port)) => format!("{host}:{port}"),
        (Some(host), None) => host.to_owned(),
        (None, _) => String::new(),
    }
}

/// Text from outside: one line, printable, of bounded length.
pub(super) fn printable(text: &str) -> String {
    let mut shown: String = text
        .chars()
        .map(|character| {
            if character.is_control() {
                ' '
            } else {
                character
            }
        })
        .take(MAX_SERVER_TEXT)
        .collect();
    if text.chars().nth(MAX_SERVER_TEXT).is_some() {
        shown.push_str("...");
    }
    shown.trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_lose_their_secrets() {
        let check = |url: &str, expected: &str| {
            assert_eq!(redact_url(&url.parse().unwrap()), expected);
        };
        check("https://h/p", "https://h/p");
        check("https://u:secret@h/p#x", "https://h/p");
        check(
            "https://h/p?X-Amz-Signature=abc&scope=a",
            "https://h/p?X-Amz-Signature=***&scope=a",
        );
    }

    #[test]
    fn server_texts_are_bounded_and_printable() {
        assert_eq!(printable(" a\n\x1b[31mb "), "a  [31mb");
        assert_eq!(printable(&"x".repeat(300)).len(), 203);
    }
}
