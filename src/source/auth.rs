//! Authentication with a registry: anonymous, basic, or bearer tokens.
//!
//! Nothing is known before the registry's first 401: its challenge says what it wants. Then
//!
//! ```text
//! no challenge yet -> no header
//! Basic            -> the credential, with every request
//! Bearer           -> a token for pulling this one repository, renewed ahead of its expiry
//! ```
//!
//! One asker fetches a token, the others wait for it (or go on with the old one while it is valid). Passwords go
//! to the realm the registry names: over https, or over http to the registry's own host.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{ACCEPT, AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use serde::Deserialize;
use url::Url;

use super::challenge::Challenge;
use super::credentials::{Credential, CredentialFiles};
use super::error::{ServerMessage, SourceError};
use super::http::{Http, host_of};
use super::secret::Secret;

/// Largest token answer accepted, in bytes; real ones have a few KiB.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// Shortest life of a token that is believed, and the default (distribution's token.md).
const MIN_LIFE: Duration = Duration::from_secs(60);
/// Longest life that is believed: what a server says must not overflow a clock.
const MAX_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// A token is renewed this long before it expires, or after four fifths of its life if that is later.
const RENEW_AHEAD: Duration = Duration::from_secs(30);

/// Keeps what is needed to be let in to one repository.
#[derive(Debug)]
pub(super) struct Authenticator {
    files: CredentialFiles,
    /// Host as in the reference: the key of the credential files.
    host: String,
    repository: String,
    state: Mutex<State>,
    /// Held while a token is fetched, so that one is fetched at a time. It guards no data.
    single_flight: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unasked,
    Basic(HeaderValue),
    Bearer {
        challenge: TokenRequest,
        token: Token,
    },
}

/// Where a token is had.
#[derive(Debug, Clone, PartialEq, Eq)]
struct TokenRequest {
    realm: Url,
    service: Option<String>,
    scope: String,
}

#[derive(Debug, Clone)]
struct Token {
    /// `Bearer ...`, marked as sensitive.
    header: HeaderValue,
    received: Instant,
    life: Duration,
}

/// What may be done with a token now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Freshness {
    Fresh,
    /// Still valid, to be renewed.
    Ageing,
    Expired,
}

impl Token {
    fn freshness(&self, now: Instant) -> Freshness {
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
}

impl Authenticator {
    pub(super) fn new(files: CredentialFiles, host: &str, repository: &str) -> Self {
        Self {
            files,
            host: host.to_owned(),
            repository: repository.to_owned(),
            state: Mutex::default(),
            single_flight: tokio::sync::Mutex::new(()),
        }
    }

    /// The `Authorization` for the next request to the registry, if any is known to be needed.
    pub(super) async fn header(&self, http: &Http) -> Result<Option<HeaderValue>, SourceError> {
        let (challenge, token) = match self.state() {
            State::Unasked => return Ok(None),
            State::Basic(header) => return Ok(Some(header)),
            State::Bearer { challenge, token } => (challenge, token),
        };
        let freshness = token.freshness(Instant::now());
        let _turn = match freshness {
            Freshness::Fresh => return Ok(Some(token.header)),
            Freshness::Ageing => match self.single_flight.try_lock() {
                Ok(turn) => turn,
                // Somebody renews it already; this one is still good.
                Err(_) => return Ok(Some(token.header)),
            },
            Freshness::Expired => self.single_flight.lock().await,
        };
        // Asked again: while this one waited for its turn another may have renewed the token.
        if let State::Bearer { token, .. } = self.state()
            && token.freshness(Instant::now()) == Freshness::Fresh
        {
            return Ok(Some(token.header));
        }
        match self.fetch_token(http, &challenge).await {
            Ok(renewed) => {
                let header = renewed.header.clone();
                self.set_state(State::Bearer {
                    challenge,
                    token: renewed,
                });
                Ok(Some(header))
            }
            Err(err) if freshness == Freshness::Ageing => {
                tracing::debug!("renewing the token of {}: {err}", self.host);
                Ok(Some(token.header))
            }
            Err(err) => Err(err),
        }
    }

    /// Answers a 401 of the registry at `url`, whose request carried `used`. `Ok` means: try again.
    pub(super) async fn challenged(
        &self,
        http: &Http,
        url: &Url,
        challenges: &[Challenge],
        used: Option<&HeaderValue>,
        server: ServerMessage,
    ) -> Result<(), SourceError> {
        let _turn = self.single_flight.lock().await;
        // While this one waited for its turn another may have answered the same challenge.
        let current = match self.state() {
            State::Unasked => None,
            State::Basic(header) => Some(header),
            State::Bearer { token, .. } => Some(token.header),
        };
        if current.is_some() && current.as_ref() != used {
            return Ok(());
        }
        let bearer = challenges.iter().find(|one| one.scheme == "bearer");
        if let Some(challenge) = bearer {
            let request = self.token_request(challenge, url)?;
            let token = self.fetch_token(http, &request).await?;
            self.set_state(State::Bearer {
                challenge: request,
                token,
            });
            return Ok(());
        }
        let asks_basic = challenges.iter().any(|one| one.scheme == "basic");
        match self.credential().await? {
            Some(credential) if asks_basic && used.is_none() => {
                self.set_state(State::Basic(basic_header(&credential)));
                Ok(())
            }
            credential => Err(self.denied(&host_of(url), server, credential.as_ref())),
        }
    }

    /// The error for a refusal, with what the user can do about it.
    pub(super) async fn refused(&self, host: &str, server: ServerMessage) -> SourceError {
        match self.credential().await {
            Ok(credential) => self.denied(host, server, credential.as_ref()),
            Err(err) => err,
        }
    }

