//! Which layers of an image are meant: `3`, `2..5`, `sha256:3f1a`.

use anyhow::bail;

use imgfs_formats::oci::Descriptor;

/// Shortest beginning of a digest: shorter ones, of digits alone, are numbers.
const MIN_PREFIX: usize = 6;

/// How many layers, from the base on, the old and the new side have.
pub(super) fn parse(text: &str, layers: &[Descriptor]) -> anyhow::Result<[usize; 2]> {
    if let Some((from, to)) = text.split_once("..") {
        let from = match from {
            "" => 0,
            _ => up_to(from, layers, text)?,
        };
        let to = match to {
            "" => layers.len(),
            _ => up_to(to, layers, text)?,
        };
        return Ok([from, to]);
    }
    let with_it = up_to(text, layers, text)?;
    Ok([with_it.saturating_sub(1), with_it])
}

/// How many layers there are up to this one, which counts.
fn up_to(layer: &str, layers: &[Descriptor], text: &str) -> anyhow::Result<usize> {
    let hex = layer.split_once(':').map_or(layer, |(_, hex)| hex);
    let is_digest = layer.contains(':') || layer.len() >= MIN_PREFIX;
    if !is_digest {
        return match layer.parse::<usize>() {
            Ok(number) if number < layers.len() => Ok(number + 1),
            Ok(_) => bail!(
                "--layer {text}: the image has {} layers, the base is 0",
                layers.len()
            ),
            Err(_) => bail!(
                "--layer {text}: {layer:?} is neither a number nor the beginning of a digest, which has {MIN_PREFIX} \
                 digits at least"
            ),
        };
    }
    let is_it = |blob: &&Descriptor| {
        let digest = &blob.digest;
        digest.to_string().starts_with(layer)
            || !layer.contains(':') && digest.hex().starts_with(hex)
    };
    let mut found = layers.iter().filter(is_it).map(|blob| blob.digest);
    match (found.next(), found.next()) {
        (None, _) => bail!("--layer {text}: no layer's digest begins with {layer}"),
        (Some(one), Some(other)) if one != other => {
            bail!("--layer {text}: {layer} is the beginning of several digests: {one} and {other}")
        }
        (Some(one), _) => {
            let position = layers.iter().position(|blob| blob.digest == one);
            Ok(position.map_or(0, |position| position + 1))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use imgfs_formats::oci::Digest;

    #[test]
    fn layers_are_numbers_ranges_or_digests() {
        let layers: Vec<Descriptor> = [b"a", b"b", b"c", b"a"]
            .iter()
            .map(|bytes| Descriptor::of_document(Digest::sha256(*bytes), 1))
            .collect();
        let check = |text: &str, expected: Result<[usize; 2], &str>| match expected {
            Ok(counts) => assert_eq!(parse(text, &layers).unwrap(), counts, "{text}"),
            Err(words) => {
                let err = parse(text, &layers).unwrap_err().to_string();
                assert!(err.contains(words), "{text}: {err}");
            }
        };
        check("0", Ok([0, 1]));
        check("3", Ok([3, 4]));
        check("0..2", Ok([1, 3]));
        check("2..0", Ok([3, 1]));
        check("..1", Ok([0, 2]));
        check("1..", Ok([2, 4]));
        let hex = layers[1].digest.hex();
        check(&layers[1].digest.to_string(), Ok([1, 2]));
        check(&format!("sha256:{}", &hex[..7]), Ok([1, 2]));
        check(&hex[..6], Ok([1, 2]));
        check(&format!("{}..2", &hex[..12]), Ok([2, 3]));
        check("4", Err("has 4 layers"));
        check("x", Err("neither a number"));
        check("ffffff", Err("no layer's digest"));
        check("sha256:", Err("several"));
    }
}
