//! Pure: which objects a command is about, by flags: kinds, namespace, names, labels.

use super::exit::{Code, Failure};
use super::find;
use crate::capture::rules::Selector;
use crate::json::{Fields, Text};
use crate::object::{GroupResource, ObjectKey};
use clap::Args;
use serde_json::value::RawValue;
use std::collections::BTreeSet;

#[derive(Clone, Debug, Default, Args)]
pub(super) struct Filter {
    /// Only this kind: `Policy`, `policies` or `policies.policy.open-cluster-management.io`;
    /// may be repeated
    #[arg(long, visible_alias = "kind", value_name = "KIND")]
    include: Vec<String>,
    /// Not this kind; may be repeated
    #[arg(long, value_name = "KIND")]
    exclude: Vec<String>,
    /// Only objects with this name; may be repeated
    #[arg(long, value_name = "NAME")]
    name: Vec<String>,
    /// Only objects whose labels match, as for kubectl
    #[arg(short = 'l', long, value_name = "SELECTOR")]
    selector: Option<Selector>,
}

/// The same with the words for kinds understood.
#[derive(Clone, Debug, Default)]
pub(super) struct Wanted {
    /// None: all.
    kinds: Option<BTreeSet<GroupResource>>,
    excluded: BTreeSet<GroupResource>,
    namespace: Option<String>,
    names: Vec<String>,
    pub(super) selector: Option<Selector>,
}

impl Filter {
    /// Whether any kind is named, so that it must be known what they are called.
    pub(super) fn names_kinds(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// `kinds`: all that there are, each with what it is called in the singular.
    pub(super) fn resolve(
        self,
        namespace: Option<&str>,
        kinds: &[(GroupResource, String)],
    ) -> Result<Wanted, Failure> {
        let meant = |word: &String| -> Result<Vec<GroupResource>, Failure> {
            let is_meant = |kind: &&(GroupResource, String)| {
                find::is_plural(word, &kind.0) || find::is_kind(word, &kind.0, &kind.1)
            };
            let found: Vec<_> = kinds.iter().filter(is_meant).map(|kind| kind.0.clone()).collect();
            if found.is_empty() {
                let message = format!("there is nothing of the kind {word}");
                return Err(Failure::new(Code::Usage, message)
                    .with_hint("kinds and their counts are shown by: understudy backup describe"));
            }
            Ok(found)
        };
        let all = |words: &[String]| -> Result<BTreeSet<GroupResource>, Failure> {
            let found: Vec<_> = words.iter().map(meant).collect::<Result<_, _>>()?;
            Ok(found.into_iter().flatten().collect())
        };
        let kinds = if self.include.is_empty() { None } else { Some(all(&self.include)?) };
        Ok(Wanted {
            kinds,
            excluded: all(&self.exclude)?,
            namespace: namespace.map(str::to_owned),
            names: self.name,
            selector: self.selector,
        })
    }
}

impl Wanted {
    pub(super) fn takes_kind(&self, kind: &GroupResource) -> bool {
        self.kinds.as_ref().is_none_or(|kinds| kinds.contains(kind))
            && !self.excluded.contains(kind)
    }

    /// By all but its labels. A namespace stands for its Namespace, too.
    pub(super) fn takes(&self, key: &ObjectKey) -> bool {
        let is_namespace = key.group().is_empty() && key.resource() == "namespaces";
        let place = if is_namespace { key.name() } else { key.namespace() };
        self.namespace.as_deref().is_none_or(|namespace| namespace == place)
            && (self.names.is_empty() || self.names.iter().any(|name| name == key.name()))
            && self.takes_kind(&key.group_resource())
    }

