//! `imgfs cache verify`.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::bail;
use clap::Args;

use super::super::globals::{Globals, RegistryOptions, runtime};
use super::super::{output, progress};
use imgfs_core::store::Holding;
use imgfs_core::work::{Damage, Kind, Outcome, Verified, Verifying, verify as verify_cache};

/// Check every cached byte against its digests, and fetch anew what is damaged.
#[derive(Args)]
#[command(after_help = "\
Of a layer only the damaged parts are fetched again, of a layer's index the whole layer, as that \
makes it. What is damaged and cannot be fetched is dropped, so that it is fetched when it is \
needed. Mounted images are checked, too.

Exit status: 0 if all was right or is right again, 1 if something damaged could not be repaired.

Examples:
  imgfs cache verify
  imgfs cache verify golang:latest alpine:3.20
  imgfs cache verify --offline --json")]
pub(crate) struct VerifyArgs {
    /// Only what these images need, for all platforms that are here
    #[arg(value_name = "IMAGE")]
    images: Vec<String>,
    /// Ask nobody: only drop what is damaged
    #[arg(long)]
    offline: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    registry: RegistryOptions,
}

pub(super) fn verify(globals: &Globals, args: &VerifyArgs) -> anyhow::Result<ExitCode> {
    let store = globals.store()?;
    let only = (args.images.iter())
        .map(|image| super::meanings(image, &args.registry))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let done = Arc::new(AtomicU64::new(0));
    let verifying = Verifying {
        only: (!only.is_empty()).then_some(only),
        options: if args.offline {
            None
        } else {
            Some(args.registry.options()?)
        },
        done: Arc::clone(&done),
    };
    let total = store.files()?.into_iter().map(|file| match file.holding {
        Holding::Data(_) => file.on_disk,
        _ => 0,
    });
    let total = total.sum();
    let verified = runtime()?.block_on(async {
        let _shown = progress::show_bytes("checked", total, &done, globals.quiet);
        tokio::select! {
            verified = verify_cache(&store, &verifying) => Ok(verified?),
            _ = tokio::signal::ctrl_c() => {
                bail!("interrupted: what was found damaged so far is repaired or dropped")
            }
        }
    })?;
    // What came may be more than what was lost, where a layer had been fetched in part.
    if let Err(err) = store.enforce_limit() {
        tracing::warn!("cannot keep the cache within its limit: {err}");
    }
    if args.json {
        output::json(&verified)?;
    } else {
        print(&verified, globals.quiet)?;
    }
    Ok(if verified.all_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn print(verified: &Verified, quiet: bool) -> anyhow::Result<()> {
    for damage in &verified.damage {
        output::line(&describe(damage))?;
    }
    if quiet {
        return Ok(());
    }
    let layers = &verified.layers;
    let fetched = output::size(verified.bytes_fetched);
    let came_to = |outcome| {
        let damage = verified.damage.iter();
        damage.filter(|damage| damage.outcome == outcome).count()
    };
    let found = verified.damage.len();
    let damaged = match (came_to(Outcome::Repaired), came_to(Outcome::Kept)) {
        _ if found == 0 => "all right".to_owned(),
        (repaired, _) if found == repaired => {
            format!("{found} damaged, all repaired, {fetched} fetched")
        }
        (repaired, kept) => {
            let others = [(found - repaired - kept, "dropped"), (kept, "kept")].into_iter();
            let others: Vec<_> = (others.filter(|(count, _)| *count > 0))
                .map(|(count, what)| format!("{count} {what}"))
                .collect();
            let others = others.join(", ");
            format!("{found} damaged, {repaired} repaired, {others}, {fetched} fetched")
        }
    };
    output::line(&format!(
        "checked {} of {}, {}, {}, {}, {}: {damaged}",
        output::size(layers.bytes),
        count(layers.count, "layer", "layers"),
        count(verified.indexes.count, "index", "indexes"),
        count(verified.documents.count, "document", "documents"),
        count(verified.images.count, "image", "images"),
        count(verified.names.count, "name", "names"),
    ))?;
    if verified.bytes_unchecked > 0 {
        output::line(&format!(
            "not checked: {} of pulls and proofs that are not done, whose digests are checked then, or of a later version of imgfs",
            output::size(verified.bytes_unchecked)
        ))?;
    }
    Ok(())
}

fn describe(damage: &Damage) -> String {
    let name = output::printable(damage.name.as_bytes());
    let what = match damage.kind {
        Kind::Data => format!("layer {name}: {}", output::size(damage.bytes)),
        Kind::Index => format!("index of layer {name}"),
        Kind::Document => format!("document {name}"),
        Kind::Name => format!("name {name}"),
        Kind::Image => format!("record of image {name}"),
        Kind::DiffId => format!("noted DiffId of layer {name}"),
    };
    let outcome = match (damage.outcome, damage.bytes_fetched) {
        (Outcome::Repaired, 0) => "repaired".to_owned(),
        (Outcome::Repaired, bytes) => format!("repaired, {} fetched", output::size(bytes)),
        (Outcome::Dropped, _) => "dropped; it is fetched when it is needed".to_owned(),
        (Outcome::Kept, _) => "kept as it is".to_owned(),
    };
    let mounted = if damage.in_use && damage.outcome == Outcome::Dropped {
        "; whoever has it mounted should mount it anew"
    } else {
        ""
    };
    format!("{what} damaged ({}): {outcome}{mounted}", damage.reason)
}

fn count(number: u64, one: &str, several: &str) -> String {
    format!("{number} {}", if number == 1 { one } else { several })
}
