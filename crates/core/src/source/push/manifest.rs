//! Writing a manifest or a list, and whether one is there.

use std::borrow::Cow;

use bytes::Bytes;
use reqwest::{Method, StatusCode};

use super::Pusher;
use crate::source::error::SourceError;
use crate::source::http::{Payload, PayloadBytes};
use crate::source::transport::Request;
use imgfs_formats::oci::{ACCEPT_MANIFESTS, Digest};

/// The media type of an OCI manifest.
pub(super) const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

impl Pusher {
    /// Writes an OCI manifest under a tag or its digest. The blobs that it names must be there.
    pub async fn put_manifest(&self, name: &str, manifest: &Bytes) -> Result<(), SourceError> {
        self.put_document(name, MANIFEST, manifest).await
    }

    /// Writes a manifest or list of this media type under a tag or its digest. The blobs or
    /// manifests that it names must be there.
    pub async fn put_document(
        &self,
        name: &str,
        media_type: &str,
        document: &Bytes,
    ) -> Result<(), SourceError> {
        self.retrying(|| self.try_put_manifest(name, media_type, document))
            .await
            .map(|_subject| ())
    }

    /// Whether a manifest or list is there. Transfers nothing.
    pub async fn has_manifest(&self, digest: &Digest) -> Result<bool, SourceError> {
        self.retrying(|| self.try_has_manifest(digest)).await
    }

    async fn try_has_manifest(&self, digest: &Digest) -> Result<bool, SourceError> {
        let what = format!("manifest {}@{digest}", self.repository());
        let request = Request {
            method: Method::HEAD,
            path: &format!("manifests/{digest}"),
            accept: ACCEPT_MANIFESTS,
            range: None,
            payload: None,
            may_downgrade: false,
            what: &what,
        };
        let answer = self.transport.request(&request).await?;
        match answer.response.status() {
            StatusCode::OK => Ok(true),
            StatusCode::NOT_FOUND => Ok(false),
            _ => Err(self.transport.error(answer, &what).await),
        }
    }

    /// One attempt; whether the registry says that it noted what the manifest belongs to.
    pub(super) async fn try_put_manifest(
        &self,
        name: &str,
        content_type: &str,
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
                content_type: Cow::Owned(content_type.to_owned()),
                bytes: PayloadBytes::Whole(manifest.clone()),
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
