//! Bearer tokens: how one is asked for, and how long it is good (distribution's token.md and
//! oauth.md).
//!
//! ```text
//! nobody            GET realm?client_id&service&scope
//! user, password    GET, with Basic; where that is not known (400, 404, 405): POST grant_type=password
//! identity token    POST grant_type=refresh_token
//! registry token    asked for nowhere: it is the token
//! ```
//!
//! Redirects are not followed: a realm that moves would take the password along.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, Response, StatusCode};
use serde::Deserialize;
use url::Url;

use crate::source::credentials::Credential;
use crate::source::error::{ServerMessage, SourceError};
use crate::source::http::Http;
use crate::source::redact::host_of;
use crate::source::secret::Secret;

/// Largest token answer accepted, in bytes; real ones have a few KiB.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// Life of a token whose server does not say.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// Longest life that is believed: what a server says must not overflow a clock.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is renewed this long before it expires, or after four fifths of its life if that is
/// later.
const RENEW_AHEAD: Duration = Duration::from_secs(30);
/// What we call ourselves.
const CLIENT: (&str, &str) = ("client_id", "imgfs");

/// Where a token is had, and what for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct TokenRequest {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    /// None when only the credential is to be checked.
    pub(super) scopes: Vec<String>,
    /// Whether the server knows only the POST form.
    pub(super) takes_post_only: bool,
}

#[derive(Debug, Clone)]
pub(super) struct Token {
    /// `Bearer ...`, marked as sensitive.
    pub(super) header: HeaderValue,
    received: Instant,
    life: Duration,
}

/// What may be done with a token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Freshness {
    Fresh,
    /// Still valid, to be renewed.
    Ageing,
    Expired,
}

/// Why there is no token.
#[derive(Debug)]
pub(super) enum TokenError {
    /// The server does not accept the credential, or nobody without one.
    Refused(ServerMessage),
    Other(SourceError),
}

impl From<SourceError> for TokenError {
    fn from(err: SourceError) -> Self {
        Self::Other(err)
    }
}

impl Token {
    pub(super) fn freshness(&self, now: Instant) -> Freshness {
        let age = now.saturating_duration_since(self.received);
        let renew_at = (self.life * 4 / 5).max(self.life.saturating_sub(RENEW_AHEAD));
        if age >= self.life {
            Freshness::Expired
        } else if age >= renew_at {
            Freshness::Ageing
        } else {
            Freshness::Fresh
        }
    }

    fn new(token: &Secret, received: Instant, life: Duration) -> Option<Self> {
        let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
        header.set_sensitive(true);
        Some(Self {
            header,
            received,
            life,
        })
    }
}

/// Asks for a token. Notes in `request` which form the server takes. `floor` is the shortest life
/// believed.
pub(super) async fn fetch(
    http: &Http,
    request: &mut TokenRequest,
    credential: Option<&Credential>,
    floor: Duration,
) -> Result<Token, TokenError> {
    // Before it is sent: then the token is never believed to be younger than it is.
    let received = Instant::now();
    let response = match credential {
        None => get(http, request, None).await?,
        Some(Credential::RegistryToken(token)) => {
            let token = Token::new(token, received, MAX_LIFE);
            return token
                .ok_or_else(|| unusable(request, "the registry token is no header's value"));
        }
        Some(Credential::IdentityToken(token)) => {
            let fields = [
                ("grant_type", "refresh_token"),
                ("refresh_token", token.expose()),
            ];
            post(http, request, &fields).await?
        }
        Some(Credential::Password { username, password }) => {
            let fields = [
                ("grant_type", "password"),
                ("username", username.as_str()),
                ("password", password.expose()),
            ];
            let got = if request.takes_post_only {
                None
            } else {
                let basic = basic_header(username, password);
                Some(get(http, request, Some(basic)).await?)
            };
            match got {
                Some(response) if !matches!(response.status().as_u16(), 400 | 404 | 405) => {
                    response
                }
                _ => {
                    let response = post(http, request, &fields).await?;
                    request.takes_post_only |= response.status().is_success();
                    response
                }
            }
        }
    };
    match response.status() {
        StatusCode::OK => {}
        // 400 is what OAuth2 says to a grant that is not valid.
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            return Err(TokenError::Refused(http.server_message(response).await));
        }
        _ => return Err(http.status_error(response, "token").await.into()),
    }
    let body = http.body(response, "token", MAX_TOKEN_ANSWER).await?;
    parse(&body, received, floor).ok_or_else(|| unusable(request, "the answer has no usable token"))
}

