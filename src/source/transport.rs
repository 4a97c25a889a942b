//! Requests to one registry: its scheme, its authentication, and redirects away from it.
//!
//! ```text
//! request -> 401            answer the challenge, ask again once
//!         -> 30x            follow by hand; Authorization only while scheme, host and port are the registry's
//!         -> anything else  the answer
//! ```
//!
//! Registries on this machine, and those reached with `insecure`, are tried with https first and with http when
//! TLS is not spoken there, as containerd and docker do. That costs one more connection on the first request of
//! a process; http first would cost the same against a TLS server and could send a password in the clear.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, HeaderMap, HeaderValue, LOCATION,
    RANGE, WWW_AUTHENTICATE,
};
use reqwest::{Method, Response, StatusCode};
use url::Url;

use super::Traffic;
use super::auth::{Access, Authenticator};
use super::challenge::parse_challenges;
use super::credentials::CredentialKey;
use super::error::SourceError;
use super::http::{Http, SendError, host_of};
use super::network::Trust;
use super::options::Options;

/// Redirects followed for one request, as Go's client does.
const MAX_REDIRECTS: usize = 10;

/// One registry.
#[derive(Debug)]
pub(super) struct Transport {
    pub(super) http: Http,
    auth: Arc<Authenticator>,
    /// Host and port of the API.
    api: String,
    /// Whether http may be tried where TLS is not spoken.
    may_fall_back: bool,
    plain: AtomicBool,
}

/// One request, relative to `/v2/<repository>/`.
#[derive(Debug, Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) path: &'a str,
    pub(super) accept: &'static str,
    pub(super) range: Option<&'a HeaderValue>,
    /// Whether a redirect may lead from https to http: only for content whose digest is known.
    pub(super) may_downgrade: bool,
    /// For errors.
    pub(super) what: &'a str,
}

/// An answer and where it came from in the end.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: Response,
    pub(super) url: Url,
    /// Whether that is another origin than the registry.
    pub(super) foreign: bool,
}

impl Transport {
    /// `api` is where the registry is reached, `lookup` for whom credentials are looked up: without, none are sent.
    pub(super) fn new(
        options: &Options,
        api: &str,
        repository: &str,
        lookup: Option<CredentialKey>,
    ) -> Result<Self, SourceError> {
        let url = registry_url("https", api, "", "")?;
        let trust = if is_loopback(&url) {
            Trust::Loopback
        } else if options.insecure {
            Trust::Unverified
        } else {
            Trust::Verified
        };
        Ok(Self {
            http: Http::new(
                options.network.clone(),
                options.timeouts,
                url.host_str().unwrap_or_default(),
                trust,
            ),
            auth: options.network.authenticator(Access {
                api: api.to_owned(),
                trust,
                plain_http: options.plain_http,
                repository: repository.to_owned(),
                lookup,
                credentials: options.credentials.clone(),
                token_floor: options.timeouts.token_floor,
            }),
            api: api.to_owned(),
            may_fall_back: !options.plain_http && trust != Trust::Verified,
            plain: AtomicBool::new(options.plain_http),
        })
    }

    /// Whether the registry wanted to know who asks.
    pub(super) fn has_authenticated(&self) -> bool {
        self.auth.has_authenticated()
    }

    pub(super) fn traffic(&self) -> Traffic {
        self.http.traffic()
    }

    /// Sends a request to the registry, authenticates if asked to, and follows redirects.
    pub(super) async fn request(
        &self,
        repository: &str,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let mut base = self.base(repository, request.path)?;
        let mut url = base.clone();
        let mut redirects = 0;
        let mut challenged = false;
        loop {
            let foreign = url.origin() != base.origin();
            let authorization = if foreign {
                None
            } else {
                self.auth.header(&self.http).await?
            };
            let headers = headers(request, authorization.as_ref());
            let sent = self
                .http
                .send(request.method.clone(), &url, headers, request.what)
                .await;
            let response = match sent {
                Ok(response) => response,
                Err(SendError { not_tls: true, .. })
                    if self.may_fall_back && !foreign && url.scheme() == "https" =>
                {
                    tracing::debug!("{} does not speak TLS: going on with http", self.api);
                    self.plain.store(true, Ordering::Relaxed);
                    base = self.base(repository, request.path)?;
                    url = base.clone();
                    continue;
                }
                Err(SendError { error, .. }) => return Err(error),
            };
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && !foreign && !challenged {
                challenged = true;
                self.answer_challenge(response, &url, authorization.as_ref())
                    .await?;
            } else if status == StatusCode::FORBIDDEN
                && !foreign
                && !challenged
                && (self.auth)
                    .forbidden(&self.http, authorization.as_ref())
                    .await?
            {
                challenged = true;
            } else if let Some(target) = redirect_target(&response, &url, request)? {
                redirects += 1;
                if redirects > MAX_REDIRECTS {
                    return Err(protocol(&url, request.what, "too many redirects"));
                }
                url = target;
            } else {
                check_encoding(&response, &url, request.what)?;
                return Ok(Answer {
                    response,
                    url,
                    foreign,
                });
            }
        }
    }