    pub(super) fn takes_labels(&self, object: &RawValue) -> bool {
        self.selector.as_ref().is_none_or(|selector| {
            let labels = labels(object);
            selector.matches(|key| {
                labels.iter().find(|(name, _)| name == key).map(|(_, value)| value.as_str())
            })
        })
    }
}

/// What cannot be read has none.
fn labels(object: &RawValue) -> Vec<(String, String)> {
    #[derive(serde::Deserialize)]
    struct Top<'a> {
        #[serde(borrow)]
        metadata: Metadata<'a>,
    }
    #[derive(serde::Deserialize)]
    struct Metadata<'a> {
        #[serde(borrow, default)]
        labels: Option<Fields<'a, Text<'a>>>,
    }
    let top = serde_json::from_str::<Top<'_>>(object.get());
    let labels = top.ok().and_then(|top| top.metadata.labels).unwrap_or_default();
    labels
        .0
        .into_iter()
        .map(|label| (label.name.into_owned(), label.value.0.into_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "policy.open-cluster-management.io";

    fn wanted(filter: Filter, namespace: Option<&str>) -> Result<Wanted, Failure> {
        let kind = |group: &str, resource: &str, name: &str| {
            (GroupResource { group: group.into(), resource: resource.into() }, name.to_owned())
        };
        let kinds = [
            kind("", "configmaps", "ConfigMap"),
            kind("", "namespaces", "Namespace"),
            kind(POLICY, "policies", "Policy"),
            kind("kyverno.io", "policies", "Policy"),
        ];
        filter.resolve(namespace, &kinds)
    }

    fn check(
        include: &[&str],
        exclude: &[&str],
        name: &[&str],
        namespace: Option<&str>,
        expected: &[&str],
    ) {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let filter = Filter {
            include: words(include),
            exclude: words(exclude),
            name: words(name),
            selector: None,
        };
        let wanted = wanted(filter, namespace).unwrap();
        let keys = [
            ("", "configmaps", "a", "x"),
            ("", "configmaps", "b", "y"),
            ("", "namespaces", "", "a"),
            (POLICY, "policies", "a", "x"),
            ("kyverno.io", "policies", "", "x"),
        ];
        let keys = keys.map(|(g, r, ns, name)| ObjectKey::new(g, r, ns, name).unwrap());
        let found: Vec<_> =
            keys.iter().filter(|key| wanted.takes(key)).map(ToString::to_string).collect();
        assert_eq!(found, expected, "{include:?} {exclude:?} {name:?} {namespace:?}");
    }

    #[test]
    fn flags_choose_together() {
        let policy = format!("policies.{POLICY} a/x");
        check(&[], &[], &["y"], None, &["configmaps b/y"]);
        check(&[], &[], &[], Some("a"), &["configmaps a/x", "namespaces a", &policy]);
        check(&["Policy"], &[], &[], None, &[&policy, "policies.kyverno.io x"]);
        check(&["policy"], &["policies.kyverno.io"], &[], None, &[&policy]);
        check(&["ConfigMap", "namespaces"], &[], &["x"], None, &["configmaps a/x"]);
    }

    #[test]
    fn labels_are_read_from_the_object() {
        let object = |labels: &str| {
            RawValue::from_string(format!(r#"{{"metadata":{{"labels":{labels}}}}}"#)).unwrap()
        };
        for (labels, expected) in [
            (r#"{"app":"a","tier":"web"}"#, true),
            (r#"{"app":"b","tier":"web"}"#, false),
            (r#"{"\u0061pp":"a"}"#, true),
            ("null", false),
            ("[]", false),
        ] {
            let selector = Some("app=a".parse().unwrap());
            let wanted = wanted(Filter { selector, ..Filter::default() }, None).unwrap();
            assert_eq!(wanted.takes_labels(&object(labels)), expected, "{labels}");
        }
    }

    #[test]
    fn a_kind_that_is_nowhere_is_an_error() {
        let filter = Filter { include: vec!["Polizy".to_owned()], ..Filter::default() };
        assert_eq!(wanted(filter, None).unwrap_err().code, Code::Usage);
    }
}