    fn denied(
        &self,
        host: &str,
        server: ServerMessage,
        credential: Option<&Credential>,
    ) -> SourceError {
        let login = format!("`podman login {0}` or `docker login {0}`", self.host);
        let hint = match credential {
            Some(credential) => format!(
                "the credentials in {} are not accepted, or do not reach that far; log in again with {login}",
                credential.file.display()
            ),
            None => format!("if the name is right, log in with {login}"),
        };
        SourceError::Denied {
            host: host.to_owned(),
            repository: self.repository.clone(),
            server,
            hint,
        }
    }

    fn token_request(
        &self,
        challenge: &Challenge,
        registry: &Url,
    ) -> Result<TokenRequest, SourceError> {
        let problem = |problem: String| SourceError::Protocol {
            host: host_of(registry),
            what: "authentication".to_owned(),
            problem,
        };
        let realm = challenge.get("realm").unwrap_or_default();
        let realm: Url = realm
            .parse()
            .map_err(|_| problem(format!("the token realm {realm:?} is no URL")))?;
        let safe = match realm.scheme() {
            "https" => true,
            // A registry without TLS gets what it asks for, but only itself.
            "http" => registry.scheme() == "http" && realm.host_str() == registry.host_str(),
            _ => false,
        };
        if !safe {
            return Err(problem(format!(
                "the token realm {} is not https, credentials are not sent there",
                host_of(&realm)
            )));
        }
        Ok(TokenRequest {
            realm,
            service: challenge.get("service").map(str::to_owned),
            // What is needed, not what the server would like to be asked for.
            scope: format!("repository:{}:pull", self.repository),
        })
    }

    async fn fetch_token(&self, http: &Http, request: &TokenRequest) -> Result<Token, SourceError> {
        let mut url = request.realm.clone();
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = &request.service {
                query.append_pair("service", service);
            }
            query.append_pair("scope", &request.scope);
        }
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        let credential = self.credential().await?;
        if let Some(credential) = &credential {
            headers.insert(AUTHORIZATION, basic_header(credential));
        }
        let what = "token";
        let received = Instant::now();
        let response = http.send(Method::GET, &url, headers, what).await?;
        match response.status() {
            StatusCode::OK => {}
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let server = http.server_message(response).await;
                return Err(self.denied(&host_of(&url), server, credential.as_ref()));
            }
            _ => return Err(http.status_error(response, what).await),
        }
        let body = http.body(response, what, MAX_TOKEN_ANSWER).await?;
        parse_token(&body, received).ok_or_else(|| SourceError::Protocol {
            host: host_of(&url),
            what: what.to_owned(),
            problem: "the answer has no usable token".to_owned(),
        })
    }

    /// Looked up anew each time: a login while the program runs should count. Happens once for each token.
    async fn credential(&self) -> Result<Option<Credential>, SourceError> {
        let (files, host, repository) = (
            self.files.clone(),
            self.host.clone(),
            self.repository.clone(),
        );
        let found = tokio::task::spawn_blocking(move || files.find(&host, &repository)).await;
        match found {
            Ok(found) => Ok(found?),
            // Only at shutdown: the runtime drops the task.
            Err(_) => Ok(None),
        }
    }

    fn state(&self) -> State {
        self.state
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    fn set_state(&self, state: State) {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner) = state;
    }
}

fn parse_token(body: &[u8], received: Instant) -> Option<Token> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: Option<String>,
        #[serde(default)]
        access_token: Option<String>,
        #[serde(default)]
        expires_in: Option<u64>,
    }
    let answer: Answer = serde_json::from_slice(body).ok()?;
    let token = Secret::new(
        answer
            .token
            .filter(|token| !token.is_empty())
            .or(answer.access_token)
            .filter(|token| !token.is_empty())?,
    );
    let life = answer
        .expires_in
        .map_or(MIN_LIFE, Duration::from_secs)
        .clamp(MIN_LIFE, MAX_LIFE);
    let mut header = HeaderValue::from_str(&format!("Bearer {}", token.expose())).ok()?;
    header.set_sensitive(true);
    Some(Token {
        header,
        received,
        life,
    })
}

fn basic_header(credential: &Credential) -> HeaderValue {
    let pair = format!("{}:{}", credential.username, credential.password.expose());
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
            let got = parse_token(body.as_bytes(), received)
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
        check(
            r#"{"token":"x","expires_in":18446744073709551615}"#,
            0,
            Some(Freshness::Fresh),
        );
        check(r#"{"token":""}"#, 0, None);
        check(r#"{"token":"a\nb"}"#, 0, None);
        check("", 0, None);
    }

    #[test]
    fn passwords_go_over_https_or_to_the_registry_itself() {
        let authenticator = Authenticator::new(CredentialFiles::default(), "h", "a/b");
        let check = |registry: &str, realm: &str, expected: bool| {
            let challenge = super::super::challenge::parse_challenges(&format!(
                "Bearer realm=\"{realm}\",service=s"
            ));
            let got = challenge.first().is_some_and(|challenge| {
                authenticator
                    .token_request(challenge, &registry.parse().unwrap())
                    .is_ok()
            });
            assert_eq!(got, expected, "{registry} {realm}");
        };
        check("https://h/v2/", "https://auth.example/t", true);
        check("https://h/v2/", "http://h/t", false);
        check("http://h:5000/v2/", "http://h:5001/t", true);
        check("http://h/v2/", "http://other/t", false);
        check("http://h/v2/", "file:///etc/passwd", false);
        check("http://h/v2/", "", false);
    }
}
