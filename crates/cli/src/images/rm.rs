//! `imgfs rm`: by tag, by digest, by the start of an ID.

use std::collections::HashSet;
use std::process::ExitCode;

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::users;
use crate::globals::Globals;
use crate::globals::environment;
use crate::output;
use imgfs_core::error::{EngineError, ErrorKind};
use imgfs_core::store::{Removal, Store, Swept, TagRecord};
use imgfs_core::work::{Images, Target, Users, is_beside};

/// Remove images from the cache.
#[derive(Args)]
#[command(after_help = "\
A tag is taken from its image; without any tag left the image goes, and with it those layers \
that no other image has. By digest or by the start of an ID an image goes with its tag; with \
several tags only if -f is given. What is mounted, or used otherwise, stays.

Examples:
  imgfs rm alpine:3.20
  imgfs rm ghcr.io/owner/name@sha256:...
  imgfs rm -f 4f2b1c
  imgfs images -q --filter dangling=true | xargs imgfs rm")]
pub(crate) struct RmArgs {
    /// Tags, digests or starts of IDs
    #[arg(required = true, value_name = "IMAGE")]
    images: Vec<String>,
    /// An image with several tags, too; what is not there is no failure
    #[arg(short, long)]
    force: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// What was removed.
#[derive(Default, Serialize)]
pub(super) struct Removed {
    pub untagged: Vec<String>,
    pub images: Vec<String>,
    pub layers: Vec<String>,
    /// Disk space in bytes.
    pub reclaimed: u64,
    /// Layers that nothing refers to any more, but somebody uses.
    pub in_use: usize,
}

/// Tags and images that are to go, collected one by one.
#[derive(Default)]
pub(super) struct Gone {
    tags: HashSet<String>,
    images: Vec<usize>,
    /// In the order they are told in.
    removed: Removed,
}

pub(crate) fn rm(globals: &Globals, args: &RmArgs) -> anyhow::Result<ExitCode> {
    let store = globals.store()?;
    let removal = store.removal()?;
    let images = Images::load(&store)?;
    let users = users(&store)?;
    let mut gone = Gone::default();
    let mut problems = Vec::new();
    for text in &args.images {
        let target = images.find(text, &environment().configuration);
        let target = target.map_err(anyhow::Error::from);
        let added = target.and_then(|target| gone.add(&images, &users, text, target, args.force));
        problems.extend(added.err());
    }
    let failed = problems
        .iter()
        .any(|problem| !args.force || !is_unknown(problem));
    let removed = gone.remove(&store, removal, &images, false);
    // Who reads them may be slow, and until now nobody could record an image.
    for problem in problems {
        let text = output::error_text(&problem);
        output::message(&format!("imgfs: {}", output::printable(text.as_bytes())));
    }
    let removed = removed?;
    if args.json {
        output::json(&removed)?;
    } else {
        output::bytes(removed.lines("Untagged", "Deleted").as_bytes())?;
        removed.say_what_stays(globals.quiet);
    }
    Ok(if failed {
        ExitCode::FAILURE
    } else {
        ExitCode::SUCCESS
    })
}

impl Gone {
    /// What is meant by `text` goes, if it can.
    fn add(
        &mut self,
        images: &Images,
        users: &Users,
        text: &str,
        target: Target,
        force: bool,
    ) -> anyhow::Result<()> {
        let (tags, going) = match target {
            Target::Tag(tag) => {
                let named = images.of_tag(&tag);
                let is_last = |i: &usize| {
                    let others = images.get(*i).tags.iter();
                    others
                        .filter(|other| other.reference != tag.reference)
                        .all(|other| self.tags.contains(&other.reference))
                };
                let going: Vec<usize> = named.into_iter().filter(is_last).collect();
                (vec![*tag], going)
            }
            Target::Images(named, name) => {
                let mut tags: Vec<&TagRecord> = (named.iter())
                    .flat_map(|i| &images.get(*i).tags)
                    .filter(|tag| !self.tags.contains(&tag.reference))
                    .collect();
                tags.sort_by(|a, b| a.reference.cmp(&b.reference));
                tags.dedup();
                if tags.len() > 1 && !force {
                    let names: Vec<&str> = tags.iter().map(|tag| tag.reference.as_str()).collect();
                    bail!(
                        "{text} has several tags: {}: remove those, or all of it with -f",
                        names.join(", ")
                    );
                }
                if let (Some(name), [tag], false) = (name, &tags[..], force)
                    && !is_beside(&tag.reference, &name)
                {
                    bail!(
                        "{text} has a tag of another repository: {}: remove that, or all of it with -f",
                        tag.reference
                    );
                }
                // A tag stays as long as it names another image.
                let goes = |i: &usize| named.contains(i) || self.images.contains(i);
                tags.retain(|tag| images.of_tag(tag).iter().all(goes));
                (tags.into_iter().cloned().collect(), named)
            }
        };
        let mut all = self.images.clone();
        all.extend(going.iter().filter(|i| !self.images.contains(i)));
        if let Some((_, why)) = users.of(images, &all) {
            bail!("{text} stays: {why}");
        }
        for tag in tags {
            self.untag(images, &tag, &going);
        }
        for i in going {
            self.forget(images, i);
        }
        Ok(())
    }

