//! Pure: an object as it stands on the hub with ours laid over it: the body of a PUT where no patch
//! could be made.
//!
//! What the new form has counts. What it does not have goes if it was ours, and stays if somebody else
//! put it there: the API server keeps in `managedFields` which fields our writes set (KEP-555), so
//! this holds when nobody remembers what was written last. Without that book the object is
//! replaced as a whole.

use super::patch::{MAX_DEPTH, SHARED_LISTS, by_name, child, object};
use crate::json::{Field, Text};
use serde_json::value::RawValue;

/// As whom we write: `fieldManager`.
pub(super) const MANAGER: &str = "understudy";

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Overlaid {
    pub(super) body: String,
    /// Whether it says anything that the live object does not.
    pub(super) changes: bool,
}

/// `new` as it is written, without a resourceVersion: the one of `live` stays in the body. None: it is
/// to be replaced as a whole.
pub(super) fn overlay(live: &RawValue, new: &RawValue) -> Option<Overlaid> {
    let top = object(live)?;
    let metadata = object(by_name(&top)?.get("metadata")?)?;
    let entries: Vec<Entry<'_>> =
        serde_json::from_str(by_name(&metadata)?.get("managedFields")?.get()).ok()?;
    let mut book = Book::default();
    for Entry { manager, subresource, fields } in &entries {
        let ours = manager == MANAGER && subresource.is_empty();
        if ours { &mut book.ours } else { &mut book.others }.extend(fields);
    }

    let body = laid_over("", live, Some(new), &book, 0).ok()??;
    let as_it_is = laid_over("", live, Some(live), &Book::default(), 0).ok()??;
    let changes = body != as_it_is;
    Some(Overlaid { body, changes })
}

#[derive(serde::Deserialize)]
struct Entry<'a> {
    #[serde(default)]
    manager: String,
    #[serde(default)]
    subresource: String,
    #[serde(borrow, default, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

/// Who set what of a value, as `FieldsV1`: `f:` and a name, `k:` and the keys of an element, `v:` and a
/// value. `{}` is a value as a whole, or a map of which every entry has become somebody else's.
#[derive(Default)]
struct Book<'a> {
    ours: Vec<&'a RawValue>,
    others: Vec<&'a RawValue>,
}

impl<'a> Book<'a> {
    fn child(&self, key: &str) -> Self {
        let find = |fields: &&'a RawValue| find(fields, key);
        let others: Vec<_> = self.others.iter().filter_map(find).collect();
        let whole = |fields: &&RawValue| others.is_empty() && is_whole(fields);
        let ours = self.ours.iter();
        let ours = ours.filter_map(|f| find(f).or_else(|| Some(*f).filter(whole))).collect();
        Self { ours, others }
    }

    /// Nobody else set a part of it.
    fn is_all_ours(&self) -> bool {
        self.ours.iter().any(|fields| is_whole(fields)) && self.others.is_empty()
    }
}

fn find<'a>(fields: &'a RawValue, key: &str) -> Option<&'a RawValue> {
    let found = object(fields)?.0.into_iter().find(|field| field.name == key);
    found.map(|field| field.value)
}

fn is_whole(fields: &RawValue) -> bool {
    object(fields).is_none_or(|fields| fields.0.is_empty())
}

/// A name stands twice in an object, so that nobody knows what it means.
struct Repeated;

/// None: nothing of it stays.
fn laid_over(
    path: &str,
    live: &RawValue,
    new: Option<&RawValue>,
    book: &Book<'_>,
    depth: usize,
) -> Result<Option<String>, Repeated> {
    if SHARED_LISTS.contains(&path) {
        return Ok(shared_list(path, live, new, book));
    }
    if new.is_none() && book.ours.is_empty() {
        return Ok(Some(live.get().to_owned()));
    }
    let live_fields = object(live).filter(|_| depth < MAX_DEPTH);
    let new_fields = new.map_or_else(|| Some(crate::json::Fields::default()), object);
    let (Some(live), Some(new_fields)) = (live_fields, new_fields) else {
        return Ok(new.map(|new| new.get().to_owned()));
    };
    if new.is_none() && book.is_all_ours() {
        return Ok(None);
    }
    let by_live = by_name(&live).ok_or(Repeated)?;
    let by_new = by_name(&new_fields).ok_or(Repeated)?;
    let mut parts = Vec::with_capacity(live.0.len());
    let part = |field: &Field<'_>, value: &str| format!("{}:{value}", field.key.get());
    for field in
        live.0.iter().filter(|field| !(path == "/metadata" && field.name == "managedFields"))
    {
        let below = book.child(&format!("f:{}", field.name));
        let new = by_new.get(&*field.name).copied();
        let value = laid_over(&child(path, &field.name), field.value, new, &below, depth + 1)?;
        parts.extend(value.map(|value| part(field, &value)));
    }
    let added = new_fields.0.iter().filter(|field| !by_live.contains_key(&*field.name));
    parts.extend(added.map(|field| part(field, field.value.get())));
    let gone = new.is_none() && parts.is_empty();
    Ok((!gone).then(|| format!("{{{}}}", parts.join(","))))
}

/// Others have elements of their own in it.
fn shared_list(
    path: &str,
    live: &RawValue,
    new: Option<&RawValue>,
    book: &Book<'_>,
) -> Option<String> {
    let elements = |raw: &'_ RawValue| -> Vec<Box<RawValue>> {
        serde_json::from_str(raw.get()).unwrap_or_default()
    };
    let mut list = new.map_or_else(Vec::new, elements);
    let known: Vec<String> = list.iter().map(|element| element_key(path, element)).collect();
    list.extend(elements(live).into_iter().filter(|element| {
        let key = element_key(path, element);
        !known.contains(&key) && book.child(&key).ours.is_empty()
    }));
    let list: Vec<&str> = list.iter().map(|element| element.get()).collect();
    (!list.is_empty()).then(|| format!("[{}]", list.join(",")))
}

