//! Pure: the identity of a Kubernetes object, the set it belongs to, and the digest of its content.
//!
//! The served version is deliberately not part of the identity: a CRD that goes from `v1beta1` to
//! `v1` must not look like "all objects gone, all objects new".

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};
use std::fmt::{self, Write as _};
use std::sync::Arc;

/// Annotations and labels below it are ours: never captured, and never taken from a backup.
pub const OWN_PREFIX: &str = "understudy.dev/";

/// Fields of `metadata` that only the hub gives on which the object stands. Capture drops them;
/// restore does so again, because a backup is not trusted to be without them.
pub const HUB_OWNED: [&str; 8] = [
    "managedFields",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// The group in an `apiVersion`: `apps` of `apps/v1`, empty of `v1`.
pub fn group_of(api_version: &str) -> &str {
    api_version.split_once('/').map_or("", |(group, _)| group)
}

/// Group, resource (plural), namespace and name of an object. Cluster-scoped objects have the
/// empty namespace, the core group is empty too.
///
/// One string `group/resource/namespace/name`, shared by all who name the object, because a hub has
/// hundreds of thousands of them; none of the parts can hold a slash (Kubernetes' path segment rule).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ObjectKey(Arc<str>);

#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{part} {value:?} cannot be part of an object's identity: {why}")]
pub struct BadKey {
    pub part: &'static str,
    pub value: String,
    pub why: &'static str,
}

impl ObjectKey {
    /// Accepts what an API server accepts as a path: no slash, no `%`, not `.` or `..`, no control
    /// characters, at most 253 bytes a part (253 is Kubernetes' limit for names).
    pub fn new(group: &str, resource: &str, namespace: &str, name: &str) -> Result<Self, BadKey> {
        for (part, value, may_be_empty) in [
            ("group", group, true),
            ("resource", resource, false),
            ("namespace", namespace, true),
            ("name", name, false),
        ] {
            let bad = |why| BadKey { part, value: value.to_owned(), why };
            if value.is_empty() && !may_be_empty {
                return Err(bad("it is empty"));
            }
            not_a_path_part(value).map_or(Ok(()), |why| Err(bad(why)))?;
        }
        Ok(Self(format!("{group}/{resource}/{namespace}/{name}").into()))
    }

    fn part(&self, index: usize) -> &str {
        self.0.splitn(4, '/').nth(index).expect("a key has four parts by construction")
    }

    pub fn group(&self) -> &str {
        self.part(0)
    }

    pub fn resource(&self) -> &str {
        self.part(1)
    }

    /// Empty for cluster-scoped objects.
    pub fn namespace(&self) -> &str {
        self.part(2)
    }

    pub fn name(&self) -> &str {
        self.part(3)
    }

    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group().into(), resource: self.resource().into() }
    }

    /// The path of the object at `version` on any API server. Some kinds (roles, for one) may have
    /// names with spaces or question marks, and a backup may say anything: unencoded, such a path would
    /// name another object.
    pub fn url_path(&self, version: &str) -> String {
        let mut path = self.collection_path(version);
        path.push('/');
        encode(&mut path, self.name(), b":");
        path
    }

    /// The path that takes the POST which creates the object.
    pub fn collection_path(&self, version: &str) -> String {
        let mut path = String::from(if self.group().is_empty() { "/api" } else { "/apis" });
        let namespaces = if self.namespace().is_empty() { "" } else { "namespaces" };
        for part in [self.group(), version, namespaces, self.namespace(), self.resource()] {
            if !part.is_empty() {
                path.push('/');
                encode(&mut path, part, b"");
            }
        }
        path
    }
}

/// Why a text cannot stand between two slashes of a path.
pub fn not_a_path_part(text: &str) -> Option<&'static str> {
    if text.len() > 253 {
        return Some("it is longer than 253 bytes");
    }
    if text == "." || text == ".." {
        return Some("it is a relative path");
    }
    let odd = text.chars().any(|c| c == '/' || c == '%' || c.is_control());
    odd.then_some("it holds a slash, a percent sign or a control character")
}

/// Appends `text` with all but the unreserved characters (RFC 3986 §2.1) and those in `keep` encoded.
pub fn encode(url: &mut String, text: &str, keep: &[u8]) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || keep.contains(&byte) {
            url.push(char::from(byte));
        } else {
            // Writing into a String cannot fail.
            let _ = write!(url, "%{byte:02X}");
        }
    }
}

/// `configmaps ns/name`, `managedclusters.cluster.open-cluster-management.io c1`: as kubectl prints.
impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (group, namespace) = (self.group(), self.namespace());
        let (dot, slash) =
            (if group.is_empty() { "" } else { "." }, if namespace.is_empty() { "" } else { "/" });
        write!(f, "{}{dot}{group} {namespace}{slash}{}", self.resource(), self.name())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for ObjectKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        [self.group(), self.resource(), self.namespace(), self.name()].serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for ObjectKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let [group, resource, namespace, name] =
            <[std::borrow::Cow<'de, str>; 4]>::deserialize(deserializer)?;
        Self::new(&group, &resource, &namespace, &name).map_err(D::Error::custom)
    }
}

