//! Pure: what becomes of an object that stands on this hub already and is not ours, by rule.

use crate::capture::rules::Globs;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Conflict {
    /// It stays as it is. Counted, never written, never deleted.
    #[default]
    Keep,
    /// It is taken over: written, never deleted.
    Adopt,
    /// It stays as it is, and is an error until somebody has looked.
    Refuse,
}

/// Everything that is named must agree. The first rule that agrees counts.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConflictRule {
    /// API group; the core group is `""`.
    group: Option<Globs>,
    /// As in a manifest: `ConfigMap`.
    kind: Option<Globs>,
    namespace: Option<Globs>,
    name: Option<Globs>,
    pub(super) policy: Conflict,
}

impl ConflictRule {
    pub(super) fn matches_kind(&self, group: &str, kind: &str) -> bool {
        agrees(self.group.as_ref(), group) && agrees(self.kind.as_ref(), kind)
    }

    pub(super) fn matches(&self, group: &str, kind: &str, namespace: &str, name: &str) -> bool {
        self.matches_kind(group, kind)
            && agrees(self.namespace.as_ref(), namespace)
            && agrees(self.name.as_ref(), name)
    }

    pub fn names_nothing(&self) -> bool {
        let Self { group, kind, namespace, name, policy: _ } = self;
        group.is_none() && kind.is_none() && namespace.is_none() && name.is_none()
    }
}

/// What is not named does not matter.
pub(super) fn agrees(globs: Option<&Globs>, text: &str) -> bool {
    globs.is_none_or(|globs| globs.matches(text))
}
