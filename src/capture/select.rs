//! Pure: which objects of a hub belong into which set, each verdict with the rule that gave it.
//!
//! The order of the verdicts:
//! 1. built-in exclusions and `sets.exclude` of any layer: never captured;
//! 2. activation before credentials before resources: the first of these sets of which a layer
//!    includes the object is its set. The user's rules are asked before those of the presets;
//! 3. `exclude` of that set (of the including layer, and the user's) keeps it out of the backup. It
//!    does not fall to another set: a passive hub must never hold what was meant to be held back;
//! 4. a Namespace that nothing excludes comes along, so that no object ends up without its own.
//!
//! What may go wrong: an object in the wrong set. Hence the reason with each verdict, and the tables
//! below.

pub mod explain;
pub mod own;

use super::rules::{Preset, Rule, RuleSets, is_namespace};
use crate::object::{Digest, Kind, Set};
use std::borrow::Cow;
use std::collections::BTreeSet;
use std::sync::Arc;

/// What the rules may look at in an object. Borrowed from the raw JSON of a page.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    pub kind: &'a Kind,
    /// Empty for cluster-scoped objects.
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a [(Cow<'a, str>, Cow<'a, str>)],
    pub annotations: &'a [(Cow<'a, str>, Cow<'a, str>)],
    /// Labels of the namespace it stands in (empty for cluster-scoped objects).
    pub namespace_labels: &'a [(String, String)],
    /// The field `type` of a Secret.
    pub secret_type: Option<&'a str>,
    /// Kind of the owner with `controller: true`.
    pub controller_kind: Option<&'a str>,
}

impl<'a> Candidate<'a> {
    pub(super) fn label(&self, key: &str) -> Option<&'a str> {
        self.labels.iter().find(|(found, _)| found == key).map(|(_, value)| value.as_ref())
    }

    pub(super) fn namespace_label(&self, key: &str) -> Option<&'a str> {
        self.namespace_labels
            .iter()
            .find(|(found, _)| found == key)
            .map(|(_, value)| value.as_str())
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    In { set: Set, rule: String },
    Out { rule: String },
}

/// All rules of a hub: built-in exclusions, presets, the user's additions, in their order.
#[derive(Clone, Debug)]
pub struct Selection {
    /// The user's first, then the presets.
    layers: Arc<[Layer]>,
    own_namespace: String,
    /// Namespaces that belong to the hub itself, as [`Preset::hub_itself`] found them.
    hub_namespaces: Arc<BTreeSet<String>>,
}

/// The rules of one origin.
#[derive(Clone, Debug)]
struct Layer {
    /// `None`: the user's own.
    preset: Option<String>,
    sets: RuleSets,
    hub_itself: Vec<Rule>,
    status: Vec<super::rules::ResourceName>,
}

impl Layer {
    /// `preset ocm: activation.include[1] (kind ManagedCluster)`
    fn rule_name(&self, list: &str, index: usize, rule: &Rule) -> String {
        match &self.preset {
            Some(preset) => format!("preset {preset}: {list}[{index}] ({rule})"),
            None => format!("sets.{list}[{index}] ({rule})"),
        }
    }
}

impl Selection {
    pub fn new(user: RuleSets, presets: impl IntoIterator<Item = Preset>) -> Self {
        let own = Layer { preset: None, sets: user, hub_itself: Vec::new(), status: Vec::new() };
        let presets = presets.into_iter().map(|preset| {
            // The rest is about restoring.
            let Preset { name, sets, hub_itself, status, .. } = preset;
            Layer { preset: Some(name), sets, hub_itself, status }
        });
        Self {
            layers: std::iter::once(own).chain(presets).collect(),
            own_namespace: String::new(),
            hub_namespaces: Arc::default(),
        }
    }

    /// Kinds whose `status` the user wants, beside those of the presets.
    #[must_use]
    pub fn with_status(self, status: &[super::rules::ResourceName]) -> Self {
        let mut layers = self.layers.to_vec();
        // The user's come first.
        layers.iter_mut().take(1).for_each(|own| status.clone_into(&mut own.status));
        Self { layers: layers.into(), ..self }
    }