    /// Sends a request straight to a URL that an earlier redirect led to, without credentials.
    pub(super) async fn request_foreign(
        &self,
        url: &Url,
        request: &Request<'_>,
    ) -> Result<Answer, SourceError> {
        let response = self
            .http
            .send(
                request.method.clone(),
                url,
                headers(request, None),
                request.what,
            )
            .await?;
        check_encoding(&response, url, request.what)?;
        Ok(Answer {
            response,
            url: url.clone(),
            foreign: true,
        })
    }

    /// The error for an answer that is not what was asked for.
    pub(super) async fn error(&self, answer: Answer, what: &str) -> SourceError {
        match answer.response.status() {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                let server = self.http.server_message(answer.response).await;
                self.auth.refused(&host_of(&answer.url), server).await
            }
            _ => self.http.status_error(answer.response, what).await,
        }
    }

    async fn answer_challenge(
        &self,
        response: Response,
        url: &Url,
        used: Option<&HeaderValue>,
    ) -> Result<(), SourceError> {
        let challenges: Vec<_> = response
            .headers()
            .get_all(WWW_AUTHENTICATE)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(parse_challenges)
            .collect();
        let server = self.http.server_message(response).await;
        self.auth
            .challenged(&self.http, url, &challenges, used, server)
            .await
    }

    fn base(&self, repository: &str, path: &str) -> Result<Url, SourceError> {
        let scheme = if self.plain.load(Ordering::Relaxed) {
            "http"
        } else {
            "https"
        };
        registry_url(scheme, &self.api, repository, path)
    }
}

fn registry_url(scheme: &str, api: &str, repository: &str, path: &str) -> Result<Url, SourceError> {
    let text = if repository.is_empty() {
        format!("{scheme}://{api}/v2/{path}")
    } else {
        format!("{scheme}://{api}/v2/{repository}/{path}")
    };
    text.parse().map_err(|cause| SourceError::Protocol {
        host: api.to_owned(),
        what: "the registry's address".to_owned(),
        problem: format!("no URL: {cause}"),
    })
}

fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(url::Host::Domain(name)) => name == "localhost",
        Some(url::Host::Ipv4(address)) => address.is_loopback(),
        Some(url::Host::Ipv6(address)) => address.is_loopback(),
        None => false,
    }
}

fn headers(request: &Request<'_>, authorization: Option<&HeaderValue>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(request.accept));
    // Ranges and digests are about the bytes as stored.
    headers.insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
    if let Some(range) = request.range {
        headers.insert(RANGE, range.clone());
    }
    if let Some(authorization) = authorization {
        headers.insert(AUTHORIZATION, authorization.clone());
    }
    headers
}

fn redirect_target(
    response: &Response,
    url: &Url,
    request: &Request<'_>,
) -> Result<Option<Url>, SourceError> {
    if !matches!(response.status().as_u16(), 301 | 302 | 303 | 307 | 308) {
        return Ok(None);
    }
    let target = response
        .headers()
        .get(LOCATION)
        .and_then(|location| location.to_str().ok())
        .and_then(|location| url.join(location).ok())
        .filter(|target| matches!(target.scheme(), "http" | "https") && target.has_host())
        .ok_or_else(|| protocol(url, request.what, "a redirect without a usable Location"))?;
    if url.scheme() == "https" && target.scheme() == "http" && !request.may_downgrade {
        let problem = "a redirect from https to http, where a tag's answer could be forged";
        return Err(protocol(url, request.what, problem));
    }
    Ok(Some(target))
}

/// Bytes in a content encoding are other bytes than those the digest and the offsets are about.
fn check_encoding(response: &Response, url: &Url, what: &str) -> Result<(), SourceError> {
    match response.headers().get(CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(protocol(
            url,
            what,
            "the answer has a Content-Encoding though none was asked for: a proxy may be misconfigured",
        )),
        _ => Ok(()),
    }
}

pub(super) fn protocol(url: &Url, what: &str, problem: &str) -> SourceError {
    SourceError::Protocol {
        host: host_of(url),
        what: what.to_owned(),
        problem: problem.to_owned(),
    }
}
