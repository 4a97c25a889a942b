//! Whether a registry accepts a credential, before it is kept.

use reqwest::{Method, StatusCode};

use super::auth::Rights;
use super::endpoint::Endpoint;
use super::error::SourceError;
use super::options::Options;
use super::route::route;
use super::transport::{Request, Transport};

/// A registry's answer to a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It asked for one and accepts this one.
    Accepted,
    /// It lets everybody in without asking, so whether it is right is not known.
    NotAsked,
}

/// Asks the registry `host` whether it accepts the credential that `options` have for it.
pub async fn check_login(host: &str, options: &Options) -> Result<Login, SourceError> {
    let endpoint = own_endpoint(host, options).await?;
    let transport = Transport::new(options, endpoint, Rights::Pull)?;
    let what = "login";
    let request = Request {
        method: Method::GET,
        path: "",
        accept: "*/*",
        range: None,
        payload: None,
        may_downgrade: false,
        what,
    };
    let outcome = match transport.request(&request).await {
        Ok(answer) if answer.response.status() == StatusCode::OK => Ok(()),
        Ok(answer) => Err(transport.error(answer, what).await),
        Err(err) => Err(err),
    };
    match outcome {
        Ok(()) if transport.has_authenticated() => Ok(Login::Accepted),
        Ok(()) => Ok(Login::NotAsked),
        Err(SourceError::Denied { host, server, .. }) => {
            Err(SourceError::WrongLogin { host, server })
        }
        Err(err) => Err(err),
    }
}

/// The registry itself, not one of its mirrors, reached as configured.
pub(super) async fn own_endpoint(host: &str, options: &Options) -> Result<Endpoint, SourceError> {
    let (name, options) = (host.to_owned(), options.clone());
    let reading = tokio::task::spawn_blocking(move || route(&name, "", &options));
    // Only at shutdown the runtime drops the task: then nobody hears the answer.
    let endpoints = reading.await.map_or_else(
        |_| Ok(Vec::new()),
        |found| found.map(|route| route.endpoints),
    )?;
    let is_own = |endpoint: &Endpoint| {
        let key = endpoint.credentials.as_ref();
        key.is_some_and(|key| key.host == host)
    };
    Ok(endpoints
        .into_iter()
        .rfind(is_own)
        .unwrap_or_else(|| Endpoint::registry(host, "")))
}
