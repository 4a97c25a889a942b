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

use crate::error::{EngineError, ErrorKind, Expected, Result, Within};
use crate::hint::Hint;
use crate::source::{BlobSource, Options, SourceError, list_entry, open};
use imgfs_formats::oci::{ListMember, Reference};
use std::sync::Arc;

/// Finds the image that one of these names means, the first that can be had, as a member of a list.
pub async fn member_of(names: &[Reference], options: &Options) -> Result<ListMember> {
    let mut failure = None;
    for reference in names {
        match find(reference, options).await {
            Ok(member) => return Ok(member),
            Err(err) => failure = Some(err),
        }
    }
    Err(failure.expected("no reference")?)
}

async fn find(reference: &Reference, options: &Options) -> Result<ListMember> {
    if reference.repository().is_none() {
        return Err(SourceError::NoRegistry {
            reference: reference.to_string(),
        }
        .into());
    }
    let source = open_source(reference, options).await?;
    let Some(manifest) = list_entry(&*source)
        .await
        .within(|| format!("cannot take {reference} into the list"))?
    else {
        return Err(EngineError::with_hint(
            ErrorKind::Invalid,
            format_args!("{reference} is a manifest list"),
            Hint::MembersOfList {
                reference: reference.to_string(),
            },
        ));
    };
    Ok(ListMember {
        reference: reference.clone(),
        manifest,
    })
}

/// Reads configuration files, which is nothing for an async thread.
async fn open_source(reference: &Reference, options: &Options) -> Result<Arc<dyn BlobSource>> {
    let (name, reaching) = (reference.clone(), options.clone());
    let source = tokio::task::spawn_blocking(move || open(&name, &reaching))
        .await
        .expected("opening the repository stopped")??;
    Ok(source)
}