/// As the book names the element.
fn element_key(path: &str, element: &RawValue) -> String {
    #[derive(serde::Deserialize)]
    struct Owner<'a> {
        #[serde(borrow)]
        uid: Text<'a>,
    }
    if path.ends_with("/finalizers") {
        return format!("v:{}", element.get());
    }
    let owner = serde_json::from_str::<Owner<'_>>(element.get());
    owner.map_or_else(
        |_| String::new(),
        |Owner { uid: Text(uid) }| format!("k:{{\"uid\":\"{uid}\"}}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `book`: `FieldsV1` of our writes.
    fn check(live: &str, book: &str, new: &str, expected: &str, changes: bool) {
        let metadata = |rest: &str| {
            format!(
                r#""managedFields":[{{"manager":"other","fieldsV1":{{"f:spec":{{"f:m":{{"f:x":{{}}}}}}}}}},{{"manager":"understudy","subresource":"status","fieldsV1":{{}}}},{{"manager":"understudy","fieldsV1":{book}}}]{rest}"#
            )
        };
        let live = live.replacen("MANAGED", &metadata(""), 1);
        let raw = |text: &str| -> Box<RawValue> { serde_json::from_str(text).unwrap() };
        let overlaid = overlay(&raw(&live), &raw(new)).unwrap();
        assert_eq!(overlaid.body, expected, "{live} + {new}");
        assert_eq!(overlaid.changes, changes, "{live} + {new}");
    }

    #[test]
    fn what_was_ours_goes_and_what_others_put_there_stays() {
        let live = |spec: &str| format!(r#"{{"metadata":{{"uid":"u",MANAGED}},"spec":{spec}}}"#);
        let new = |spec: &str| format!(r#"{{"metadata":{{}},"spec":{spec}}}"#);
        let expected = |spec: &str| format!(r#"{{"metadata":{{"uid":"u"}},"spec":{spec}}}"#);
        for (there, book, wanted, becomes, changes) in [
            (
                r#"{"a":1,"b":2}"#,
                r#"{"f:spec":{"f:a":{}}}"#,
                r#"{"a":1}"#,
                r#"{"a":1,"b":2}"#,
                false,
            ),
            (r#"{"a":1,"b":2}"#, r#"{"f:spec":{"f:b":{}}}"#, r#"{"a":1}"#, r#"{"a":1}"#, true),
            (r#"{"a":1}"#, "{\"f:x\":{}}", r#"{"a":2,"c":3}"#, r#"{"a":2,"c":3}"#, true),
            // Of what went as a whole, the part of others stays.
            (
                r#"{"m":{"o":1,"t":2}}"#,
                r#"{"f:spec":{"f:m":{".":{},"f:o":{}}}}"#,
                "{}",
                r#"{"m":{"t":2}}"#,
                true,
            ),
            (r#"{"m":{"o":1}}"#, r#"{"f:spec":{"f:m":{".":{},"f:o":{}}}}"#, "{}", "{}", true),
            // A map that is one piece in the book, and one whose entries became another's.
            (r#"{"m":{"o":1,"t":2}}"#, r#"{"f:spec":{"f:m":{}}}"#, "{}", "{}", true),
            (r#"{"m":{"x":1}}"#, r#"{"f:spec":{"f:m":{}}}"#, "{}", r#"{"m":{"x":1}}"#, false),
            (r#"{"l":[1,2]}"#, r#"{"f:spec":{"f:l":{}}}"#, r#"{"l":[2]}"#, r#"{"l":[2]}"#, true),
            (r#"{"l":[1,2]}"#, r#"{"f:x":{}}"#, "{}", r#"{"l":[1,2]}"#, false),
            (r#"{"v":{"a":1}}"#, r#"{"f:x":{}}"#, r#"{"v":null}"#, r#"{"v":null}"#, true),
        ] {
            check(&live(there), book, &new(wanted), &expected(becomes), changes);
        }
    }

    #[test]
    fn finalizers_and_owners_of_others_stay() {
        let live = r#"{"metadata":{MANAGED,"finalizers":["ours","old","theirs"],"ownerReferences":[{"uid":"o"},{"uid":"t"}]}}"#;
        let book = r#"{"f:metadata":{"f:finalizers":{"v:\"ours\"":{},"v:\"old\"":{}},"f:ownerReferences":{".":{},"k:{\"uid\":\"o\"}":{}}}}"#;
        check(
            live,
            book,
            r#"{"metadata":{"finalizers":["ours"],"ownerReferences":[{"uid":"n"}]}}"#,
            r#"{"metadata":{"finalizers":["ours","theirs"],"ownerReferences":[{"uid":"n"},{"uid":"t"}]}}"#,
            true,
        );
        check(
            live,
            book,
            r#"{"metadata":{}}"#,
            r#"{"metadata":{"finalizers":["theirs"],"ownerReferences":[{"uid":"t"}]}}"#,
            true,
        );
    }

    #[test]
    fn without_the_book_or_with_a_name_twice_it_is_replaced_as_a_whole() {
        for (live, new) in [
            (r#"{"metadata":{}}"#, "{}"),
            (r#"{"metadata":{"managedFields":null}}"#, "{}"),
            (r#"{"metadata":{"managedFields":[]}}"#, r#"{"a":1,"a":2}"#),
            ("[]", "{}"),
        ] {
            let raw = |text: &str| -> Box<RawValue> { serde_json::from_str(text).unwrap() };
            assert_eq!(overlay(&raw(live), &raw(new)), None, "{live} {new}");
        }
    }
}
