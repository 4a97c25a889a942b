//! Writing a manifest.

use bytes::Bytes;
use reqwest::{Method, StatusCode};

use super::Pusher;
use crate::source::error::SourceError;
use crate::source::http::Payload;
use crate::source::transport::Request;

/// The media type of an OCI manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Pusher {
    /// Writes an OCI manifest under a tag or its digest. What it names must be there.
    pub async fn put_manifest(&self, name: &str, manifest: &Bytes) -> Result<(), SourceError> {
        self.retrying(|| self.try_put_manifest(name, MANIFEST, manifest))
            .await
            .map(|_subject| ())
    }

    /// One attempt; whether the registry says that it noted what the manifest belongs to.
    pub(super) async fn try_put_manifest(
        &self,
        name: &str,
        content_type: &'static str,
        manifest: &Bytes,
    ) -> Result<bool, SourceError> {
        let what = format!("manifest {}:{name}", self.repository());
        let path = format!("manifests/{name}");
        let request = Request {
            method: Method::PUT,
            path: &path,
            accept: "*/*",
            range: None,
            payload: Some(Payload {
                content_type,
                bytes: manifest.clone(),
            }),
            may_downgrade: false,
            what: &what,
        };
        let answer = self.transport.request(&request).await?;
        match answer.response.status() {
            StatusCode::CREATED | StatusCode::OK | StatusCode::ACCEPTED => {
                Ok(answer.response.headers().contains_key("oci-subject"))
            }
            _ => Err(self.transport.error(answer, &what).await),
        }
    }
}
