//! `WWW-Authenticate`: the proof that a server wants to be shown (RFC 9110, section 11.6.1).
//!
//! A header may hold several challenges, and parameters are separated by the same commas as
//! challenges: a name followed by `=` is a parameter of the challenge before it, a name without is
//! the next challenge. Bytes in, values out, and no input panics.

use std::collections::BTreeMap;

/// One challenge: a scheme and its parameters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Challenge {
    /// Scheme in lower case: `bearer`, `basic`.
    pub scheme: String,
    /// Parameters, their names in lower case; the first of several with the same name.
    pub parameters: BTreeMap<String, String>,
}

impl Challenge {
    /// A parameter's value.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.parameters.get(name).map(String::as_str)
    }
}

/// Reads one header's value. Text that does not fit the grammar is skipped up to the next comma.
pub fn parse_challenges(header: &str) -> Vec<Challenge> {
    let mut challenges: Vec<Challenge> = Vec::new();
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            return challenges;
        }
        let (word, after) = split_token(rest);
        if word.is_empty() {
            rest = skip_to_comma(rest);
            continue;
        }
        let trimmed = after.trim_start_matches([' ', '\t']);
        match (trimmed.strip_prefix('='), challenges.last_mut()) {
            // `token68==` after a scheme is no parameter list; nothing used here has one.
            (Some(value), Some(challenge)) => {
                let (value, after_value) = read_value(value.trim_start_matches([' ', '\t']));
                challenge
                    .parameters
                    .entry(word.to_ascii_lowercase())
                    .or_insert(value);
                rest = after_value;
            }
            (Some(_), None) => rest = skip_to_comma(trimmed),
            (None, _) => {
                challenges.push(Challenge {
                    scheme: word.to_ascii_lowercase(),
                    parameters: BTreeMap::new(),
                });
                rest = trimmed;
            }
        }
    }
}

/// Splits off the longest run of token characters.
fn split_token(text: &str) -> (&str, &str) {
    let is_token = |character: char| {
        character.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~/:".contains(character)
    };
    let end = text
        .find(|character| !is_token(character))
        .unwrap_or(text.len());
    text.split_at(end)
}

/// A quoted string or a token, and what follows it.
fn read_value(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        // Unquoted values end at the comma; servers are known to leave scopes with `:` and `/`
        // unquoted.
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        let (value, rest) = text.split_at(end);
        return (value.to_owned(), rest);
    };
    let mut value = String::new();
    let mut characters = quoted.chars();
    while let Some(character) = characters.next() {
        match character {
            '"' => return (value, characters.as_str()),
            '\\' => value.extend(characters.next()),
            other => value.push(other),
        }
    }
    // The closing quote is missing: take what there is.
    (value, "")
}

fn skip_to_comma(text: &str) -> &str {
    text.find(',')
        .and_then(|at| text.get(at + 1..))
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn show(header: &str) -> String {
        let shown: Vec<String> = parse_challenges(header)
            .iter()
            .map(|challenge| {
                let parameters: Vec<String> = challenge
                    .parameters
                    .iter()
                    .map(|(name, value)| format!("{name}={value}"))
                    .collect();
                format!("{}({})", challenge.scheme, parameters.join(";"))
            })
            .collect();
        shown.join(" ")
    }

    #[test]
    fn challenges_are_read() {
        let check = |header: &str, expected: &str| assert_eq!(show(header), expected, "{header}");
        check("", "");
        check("Basic", "basic()");
        check("BASIC realm=\"a b\"", "basic(realm=a b)");
        check(
            "Bearer realm=\"https://auth.docker.io/token\",service=\"registry.docker.io\",scope=\"repository:a/b:pull,push\"",
            "bearer(realm=https://auth.docker.io/token;scope=repository:a/b:pull,push;service=registry.docker.io)",
        );
        check(
            "bearer Realm=https://x/t, SERVICE = s , Basic realm=\"r\"",
            "bearer(realm=https://x/t;service=s) basic(realm=r)",
        );
        check("Negotiate, Basic realm=x", "negotiate() basic(realm=x)");
        check("Bearer realm=\"a\\\"b\"", "bearer(realm=a\"b)");
        check("Bearer realm=\"open", "bearer(realm=open)");
        check("Bearer realm=\"\",,error=x", "bearer(error=x;realm=)");
        check("=x, Basic", "basic()");
        check("realm=x, Basic", "basic()");
        check("(), Basic", "basic()");
        check("Bearer a=1,a=2", "bearer(a=1)");
    }

    proptest! {
        #[test]
        fn any_text_is_read_without_panic(text in ".{0,200}") {
            parse_challenges(&text);
        }
    }
}
