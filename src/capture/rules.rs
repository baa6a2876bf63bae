//! Pure: the grammar of selection rules, the same for presets and for `sets:` of the configuration.
//!
//! A rule names what an object must have: group, kind, category, namespace, name (globs; a list means
//! "one of these"), labels (a Kubernetes selector). Everything a rule names must agree, what it does not name
//! does not matter. A word that cannot mean anything is refused when the file is read.

use super::select::Candidate;
use crate::object::{GroupResource, Kind, Set};
use crate::restore::transform::TransformRule;
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

/// What a preset brings: rules, and what is known about its kinds.
#[derive(Clone, Debug, serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Preset {
    pub name: String,
    pub sets: RuleSets,
    /// Objects that stand for the hub itself: neither they nor the namespaces of their names, with
    /// all that is in them, are ever captured.
    #[serde(default)]
    pub hub_itself: Vec<Rule>,
    /// Kinds whose `status` is captured and restored.
    #[serde(default)]
    pub status: Vec<ResourceName>,
    /// Objects that exist on every hub and may be taken over.
    #[serde(default)]
    pub adopt: Vec<Adopt>,
    /// What makes objects inert on a passive hub.
    #[serde(default)]
    pub transforms: Vec<TransformRule>,
    /// A promoted hub accepts and imports `ManagedCluster`s.
    #[serde(default)]
    pub imports_clusters: bool,
}

/// `sets:` of the configuration and of a preset.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct RuleSets {
    /// What is never captured, whatever the sets say.
    pub exclude: Vec<Rule>,
    pub credentials: SetRules,
    pub resources: SetRules,
    pub activation: SetRules,
}

impl RuleSets {
    pub fn of(&self, set: Set) -> &SetRules {
        match set {
            Set::Credentials => &self.credentials,
            Set::Resources => &self.resources,
            Set::Activation => &self.activation,
        }
    }

    /// Whether nothing can be selected by these rules.
    pub fn selects_nothing(&self) -> bool {
        Set::ALL.iter().all(|set| self.of(*set).include.is_empty())
    }
}

#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
pub struct SetRules {
    pub include: Vec<Rule>,
    /// What would come into this set, and stays out of the backup.
    pub exclude: Vec<Rule>,
}

/// An object that may be taken over on the restoring hub although Understudy did not make it.
#[derive(Clone, Debug, serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Adopt {
    pub resource: ResourceName,
    pub name: String,
}

/// One rule. At least one thing is named; `{group: "*"}` says "everything" where that is meant.
#[derive(Clone, Debug, Default, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "Fields")]
pub struct Rule {
    pub group: Option<Globs>,
    pub kind: Option<Globs>,
    pub category: Option<Globs>,
    pub namespace: Option<Globs>,
    pub namespace_labels: Option<Selector>,
    pub name: Option<Globs>,
    pub labels: Option<Selector>,
    pub secret_type: Option<Globs>,
    pub except: Vec<Rule>,
}

/// A rule as written.
#[derive(serde::Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields, rename_all = "camelCase", default)]
#[derive(Default)]
#[schemars(rename = "Rule")]
struct Fields {
    /// API group; the core group is `""`.
    group: Option<Globs>,
    /// As in a manifest: `ConfigMap`.
    kind: Option<Globs>,
    /// A category of the kind, of those that its CRD names: `kubectl get CATEGORY` finds the same.
    category: Option<Globs>,
    /// A Namespace object counts as standing in itself.
    namespace: Option<Globs>,
    /// Labels of the namespace it stands in.
    namespace_labels: Option<Selector>,
    name: Option<Globs>,
    labels: Option<Selector>,
    /// The field `type` of a Secret.
    secret_type: Option<Globs>,
    /// What the rule does not mean although all of the above agrees.
    except: Vec<Rule>,
}

impl TryFrom<Fields> for Rule {
    type Error = &'static str;

    fn try_from(fields: Fields) -> Result<Self, Self::Error> {
        let Fields {
            group,
            kind,
            category,
            namespace,
            namespace_labels,
            name,
            labels,
            secret_type,
            except,
        } = fields;
        let names_a_kind = group.is_some() || kind.is_some() || category.is_some();
        let rule = Self {
            group,
            kind,
            category,
            namespace,
            namespace_labels,
            name,
            labels,
            secret_type,
            except,
        };
        let bare = Self { except: Vec::new(), ..rule.clone() };
        if bare.is_unconditional() && !names_a_kind {
            return Err("this rule names nothing and would match every object; \
                 write {group: \"*\"} if that is meant");
        }
        Ok(rule)
    }
}