async fn get(
    http: &Http,
    request: &TokenRequest,
    basic: Option<HeaderValue>,
) -> Result<Response, SourceError> {
    let mut url = request.realm.clone();
    let scopes = request.scopes.iter().map(|scope| ("scope", scope));
    url.query_pairs_mut()
        .extend_pairs(request.fields())
        .extend_pairs(scopes);
    let mut headers = accept_json();
    if let Some(basic) = basic {
        headers.insert(AUTHORIZATION, basic);
    }
    Ok(http.send(Method::GET, &url, headers, None, "token").await?)
}

async fn post(
    http: &Http,
    request: &TokenRequest,
    grant: &[(&str, &str)],
) -> Result<Response, SourceError> {
    // By oauth.md one field, in which spaces separate them.
    let scopes = request.scopes.join(" ");
    let scope = Some(("scope", scopes.as_str())).filter(|(_, scopes)| !scopes.is_empty());
    let fields: Vec<(&str, &str)> = (grant.iter().copied())
        .chain(request.fields())
        .chain(scope)
        .collect();
    let headers = accept_json();
    Ok(http
        .post_form(&request.realm, headers, &fields, "token")
        .await?)
}

impl TokenRequest {
    fn fields(&self) -> impl Iterator<Item = (&str, &str)> {
        let service = self.service.as_deref().map(|service| ("service", service));
        [Some(CLIENT), service].into_iter().flatten()
    }
}

fn accept_json() -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
    headers
}

fn unusable(request: &TokenRequest, problem: &str) -> TokenError {
    TokenError::Other(SourceError::Protocol {
        host: host_of(&request.realm),
        what: "token".to_owned(),
        problem: problem.to_owned(),
    })
}

fn parse(body: &[u8], received: Instant, floor: Duration) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<Secret>,
        #[serde(default)]
        access_token: Option<Secret>,
        /// A number by the spec; anything else counts as not said.
        #[serde(default)]
        expires_in: serde_json::Value,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let some = |token: Option<Secret>| token.filter(|token| !token.expose().is_empty());
    let token = some(answer.token).or_else(|| some(answer.access_token))?;
    let said = answer.expires_in.as_u64().map(Duration::from_secs);
    let life = said.unwrap_or(DEFAULT_LIFE).max(floor).min(MAX_LIFE);
    Token::new(&token, received, life)
}

pub(super) fn basic_header(username: &str, password: &Secret) -> HeaderValue {
    let pair = format!("{username}:{}", password.expose());
    let mut header = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair)))
        .expect("base64 is made of visible ASCII");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_renewed_ahead_of_expiry() {
        let check = |body: &str, age: u64, expected: Option<Freshness>| {
            let received = Instant::now();
            let floor = Duration::from_secs(60);
            let got = parse(body.as_bytes(), received, floor)
                .map(|token| token.freshness(received + Duration::from_secs(age)));
            assert_eq!(got, expected, "{body} after {age}");
        };
        let hour = r#"{"token":"x","expires_in":3600}"#;
        check(hour, 0, Some(Freshness::Fresh));
        check(hour, 3569, Some(Freshness::Fresh));
        check(hour, 3570, Some(Freshness::Ageing));
        check(hour, 3600, Some(Freshness::Expired));
        let short = r#"{"access_token":"x","expires_in":1}"#;
        check(short, 47, Some(Freshness::Fresh));
        check(short, 48, Some(Freshness::Ageing));
        check(short, 60, Some(Freshness::Expired));
        let untold = r#"{"token":"","access_token":"x","expires_in":"3600","issued_at":"1970-01-01T00:00:00Z"}"#;
        check(untold, 47, Some(Freshness::Fresh));
        check(untold, 60, Some(Freshness::Expired));
        let endless = r#"{"token":"x","expires_in":18446744073709551615}"#;
        check(endless, 0, Some(Freshness::Fresh));
        check(endless, 24 * 60 * 60, Some(Freshness::Expired));
        check(r#"{"token":""}"#, 0, None);
        check(r#"{"token":"a\nb"}"#, 0, None);
        check("", 0, None);
    }
}