    /// The namespace in which Understudy runs: nothing in it is ever captured.
    #[must_use]
    pub fn with_own_namespace(self, namespace: &str) -> Self {
        Self { own_namespace: namespace.to_owned(), ..self }
    }

    /// Names of the objects for which [`KindRules::is_hub_itself`] holds: the namespaces of these
    /// names, with all that is in them, are not captured.
    #[must_use]
    pub fn with_hub_itself(self, names: BTreeSet<String>) -> Self {
        Self { hub_namespaces: Arc::new(names), ..self }
    }

    /// Whether objects of this kind can stand for the hub itself, so that it is read before all others.
    pub fn may_be_hub_itself(&self, kind: &Kind) -> bool {
        self.layers.iter().any(|layer| layer.hub_itself.iter().any(|r| r.for_kind(kind).is_some()))
    }

    /// The same of a group whose kinds cannot be told.
    pub fn hub_itself_may_be_of(&self, group: &str) -> bool {
        let rules = |layer: &Layer| layer.hub_itself.iter().any(|rule| rule.may_match_of(group));
        self.layers.iter().any(rules)
    }

    /// Whether an object of this group could be selected, whatever its kind.
    pub fn may_select_of(&self, group: &str) -> bool {
        let any = Kind {
            group: group.to_owned(),
            version: String::new(),
            kind: String::new(),
            resource: String::new(),
            categories: vec![],
            namespaced: true,
        };
        let excludes = |rule: &Rule| rule.matches_all_of(group);
        kind_is_never_captured(&any).is_none()
            && !self.layers.iter().any(|layer| layer.sets.exclude.iter().any(excludes))
            && self.layers.iter().any(|layer| {
                let sets = Set::ALL.iter().flat_map(|set| &layer.sets.of(*set).include);
                sets.into_iter().any(|rule| rule.may_match_of(group))
            })
    }

    /// Whether any object of the kind could be selected: a kind of which none can is not listed.
    pub fn may_select(&self, kind: &Kind) -> bool {
        self.for_kind(kind).may_select()
    }

    pub fn decide(&self, candidate: &Candidate<'_>) -> Verdict {
        self.for_kind(candidate.kind).decide(candidate)
    }

    /// Whether `status` of this kind is captured and restored.
    pub fn keeps_status(&self, kind: &Kind) -> bool {
        self.layers
            .iter()
            .flat_map(|layer| &layer.status)
            .any(|name| name.0.group == kind.group && name.0.resource == kind.resource)
    }

    /// Of all rules: when it changes, nothing may be called unchanged without looking inside.
    pub fn digest(&self) -> Digest {
        /// Rises when the same rules come to mean something else.
        const MEANING: u32 = 1;
        let Self { layers, own_namespace, hub_namespaces } = self;
        Digest::of(format!("{MEANING} {layers:?} {own_namespace:?} {hub_namespaces:?}").as_bytes())
    }

    /// The rules that can apply to a kind; everything that the kind alone decides is decided here.
    pub fn for_kind(&self, kind: &Kind) -> KindRules {
        let compile = |layer: &Layer, list: &str, rules: &[Rule]| -> Vec<NamedRule> {
            let named = |(index, rule): (usize, &Rule)| {
                let name = layer.rule_name(list, index, rule);
                Some(NamedRule { name, rule: rule.for_kind(kind)? })
            };
            rules.iter().enumerate().filter_map(named).collect()
        };
        let never = kind_is_never_captured(kind);
        let layers = if never.is_some() { &[] } else { &*self.layers };
        let collect = |list: &str, of: fn(&Layer) -> &[Rule]| -> Vec<NamedRule> {
            layers.iter().flat_map(|layer| compile(layer, list, of(layer))).collect()
        };
        let set_rules = |set: Set| -> Vec<LayerRules> {
            let rules_of = |layer: &Layer| LayerRules {
                include: compile(layer, &format!("{set}.include"), &layer.sets.of(set).include),
                exclude: compile(layer, &format!("{set}.exclude"), &layer.sets.of(set).exclude),
            };
            layers.iter().map(rules_of).collect()
        };
        KindRules {
            never,
            is_namespace: is_namespace(kind),
            hub_itself: collect("hubItself", |layer| &layer.hub_itself),
            exclude: collect("exclude", |layer| &layer.sets.exclude),
            sets: PRECEDENCE.map(|set| (set, set_rules(set))),
            own_namespace: self.own_namespace.clone(),
            hub_namespaces: Arc::clone(&self.hub_namespaces),
        }
    }
}