impl Rule {
    /// What remains to be asked of an object of this kind. None: the rule cannot match any.
    pub(super) fn for_kind(&self, kind: &Kind) -> Option<Self> {
        let agrees = |globs: &Option<Globs>, text| globs.as_ref().is_none_or(|g| g.matches(text));
        let has_namespace = kind.namespaced || is_namespace(kind);
        let asks_namespace = self.namespace.is_some() || self.namespace_labels.is_some();
        let is_secret = kind.group.is_empty() && kind.kind == "Secret";
        if !agrees(&self.group, &kind.group)
            || !agrees(&self.kind, &kind.kind)
            || self.category.as_ref().is_some_and(|g| !kind.categories.iter().any(|c| g.matches(c)))
            || (asks_namespace && !has_namespace)
            || (self.secret_type.is_some() && !is_secret)
        {
            return None;
        }
        let except: Vec<Self> = self.except.iter().filter_map(|rule| rule.for_kind(kind)).collect();
        if except.iter().any(Self::is_unconditional) {
            return None;
        }
        Some(Self { group: None, kind: None, category: None, except, ..self.clone() })
    }

    /// Whether it could match an object of this group.
    pub(super) fn may_match_of(&self, group: &str) -> bool {
        self.group.as_ref().is_none_or(|globs| globs.matches(group))
            && !self.except.iter().any(|rule| rule.matches_all_of(group))
    }

    /// Whether every object of this group matches.
    pub(super) fn matches_all_of(&self, group: &str) -> bool {
        let Self { kind, category, .. } = self;
        self.may_match_of(group) && kind.is_none() && category.is_none() && self.is_unconditional()
    }

    /// Whether every object of a kind that passed [`Self::for_kind`] matches.
    pub(super) fn is_unconditional(&self) -> bool {
        let Self {
            group: _,
            kind: _,
            category: _,
            namespace,
            namespace_labels,
            name,
            labels,
            secret_type,
            except,
        } = self;
        namespace.is_none()
            && namespace_labels.is_none()
            && name.is_none()
            && labels.is_none()
            && secret_type.is_none()
            && except.is_empty()
    }

    /// Whether an object matches whose kind is known to match.
    pub(super) fn matches(&self, candidate: &Candidate<'_>) -> bool {
        let itself = is_namespace(candidate.kind);
        let namespace = if itself { candidate.name } else { candidate.namespace };
        let agrees = |globs: &Option<Globs>, text| globs.as_ref().is_none_or(|g| g.matches(text));
        let labels_agree = |selector: &Option<Selector>, own: bool| {
            selector.as_ref().is_none_or(|selector| {
                selector.matches(|key| {
                    if own { candidate.label(key) } else { candidate.namespace_label(key) }
                })
            })
        };
        agrees(&self.name, candidate.name)
            && agrees(&self.namespace, namespace)
            && agrees(&self.secret_type, candidate.secret_type.unwrap_or_default())
            && labels_agree(&self.labels, true)
            && labels_agree(&self.namespace_labels, itself)
            && !self.except.iter().any(|rule| rule.matches(candidate))
    }
}

pub(super) fn is_namespace(kind: &Kind) -> bool {
    kind.group.is_empty() && kind.kind == "Namespace"
}

/// `kind ManagedCluster, labels a=b`: as verdicts print a rule.
impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let words: [(&str, Option<&dyn fmt::Display>); 8] = [
            ("group", self.group.as_ref().map(|x| x as _)),
            ("kind", self.kind.as_ref().map(|x| x as _)),
            ("category", self.category.as_ref().map(|x| x as _)),
            ("namespace", self.namespace.as_ref().map(|x| x as _)),
            ("namespace labels", self.namespace_labels.as_ref().map(|x| x as _)),
            ("name", self.name.as_ref().map(|x| x as _)),
            ("labels", self.labels.as_ref().map(|x| x as _)),
            ("secret type", self.secret_type.as_ref().map(|x| x as _)),
        ];
        let mut first = true;
        for (word, value) in words.iter().filter_map(|(word, value)| Some((word, (*value)?))) {
            write!(f, "{}{word} {value}", if first { "" } else { ", " })?;
            first = false;
        }
        for (index, rule) in self.except.iter().enumerate() {
            write!(f, "{} ({rule})", if index == 0 { ", except" } else { " or" })?;
        }
        Ok(())
    }
}

/// One glob or several, of which one must match. `*` stands for any text, everything else for itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Globs(Vec<String>);

impl Globs {
    pub fn matches(&self, text: &str) -> bool {
        self.0.iter().any(|glob| matches_glob(glob, text))
    }

    /// Its globs, each by itself.
    pub(super) fn each(&self) -> impl Iterator<Item = Self> {
        self.0.iter().map(|glob| Self(vec![glob.clone()]))
    }
}

