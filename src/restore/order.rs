//! Pure: which objects have to be there before which, as stages that are written one after another.
//!
//! A stage is a class of kinds, then a depth: an owner stands in an earlier stage than what it
//! owns, also when that moves the owned object out of its class (a Secret owned by a cluster-scoped
//! object is written after it). References in a circle, or deeper than [`MAX_DEPTH`], cannot be
//! ordered: such an object is written without the reference and linked afterwards.

use super::owners::OwnerIndex;
use crate::object::ObjectKey;
use crate::repository::contents::Contents;
use std::collections::HashMap;

/// A hostile chain of a hundred thousand owners must not become as many stages.
pub const MAX_DEPTH: u16 = 32;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    CustomResourceDefinitions,
    Namespaces,
    /// Service accounts, Secrets and config maps: what others refer to by name.
    Basics,
    ClusterScoped,
    Namespaced,
    /// Webhooks, admission policies, API services: last, because they can stand in the way of all
    /// the others.
    Gates,
    /// Inert objects of any kind that come to life: after all that is created, so that none of them acts
    /// before what it needs is there.
    Wakes,
}

impl Class {
    pub fn of(key: &ObjectKey) -> Self {
        match (key.group(), key.resource()) {
            ("apiextensions.k8s.io", "customresourcedefinitions") => {
                Class::CustomResourceDefinitions
            }
            ("", "namespaces") => Class::Namespaces,
            ("", "serviceaccounts" | "secrets" | "configmaps") => Class::Basics,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Class::Gates,
            _ if key.namespace().is_empty() => Class::ClusterScoped,
            _ => Class::Namespaced,
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stage {
    pub class: Class,
    /// 0: owned by nothing in the backup that has to come first.
    pub depth: u16,
}

/// The stage of every object that has owners in the backup; all others stand at depth 0 of their
/// class. The result is the least fixed point, so it does not depend on the order of the input.
pub fn stages<'a>(contents: &'a Contents, index: &OwnerIndex<'a>) -> Stages<'a> {
    let mut edges: Vec<(&ObjectKey, &ObjectKey)> = Vec::new();
    for (key, entry) in &contents.entries {
        for owner in &entry.owners {
            edges.extend(index.find(key, owner).map(|owner| (key, owner)));
        }
    }
    let mut stages = Stages { owned: HashMap::with_capacity(edges.len()) };
    loop {
        let mut moved = false;
        for (key, owner) in &edges {
            let owner = stages.of(owner);
            let wanted = Stage { depth: (owner.depth + 1).min(MAX_DEPTH), ..owner };
            if wanted > stages.of(key) {
                stages.owned.insert(key, wanted);
                moved = true;
            }
        }
        if !moved {
            return stages;
        }
    }
}

#[derive(Debug, Default)]
pub struct Stages<'a> {
    owned: HashMap<&'a ObjectKey, Stage>,
}

impl Stages<'_> {
    pub fn of(&self, key: &ObjectKey) -> Stage {
        let class = Class::of(key);
        self.owned.get(key).copied().unwrap_or(Stage { class, depth: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{contents, key};
    use super::*;

    fn check(objects: &[(&str, &[&str])], expected: &[(&str, Class, u16)]) {
        let contents = contents(objects);
        let index = OwnerIndex::new(&contents);
        let stages = stages(&contents, &index);
        for (name, class, depth) in expected {
            let stage = stages.of(&key(name));
            assert_eq!(stage, Stage { class: *class, depth: *depth }, "{name}");
        }
    }

    #[test]
    fn classes_follow_the_kind_and_the_scope() {
        check(
            &[],
            &[
                (
                    "apiextensions.k8s.io/customresourcedefinitions//a",
                    Class::CustomResourceDefinitions,
                    0,
                ),
                ("/namespaces//a", Class::Namespaces, 0),
                ("/secrets/ns/a", Class::Basics, 0),
                ("x.io/secrets/ns/a", Class::Namespaced, 0),
                ("x.io/things//a", Class::ClusterScoped, 0),
                (
                    "admissionregistration.k8s.io/validatingwebhookconfigurations//a",
                    Class::Gates,
                    0,
                ),
            ],
        );
    }

    #[test]
    fn an_owner_comes_before_what_it_owns_also_across_classes() {
        check(
            &[
                ("x.io/things//root", &[]),
                ("x.io/parts/ns/a", &["x.io/things//root"]),
                ("x.io/parts/ns/b", &["x.io/parts/ns/a"]),
                ("/secrets/ns/s", &["x.io/things//root"]),
                ("/configmaps/ns/c", &["/secrets/ns/s", "x.io/parts/ns/b"]),
                ("/configmaps/ns/gone", &["x.io/things//missing"]),
            ],
            &[
                ("x.io/things//root", Class::ClusterScoped, 0),
                ("x.io/parts/ns/a", Class::Namespaced, 0),
                ("x.io/parts/ns/b", Class::Namespaced, 1),
                ("/secrets/ns/s", Class::ClusterScoped, 1),
                ("/configmaps/ns/c", Class::Namespaced, 2),
                ("/configmaps/ns/gone", Class::Basics, 0),
            ],
        );
    }

    #[test]
    fn a_circle_ends_at_the_greatest_depth() {
        check(
            &[("x.io/p/ns/a", &["x.io/p/ns/b"]), ("x.io/p/ns/b", &["x.io/p/ns/a"])],
            &[
                ("x.io/p/ns/a", Class::Namespaced, MAX_DEPTH),
                ("x.io/p/ns/b", Class::Namespaced, MAX_DEPTH),
            ],
        );
    }
}
