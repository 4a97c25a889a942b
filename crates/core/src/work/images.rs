//! The images of the cache as people name them: by tag, by digest, by the start of an ID.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::path::PathBuf;

use jiff::Timestamp;

use crate::error::{EngineError, ErrorKind, Result, fail};
use crate::hint::Hint;
use crate::source::route::{Configuration, RouteError, candidates};
use crate::store::{Cache, KnownImage, LayerUse, TagRecord};
use imgfs_formats::oci::{Digest, Location, Platform, Reference};

/// All images, and what it takes to judge them.
pub struct Images {
    all: Vec<KnownImage>,
    tags: Vec<TagRecord>,
    uses: HashMap<Digest, LayerUse>,
    /// How many images have a layer.
    holders: HashMap<Digest, usize>,
}

/// What somebody means to remove.
pub enum Target {
    /// A tag.
    Tag(Box<TagRecord>),
    /// Images by their position: of one ID, or those that one digest names, with the name that has
    /// it.
    Images(Vec<usize>, Option<Box<Reference>>),
}

/// Hex digits of an ID that tell it from others, as Docker shows it.
const SHORT_ID: usize = 12;

/// What an image is called in a listing.
pub struct Name {
    /// Without tag and digest, as people write it.
    pub repository: Option<String>,
    /// Its tag.
    pub tag: Option<String>,
    /// Of what the name points to.
    pub digest: Option<Digest>,
    /// The repository in full.
    full: String,
}

/// Sizes of an image in bytes.
pub struct Sizes {
    /// Of the layers as distributed.
    pub packed: u64,
    /// Of the layers' tars; `None` if one was not opened yet.
    pub unpacked: Option<u64>,
    /// Disk space of its layers.
    pub disk: u64,
    /// The part of it that other images have, too.
    pub shared: u64,
}

/// An image that is mounted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountedImage {
    /// Digest of its manifest.
    pub manifest: String,
    /// Where.
    pub mountpoint: PathBuf,
}

/// The users of images, which keep them from being removed.
pub struct Users {
    mounts: Vec<MountedImage>,
    layers: HashSet<Digest>,
}

impl Images {
    /// All images of this cache.
    pub fn load(cache: &Cache) -> Result<Self> {
        let images = cache.images()?;
        let mut holders: HashMap<Digest, usize> = HashMap::new();
        for image in &images {
            for blob in image.layers() {
                *holders.entry(blob.digest).or_default() += 1;
            }
        }
        Ok(Self {
            all: images,
            tags: cache.tag_records()?,
            uses: cache.layer_uses()?,
            holders,
        })
    }

    /// The image at a position.
    pub fn get(&self, i: usize) -> &KnownImage {
        // Positions come from here alone.
        &self.all[i]
    }

    /// All positions.
    pub fn all(&self) -> std::ops::Range<usize> {
        0..self.all.len()
    }

    /// All tags.
    pub fn tags(&self) -> &[TagRecord] {
        &self.tags
    }

    /// The images that a tag names.
    pub fn of_tag(&self, tag: &TagRecord) -> Vec<usize> {
        let is_named = |i: &usize| self.get(*i).tags.contains(tag);
        self.all().filter(is_named).collect()
    }

    /// In Docker's order: the newest first, then by name.
    pub fn newest_first(&self) -> Vec<usize> {
        let mut order: Vec<usize> = self.all().collect();
        order.sort_by_cached_key(|i| {
            let image = self.get(*i);
            let name = image.tags.first().map(|tag| tag.reference.clone());
            let created = self.created(*i).map(std::cmp::Reverse);
            (created.is_none(), created, name, image.digest)
        });
        order
    }

    /// What an image is called: by its tags, else by the last name it was asked for as.
    pub fn names(&self, i: usize) -> Vec<Name> {
        let image = self.get(i);
        if !image.tags.is_empty() {
            let tags = image.tags.iter();
            return tags
                .map(|tag| Name::of(&tag.reference, tag.descriptor.digest))
                .collect();
        }
        let references = image.record.iter().flat_map(|record| &record.references);
        let mut name = match references.last() {
            Some(reference) => Name::of(reference, image.digest),
            None => Name {
                repository: None,
                tag: None,
                digest: Some(image.digest),
                full: String::new(),
            },
        };
        // It means something else now.
        name.tag = None;
        vec![name]
    }

    /// When it was made, if that is known.
    pub fn created(&self, i: usize) -> Option<Timestamp> {
        let config = self.get(i).config.as_ref()?;
        config.created.as_deref()?.parse().ok()
    }

    /// Its platform, if its config is here.
    pub fn platform(&self, i: usize) -> Option<Platform> {
        let config = self.get(i).config.as_ref()?;
        Some(crate::source::config_platform(config))
    }

    /// Its labels, if its config is here.
    pub fn labels(&self, i: usize) -> serde_json::Map<String, serde_json::Value> {
        let config = self.get(i).config.as_ref();
        let labels = config.and_then(|config| config.config.get("Labels")?.as_object());
        labels.cloned().unwrap_or_default()
    }