/// Where rules of several sets match: what must be held back is held back.
const PRECEDENCE: [Set; 3] = [Set::Activation, Set::Credentials, Set::Resources];

const NO_RULE: &str = "no rule includes it";

const NAMESPACES_COME_ALONG: &str = "built-in: namespaces come along with what stands in them";

#[derive(Clone, Debug)]
struct NamedRule {
    name: String,
    rule: Rule,
}

#[derive(Clone, Debug)]
struct LayerRules {
    include: Vec<NamedRule>,
    exclude: Vec<NamedRule>,
}

fn first<'r>(rules: &'r [NamedRule], candidate: &Candidate<'_>) -> Option<&'r NamedRule> {
    rules.iter().find(|named| named.rule.matches(candidate))
}

/// The rules of a [`Selection`] for the objects of one kind.
#[derive(Clone, Debug)]
pub struct KindRules {
    never: Option<&'static str>,
    is_namespace: bool,
    hub_itself: Vec<NamedRule>,
    exclude: Vec<NamedRule>,
    sets: [(Set, Vec<LayerRules>); 3],
    own_namespace: String,
    hub_namespaces: Arc<BTreeSet<String>>,
}

impl KindRules {
    pub fn may_select(&self) -> bool {
        self.never.is_none()
            && !self.exclude.iter().any(|named| named.rule.is_unconditional())
            && (self.is_namespace || self.includes().next().is_some())
    }

    fn includes(&self) -> impl Iterator<Item = &NamedRule> {
        self.sets.iter().flat_map(|(_, layers)| layers).flat_map(|layer| &layer.include)
    }

    /// Whether the object stands for the hub itself, such as its own `ManagedCluster`.
    pub fn is_hub_itself(&self, candidate: &Candidate<'_>) -> bool {
        first(&self.hub_itself, candidate).is_some()
    }

    pub fn decide(&self, candidate: &Candidate<'_>) -> Verdict {
        if let Some(rule) = self.never.or_else(|| self.object_is_never_captured(candidate)) {
            return Verdict::Out { rule: rule.to_owned() };
        }
        let excluded =
            first(&self.hub_itself, candidate).or_else(|| first(&self.exclude, candidate));
        if let Some(named) = excluded {
            return Verdict::Out { rule: named.name.clone() };
        }
        // A held back Namespace would leave what is not held back without a place.
        let sets = self.sets.iter().filter(|(set, _)| !self.is_namespace || *set == Set::Resources);
        for (set, layers) in sets {
            if let Some(verdict) = decide_set(*set, layers, candidate) {
                return verdict;
            }
        }
        if self.is_namespace {
            return self.decide_namespace(candidate);
        }
        Verdict::Out { rule: NO_RULE.to_owned() }
    }

    /// A Namespace that no rule includes.
    fn decide_namespace(&self, candidate: &Candidate<'_>) -> Verdict {
        let users = self.sets.iter().filter(|(set, _)| *set == Set::Resources);
        let mut excludes = users.filter_map(|(_, layers)| layers.first()).map(|user| &user.exclude);
        match excludes.find_map(|rules| first(rules, candidate)) {
            Some(exclude) => Verdict::Out { rule: exclude.name.clone() },
            None => Verdict::In { set: Set::Resources, rule: NAMESPACES_COME_ALONG.to_owned() },
        }
    }

