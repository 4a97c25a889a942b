//! Layers: their indexes, their bytes, their DiffIds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use super::Check;
use super::report::{Damage, Kind, Outcome};
use crate::error::{EngineError, Result, fail};
use crate::hint::Hint;
use crate::image::{CachedImage, CachedLayer, Image, Pull, Request};
use crate::indexes::IndexPolicy;
use crate::indexes::published::FindOptions;
use crate::source::host_platform;
use crate::store::{IndexCheck, Progress, Slot, Trust};
use imgfs_formats::layer::LayerIndex;
use imgfs_formats::oci::Descriptor;

/// How often, and how long each time, to wait until an index that was found again is written.
const WRITES_WAITED_FOR: u32 = 100;
const WRITE_PAUSE: Duration = Duration::from_millis(20);

impl Check<'_> {
    pub(super) async fn layer(&mut self, slot: &Slot, known: Option<&CachedLayer>) {
        let size = self.store.index_size(slot);
        let damage = |kind, bytes| Damage {
            kind,
            name: slot.layer().to_string(),
            bytes,
            spans: None,
            outcome: Outcome::Kept,
            bytes_fetched: 0,
            reason: "it cannot be checked".to_owned(),
            in_use: false,
        };
        let index = match self.store.check_index(slot) {
            Ok(IndexCheck::Absent) => return,
            // Whoever wrote it checks it.
            Ok(IndexCheck::Newer) => {
                self.result.bytes_unchecked += size;
                return;
            }
            Ok(IndexCheck::Right(index)) => Ok(Some(index)),
            Ok(IndexCheck::Damaged(why)) => self.index(slot, known, size, why).await,
            Err(err) => Err(err.into()),
        };
        self.result.indexes.count += 1;
        self.result.indexes.bytes += size;
        let index = match index {
            Ok(Some(index)) => index,
            Ok(None) => return,
            Err(err) => {
                let mut damage = damage(Kind::Index, size);
                damage.kept(&err);
                self.result.damage.push(damage);
                return;
            }
        };
        if let Err(err) = self.data(slot, known, &index).await {
            let mut damage = damage(Kind::Data, 0);
            damage.kept(&err);
            self.result.damage.push(damage);
            return;
        }
        if let Err(err) = self.diff_id(slot, known, &index).await {
            let mut damage = damage(Kind::DiffId, 0);
            damage.kept(&err);
            self.result.damage.push(damage);
        }
    }

    /// Brings a damaged index back, if that can be done; gives it then.
    async fn index(
        &mut self,
        slot: &Slot,
        known: Option<&CachedLayer>,
        size: u64,
        why: String,
    ) -> Result<Option<Arc<LayerIndex>>> {
        let finding = self.store.finding(slot)?;
        let trust = finding.map_or(Trust::Pinned, |finding| finding.trust);
        let in_use = self.store.is_in_use(slot)?;
        if !self.store.drop_index(slot)? {
            // Somebody has put it right meanwhile.
            let IndexCheck::Right(index) = self.store.check_index(slot)? else {
                return Ok(None);
            };
            return Ok(Some(index));
        }
        let mut damage = Damage {
            kind: Kind::Index,
            name: slot.layer().to_string(),
            bytes: size,
            spans: None,
            outcome: Outcome::Dropped,
            bytes_fetched: 0,
            reason: why,
            in_use,
        };
        let mut images = known.map(|known| known.images.iter()).into_iter().flatten();
        let index = loop {
            let (Some(image), Some(known)) = (images.next(), known) else {
                break None;
            };
            let made = if slot.is_own() {
                self.stream(image, &known.blob).await
            } else {
                Box::pin(self.find_again(image, slot, trust)).await
            };
            match made {
                Ok(Some(fetched)) => {
                    let IndexCheck::Right(index) = self.store.check_index(slot)? else {
                        continue;
                    };
                    damage.outcome = Outcome::Repaired;
                    damage.bytes_fetched = fetched;
                    break Some(index);
                }
                Ok(None) => {}
                Err(err) => damage.reason = format!("{}; {err:#}", damage.reason),
            }
        };
        self.result.damage.push(damage);
        Ok(index)
    }

    /// Makes a layer's own index anew.
    async fn stream(&mut self, image: &CachedImage, blob: &Descriptor) -> Result<Option<u64>> {
        let Some(source) = self.source(&image.reference).await? else {
            return Ok(None);
        };
        let progress = Progress::default();
        self.store.open_layer(&source, blob, &progress).await?;
        Ok(Some(progress.done() - progress.here()))
    }

    /// Finds an index again, where it was found before or elsewhere.
    async fn find_again(
        &mut self,
        image: &CachedImage,
        slot: &Slot,
        trust: Trust,
    ) -> Result<Option<u64>> {
        let Some(options) = &self.verifying.options else {
            return Ok(None);
        };
        let request = Request {
            reference: image.reference.clone(),
            others: Vec::new(),
            platform: image.platform.clone().unwrap_or_else(host_platform),
            pull: Pull::Missing,
            options: options.clone(),
            indexes: IndexPolicy {
                require: trust,
                soci_v1: trust == Trust::Claimed,
                published: FindOptions {
                    repository: None,
                    key: None,
                    options: options.clone(),
                },
                offline: false,
            },
        };
        let resolved = Image::resolve(self.store, &request).await?;
        let before = resolved.source.traffic().bytes;
        let search = resolved.finder.take(slot.layer()).await;
        // The one that was looked for, and kept: it is written beside.
        let is_it = (search.found.as_ref()).is_some_and(|found| found.layer.reader.slot() == slot);
        if !is_it {
            let problem = search.problem;
            let problem = problem.unwrap_or_else(|| "it was not found again".to_owned());
            fail!(NotFound, "{problem}");
        }
        let fetched = resolved.source.traffic().bytes - before;
        for _ in 0..WRITES_WAITED_FOR {
            if matches!(self.store.check_index(slot)?, IndexCheck::Right(_)) {
                break;
            }
            tokio::time::sleep(WRITE_PAUSE).await;
        }
        Ok(Some(fetched))
    }

    /// The DiffId that a layer was found to have has to be what every config says: else mounts
    /// refuse the layer. If it is not, the layer's bytes tell which side is wrong; what was found
    /// out is never given up on any other ground.
    async fn diff_id(
        &mut self,
        slot: &Slot,
        known: Option<&CachedLayer>,
        index: &Arc<LayerIndex>,
    ) -> Result<()> {
        let (true, Some(known)) = (slot.is_own(), known) else {
            return Ok(());
        };
        let layer = slot.layer();
        let Some(noted) = self.store.known_diff_id(layer)? else {
            return Ok(());
        };
        if known.diff_ids().all(|(_, said)| said == noted) {
            return Ok(());
        }
        let algorithm = noted.0.algorithm();
        let computed = (self.store.recompute_diff_id(layer, index, algorithm)).await?;
        let mut damage = Damage {
            kind: Kind::DiffId,
            name: layer.to_string(),
            bytes: noted.to_string().len() as u64,
            spans: None,
            outcome: Outcome::Kept,
            bytes_fetched: 0,
            reason: String::new(),
            in_use: self.store.is_in_use(slot)?,
        };
        if let Some(right) = computed.filter(|computed| *computed != noted) {
            self.store.note_diff_id(layer, &right)?;
            self.result.damage.push(Damage {
                outcome: Outcome::Repaired,
                reason: format!("{noted} was noted, but its bytes are {right}"),
                ..damage.clone()
            });
        }
        let is = computed.unwrap_or(noted);
        let liars: BTreeSet<String> = (known.diff_ids())
            .filter(|(_, said)| *said != is)
            .map(|(image, said)| format!("the config of {} says {said}", image.reference))
            .collect();
        if liars.is_empty() {
            return Ok(());
        }
        let liars = Vec::from_iter(liars).join(", ");
        damage.reason = if computed.is_some() {
            format!(
                "its uncompressed tar is {is}, but {liars}: they contradict each other, so mounts go on refusing the layer"
            )
        } else {
            format!(
                "{is} was noted, but {liars}; not all of the layer is here to tell who is wrong: {}",
                Hint::PullAndCheck
            )
        };
        self.result.damage.push(damage);
        Ok(())
    }

    async fn data(
        &mut self,
        slot: &Slot,
        known: Option<&CachedLayer>,
        index: &Arc<LayerIndex>,
    ) -> Result<()> {
        let done = &self.verifying.done;
        let check = self.store.check_spans(slot, index, done).await?;
        self.result.layers.count += u64::from(check.bytes > 0);
        self.result.layers.bytes += check.bytes;
        if check.bad.is_empty() {
            return Ok(());
        }
        let mut damage = Damage {
            kind: Kind::Data,
            name: slot.layer().to_string(),
            bytes: check.bad_bytes,
            spans: Some(check.bad.len()),
            outcome: Outcome::Dropped,
            bytes_fetched: 0,
            reason: "the bytes do not have their digest".to_owned(),
            in_use: check.in_use,
        };
        if known.is_none() && self.verifying.options.is_some() {
            "no image that is known has the layer".clone_into(&mut damage.reason);
        }
        for image in known.map(|known| known.images.iter()).into_iter().flatten() {
            let source = match self.source(&image.reference).await {
                Ok(Some(source)) => source,
                Ok(None) => break,
                Err(err) => {
                    damage.reason = format!("{err:#}");
                    continue;
                }
            };
            let blob = image
                .layers
                .iter()
                .find(|blob| blob.digest == *slot.layer());
            let Some(blob) = blob else { continue };
            let repair = self
                .store
                .repair_spans(&source, blob, slot, index, &check.bad)
                .await?;
            damage.bytes_fetched += repair.fetched;
            if repair.is_whole {
                damage.outcome = Outcome::Repaired;
                break;
            }
            damage.reason = match repair.error {
                Some(err) => format!("{:#}", EngineError::from(err)),
                None => "it cannot be written: is the disk full?".to_owned(),
            };
        }
        self.result.damage.push(damage);
        Ok(())
    }
}
