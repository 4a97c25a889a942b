//! Authentication with a registry: anonymous, basic, or bearer tokens.
//!
//! Nothing is known before the registry's first 401: its challenge names the scheme that it wants.
//! Then
//!
//! ```text
//! no challenge yet -> no header
//! Basic            -> the credential, with every request
//! Bearer           -> a token for this one repository, to push only where that is asked for, renewed ahead of its expiry
//! ```
//!
//! One asker fetches a token, the others wait for it (or go on with the old one while it is valid);
//! all sources of a process share it. A credential is remembered, so that no helper runs for each
//! token, and looked up again when it is refused: somebody may have logged in anew meanwhile.
//! Passwords go to the realm the registry names: over https, or over http to the registry's own
//! host.

mod token;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use reqwest::header::HeaderValue;
use url::Url;

use super::challenge::Challenge;
use super::credentials::{Credential, CredentialKey, Credentials, FoundCredential};
use super::endpoint::{Scheme, Tls};
use super::error::{ServerMessage, SourceError};
use super::http::Http;
use super::redact::host_of;
use crate::hint::Hint;
use token::{Freshness, Token, TokenError, TokenRequest, basic_header};

/// What an [`Authenticator`] is for: sources of a process for which all of this is the same share
/// one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Access {
    /// Host and port of the API.
    pub(super) api: String,
    /// How far the connection is trusted: what an unchecked server says must not become a checked
    /// one's.
    pub(super) tls: Tls,
    /// The same, about http.
    pub(super) scheme: Scheme,
    /// The repository that tokens are for; empty to only check a credential.
    pub(super) repository: String,
    /// What they are to allow there.
    pub(super) rights: Rights,
    /// For whom credentials are looked up; nobody's are sent without.
    pub(super) lookup: Option<CredentialKey>,
    pub(super) credentials: Credentials,
    /// Shortest life of a token that is believed.
    pub(super) token_floor: Duration,
}

/// What is to be done in a repository.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Rights {
    Pull,
    /// Both, and to pull from these other repositories of the registry, whose blobs are to be
    /// mounted.
    PullAndPush {
        mounting_from: Vec<String>,
    },
}

/// Keeps what is needed to be let in to one repository.
#[derive(Debug)]
pub(super) struct Authenticator {
    access: Access,
    state: Mutex<State>,
    /// The credential that was used last.
    remembered: Mutex<Option<FoundCredential>>,
    /// Held while a token is fetched, so that one is fetched at a time. It guards no data.
    single_flight: tokio::sync::Mutex<()>,
}

#[derive(Debug, Clone, Default)]
enum State {
    #[default]
    Unasked,
    Basic(HeaderValue),
    Bearer {
        request: TokenRequest,
        token: Token,
    },
}

impl State {
    fn header(&self) -> Option<&HeaderValue> {
        match self {
            Self::Unasked => None,
            Self::Basic(header) => Some(header),
            Self::Bearer { token, .. } => Some(&token.header),
        }
    }
}

impl Authenticator {
    pub(super) fn new(access: Access) -> Self {
        Self {
            access,
            state: Mutex::default(),
            remembered: Mutex::default(),
            single_flight: tokio::sync::Mutex::new(()),
        }
    }