    /// A tag goes; `with` it, these images.
    pub(super) fn untag(&mut self, images: &Images, tag: &TagRecord, with: &[usize]) {
        if !self.tags.insert(tag.reference.clone()) {
            return;
        }
        self.removed.untagged.push(short(&tag.reference));
        let named = images.of_tag(tag);
        if !named.is_empty() && named.iter().all(|i| with.contains(i)) {
            let name = images
                .names(named[0])
                .into_iter()
                .find_map(|name| name.repository);
            let digest = tag.descriptor.digest;
            let name = name.map(|name| format!("{name}@{digest}"));
            self.removed.untagged.extend(name);
        }
    }

    /// An image goes.
    pub(super) fn forget(&mut self, images: &Images, i: usize) {
        if !self.images.contains(&i) {
            self.images.push(i);
            let id = images.get(i).id().to_string();
            if !self.removed.images.contains(&id) {
                self.removed.images.push(id);
            }
        }
    }

    /// Does it.
    pub(super) fn remove(
        self,
        store: &Store,
        mut removal: Removal<'_>,
        images: &Images,
        everything: bool,
    ) -> anyhow::Result<Removed> {
        for tag in store.tag_records()? {
            if self.tags.contains(&tag.reference) {
                removal.untag(&tag);
            }
        }
        for i in &self.images {
            removal.forget(images.get(*i).clone());
        }
        let Swept {
            layers,
            bytes,
            in_use,
        } = removal.plan(everything)?.run()?;
        Ok(Removed {
            layers: layers.iter().map(ToString::to_string).collect(),
            reclaimed: bytes,
            in_use,
            ..self.removed
        })
    }
}

impl Removed {
    /// As Docker says it: a line for each.
    pub(super) fn lines(&self, untagged: &str, deleted: &str) -> String {
        let name = |name: &String| output::printable(name.as_bytes());
        let untagged = (self.untagged.iter()).map(|one| format!("{untagged}: {}\n", name(one)));
        let gone = self.images.iter().chain(&self.layers);
        let deleted = gone.map(|digest| format!("{deleted}: {digest}\n"));
        untagged.chain(deleted).collect()
    }

    /// That what somebody uses is still there.
    pub(super) fn say_what_stays(&self, quiet: bool) {
        match self.in_use {
            _ if quiet => {}
            0 => {}
            1 => output::message("1 layer stays that no image needs: somebody uses it"),
            count => output::message(&format!(
                "{count} layers stay that no image needs: somebody uses them"
            )),
        }
    }
}

/// A reference as people write it.
fn short(reference: &str) -> String {
    let parsed = reference.parse::<imgfs_formats::oci::Reference>();
    parsed.map_or_else(|_| reference.to_owned(), |parsed| parsed.short())
}

/// Whether an error says that nothing here is called that.
fn is_unknown(problem: &anyhow::Error) -> bool {
    let engine = problem.downcast_ref::<EngineError>();
    engine.is_some_and(|err| err.kind() == ErrorKind::NotFound)
}
