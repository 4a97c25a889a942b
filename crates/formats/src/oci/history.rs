//! How an image was built, as its config tells it (image-spec config.md, `history`).
//!
//! Builders write what they like there, or nothing: it explains, and decides nothing.

use serde::Deserialize;

use super::ImageConfig;
use super::manifest::null_is_default;

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
pub struct BuildStep {
    /// When, RFC 3339, verbatim.
    #[serde(default)]
    pub created: Option<String>,
    /// The command, verbatim.
    #[serde(default, deserialize_with = "null_is_default")]
    pub created_by: String,
    /// Who made it.
    #[serde(default, deserialize_with = "null_is_default")]
    pub author: String,
    /// What the builder noted.
    #[serde(default, deserialize_with = "null_is_default")]
    pub comment: String,
    /// It changed the config only: it has no layer.
    #[serde(default, deserialize_with = "null_is_default")]
    pub empty_layer: bool,
}

impl ImageConfig {
    /// The steps of the build, the first one first; none if what stands there makes no sense.
    pub fn steps(&self) -> Vec<BuildStep> {
        Vec::<BuildStep>::deserialize(&self.history).unwrap_or_default()
    }

    /// For each layer, base first, the step that made it. `None` for all layers if the history
    /// tells of more or fewer layers than there are: then nobody knows which step made which.
    pub fn steps_of_layers(&self) -> Vec<Option<BuildStep>> {
        let layers = self.rootfs.diff_ids.len();
        let steps = self.steps().into_iter().filter(|step| !step.empty_layer);
        let steps: Vec<_> = steps.map(Some).collect();
        if steps.len() == layers {
            steps
        } else {
            vec![None; layers]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(history: &str) -> Vec<Option<String>> {
        let diff_id = format!("sha256:{}", "0".repeat(64));
        let config =
            format!(r#"{{"rootfs":{{"diff_ids":["{diff_id}","{diff_id}"]}},"history":{history}}}"#);
        let config = ImageConfig::parse(config.as_bytes(), 2).unwrap();
        let steps = config.steps_of_layers().into_iter();
        steps.map(|step| step.map(|step| step.created_by)).collect()
    }

    #[test]
    fn layers_have_their_steps() {
        let check = |history: &str, expected: [Option<&str>; 2]| {
            assert_eq!(
                commands(history),
                expected.map(|text| text.map(str::to_owned)),
                "{history}"
            );
        };
        let (a, env, b) = (
            r#"{"created_by":"ADD a","created":null}"#,
            r#"{"created_by":"ENV x","empty_layer":true}"#,
            r#"{"created_by":null,"empty_layer":null}"#,
        );
        check(&format!("[{a},{env},{b}]"), [Some("ADD a"), Some("")]);
        check(&format!("[{a},{env}]"), [None, None]);
        check(&format!("[{a},{a},{b}]"), [None, None]);
        check("null", [None, None]);
        check("\"odd\"", [None, None]);
        check(&format!("[{a},7]"), [None, None]);
    }
}