/// A kind by its plural: what RBAC rules and URLs are made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct GroupResource {
    pub group: String,
    pub resource: String,
}

impl GroupResource {
    /// All kinds of an API group that could not be read at all.
    pub fn whole_group(group: &str) -> Self {
        Self { group: group.to_owned(), resource: "*".to_owned() }
    }

    /// Whether `kind` is this one, or of this whole group.
    pub fn covers(&self, kind: &GroupResource) -> bool {
        self.group == kind.group && (self.resource == "*" || self.resource == kind.resource)
    }
}

impl fmt::Display for GroupResource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        Ok(())
    }
}

/// A kind as an API server serves it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Kind {
    pub group: String,
    pub version: String,
    /// `ConfigMap`
    pub kind: String,
    /// `configmaps`
    pub resource: String,
    pub namespaced: bool,
    /// Names under which clients ask for several kinds at once: `all`, Crossplane's `managed`.
    pub categories: Vec<String>,
}

impl Kind {
    pub fn group_resource(&self) -> GroupResource {
        GroupResource { group: self.group.clone(), resource: self.resource.clone() }
    }

    /// `v1`, `apps/v1`
    pub fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.clone()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// The path that lists the kind over all namespaces.
    pub fn list_path(&self) -> String {
        if self.group.is_empty() {
            format!("/api/{}/{}", self.version, self.resource)
        } else {
            format!("/apis/{}/{}/{}", self.group, self.version, self.resource)
        }
    }
}

/// The three sets of a backup; see `product.md` for what belongs where.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Set {
    Credentials,
    Resources,
    Activation,
}

impl Set {
    pub const ALL: [Set; 3] = [Set::Credentials, Set::Resources, Set::Activation];

    pub fn name(self) -> &'static str {
        match self {
            Set::Credentials => "credentials",
            Set::Resources => "resources",
            Set::Activation => "activation",
        }
    }
}

impl fmt::Display for Set {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// SHA-256. Hexadecimal in JSON and in text.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest(pub [u8; 32]);

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, bytes);
        Self(digest.as_ref().try_into().expect("SHA-256 has 32 bytes"))
    }

    /// The first 16 hexadecimal digits: enough to tell two versions of one object apart.
    pub fn short(&self) -> String {
        self.to_string()[..16].to_owned()
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl std::str::FromStr for Digest {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        const WHY: &str = "a SHA-256 has 64 hexadecimal digits";
        if text.len() != 64
            || !text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
        {
            return Err(WHY);
        }
        let mut digest = [0; 32];
        for (byte, pair) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| WHY)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| WHY)?;
        }
        Ok(Self(digest))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        std::borrow::Cow::<'de, str>::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_gives_its_parts_and_paths_back() {
        let key = ObjectKey::new("apps", "deployments", "ns", "a.b:c").unwrap();
        assert_eq!(
            (key.group(), key.resource(), key.namespace(), key.name()),
            ("apps", "deployments", "ns", "a.b:c")
        );
        assert_eq!(key.url_path("v1"), "/apis/apps/v1/namespaces/ns/deployments/a.b:c");
        assert_eq!(key.to_string(), "deployments.apps ns/a.b:c");
        let odd = ObjectKey::new("", "configmaps", "ns", "a b?c#ä").unwrap();
        assert_eq!(odd.url_path("v1"), "/api/v1/namespaces/ns/configmaps/a%20b%3Fc%23%C3%A4");
        let hostile = ObjectKey::new("g?", "r#", "n s", "x").unwrap();
        let path = "/apis/g%3F/v1%2F..%2Fv2%3F/namespaces/n%20s/r%23/x";
        assert_eq!(hostile.url_path("v1/../v2?"), path);
        let core = ObjectKey::new("", "namespaces", "", "x").unwrap();
        assert_eq!(core.url_path("v1"), "/api/v1/namespaces/x");
        assert_eq!(serde_json::to_string(&core).unwrap(), r#"["","namespaces","","x"]"#);
        assert_eq!(serde_json::from_str::<ObjectKey>(r#"["","namespaces","","x"]"#).unwrap(), core);
    }

    #[test]
    fn a_key_that_could_leave_its_path_is_refused() {
        for (group, resource, namespace, name) in [
            ("", "configmaps", "ns", ""),
            ("", "", "ns", "x"),
            ("", "configmaps", "ns", "../x"),
            ("", "configmaps", "ns", ".."),
            ("", "configmaps", "n/s", "x"),
            ("", "configmaps", "ns", "a%2fb"),
            ("", "configmaps", "ns", "a\nb"),
            ("", "configmaps", "ns", &"x".repeat(254)),
        ] {
            assert!(
                ObjectKey::new(group, resource, namespace, name).is_err(),
                "{namespace}/{name}"
            );
        }
    }

    #[test]
    fn a_digest_reads_only_what_it_writes() {
        let digest = Digest::of(b"abc");
        assert_eq!(
            digest.to_string(),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert!(digest.to_string().to_uppercase().parse::<Digest>().is_err());
        assert!("+1".repeat(32).parse::<Digest>().is_err());
    }
}
