//! Pure: what keys the configuration knows, from the types that read it, for the questions that a
//! typed reader does not answer: how is this key spelt, and may a list stand here?

use super::file::File;
use serde_json::Value;

/// The JSON schema of the file. Parts are written in place; only a rule's exceptions, which are rules
/// again, are referred to.
pub fn schema() -> Value {
    let settings =
        schemars::generate::SchemaSettings::default().with(|s| s.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<File>().to_value()
}

/// The keys that a schema knows, with theirs. An optional part is written as one of two schemas.
pub(super) fn keys(schema: &Value) -> impl Iterator<Item = (&str, &Value)> {
    forms(schema)
        .filter_map(|schema| schema["properties"].as_object())
        .flatten()
        .map(|(key, schema)| (key.as_str(), schema))
}

/// The schema of the entries, where a list may stand.
pub(super) fn entries(schema: &Value) -> Option<&Value> {
    forms(schema).find_map(|schema| schema.get("items"))
}

fn forms(schema: &Value) -> impl Iterator<Item = &Value> {
    std::iter::once(schema).chain(schema["anyOf"].as_array().into_iter().flatten())
}
