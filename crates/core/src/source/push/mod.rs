//! Writing to a repository: blobs, manifests, and manifests that belong to another one.
//!
//! ```text
//! put_blob       HEAD: is it there?  POST: begin (or mount it from another repository)  PUT: all of it
//! copy_blob      the same, with the bytes passed on from where they are
//! put_document   PUT of a manifest or list by tag or digest
//! add_referrer   PUT by digest; where the registry does not say that it noted the subject, the tag that stands in
//!                for the referrers API is read, completed and written back
//! ```
//!
//! It writes to the registry that the name means and to nothing else, whatever mirrors there are.
//! All of it may be done again without harm, so failures that may pass are retried as a whole.

mod blob;
mod manifest;
mod referrer;

use std::future::Future;
use std::time::Duration;

pub use blob::Placed;

use super::auth::Rights;
use super::error::SourceError;
use super::options::Options;
use super::retry::Failures;
use super::timeouts::RetryPolicy;
use super::transport::Transport;
use super::{Traffic, route};
use imgfs_formats::oci::{Location, Reference};

/// A repository to write to.
pub struct Pusher {
    transport: Transport,
    policy: RetryPolicy,
    give_up: Duration,
}

/// Opens the repository that a reference names for writing. Sends nothing; reads configuration
/// files, so not for an async thread.
pub fn push_to(reference: &Reference, options: &Options) -> Result<Pusher, SourceError> {
    push_to_mounting(reference, Vec::new(), options)
}

/// The same for a caller that will mount blobs of other repositories of the same registry: the
/// token must let us read those, too.
pub fn push_to_mounting(
    reference: &Reference,
    mounting_from: Vec<String>,
    options: &Options,
) -> Result<Pusher, SourceError> {
    let Location::Registry {
        host, repository, ..
    } = reference.location()
    else {
        return Err(SourceError::NoRegistry {
            reference: reference.to_string(),
        });
    };
    let endpoint = route::own_endpoint(host, repository, options)?;
    let endpoint = endpoint.ok_or_else(|| SourceError::LedElsewhere { host: host.clone() })?;
    Ok(Pusher {
        transport: Transport::new(options, endpoint, Rights::PullAndPush { mounting_from })?,
        policy: options.retry,
        give_up: options.timeouts.give_up,
    })
}

impl Pusher {
    /// For people: where this is.
    pub fn describe(&self) -> String {
        let endpoint = self.transport.endpoint();
        format!("{}/{}", endpoint.authority, endpoint.repository)
    }

    /// Requests so far, and bytes received.
    pub fn traffic(&self) -> Traffic {
        self.transport.traffic()
    }

    fn repository(&self) -> &str {
        &self.transport.endpoint().repository
    }

    /// Does something that may be done again, until it succeeds or there is no hope.
    async fn retrying<T, F>(&self, attempt: impl Fn() -> F) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        self.retrying_for(self.give_up, attempt).await
    }

    /// The same until `give_up` after the first failure.
    async fn retrying_for<T, F>(
        &self,
        give_up: Duration,
        attempt: impl Fn() -> F,
    ) -> Result<T, SourceError>
    where
        F: Future<Output = Result<T, SourceError>>,
    {
        let mut failures = Failures::new(self.policy, give_up);
        loop {
            match attempt().await {
                Ok(done) => return Ok(done),
                Err(err) => failures.pause(err).await?,
            }
        }
    }
}