    fn object_is_never_captured(&self, candidate: &Candidate<'_>) -> Option<&'static str> {
        let namespace = if self.is_namespace { candidate.name } else { candidate.namespace };
        if !namespace.is_empty() {
            if namespace == self.own_namespace {
                return Some("built-in: Understudy's own namespace");
            }
            if namespace.starts_with("kube-") {
                return Some("built-in: kube-* namespaces belong to the cluster");
            }
            if self.hub_namespaces.contains(namespace) {
                return Some("built-in: the namespace of the hub itself");
            }
        }
        object_is_never_captured(candidate)
    }
}

/// None: no layer includes the object in this set.
fn decide_set(set: Set, layers: &[LayerRules], candidate: &Candidate<'_>) -> Option<Verdict> {
    let user = layers.first()?;
    let mut kept_out = None;
    for layer in layers {
        let Some(include) = first(&layer.include, candidate) else { continue };
        if let Some(rule) = helm_release_not_asked_for(&include.rule, candidate) {
            kept_out.get_or_insert(rule);
            continue;
        }
        let exclude = first(&layer.exclude, candidate).or_else(|| first(&user.exclude, candidate));
        match exclude {
            None => return Some(Verdict::In { set, rule: include.name.clone() }),
            Some(exclude) => kept_out.get_or_insert(exclude.name.as_str()),
        };
    }
    kept_out.map(|rule| Verdict::Out { rule: rule.to_owned() })
}

fn helm_release_not_asked_for(include: &Rule, candidate: &Candidate<'_>) -> Option<&'static str> {
    let is_release = candidate.secret_type == Some("helm.sh/release.v1");
    (is_release && include.secret_type.is_none())
        .then_some("built-in: Helm release Secrets only where a rule names their secretType")
}

/// Kinds that only mean something on the cluster that made them.
fn kind_is_never_captured(kind: &Kind) -> Option<&'static str> {
    Some(match (kind.group.as_str(), kind.kind.as_str()) {
        ("understudy.dev", _) => "built-in: Understudy's own objects",
        ("" | "events.k8s.io", "Event") => "built-in: events tell of one cluster's past",
        ("coordination.k8s.io", _) => "built-in: leases are held by processes of one cluster",
        ("", "Endpoints") | ("discovery.k8s.io", "EndpointSlice") => {
            "built-in: endpoints are derived from pods"
        }
        ("", "Node") | ("storage.k8s.io", "CSINode" | "VolumeAttachment") => {
            "built-in: nodes belong to the cluster"
        }
        ("", "Pod") => "built-in: pods run on one cluster's nodes",
        ("apps", "ReplicaSet" | "ControllerRevision") => {
            "built-in: derived from Deployments, StatefulSets and DaemonSets"
        }
        ("" | "apiserverinternal.k8s.io", "ComponentStatus" | "StorageVersion")
        | ("metrics.k8s.io" | "custom.metrics.k8s.io" | "external.metrics.k8s.io", _) => {
            "built-in: computed by the API server, not stored"
        }
        _ => return None,
    })
}

fn object_is_never_captured(candidate: &Candidate<'_>) -> Option<&'static str> {
    let core = |kind: &str| candidate.kind.group.is_empty() && candidate.kind.kind == kind;
    // A Namespace that is labelled so takes along what is in it, which would be left without a place.
    let excluded_by =
        |key: &str| [candidate.label(key), candidate.namespace_label(key)].contains(&Some("true"));
    if excluded_by("understudy.dev/exclude") {
        return Some("built-in: labelled understudy.dev/exclude=true, or in such a namespace");
    }
    if excluded_by("velero.io/exclude-from-backup") {
        return Some(
            "built-in: labelled velero.io/exclude-from-backup=true, or in such a namespace",
        );
    }
    if core("Secret") && candidate.secret_type == Some("kubernetes.io/service-account-token") {
        return Some("built-in: a service account token is signed by one cluster");
    }
    if core("ServiceAccount") && candidate.name == "default" {
        return Some("built-in: every namespace gets its default ServiceAccount by itself");
    }
    if core("ConfigMap")
        && matches!(candidate.name, "kube-root-ca.crt" | "openshift-service-ca.crt")
    {
        return Some("built-in: the cluster's own certificate authority");
    }
    if core("Namespace") && candidate.name == "default" {
        return Some("built-in: the namespace default exists on every cluster");
    }
    if candidate.kind.kind == "Job" && candidate.controller_kind == Some("CronJob") {
        return Some("built-in: a CronJob makes its Jobs itself");
    }
    None
}

#[cfg(test)]
mod tests;
