//! `imgfs tags`: what tags a repository has.

use std::cmp::Ordering;

use anyhow::Context;
use clap::Args;
use globset::GlobBuilder;
use serde::Serialize;

use super::globals::{ImageOptions, runtime};
use super::output;
use imgfs_core::image::Image;
use imgfs_formats::oci::Location;

/// List the tags of a repository, of an OCI layout or of an archive.
#[derive(Args)]
#[command(after_help = "\
Tags are sorted as versions: 1.9 comes before 1.10.

Examples:
  imgfs tags golang
  imgfs tags golang --filter '1.2?-alpine*' | tail -n 1
  imgfs tags --json ghcr.io/owner/name | jq -r '.tags[]'")]
pub(super) struct TagsArgs {
    /// The repository, with or without a tag
    name: String,
    #[command(flatten)]
    options: ImageOptions,
    /// Only tags that match one of these patterns: * is any text, ? any character, [..] one of
    /// these, {..,..} alternatives
    #[arg(long, short, value_name = "PATTERN")]
    filter: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct TagList {
    name: String,
    tags: Vec<String>,
}

pub(super) fn tags(args: &TagsArgs) -> anyhow::Result<()> {
    let mut patterns = Vec::new();
    for pattern in &args.filter {
        let glob = GlobBuilder::new(pattern).build();
        let glob = glob.with_context(|| format!("{pattern:?} is no pattern"))?;
        patterns.push(glob.compile_matcher());
    }
    let request = args.options.request(&args.name)?;
    let (reference, mut tags) = runtime()?.block_on(Image::tags(&request))?;
    tags.retain(|tag| patterns.is_empty() || patterns.iter().any(|glob| glob.is_match(tag)));
    tags.sort_by(|one, other| by_version(one, other));
    if args.json {
        let name = match reference.location() {
            Location::Registry {
                host, repository, ..
            } => format!("{host}/{repository}"),
            Location::OciLayout { dir, .. } => format!("oci:{}", dir.display()),
            Location::DockerArchive { file, .. } => format!("docker-archive:{}", file.display()),
        };
        return output::json(&TagList { name, tags });
    }
    let mut text = Vec::new();
    for tag in &tags {
        text.extend(output::name(tag.as_bytes()));
        text.push(b'\n');
    }
    output::bytes(&text)
}

/// Numbers in texts by their value, everything else as text; what begins alike and is shorter
/// first.
fn by_version(one: &str, other: &str) -> Ordering {
    let (mut left, mut right) = (one, other);
    loop {
        let ((a, left_rest), (b, right_rest)) = (first_part(left), first_part(right));
        if a.is_empty() || b.is_empty() {
            // The same but for zeros before a number: there must be an order.
            return a.cmp(b).then_with(|| one.cmp(other));
        }
        let is_number = |part: &str| part.starts_with(|c: char| c.is_ascii_digit());
        let order = if is_number(a) && is_number(b) {
            let (a, b) = (a.trim_start_matches('0'), b.trim_start_matches('0'));
            a.len().cmp(&b.len()).then_with(|| a.cmp(b))
        } else {
            a.cmp(b)
        };
        if order.is_ne() {
            return order;
        }
        (left, right) = (left_rest, right_rest);
    }
}

/// The digits, or what is none, that a text begins with, and the rest.
fn first_part(text: &str) -> (&str, &str) {
    let is_digit = text.starts_with(|c: char| c.is_ascii_digit());
    let end = text.find(|c: char| c.is_ascii_digit() != is_digit);
    text.split_at(end.unwrap_or(text.len()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_come_in_order() {
        let sorted = [
            "",
            "01",
            "1",
            "1-alpine",
            "1.9",
            "1.9.1",
            "1.10",
            "1.10-rc1",
            "1.10-rc2",
            "1.10-rc10",
            "2",
            "20240101",
            "alpine",
            "alpine3.9",
            "alpine3.20",
            "latest",
            "v99999999999999999999999",
        ];
        let mut tags = sorted.to_vec();
        tags.reverse();
        tags.sort_by(|one, other| by_version(one, other));
        assert_eq!(tags, sorted);
    }
}