    /// How large it is.
    pub fn sizes(&self, i: usize) -> Sizes {
        let image = self.get(i);
        let packed = image.manifest.layers.iter().map(|blob| blob.size);
        let mut sizes = Sizes {
            packed: packed.fold(0, u64::saturating_add),
            unpacked: Some(0),
            disk: 0,
            shared: 0,
        };
        for blob in &image.manifest.layers {
            let unpacked = self.uses.get(&blob.digest).and_then(|usage| usage.unpacked);
            sizes.unpacked =
                (sizes.unpacked.zip(unpacked)).map(|(sum, one)| sum.saturating_add(one));
        }
        for blob in image.layers() {
            let disk = self.uses.get(&blob.digest).map_or(0, |usage| usage.disk);
            sizes.disk += disk;
            if self
                .holders
                .get(&blob.digest)
                .is_some_and(|holders| *holders > 1)
            {
                sizes.shared += disk;
            }
        }
        sizes
    }

    /// What somebody means: a tag, or images by digest or by the start of an ID. An error of the
    /// kind [`ErrorKind::NotFound`] if that is nothing here.
    pub fn find(&self, text: &str, configuration: &Configuration) -> Result<Target> {
        let meant = candidates(text, configuration);
        let (names, ambiguous) = match meant {
            Ok(meant) => (meant.references, None),
            // What is no name may be an ID.
            Err(RouteError::Reference(_)) => (Vec::new(), None),
            // Of an ID nobody can know that it is no name; it is one if none of the names is here.
            Err(RouteError::Ambiguous { ref names, .. }) => {
                let names = names.iter().filter_map(|name| name.parse().ok());
                (names.collect(), meant.err())
            }
            Err(err) => return Err(err.into()),
        };
        if let Some(target) = names.iter().find_map(|name| self.named(name)) {
            return match ambiguous {
                Some(err) => Err(err.into()),
                None => Ok(target),
            };
        }
        let prefix = text
            .strip_prefix("sha256:")
            .unwrap_or(text)
            .to_ascii_lowercase();
        let is_hex = !prefix.is_empty() && prefix.bytes().all(|byte| byte.is_ascii_hexdigit());
        if is_hex {
            let starts = |digest: &Digest| digest.hex().starts_with(&prefix);
            let mut found: Vec<usize> = self.all().filter(|i| starts(self.get(*i).id())).collect();
            if found.is_empty() {
                let is_named = |i: &usize| self.digests(*i).iter().any(starts);
                found = self.all().filter(is_named).collect();
            }
            let ids: BTreeSet<String> = (found.iter()).map(|i| self.get(*i).id().hex()).collect();
            if ids.len() > 1 {
                let ids: Vec<String> = (ids.iter())
                    .map(|id| id.chars().take(SHORT_ID.max(prefix.len() + 4)).collect())
                    .collect();
                fail!(
                    Invalid,
                    "{text} is the start of several: {}: write more of it",
                    ids.join(", ")
                );
            }
            if !found.is_empty() {
                return Ok(Target::Images(found, None));
            }
        }
        Err(EngineError::with_hint(
            ErrorKind::NotFound,
            format_args!("no image {text} in the cache"),
            Hint::ListImages,
        ))
    }

    /// What a name in full means here.
    fn named(&self, name: &Reference) -> Option<Target> {
        if let Some(digest) = name.digest() {
            let found = self.by_digest(name, digest);
            let target = || Target::Images(found.clone(), Some(Box::new(name.clone())));
            return (!found.is_empty()).then(target);
        }
        let full = name.to_string();
        let tag = self.tags.iter().find(|tag| tag.reference == full)?;
        Some(Target::Tag(Box::new(tag.clone())))
    }

    /// One image of those that somebody means.
    pub fn find_one(&self, text: &str, configuration: &Configuration) -> Result<usize> {
        let found = match self.find(text, configuration)? {
            Target::Images(found, _) => found,
            Target::Tag(tag) => self.of_tag(&tag),
        };
        let first = found.first().copied();
        first.ok_or_else(|| {
            let words = format!("nothing of {text} is in the cache");
            EngineError::new(ErrorKind::NotFound, words)
        })
    }

    /// Those with this digest that are known from the repository that `name` has, too.
    fn by_digest(&self, name: &Reference, digest: &Digest) -> Vec<usize> {
        let is_it = |i: &usize| self.get(*i).id() == digest || self.digests(*i).contains(digest);
        let is_there = |i: &usize| {
            let image = self.get(*i);
            let tags = image.tags.iter().map(|tag| &tag.reference);
            let asked = image.record.iter().flat_map(|record| &record.references);
            tags.chain(asked).any(|known| is_beside(known, name))
        };
        self.all().filter(is_it).filter(is_there).collect()
    }