impl fmt::Display for Globs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted: Vec<Cow<'_, str>> = self
            .0
            .iter()
            .map(|glob| if glob.is_empty() { "\"\"".into() } else { glob.as_str().into() })
            .collect();
        f.write_str(&quoted.join("|"))
    }
}

/// The parts between the stars must stand in the text in their order; the first one at its start and
/// the last one at its end. Taking each part as early as possible is enough, so time is linear.
fn matches_glob(glob: &str, text: &str) -> bool {
    let Some((start, rest)) = glob.split_once('*') else { return glob == text };
    let Some(mut text) = text.strip_prefix(start) else { return false };
    let (middle, end) = rest.rsplit_once('*').unwrap_or(("", rest));
    for part in middle.split('*') {
        match text.find(part) {
            Some(at) => text = &text[at + part.len()..],
            None => return false,
        }
    }
    text.ends_with(end)
}

impl<'de> Deserialize<'de> for Globs {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct GlobsVisitor;
        impl<'de> Visitor<'de> for GlobsVisitor {
            type Value = Globs;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name in which * stands for any text, or a list of such names")
            }

            fn visit_str<E: de::Error>(self, glob: &str) -> Result<Globs, E> {
                Ok(Globs(vec![glob.to_owned()]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Globs, A::Error> {
                let mut globs = Vec::new();
                while let Some(glob) = seq.next_element::<String>()? {
                    globs.push(glob);
                }
                if globs.is_empty() {
                    return Err(de::Error::custom("an empty list matches nothing"));
                }
                Ok(Globs(globs))
            }
        }
        deserializer.deserialize_any(GlobsVisitor)
    }
}

impl schemars::JsonSchema for Globs {
    fn schema_name() -> Cow<'static, str> {
        "Globs".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({
            "anyOf": [
                {"type": "string"},
                {"type": "array", "items": {"type": "string"}, "minItems": 1},
            ],
        })
    }
}

/// A Kubernetes label selector: `a=b, c, !d, e!=f, g in (x,y), h notin (z)`; all parts must hold.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
pub struct Selector(#[schemars(with = "String")] Vec<Requirement>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    In(String, Vec<String>),
    /// Holds too where the key is absent, as in Kubernetes.
    NotIn(String, Vec<String>),
}

impl Selector {
    pub fn matches<'a>(&self, label: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => label(key).is_some(),
            Requirement::Absent(key) => label(key).is_none(),
            Requirement::In(key, values) => {
                label(key).is_some_and(|found| values.iter().any(|value| value == found))
            }
            Requirement::NotIn(key, values) => {
                label(key).is_none_or(|found| values.iter().all(|value| value != found))
            }
        })
    }
}

impl TryFrom<String> for Selector {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Selector {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut depth = 0_u32;
        for letter in text.chars() {
            match letter {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            match (letter, depth) {
                (',', 0) => parts.push(String::new()),
                _ => parts.last_mut().expect("it begins with one part").push(letter),
            }
        }
        parts.iter().map(|part| requirement(part.trim())).collect::<Result<_, _>>().map(Self)
    }
}

fn requirement(part: &str) -> Result<Requirement, String> {
    if let Some(key) = part.strip_prefix('!') {
        return Ok(Requirement::Absent(word(key, "a label's key")?));
    }
    if let Some((key, list)) = part.strip_suffix(')').and_then(|part| part.split_once('(')) {
        let mut words = key.split_whitespace();
        let (Some(key), Some(verb), None) = (words.next(), words.next(), words.next()) else {
            return Err(format!("{part:?} is not of the form `key in (a,b)`"));
        };
        let key = word(key, "a label's key")?;
        let values = list.split(',').map(value).collect::<Result<_, _>>()?;
        return match verb {
            "in" => Ok(Requirement::In(key, values)),
            "notin" => Ok(Requirement::NotIn(key, values)),
            _ => Err(format!("{verb:?} is neither `in` nor `notin`")),
        };
    }
    if let Some((key, text)) = part.split_once("!=") {
        return Ok(Requirement::NotIn(word(key, "a label's key")?, vec![value(text)?]));
    }
    if let Some((key, text)) = part.split_once('=') {
        let text = text.strip_prefix('=').unwrap_or(text);
        return Ok(Requirement::In(word(key, "a label's key")?, vec![value(text)?]));
    }
    Ok(Requirement::Exists(word(part, "a label's key")?))
}

fn word(text: &str, what: &str) -> Result<String, String> {
    let text = text.trim();
    let legal = |c: char| c.is_ascii_alphanumeric() || "-_./".contains(c);
    if text.is_empty() || !text.chars().all(legal) {
        return Err(format!("{text:?} cannot be {what}"));
    }
    Ok(text.to_owned())
}

fn value(text: &str) -> Result<String, String> {
    if text.trim().is_empty() { Ok(String::new()) } else { word(text, "a label's value") }
}

impl fmt::Display for Selector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, requirement) in self.0.iter().enumerate() {
            f.write_str(if index == 0 { "" } else { "," })?;
            match requirement {
                Requirement::Exists(key) => f.write_str(key)?,
                Requirement::Absent(key) => write!(f, "!{key}")?,
                Requirement::In(key, values) if values.len() == 1 => {
                    write!(f, "{key}={}", values[0])?;
                }
                Requirement::In(key, values) => write!(f, "{key} in ({})", values.join(","))?,
                Requirement::NotIn(key, values) => write!(f, "{key} notin ({})", values.join(","))?,
            }
        }
        Ok(())
    }
}

