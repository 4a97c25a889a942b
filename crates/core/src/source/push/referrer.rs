//! Writing a manifest that belongs to another one, so that it is found.

use bytes::Bytes;
use serde_json::{Value, json};

use super::Pusher;
use super::manifest::MANIFEST;
use crate::source::error::SourceError;
use crate::source::referrers::{get_tag, parse_list, referrers};
use imgfs_formats::oci::{Descriptor, Digest};

const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// How often a list that somebody else wrote at the same time is completed again.
const MAX_ROUNDS: u32 = 4;

impl Pusher {
    /// The manifests of this type that belong to `subject` already.
    pub async fn referrers(
        &self,
        subject: &Digest,
        artifact_type: &str,
    ) -> Result<Vec<Descriptor>, SourceError> {
        self.retrying(|| referrers(&self.transport, subject, artifact_type))
            .await
    }

    /// Writes an OCI manifest whose subject is `subject`; `descriptor` is how it is listed.
    pub async fn add_referrer(
        &self,
        subject: &Digest,
        descriptor: &Descriptor,
        manifest: &Bytes,
    ) -> Result<(), SourceError> {
        let name = descriptor.digest.to_string();
        let is_noted = self
            .retrying(|| self.try_put_manifest(&name, MANIFEST, manifest))
            .await?;
        if is_noted {
            return Ok(());
        }
        self.list_under_tag(subject, descriptor).await
    }

    /// Adds an entry to the list that stands in for the referrers API. Nobody can lock it: what
    /// others may have written in between is looked at again afterwards, and whatever it lost of
    /// what was read before is put back.
    async fn list_under_tag(
        &self,
        subject: &Digest,
        descriptor: &Descriptor,
    ) -> Result<(), SourceError> {
        let what = format!(
            "the list of what belongs to {}@{subject}",
            self.repository()
        );
        let tag = subject.tag();
        let mut wanted = vec![json!(descriptor)];
        for _ in 0..MAX_ROUNDS {
            let found = self
                .retrying(|| get_tag(&self.transport, subject, &what))
                .await?;
            let mut list = match found {
                None => json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": []}),
                Some(body) => match serde_json::from_slice(&body) {
                    Ok(list) if parse_list(&body).is_some() => list,
                    // By the spec it is not ours to replace.
                    _ => {
                        return Err(SourceError::Protocol {
                            host: self.transport.endpoint().authority.clone(),
                            what,
                            problem: format!(
                                "the tag {tag} is there and is no list: remove it, then push again"
                            ),
                        });
                    }
                },
            };
            if !complete(&mut list, &mut wanted) {
                return Ok(());
            }
            let body = Bytes::from(list.to_string());
            self.retrying(|| self.try_put_manifest(&tag, INDEX, &body))
                .await?;
        }
        Err(SourceError::Protocol {
            host: self.transport.endpoint().authority.clone(),
            what,
            problem: "others write it all the time: push again".to_owned(),
        })
    }
}

/// Adds what is missing of the wanted entries to a list, and what else the list has to the wanted
/// ones. Whether anything was missing.
fn complete(list: &mut Value, wanted: &mut Vec<Value>) -> bool {
    let Some(entries) = list.get_mut("manifests").and_then(Value::as_array_mut) else {
        return false;
    };
    let has = |entries: &[Value], one: &Value| {
        entries
            .iter()
            .any(|entry| entry.get("digest") == one.get("digest"))
    };
    let missing: Vec<Value> = (wanted.iter())
        .filter(|one| !has(entries, one))
        .cloned()
        .collect();
    let news: Vec<Value> = (entries.iter())
        .filter(|one| !has(wanted, one))
        .cloned()
        .collect();
    wanted.extend(news);
    entries.extend(missing.iter().cloned());
    !missing.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_lost_from_a_list() {
        let entry = |digest: &str| json!({"digest": digest, "x": 1});
        let mut wanted = vec![entry("ours")];
        let mut list = json!({"manifests": [entry("a"), entry("b")], "annotations": {"k": "v"}});
        assert!(complete(&mut list, &mut wanted));
        let expected = json!({
            "manifests": [entry("a"), entry("b"), entry("ours")],
            "annotations": {"k": "v"},
        });
        assert_eq!(list, expected);
        // All is there: nothing to write.
        assert!(!complete(&mut list, &mut wanted));
        // Somebody read it before and wrote it after us, without us and without b.
        let mut list = json!({"manifests": [entry("a"), entry("theirs")]});
        assert!(complete(&mut list, &mut wanted));
        let expected = ["a", "theirs", "ours", "b"].map(entry);
        assert_eq!(list["manifests"], json!(expected));
    }
}
