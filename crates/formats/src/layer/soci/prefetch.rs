//! What the maker of a SOCI index wants fetched first: a list of spans beside the zTOC.

use std::ops::Range;

use serde::Deserialize;

use crate::layer::span::SpanTable;

/// Largest list, in bytes.
pub const MAX_PREFETCH_SIZE: u64 = 1 << 20;
/// Most runs of spans of one layer; protects time.
const MAX_RUNS: usize = 4096;
/// The only version there is.
const VERSION: &str = "1.0";

/// Why a list is not used.
#[derive(Debug, thiserror::Error)]
pub enum PrefetchError {
    /// Not JSON, or not this.
    #[error("it is not a valid prefetch list: {0}")]
    Json(#[from] serde_json::Error),
    /// Of another version.
    #[error("it has the version {0:?}, and only {VERSION} can be read")]
    Version(String),
    /// Too much.
    #[error("it lists {0} runs of spans, more than the limit of {MAX_RUNS}")]
    TooMany(usize),
    /// Spans that there are not.
    #[error("it lists the spans {first} to {last} of {spans}")]
    Range {
        /// The first.
        first: u64,
        /// The last.
        last: u64,
        /// How many there are.
        spans: usize,
    },
}

#[derive(Deserialize)]
struct List {
    version: String,
    #[serde(default)]
    prefetch_spans: Vec<Run>,
}

#[derive(Deserialize)]
struct Run {
    start_span: u64,
    end_span: u64,
    /// Lower ones first.
    #[serde(default)]
    priority: i64,
}

/// The bytes of the blob that the list names, the most urgent first. The last span of a run counts.
pub fn prefetch_ranges(json: &[u8], spans: &SpanTable) -> Result<Vec<Range<u64>>, PrefetchError> {
    let mut list: List = serde_json::from_slice(json)?;
    if list.version != VERSION {
        return Err(PrefetchError::Version(list.version));
    }
    if list.prefetch_spans.len() > MAX_RUNS {
        return Err(PrefetchError::TooMany(list.prefetch_spans.len()));
    }
    list.prefetch_spans.sort_by_key(|run| run.priority);
    let range = |run: &Run| {
        let get = |number: u64| usize::try_from(number).ok().and_then(|id| spans.get(id));
        match (get(run.start_span), get(run.end_span)) {
            (Some(first), Some(last)) if run.start_span <= run.end_span => {
                Ok(first.compressed.start..last.compressed.end)
            }
            _ => Err(PrefetchError::Range {
                first: run.start_span,
                last: run.end_span,
                spans: spans.len(),
            }),
        }
    };
    list.prefetch_spans.iter().map(range).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::span::{Checkpoint, Span, SpanDigest};

    #[test]
    fn spans_become_ranges_of_the_blob() {
        let span = |start: u64| Span {
            compressed: start..start + 10,
            uncompressed: start..start + 10,
            checkpoint: Checkpoint::Stored,
            digest: SpanDigest::Compressed([0; 32]),
        };
        let spans = SpanTable::new([0, 10, 20].map(span).to_vec(), 30).unwrap();
        let check = |runs: &str, expected: &str| {
            let json = format!(r#"{{"version":"1.0","prefetch_spans":[{runs}]}}"#);
            let found = match prefetch_ranges(json.as_bytes(), &spans) {
                Ok(ranges) => format!("{ranges:?}"),
                Err(err) => err.to_string(),
            };
            assert_eq!(found, expected, "{runs}");
        };
        check("", "[]");
        check(r#"{"start_span":1,"end_span":2}"#, "[10..30]");
        check(
            r#"{"start_span":2,"end_span":2,"priority":5},{"start_span":0,"end_span":0}"#,
            "[0..10, 20..30]",
        );
        check(
            r#"{"start_span":1,"end_span":3}"#,
            "it lists the spans 1 to 3 of 3",
        );
        check(
            r#"{"start_span":2,"end_span":1}"#,
            "it lists the spans 2 to 1 of 3",
        );
        let many = vec![r#"{"start_span":0,"end_span":0}"#; MAX_RUNS + 1].join(",");
        check(
            &many,
            "it lists 4097 runs of spans, more than the limit of 4096",
        );
        let other = prefetch_ranges(br#"{"version":"2.0"}"#, &spans).unwrap_err();
        assert!(other.to_string().contains("\"2.0\""), "{other}");
        assert!(prefetch_ranges(b"[]", &spans).is_err());
    }
}
