//! Whether a registry accepts a credential, before it is kept.

use reqwest::{Method, StatusCode};

use super::credentials::CredentialKey;
use super::error::SourceError;
use super::options::Options;
use super::registry::api_of;
use super::transport::{Request, Transport};

/// What a registry makes of a credential.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Login {
    /// It asked for one and accepts this one.
    Accepted,
    /// It lets everybody in without asking, so whether it is right is not known.
    NotAsked,
}

/// Asks the registry `host` whether it accepts the credential that `options` have for it.
pub async fn check_login(host: &str, options: &Options) -> Result<Login, SourceError> {
    let lookup = CredentialKey {
        host: host.to_owned(),
        repository: String::new(),
    };
    let transport = Transport::new(options, api_of(host), "", Some(lookup))?;
    let what = "login";
    let request = Request {
        method: Method::GET,
        path: "",
        accept: "*/*",
        range: None,
        may_downgrade: false,
        what,
    };
    let outcome = match transport.request("", &request).await {
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