/// `customresourcedefinitions.apiextensions.k8s.io`, `secrets`: a plural and its group, as RBAC and
/// kubectl write it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[serde(try_from = "String")]
pub struct ResourceName(#[schemars(with = "String")] pub GroupResource);

impl TryFrom<String> for ResourceName {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let (resource, group) = text.split_once('.').unwrap_or((&text, ""));
        let legal = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '.';
        if resource.is_empty() || !text.chars().all(legal) || text.ends_with('.') {
            return Err(format!(
                "{text:?} is not a plural with its group; \
                 write it as kubectl api-resources does, such as clusterroles.rbac.authorization.k8s.io"
            ));
        }
        Ok(Self(GroupResource { group: group.to_owned(), resource: resource.to_owned() }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (glob, text, expected) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("", "", true),
            ("", "a", false),
            ("*", "", true),
            ("*", "abc", true),
            ("a*", "abc", true),
            ("a*", "ba", false),
            ("*.x.io", "a.x.io", true),
            ("*.x.io", "x.io", false),
            ("*-import", "c1-import", true),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("a*a", "a", false),
            ("*ab*ab", "ab", false),
            ("*ab*ab", "abab", true),
            ("a**b", "ab", true),
            ("?", "a", false),
        ] {
            assert_eq!(matches_glob(glob, text), expected, "{glob} {text}");
        }
    }

    #[test]
    fn a_selector_reads_as_in_kubernetes() {
        let labels = [("a", "b"), ("c", ""), ("x.io/y", "1")];
        for (selector, expected) in [
            ("a", true),
            ("a=b", true),
            ("a==b", true),
            ("a = b", true),
            ("a=c", false),
            ("a!=c", true),
            ("a!=b", false),
            ("z!=b", true),
            ("!z", true),
            ("!a", false),
            ("c=", true),
            ("a=", false),
            ("a in (b,c)", true),
            ("a in ( c )", false),
            ("a notin (c)", true),
            ("z notin (c)", true),
            ("x.io/y=1,a in (b,c),!z", true),
            ("x.io/y=1,z", false),
        ] {
            let parsed: Selector = selector.parse().unwrap();
            let found =
                parsed.matches(|key| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v));
            assert_eq!(found, expected, "{selector}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed), "{selector}");
        }
        for bad in ["", "a,", "a=b c", "a within (b)", "!", "=b", "a in (b", "a:b", "a in b)"] {
            bad.parse::<Selector>().expect_err(bad);
        }
    }

    #[test]
    fn a_resource_name_reads_as_kubectl_writes_it() {
        let parse =
            |text: &str| ResourceName::try_from(text.to_owned()).map(|name| name.0.to_string());
        for good in ["secrets", "clusterroles.rbac.authorization.k8s.io"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for bad in ["", ".apps", "Secret", "apps/v1", "deployments."] {
            parse(bad).expect_err(bad);
        }
    }

    #[test]
    fn a_rule_that_names_nothing_is_refused() {
        for bad in ["{}", r#"{"except": [{"kind": "A"}]}"#, r#"{"kinds": "A"}"#, r#"{"kind": []}"#]
        {
            serde_json::from_str::<Rule>(bad).expect_err(bad);
        }
        let text = r#"{"group": "*", "kind": ["A", "B"], "category": "managed"}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(rule.to_string(), "group *, kind A|B, category managed");
        serde_json::from_str::<Rule>(r#"{"category": "managed"}"#).unwrap();
        let text = r#"{"kind": "A", "except": [{"name": "x", "namespace": "n"}, {"labels": "l"}]}"#;
        let rule: Rule = serde_json::from_str(text).unwrap();
        assert_eq!(rule.to_string(), "kind A, except (namespace n, name x) or (labels l)");
    }
}
