//! Multi-platform lists: put together here, then pushed.
//!
//! ```text
//! member_of   what a registry has under a name ──> an entry with the platform of its config
//! Lists       the lists under construction, as files
//! ListPush    the members into the list's repository (mounted, or copied from other registries), then the list
//! ```

mod kept;
mod push;

pub use kept::Lists;
pub use push::{BlobsPlaced, ListPush, PushedList, PushedMember};

use anyhow::{Context, bail};

use crate::source::{BlobSource, Options, SourceError, list_entry, open};
use imgfs_formats::oci::{ListMember, Reference};
use std::sync::Arc;

/// Finds the image that one of these names means, the first that can be had, as a member of a list.
pub async fn member_of(names: &[Reference], options: &Options) -> anyhow::Result<ListMember> {
    let mut failure = None;
    for reference in names {
        match find(reference, options).await {
            Ok(member) => return Ok(member),
            Err(err) => failure = Some(err),
        }
    }
    Err(failure.context("internal: no reference")?)
}

async fn find(reference: &Reference, options: &Options) -> anyhow::Result<ListMember> {
    if reference.repository().is_none() {
        return Err(SourceError::NoRegistry {
            reference: reference.to_string(),
        }
        .into());
    }
    let source = open_source(reference, options).await?;
    let Some(manifest) = list_entry(&*source)
        .await
        .with_context(|| format!("cannot take {reference} into the list"))?
    else {
        bail!(
            "{reference} is a manifest list: name one of its images by digest (`imgfs manifest inspect -t {reference}` \
             shows them)"
        );
    };
    Ok(ListMember {
        reference: reference.clone(),
        manifest,
    })
}

/// Reads configuration files, which is nothing for an async thread.
async fn open_source(
    reference: &Reference,
    options: &Options,
) -> anyhow::Result<Arc<dyn BlobSource>> {
    let (name, reaching) = (reference.clone(), options.clone());
    let source = tokio::task::spawn_blocking(move || open(&name, &reaching))
        .await
        .context("internal: opening the repository stopped")??;
    Ok(source)
}