    /// Those of its manifest and of the lists that it is in.
    fn digests(&self, i: usize) -> HashSet<Digest> {
        let image = self.get(i);
        let lists = image.record.iter().flat_map(|record| &record.via);
        let roots = image.tags.iter().map(|tag| tag.descriptor.digest);
        lists.copied().chain(roots).chain([image.digest]).collect()
    }

    /// The layers that only these images have.
    fn own_layers(&self, gone: &[usize]) -> HashSet<Digest> {
        let mut holders: BTreeMap<Digest, usize> = BTreeMap::new();
        for i in gone {
            for blob in self.get(*i).layers() {
                *holders.entry(blob.digest).or_default() += 1;
            }
        }
        let all = |layer: &Digest| self.holders.get(layer).copied().unwrap_or(0);
        let own = holders
            .into_iter()
            .filter(|(layer, count)| *count >= all(layer));
        own.map(|(layer, _)| layer).collect()
    }
}

impl Name {
    fn of(reference: &str, digest: Digest) -> Self {
        let parsed: Option<Reference> = reference.parse().ok();
        let (tag, named) = match parsed.as_ref().map(Reference::location) {
            Some(
                Location::Registry { tag, digest, .. } | Location::OciLayout { tag, digest, .. },
            ) => (tag.clone(), *digest),
            Some(Location::DockerArchive { image, .. }) => (image.clone(), None),
            None => (None, None),
        };
        let short = parsed.map_or_else(|| reference.to_owned(), |parsed| parsed.short());
        let without = |text: &str| {
            let text = match named {
                Some(_) => text.rsplit_once('@').map_or(text, |(name, _)| name),
                None => text,
            };
            let ending = tag.as_ref().map(|tag| format!(":{tag}"));
            let name = ending.and_then(|ending| text.strip_suffix(&ending));
            name.unwrap_or(text).to_owned()
        };
        Self {
            repository: Some(without(&short)),
            full: without(reference),
            digest: Some(named.unwrap_or(digest)),
            tag,
        }
    }

    /// The name in every form that a pattern may mean: short and in full, with and without its tag.
    pub fn forms(&self) -> Vec<String> {
        let Some(short) = &self.repository else {
            return Vec::new();
        };
        let mut forms = vec![short.clone(), self.full.clone()];
        if let Some(tag) = &self.tag {
            forms.extend([format!("{short}:{tag}"), format!("{}:{tag}", self.full)]);
        }
        forms
    }

    /// Whether it is what somebody means by a repository, with or without a tag, or by a pattern.
    pub fn is_below(&self, wanted: &str, matches: impl Fn(&str) -> bool) -> bool {
        let is_it = |form: &String| form == wanted || matches(form);
        self.forms().iter().any(is_it)
    }
}

/// Whether a reference as it is written down is one of the repository, or layout, that `name` is
/// of.
pub fn is_beside(known: &str, name: &Reference) -> bool {
    let Ok(known) = known.parse::<Reference>() else {
        return false;
    };
    match (known.location(), name.location()) {
        (Location::OciLayout { dir, .. }, Location::OciLayout { dir: other, .. }) => dir == other,
        _ => known.repository().is_some() && known.repository() == name.repository(),
    }
}

impl Sizes {
    /// Disk space that is freed when the image goes.
    pub fn unique(&self) -> u64 {
        self.disk - self.shared
    }
}

impl Users {
    /// Those of this cache, of which these images are mounted.
    pub fn load(cache: &Cache, mounts: Vec<MountedImage>) -> Result<Self> {
        Ok(Self {
            mounts,
            layers: cache.layers_in_use()?,
        })
    }

    /// Why these images cannot go all at once, if they cannot: the first that somebody uses, and by
    /// whom. Layers that other images have stay anyway, so their users do not matter.
    pub fn of(&self, images: &Images, gone: &[usize]) -> Option<(usize, String)> {
        let own = images.own_layers(gone);
        let is_free = |layer: &Digest| !own.contains(layer) || !self.layers.contains(layer);
        let mut found = None;
        for i in gone {
            let image = images.get(*i);
            let digest = image.digest.to_string();
            let mounts = self.mounts.iter().filter(|mount| mount.manifest == digest);
            let mounts: Vec<String> = mounts
                .map(|mount| mount.mountpoint.display().to_string())
                .collect();
            if !mounts.is_empty() {
                let why = format!("it is mounted on {}: unmount it first", mounts.join(", "));
                return Some((*i, why));
            }
            // Of images that share layers the one is in use of which nothing is free.
            let free = image
                .layers()
                .iter()
                .filter(|blob| is_free(&blob.digest))
                .count();
            let is_used = free < image.layers().len();
            if is_used && found.is_none_or(|(_, least)| free < least) {
                found = Some((*i, free));
            }
        }
        let why = "somebody uses it: a mount of another user, a pull, a command that is not done";
        found.map(|(i, _)| (i, why.to_owned()))
    }
}
