//! What `--json` prints against the schemas that document it: `docs/schema/COMMAND.json`.

use std::path::Path;

use serde_json::Value;

/// The output of `imgfs COMMAND --json`, once it is what its schema says. Schemas name every
/// property there is (`"additionalProperties": false`), so that none is undocumented.
#[track_caller]
pub fn check(command: &str, output: &str) -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("../../docs/schema/{command}.json"));
    let schema = std::fs::read(&path).unwrap_or_else(|err| panic!("{}: {err}", path.display()));
    let schema: Value = serde_json::from_slice(&schema).unwrap();
    let validator = jsonschema::validator_for(&schema).unwrap();
    let value: Value = serde_json::from_str(output).unwrap();
    let faults: Vec<String> = validator
        .iter_errors(&value)
        .map(|fault| format!("{}: {fault}", fault.instance_path()))
        .collect();
    assert!(faults.is_empty(), "{command}: {faults:#?}\n{output}");
    value
}
