//! `imgfs manifest rm`.

use clap::Args;

use super::{LISTS_HELP, list_name, lists};
use crate::output;

/// Remove lists that are kept here; what was pushed stays.
#[derive(Args)]
#[command(after_help = format!("\
{LISTS_HELP}

Example:
  imgfs manifest rm host/team/tool:1"))]
pub(crate) struct RmArgs {
    /// The lists
    #[arg(value_name = "LIST", required = true)]
    lists: Vec<String>,
}

pub(super) fn rm(args: &RmArgs) -> anyhow::Result<()> {
    let lists = lists()?;
    let mut failure = None;
    for text in &args.lists {
        let removed = list_name(text).and_then(|name| {
            anyhow::ensure!(lists.remove(&name)?, "No such manifest: {name}");
            Ok(())
        });
        // As docker does: the others go all the same.
        if let Err(err) = removed
            && let Some(before) = failure.replace(err)
        {
            output::error(&before);
        }
    }
    failure.map_or(Ok(()), Err)
}
