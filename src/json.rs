//! Pure: JSON objects as raw pieces, read in order and written byte for byte.
//!
//! Captured objects are never turned into typed structs and back: numbers, escapes, unknown fields,
//! the order of keys and repeated keys survive. What may go wrong: a key can be spelled in several
//! ways (`"n\u0061me"`), so a field is compared by its name and written by its spelling; and a key
//! that stands twice means different things to different readers, which is for the caller to judge.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

/// The fields of a JSON object in their order, repeated keys included.
#[derive(Debug)]
pub struct Fields<'a, V = &'a RawValue>(pub Vec<Field<'a, V>>);

#[derive(Debug)]
pub struct Field<'a, V = &'a RawValue> {
    /// As written, with its quotes.
    pub key: &'a RawValue,
    /// As meant.
    pub name: Cow<'a, str>,
    pub value: V,
}

/// A string, borrowed where it holds no escapes.
#[derive(Debug, serde::Deserialize)]
pub struct Text<'a>(#[serde(borrow)] pub Cow<'a, str>);

impl<'a> Fields<'a> {
    pub fn read(raw: &'a RawValue) -> serde_json::Result<Self> {
        serde_json::from_str(raw.get())
    }
}

impl<V> Default for Fields<'_, V> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<'de: 'a, 'a, V: Deserialize<'de>> Deserialize<'de> for Fields<'a, V> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Collect<V>(PhantomData<V>);
        impl<'de, V: Deserialize<'de>> Visitor<'de> for Collect<V> {
            type Value = Vec<Field<'de, V>>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = Vec::with_capacity(16);
                while let Some((key, value)) = map.next_entry::<&'de RawValue, V>()? {
                    let Text(name) =
                        serde_json::from_str(key.get()).map_err(serde::de::Error::custom)?;
                    fields.push(Field { key, name, value });
                }
                Ok(fields)
            }
        }
        deserializer.deserialize_map(Collect(PhantomData)).map(Fields)
    }
}

/// JSON in the making. Commas come by themselves.
pub struct Writer(Vec<u8>);

impl Writer {
    pub fn with_capacity(bytes: usize) -> Self {
        Self(Vec::with_capacity(bytes))
    }

    pub fn finish(self) -> Vec<u8> {
        self.0
    }

    /// `{` or `[`, after a name or as an element.
    pub fn open(&mut self, bracket: u8) {
        self.0.push(bracket);
    }

    pub fn close(&mut self, bracket: u8) {
        self.0.push(bracket);
    }

    /// Before each field and each element of a list.
    pub fn next(&mut self) {
        // The last byte of anything but an opened bracket ends a value.
        if !matches!(self.0.last(), None | Some(b'{' | b'[')) {
            self.0.push(b',');
        }
    }

    /// The key of a field in its old spelling; its value must follow.
    pub fn key(&mut self, key: &RawValue) {
        self.next();
        self.raw(key);
        self.0.push(b':');
    }

    /// The name of a new field; its value must follow.
    pub fn name(&mut self, name: &str) {
        self.next();
        self.text(name);
        self.0.push(b':');
    }

    pub fn field(&mut self, field: &Field<'_>) {
        self.key(field.key);
        self.raw(field.value);
    }

    pub fn raw(&mut self, raw: &RawValue) {
        self.0.extend_from_slice(raw.get().as_bytes());
    }

    pub fn text(&mut self, text: &str) {
        serde_json::to_writer(&mut self.0, text).expect("a string becomes JSON in memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn copy(object: &str) -> String {
        let raw: Box<RawValue> = serde_json::from_str(object).unwrap();
        let mut out = Writer::with_capacity(0);
        out.open(b'{');
        Fields::read(&raw).unwrap().0.iter().for_each(|field| out.field(field));
        out.close(b'}');
        String::from_utf8(out.finish()).unwrap()
    }

    #[test]
    fn every_piece_is_written_as_it_was_read() {
        for object in
            ["{}", r#"{"a":1.0,"a":1e3,"\u0061":"\u00e9\/é","l":[{"x":[]},{}],"n":null,"":-0.0}"#]
        {
            assert_eq!(copy(object), object);
        }
    }

    #[test]
    fn a_name_is_what_its_spelling_means() {
        let raw: Box<RawValue> = serde_json::from_str(r#"{"n\u0061me":1,"name":2}"#).unwrap();
        let names: Vec<_> = Fields::read(&raw).unwrap().0.into_iter().map(|f| f.name).collect();
        assert_eq!(names, ["name", "name"]);
    }

    #[test]
    fn commas_stand_between_and_nowhere_else() {
        let mut out = Writer::with_capacity(0);
        out.open(b'{');
        out.name("list");
        out.open(b'[');
        for text in ["a", "b"] {
            out.next();
            out.text(text);
        }
        out.close(b']');
        out.name("empty");
        out.open(b'{');
        out.close(b'}');
        out.close(b'}');
        assert_eq!(out.finish(), br#"{"list":["a","b"],"empty":{}}"#);
    }
}
