//! Pure: YAML text → one JSON value, and beside it the line of every key and list entry, so that an
//! error found much later can still say where it stands.
//!
//! The untyped step is what lets all errors of a file be told at once: a typed reader stops at the
//! first. What may go wrong here ends the reading: bad syntax, a key written twice, a bomb of aliases.

use super::errors::{ConfigError, Place};
use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};
use serde_saphyr::Spanned;
use std::collections::HashMap;
use std::fmt;

/// Nodes of a file with aliases written out. The largest honest file has some hundreds; a bomb of
/// aliases ends here after some milliseconds.
const MAX_NODES: usize = 20_000;

/// Nesting of a file. The deepest key that exists stands at eight.
const MAX_DEPTH: usize = 32;

/// A file as one value, and where its keys stand: `storage.s3.bucket` → line 12.
#[derive(Clone, Debug, Default)]
pub(super) struct Tree {
    pub value: Value,
    pub places: HashMap<String, Place>,
    /// Keys set by a variable, with its text. A variable has no type: it counts as text until the
    /// key turns out to want something else.
    pub untyped: HashMap<String, String>,
}

impl Tree {
    pub(super) fn parse(text: &str) -> Result<Self, ConfigError> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_nodes: MAX_NODES,
                max_events: 4 * MAX_NODES,
                max_depth: MAX_DEPTH,
                max_documents: 1,
            },
        };
        let node = serde_saphyr::from_str_with_options::<Node>(text, options)
            .map_err(|error| syntax_error(&error))?;
        let mut tree = Self::default();
        tree.value = tree.take(node, "");
        if tree.value.is_null() {
            tree.value = Value::Object(Map::new());
        }
        Ok(tree)
    }

    /// Where the key stands, or the nearest key above it.
    pub(super) fn place(&self, path: &str) -> Place {
        let mut path = path;
        loop {
            if let Some(place) = self.places.get(path) {
                return place.clone();
            }
            match path.rfind(['.', '[']) {
                Some(end) => path = &path[..end],
                None => return Place::Line { line: 1, column: None },
            }
        }
    }

    fn take(&mut self, node: Node, path: &str) -> Value {
        // A key's own line stands already; a list entry has no key.
        self.places.entry(path.to_owned()).or_insert(Place::Line { line: node.line, column: None });
        match node.content {
            Content::Scalar(value) => value,
            Content::List(nodes) => Value::Array(
                nodes
                    .into_iter()
                    .enumerate()
                    .map(|(index, node)| self.take(node, &format!("{path}[{index}]")))
                    .collect(),
            ),
            Content::Map(entries) => Value::Object(
                entries
                    .into_iter()
                    .map(|(key, line, node)| {
                        let below = join(path, &key);
                        self.places.insert(below.clone(), Place::Line { line, column: None });
                        let value = self.take(node, &below);
                        (key, value)
                    })
                    // A key with nothing behind it is a key that is not set, but in a merge patch.
                    .filter(|(_, value)| !value.is_null() || path.contains("].patch"))
                    .collect(),
            ),
        }
    }
}

/// A key below another: `storage` and `s3` → `storage.s3`.
pub(super) fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") }
}

/// A value as YAML reads it where no type is asked for: how the text of a variable is understood
/// when the key wants something other than text.
pub(super) fn scalar(text: &str) -> Option<Value> {
    Tree::parse(text).ok().map(|tree| tree.value)
}

fn syntax_error(error: &serde_saphyr::Error) -> ConfigError {
    let error = error.without_snippet();
    let location = error.location();
    let (line, column) = location.map_or((1, None), |at| (at.line(), Some(at.column())));
    let text = error.to_string();
    // The place is told once, in front; the parser repeats it in its text.
    let what = text.lines().next().unwrap_or_default();
    let what = what.strip_prefix("error: ").unwrap_or(what);
    let what = match what.rfind(" at line ") {
        Some(end) => &what[..end],
        None => what,
    };
    // Advice for programmers.
    let what = what.split(", set DuplicateKeyPolicy").next().unwrap_or(what);
    ConfigError {
        place: Place::Line { line, column },
        key: String::new(),
        what: format!("not readable as YAML: {what}"),
        hint: String::new(),
    }
}

struct Node {
    line: u64,
    content: Content,
}

enum Content {
    Scalar(Value),
    List(Vec<Node>),
    Map(Vec<(String, u64, Node)>),
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Content>::deserialize(deserializer)?;
        Ok(Self { line: spanned.referenced.line(), content: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value, a list or a map")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Scalar(value.into()))
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Scalar(Value::Null))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Content, D::Error> {
        Content::deserialize(deserializer)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut nodes = Vec::new();
        while let Some(node) = seq.next_element()? {
            nodes.push(node);
        }
        Ok(Content::List(nodes))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push((key.value, key.referenced.line(), map.next_value()?));
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_and_entry_knows_its_line() {
        let tree = Tree::parse(
            "# a comment\nhub:\n  name: eu-1\n\nsets:\n  resources:\n    include:\n      - kind: A\n      - {kind: B,\n         group: g}\nempty:\n",
        )
        .unwrap();
        for (path, line) in [
            ("hub", 2),
            ("hub.name", 3),
            ("sets.resources.include[0]", 8),
            ("sets.resources.include[0].kind", 8),
            ("sets.resources.include[1].group", 10),
            ("empty", 11),
            ("hub.pair", 2),
            ("unknown", 1),
        ] {
            assert_eq!(tree.place(path), Place::Line { line, column: None }, "{path}");
        }
        assert_eq!(tree.value["sets"]["resources"]["include"][1]["group"], "g");
        assert!(tree.value["empty"].is_null());
    }

    #[test]
    fn numbers_and_words_keep_their_types() {
        let tree = Tree::parse("a: 1\nb: -1\nc: 1.5\nd: true\ne: \"1\"\nf: ~\ng: 30%\n").unwrap();
        assert_eq!(tree.value.to_string(), r#"{"a":1,"b":-1,"c":1.5,"d":true,"e":"1","g":"30%"}"#);
        assert_eq!(Tree::parse("").unwrap().value.to_string(), "{}");
    }

    #[test]
    fn what_is_not_yaml_is_one_error_with_its_place() {
        for (text, line, word) in [
            ("a: 1\na: 2\n", 2, "duplicate"),
            ("a: [1, 2\nb: 3\n", 2, ""),
            ("a: 1\n---\nb: 1\n", 2, ""),
            ("a:\n\t- 1\n", 2, ""),
        ] {
            let error = Tree::parse(text).expect_err(text);
            let Place::Line { line: found, column } = error.place else { panic!("{text}") };
            assert_eq!(found, line, "{text}: {}", error.what);
            assert!(column.is_some());
            assert!(error.what.contains(word), "{text}: {}", error.what);
            assert!(!error.what.contains(" at line "), "{}", error.what);
        }
    }

    #[test]
    fn a_bomb_of_aliases_is_refused() {
        let mut lines = vec!["a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned()];
        for level in 1..8 {
            let below = format!("*a{},", level - 1).repeat(10);
            lines.push(format!("a{level}: &a{level} [{below}]\n"));
        }
        Tree::parse(&lines.concat()).expect_err("ten million nodes");
    }
}
