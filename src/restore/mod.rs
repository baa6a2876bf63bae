//! Restore: objects of a backup → the API server of this hub. A plan first, then a check that was
//! written apart from the planner, then execution without further choices.
//!
//! ```text
//!  Contents + Restored + Policy ─► plan ─► check ─► execute ─► Report
//!      what should be   what is              │        │  waves: CRDs, namespaces, Secrets…, owners
//!                                            │        │  before owned; parallel as the server lets us
//!                                            ▼        ▼
//!                                       violations   deletions, last and only after no error
//! ```
//!
//! What may go wrong: a single object (counted, named, tried again by the next sync), or the whole
//! run (cancelled by a promotion, stopped by the guard because another hub took over). A run that
//! stops in the middle leaves [`Restored`] true, and the next plan starts from there.

pub mod body;
pub mod check;
pub mod claim;
pub mod conflict;
pub mod drift;
pub mod execute;
pub mod governor;
mod hub;
pub mod kinds;
pub mod known;
pub mod label;
pub mod live;
pub mod once;
pub mod order;
mod overlay;
pub mod owners;
pub mod patch;
pub mod plan;
pub mod policy;
pub mod prune;
pub mod recheck;
pub mod rehearsal;
mod remove;
pub mod report;
mod same;
pub mod transform;
mod wave;
mod write;

pub use check::{Checked, check};

pub use execute::{Applied, Guard, How, Run, Sink, Source, SourceError, execute};
pub use kinds::Kinds;
pub use known::{Known, Mark, Restored, Standing};
pub use plan::{Desired, Plan, plan};
pub use policy::{Policy, Scope};
pub use prune::{Gone, Held, Pruning};
pub use report::{Done, ItemError, Released, Report};

#[cfg(test)]
mod tests;

#[cfg(test)]
mod testing {
    //! Short ways to write down backups in tables.

    use super::kinds::Kinds;
    use super::known::{Known, Mark, Restored, Standing};
    use super::plan::Desired;
    use super::policy::{Policy, Scope};
    use super::prune::{Gone, Pruning};
    use crate::config::settings::RestorePolicy;
    use crate::object::{Digest, GroupResource, Kind, ObjectKey, Set};
    use crate::repository::contents::{Contents, Entry, Owner};
    use std::collections::{HashMap, HashSet};

    /// A hub that serves a few kinds, holds all but `partial.io` completely and allows CRDs.
    pub(super) struct Case {
        pub(super) contents: Contents,
        pub(super) restored: Restored,
        pub(super) gone: HashMap<ObjectKey, Gone>,
        pub(super) policy: Policy,
        pub(super) kinds: Kinds,
        pub(super) complete: HashSet<GroupResource>,
        pub(super) released: Vec<String>,
    }

    impl Default for Case {
        fn default() -> Self {
            let kinds = vec![
                kind("", "Namespace", "namespaces", false),
                kind("", "Secret", "secrets", true),
                kind("", "ConfigMap", "configmaps", true),
                kind("x.io", "Thing", "things", false),
                kind("x.io", "Part", "parts", true),
                kind("act.io", "Cluster", "clusters", false),
                kind("partial.io", "Thing", "things", false),
                kind(
                    "apiextensions.k8s.io",
                    "CustomResourceDefinition",
                    "customresourcedefinitions",
                    false,
                ),
            ];
            let complete = kinds.iter().filter(|kind| kind.group != "partial.io");
            let definitions = kinds.last().map(Kind::group_resource);
            let allow = RestorePolicy {
                allow_kinds: definitions.into_iter().collect(),
                ..RestorePolicy::default()
            };
            Self {
                contents: Contents::default(),
                restored: Restored::default(),
                gone: HashMap::new(),
                released: Vec::new(),
                policy: Policy::new("eu", "understudy-system", &allow),
                complete: complete.map(Kind::group_resource).collect(),
                kinds: Kinds::new(kinds),
            }
        }
    }

    impl Case {
        pub(super) fn desired(&self, scope: Scope) -> Desired<'_> {
            Desired {
                contents: &self.contents,
                restored: &self.restored,
                policy: &self.policy,
                kinds: &self.kinds,
                scope,
                pruning: Pruning {
                    enabled: true,
                    max_deletes: 100,
                    max_shrink: 0.5,
                    complete: &self.complete,
                    gone: &self.gone,
                    released: &self.released,
                },
            }
        }
    }

    /// `group/resource/namespace/name`
    pub(super) fn key(text: &str) -> ObjectKey {
        let parts: Vec<&str> = text.splitn(4, '/').collect();
        ObjectKey::new(parts[0], parts[1], parts[2], parts[3]).unwrap()
    }

    pub(super) fn kind(group: &str, kind: &str, resource: &str, namespaced: bool) -> Kind {
        Kind {
            group: group.into(),
            version: "v1".into(),
            kind: kind.into(),
            resource: resource.into(),
            namespaced,
            categories: Vec::new(),
        }
    }

    /// Objects with their owners. The UID of an object on the source hub is its key; the content
    /// of an object is its key too. Group `act.io` is the activation set.
    pub(super) fn contents(objects: &[(&str, &[&str])]) -> Contents {
        let entries = objects.iter().map(|(name, owners)| (key(name), entry(name, owners)));
        Contents { entries: entries.collect(), ..Contents::default() }
    }

    fn entry(name: &str, owners: &[&str]) -> Entry {
        let owners = owners.iter().map(|owner| {
            let owner_key = key(owner);
            let group = owner_key.group();
            Owner {
                api_version: if group.is_empty() {
                    "v1".into()
                } else {
                    format!("{group}/v1").into()
                },
                kind: "Any".into(),
                name: owner_key.name().into(),
                uid: (*owner).into(),
            }
        });
        Entry {
            set: if name.starts_with("act.io/") { Set::Activation } else { Set::Resources },
            version: "v1".into(),
            digest: Digest::of(name.as_bytes()),
            pack: 0,
            uid: name.into(),
            resource_version: "1".into(),
            owners: owners.collect(),
        }
    }

    /// What stands on the hub: (key, standing, content, stripped). UID is `live:` and the key.
    pub(super) fn restored(objects: &[(&str, Standing, &str, usize)]) -> Restored {
        let objects = objects.iter().map(|(name, standing, content, stripped)| {
            let set = if name.starts_with("act.io/") { Set::Activation } else { Set::Resources };
            let known = Known {
                standing: *standing,
                mark: Some(Mark::new(&Digest::of(content.as_bytes()), set, *stripped)),
                uid: format!("live:{name}").into(),
                resource_version: "5".into(),
            };
            (key(name), known)
        });
        Restored { objects: objects.collect() }
    }
}