    /// The `Authorization` for the next request to the registry, if any is known to be needed.
    pub(super) async fn header(&self, http: &Http) -> Result<Option<HeaderValue>, SourceError> {
        let token = match self.state() {
            State::Bearer { token, .. } => token,
            other => return Ok(other.header().cloned()),
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
        let request = match self.state() {
            State::Bearer { token, request } => {
                if token.freshness(Instant::now()) == Freshness::Fresh {
                    return Ok(Some(token.header));
                }
                request
            }
            other => return Ok(other.header().cloned()),
        };
        match self.renew(http, request).await {
            Ok(header) => Ok(Some(header)),
            Err(err) if freshness == Freshness::Ageing => {
                tracing::debug!("renewing the token of {}: {err}", self.access.api);
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
        let current = self.state();
        if current.header().is_some() && current.header() != used {
            return Ok(());
        }
        let bearer = challenges.iter().find(|one| one.scheme == "bearer");
        if let Some(challenge) = bearer {
            let request = self.token_request(challenge, url)?;
            let header = self.renew(http, request.clone()).await?;
            if Some(&header) != used {
                return Ok(());
            }
            // The registry's own token, which nothing can renew but a new login.
            let refused = self.remembered();
            let found = self.look_up().await?;
            if is_other(found.as_ref(), refused.as_ref()) {
                self.renew(http, request).await?;
                return Ok(());
            }
            return Err(self.denied(&host_of(url), server, found.as_ref()));
        }
        let asks_basic = challenges.iter().any(|one| one.scheme == "basic");
        let found = self.look_up().await?;
        match found.as_ref().and_then(basic) {
            Some(header) if asks_basic && Some(&header) != used => {
                self.set_state(State::Basic(header));
                Ok(())
            }
            _ => Err(self.denied(&host_of(url), server, found.as_ref())),
        }
    }

    /// Considers a 403 of the registry, whose request carried `used`: whether to try again, because
    /// somebody has logged in otherwise since.
    pub(super) async fn forbidden(
        &self,
        http: &Http,
        used: Option<&HeaderValue>,
    ) -> Result<bool, SourceError> {
        if used.is_none() {
            return Ok(false);
        }
        let _turn = self.single_flight.lock().await;
        let current = self.state();
        if current.header() != used {
            return Ok(true);
        }
        let refused = self.remembered();
        let found = self.look_up().await?;
        if !is_other(found.as_ref(), refused.as_ref()) {
            return Ok(false);
        }
        match current {
            State::Unasked => return Ok(false),
            State::Basic(_) => match found.as_ref().and_then(basic) {
                Some(header) => self.set_state(State::Basic(header)),
                None => return Ok(false),
            },
            State::Bearer { request, .. } => {
                self.renew(http, request).await?;
            }
        }
        Ok(true)
    }

    /// Whether the registry wanted to know who asks, and was told.
    pub(super) fn has_authenticated(&self) -> bool {
        self.state().header().is_some()
    }

    /// The error for a refusal, with what the user can do about it.
    pub(super) async fn refused(&self, host: &str, server: ServerMessage) -> SourceError {
        match self.credential().await {
            Ok(found) => self.denied(host, server, found.as_ref()),
            Err(err) => err,
        }
    }

    fn denied(
        &self,
        host: &str,
        server: ServerMessage,
        found: Option<&FoundCredential>,
    ) -> SourceError {
        let log_in = |lookup: &CredentialKey, again| Hint::LogIn {
            host: lookup.host.clone(),
            again,
        };
        let hint = match (&self.access.lookup, found) {
            (None, _) => "no credentials are sent there".to_owned(),
            (Some(lookup), Some(found)) => format!(
                "the credentials {} are not accepted, or do not reach that far; {}",
                found.origin,
                log_in(lookup, true)
            ),
            (Some(lookup), None) => {
                format!("if the name is right, {}", log_in(lookup, false))
            }
        };
        SourceError::Denied {
            host: host.to_owned(),
            repository: self.access.repository.clone(),
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
        let repository = &self.access.repository;
        let takes_post_only = match self.state() {
            State::Bearer { request, .. } => request.takes_post_only && request.realm == realm,
            _ => false,
        };
        Ok(TokenRequest {
            realm,
            service: challenge.get("service").map(str::to_owned),
            // What is needed, not what the server would like to be asked for.
            scopes: match &self.access.rights {
                _ if repository.is_empty() => Vec::new(),
                Rights::Pull => vec![format!("repository:{repository}:pull")],
                Rights::PullAndPush { mounting_from } => {
                    let own = format!("repository:{repository}:pull,push");
                    let others =
                        (mounting_from.iter()).map(|from| format!("repository:{from}:pull"));
                    std::iter::once(own).chain(others).collect()
                }
            },
            takes_post_only,
        })
    }

    /// Fetches a token and keeps it; its header. The caller has the turn.
    async fn renew(
        &self,
        http: &Http,
        mut request: TokenRequest,
    ) -> Result<HeaderValue, SourceError> {
        let floor = self.access.token_floor;
        let mut found = self.credential().await?;
        let mut fetched = token::fetch(http, &mut request, of(found.as_ref()), floor).await;
        if let (Err(TokenError::Refused(_)), Some(_)) = (&fetched, &found) {
            let again = self.look_up().await?;
            if is_other(again.as_ref(), found.as_ref()) {
                found = again;
                fetched = token::fetch(http, &mut request, of(found.as_ref()), floor).await;
            }
        }
        match fetched {
            Ok(token) => {
                let header = token.header.clone();
                self.set_state(State::Bearer { request, token });
                Ok(header)
            }
            Err(TokenError::Refused(server)) => {
                Err(self.denied(&host_of(&request.realm), server, found.as_ref()))
            }
            Err(TokenError::Other(err)) => Err(err),
        }
    }

    /// The credential used before, or what a lookup finds: a login while nobody is logged in counts
    /// at once.
    async fn credential(&self) -> Result<Option<FoundCredential>, SourceError> {
        match self.remembered() {
            Some(found) => Ok(Some(found)),
            None => self.look_up().await,
        }
    }

    /// Looks the credential up anew.
    async fn look_up(&self) -> Result<Option<FoundCredential>, SourceError> {
        let Some(CredentialKey { host, repository }) = self.access.lookup.clone() else {
            return Ok(None);
        };
        let credentials = self.access.credentials.clone();
        let find = move || credentials.find(&host, &repository);
        let found = match tokio::task::spawn_blocking(find).await {
            Ok(found) => found?,
            // Only at shutdown: the runtime drops the task.
            Err(_) => None,
        };
        let mut remembered = self
            .remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        remembered.clone_from(&found);
        Ok(found)
    }

    fn remembered(&self) -> Option<FoundCredential> {
        self.remembered
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
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

fn of(found: Option<&FoundCredential>) -> Option<&Credential> {
    found.map(|found| &found.credential)
}

/// Whether two lookups found different credentials, wherever they were.
fn is_other(new: Option<&FoundCredential>, old: Option<&FoundCredential>) -> bool {
    of(new) != of(old)
}

/// The header for a registry that wants the credential itself. Tokens are none of that.
fn basic(found: &FoundCredential) -> Option<HeaderValue> {
    match &found.credential {
        Credential::Password { username, password } => Some(basic_header(username, password)),
        Credential::IdentityToken(_) | Credential::RegistryToken(_) => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_go_over_https_or_to_the_registry_itself() {
        let authenticator = Authenticator::new(Access {
            api: "h".to_owned(),
            tls: Tls::default(),
            scheme: Scheme::Https,
            repository: "a/b".to_owned(),
            rights: Rights::Pull,
            lookup: None,
            credentials: Credentials::default(),
            token_floor: Duration::from_secs(60),
        });
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
