//! Names, and the documents that they lead to.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::Check;
use super::report::{Damage, Kind, Outcome};
use crate::error::{EngineError, ErrorKind, Expected, Result, fail};
use crate::hint::Hint;
use crate::source::{read_blob, read_verified};
use crate::store::{ImageCheck, ImageMended, NameCheck};
use imgfs_formats::oci::{
    Descriptor, Digest, Document, MAX_CONFIG_SIZE, MAX_MANIFEST_SIZE, Reference,
};

/// The documents on the way from the names.
#[derive(Default)]
struct Walk {
    /// Those that are damaged, with their size, or missing.
    bad: BTreeMap<Digest, Option<u64>>,
    /// Manifests of images that were resolved: the image is to be here.
    recorded: BTreeSet<Digest>,
    /// Those that something leads to.
    reached: BTreeSet<Digest>,
    /// Why some could not be fetched.
    failures: BTreeMap<Digest, String>,
}

impl Check<'_> {
    pub(super) async fn names(&mut self) -> Result<()> {
        for name in self.store.check_names()? {
            self.name(name).await;
        }
        Ok(())
    }

    async fn name(&mut self, checked: NameCheck) {
        let (reference, damage) = match checked {
            NameCheck::Right(record) => (Some(record.reference), None),
            NameCheck::WrongSize(record) => {
                let why = "it said another size of its document than that has";
                let mut damage = name_damage(record.reference.clone(), why);
                if self.is_meant(&record.reference) {
                    match self.store.rewrite_name(&record) {
                        Ok(()) => damage.outcome = Outcome::Repaired,
                        Err(err) => damage.kept(&err.into()),
                    }
                }
                (Some(record.reference), Some(damage))
            }
            NameCheck::Damaged { file, reference } => {
                if reference.as_ref().is_some_and(|name| !self.is_meant(name)) {
                    return;
                }
                let name = reference.clone();
                let name = name.unwrap_or_else(|| format!("refs/{file}"));
                let mut damage = name_damage(name, "it cannot be read");
                let again = if let Some(reference) = &reference {
                    self.ask_again(reference).await
                } else {
                    let words = "nothing says what it was the name of";
                    Err(EngineError::new(ErrorKind::NotFound, words))
                };
                if let Ok(Some(bytes)) = again {
                    damage.outcome = Outcome::Repaired;
                    damage.bytes_fetched = bytes;
                } else {
                    if let Err(err) = again {
                        damage.reason = format!("{}; {err:#}", damage.reason);
                    }
                    damage.dropped(self.store.drop_name(&file));
                }
                (reference, Some(damage))
            }
        };
        if reference.is_none_or(|reference| self.is_meant(&reference)) {
            self.result.names.count += 1;
            self.result.damage.extend(damage);
        }
    }

    /// Asks what a name means now; gives the bytes that came, `None` if nobody is to be asked.
    async fn ask_again(&mut self, name: &str) -> Result<Option<u64>> {
        let Some(source) = self.source(&name.parse()?).await? else {
            return Ok(None);
        };
        let resolved = source.resolve(None).await?;
        let body = if let Some(body) = resolved.body {
            body
        } else {
            let stream = source.open_manifest(&resolved.descriptor).await?;
            read_verified(stream, &resolved.descriptor, MAX_MANIFEST_SIZE).await?
        };
        let descriptor = &resolved.descriptor;
        self.store.keep_document(&descriptor.digest, &body);
        self.store.record_answer(name, descriptor).await;
        Ok(Some(body.len() as u64))
    }

    pub(super) async fn documents(&mut self, records: &[ImageCheck]) -> Result<()> {
        let store = Arc::clone(self.store);
        let checked = tokio::task::spawn_blocking(move || store.check_documents());
        let checked = checked.await.expected("checking stopped")??;
        let is_all = self.verifying.only.is_none();
        let mut roots = self.roots()?;
        // An image whose record cannot be read is found by what can.
        let lost = records.iter().filter(|check| is_all && !check.is_readable);
        roots.extend(lost.filter_map(|check| {
            let reference = check.record.references.last()?.parse().ok()?;
            Some((reference, Descriptor::of_digest(check.record.manifest)))
        }));
        let mut walk = Walk {
            bad: (checked.iter())
                .filter(|document| !document.is_right)
                .map(|document| (document.digest, Some(document.size)))
                .collect(),
            recorded: records.iter().map(|check| check.record.manifest).collect(),
            ..Walk::default()
        };
        let wanted = roots.iter().map(|(_, root)| root.digest);
        for digest in wanted.chain(walk.recorded.clone()) {
            self.want(&digest, &mut walk);
        }
        for (reference, root) in roots {
            self.walk(&reference, root, &mut walk).await;
        }
        for document in &checked {
            if is_all || walk.reached.contains(&document.digest) {
                self.result.documents.count += 1;
                self.result.documents.bytes += document.size;
            }
        }
        for (digest, size) in walk.bad {
            if !is_all && !walk.reached.contains(&digest) {
                continue;
            }
            let mut damage = document_damage(&digest, size);
            if let Some(why) = walk.failures.remove(&digest) {
                damage.reason = format!("{}; {why}", damage.reason);
            } else if self.verifying.options.is_some() {
                damage.reason = format!("{}; no image that is known has it", damage.reason);
            }
            if size.is_some() {
                damage.dropped(self.store.drop_document(&digest));
            }
            self.result.damage.push(damage);
        }
        for check in records {
            if is_all || walk.reached.contains(&check.record.manifest) {
                self.image(check).await;
            }
        }
        Ok(())
    }

    /// A document that has to be here and is not is as good as a bad one.
    fn want(&self, digest: &Digest, walk: &mut Walk) {
        if !self.store.has_document(digest) {
            walk.bad.entry(*digest).or_insert(None);
        }
    }

    /// Makes the record of an image anew from its manifest, if it is not what that says.
    async fn image(&mut self, check: &ImageCheck) {
        self.result.images.count += 1;
        let mut damage = Damage {
            kind: Kind::Image,
            ..document_damage(&check.record.manifest, None)
        };
        "it cannot be read".clone_into(&mut damage.reason);
        match self.store.mend_image(check).await {
            Ok(ImageMended::Right) => return,
            Ok(ImageMended::Repaired) => {
                if check.is_readable {
                    "it named another config than its manifest".clone_into(&mut damage.reason);
                }
                damage.outcome = Outcome::Repaired;
            }
            Ok(ImageMended::NoManifest) => {
                damage.outcome = Outcome::Kept;
                let hint = Hint::Prune;
                damage.reason = format!(
                    "{}, and its manifest, from which it could be made anew, is not here: {hint}",
                    damage.reason
                );
            }
            Err(err) => damage.kept(&err.into()),
        }
        self.result.damage.push(damage);
    }

    /// Goes through what a name leads to and fetches anew what of it is bad.
    async fn walk(&mut self, reference: &Reference, root: Descriptor, walk: &mut Walk) {
        let mut pending = vec![(root, false)];
        let mut seen = BTreeSet::new();
        while let Some((descriptor, is_config)) = pending.pop() {
            if !seen.insert(descriptor.digest) {
                continue;
            }
            walk.reached.insert(descriptor.digest);
            if let Some(size) = walk.bad.get(&descriptor.digest).copied() {
                match self.fetch_document(reference, &descriptor, is_config).await {
                    Ok(None) => continue,
                    Ok(Some(fetched)) => {
                        walk.bad.remove(&descriptor.digest);
                        self.result.damage.push(Damage {
                            outcome: Outcome::Repaired,
                            bytes_fetched: fetched,
                            ..document_damage(&descriptor.digest, size)
                        });
                    }
                    Err(err) => {
                        walk.failures.insert(descriptor.digest, format!("{err:#}"));
                        continue;
                    }
                }
            }
            if is_config {
                continue;
            }
            let Ok(Some(body)) = self.store.document(&descriptor.digest) else {
                continue;
            };
            match Document::parse(&body, None) {
                Ok(Document::Index(index)) => {
                    pending.extend(index.manifests.into_iter().map(|entry| (entry, false)));
                }
                Ok(Document::Manifest(manifest)) => {
                    if walk.recorded.contains(&descriptor.digest) {
                        self.want(&manifest.config.digest, walk);
                    }
                    pending.push((manifest.config, true));
                }
                // Its digest is right, so it is what was asked for.
                Err(_) => {}
            }
        }
    }

    async fn fetch_document(
        &mut self,
        reference: &Reference,
        descriptor: &Descriptor,
        is_config: bool,
    ) -> Result<Option<u64>> {
        let Some(source) = self.source(reference).await? else {
            return Ok(None);
        };
        let body = if is_config {
            read_blob(&*source, descriptor, MAX_CONFIG_SIZE).await?
        } else {
            let stream = source.open_manifest(descriptor).await?;
            read_verified(stream, descriptor, MAX_MANIFEST_SIZE).await?
        };
        self.store.keep_document(&descriptor.digest, &body);
        let kept = self.store.document(&descriptor.digest)?;
        if kept.is_none() {
            fail!(Unavailable, "it cannot be written: is the disk full?");
        }
        Ok(Some(body.len() as u64))
    }
}

/// A damaged name that nobody has brought back yet.
fn name_damage(name: String, why: &str) -> Damage {
    Damage {
        kind: Kind::Name,
        name,
        bytes: 0,
        spans: None,
        outcome: Outcome::Dropped,
        bytes_fetched: 0,
        reason: why.to_owned(),
        in_use: false,
    }
}

/// A document that is damaged, or without a size missing, and that nobody has brought back yet.
fn document_damage(digest: &Digest, size: Option<u64>) -> Damage {
    let reason = match size {
        Some(_) => "its bytes do not have its digest",
        None => "it is not here",
    };
    Damage {
        kind: Kind::Document,
        name: digest.to_string(),
        bytes: size.unwrap_or_default(),
        spans: None,
        outcome: Outcome::Dropped,
        bytes_fetched: 0,
        reason: reason.to_owned(),
        in_use: false,
    }
}
