//! Pure: a plan as it is printed and kept in a file: which backup, which hub, and every step. Fields
//! may be added, never renamed.
//!
//! A file is not trusted: it says what shall be done, and the plan is made again and compared before
//! anything is.

use super::steps::{Act, Existing, Step};
use crate::http::API_VERSION;
use crate::object::{BadKey, Digest, ObjectKey, Set};
use crate::repository::layout::Mark;
use serde::{Deserialize, Serialize};

const KIND: &str = "Plan";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Saved {
    api_version: String,
    kind: String,
    pub backup: Backup,
    pub hub: Hub,
    pub existing: Existing,
    /// Whether the activation set was asked for.
    #[serde(default)]
    pub activation: bool,
    steps: Vec<SavedStep>,
    /// Exist and are the same.
    pub unchanged: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub id: String,
    #[serde(flatten)]
    pub mark: Mark,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hub {
    pub name: String,
    /// Of its namespace `kube-system`.
    pub uid: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SavedStep {
    act: Act,
    set: Set,
    group: String,
    resource: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    namespace: String,
    name: String,
    /// Where it stands in the backup, if that is elsewhere.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    from: Option<ObjectKey>,
    digest: Digest,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_version: Option<Box<str>>,
    why: String,
}

#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    #[error("it is not a plan")]
    NotAPlan(#[source] serde_json::Error),
    #[error("it is a {kind} of {api_version}, not a plan of {API_VERSION}")]
    Other { kind: String, api_version: String },
    #[error(transparent)]
    Key(#[from] BadKey),
}

impl Saved {
    pub fn new(
        backup: Backup,
        hub: Hub,
        existing: Existing,
        activation: bool,
        steps: &[Step],
    ) -> Self {
        let told = steps.iter().filter(|step| step.act != Act::Unchanged);
        let told: Vec<SavedStep> = told.map(SavedStep::of).collect();
        Self {
            api_version: API_VERSION.to_owned(),
            kind: KIND.to_owned(),
            backup,
            hub,
            existing,
            activation,
            unchanged: steps.len() - told.len(),
            steps: told,
        }
    }

    pub fn read(bytes: &[u8]) -> Result<Self, SavedError> {
        let saved: Self = serde_json::from_slice(bytes).map_err(SavedError::NotAPlan)?;
        if saved.kind != KIND || saved.api_version != API_VERSION {
            let Self { kind, api_version, .. } = saved;
            return Err(SavedError::Other { kind, api_version });
        }
        Ok(saved)
    }

    pub fn steps(&self) -> Result<Vec<Step>, BadKey> {
        self.steps.iter().map(SavedStep::step).collect()
    }
}

impl SavedStep {
    fn of(step: &Step) -> Self {
        let Step { act, key, from, set, digest, live, why } = step;
        let (uid, resource_version) = live.clone().unzip();
        Self {
            act: *act,
            set: *set,
            group: key.group().to_owned(),
            resource: key.resource().to_owned(),
            namespace: key.namespace().to_owned(),
            name: key.name().to_owned(),
            from: (from != key).then(|| from.clone()),
            digest: *digest,
            uid,
            resource_version,
            why: why.clone(),
        }
    }

    fn step(&self) -> Result<Step, BadKey> {
        let key = ObjectKey::new(&self.group, &self.resource, &self.namespace, &self.name)?;
        Ok(Step {
            act: self.act,
            from: self.from.clone().unwrap_or_else(|| key.clone()),
            key,
            set: self.set,
            digest: self.digest,
            live: self.uid.clone().zip(self.resource_version.clone()),
            why: self.why.clone(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::testing::key;

    fn saved() -> (Saved, Vec<Step>) {
        let step = |act, name: &str, from: &str, live: Option<(&str, &str)>| Step {
            act,
            key: key(name),
            from: key(from),
            set: Set::Resources,
            digest: Digest::of(b"abc"),
            live: live.map(|(uid, version)| (uid.into(), version.into())),
            why: "because".to_owned(),
        };
        let steps = vec![
            step(Act::Create, "x.io/parts/b/p", "x.io/parts/a/p", None),
            step(Act::Update, "x.io/things//t", "x.io/things//t", Some(("u", "7"))),
            step(Act::Unchanged, "x.io/things//s", "x.io/things//s", Some(("v", "8"))),
        ];
        let mark = Mark { slot: 42, sha256: Digest::of(b"record") };
        let backup = Backup { id: "20261120-173000-42".to_owned(), mark };
        let hub = Hub { name: "eu-1".to_owned(), uid: "uid-1".to_owned() };
        (Saved::new(backup, hub, Existing::Update, false, &steps), steps)
    }

    #[test]
    fn a_plan_reads_back_and_its_form_is_kept() {
        let (saved, steps) = saved();
        let text = serde_json::to_string_pretty(&saved).unwrap();
        assert_eq!(
            text,
            r#"{
  "apiVersion": "understudy.dev/v1",
  "kind": "Plan",
  "backup": {
    "id": "20261120-173000-42",
    "slot": 42,
    "sha256": "RECORD"
  },
  "hub": {
    "name": "eu-1",
    "uid": "uid-1"
  },
  "existing": "update",
  "activation": false,
  "steps": [
    {
      "act": "create",
      "set": "resources",
      "group": "x.io",
      "resource": "parts",
      "namespace": "b",
      "name": "p",
      "from": [
        "x.io",
        "parts",
        "a",
        "p"
      ],
      "digest": "DIGEST",
      "why": "because"
    },
    {
      "act": "update",
      "set": "resources",
      "group": "x.io",
      "resource": "things",
      "name": "t",
      "digest": "DIGEST",
      "uid": "u",
      "resourceVersion": "7",
      "why": "because"
    }
  ],
  "unchanged": 1
}"#
            .replace("RECORD", &Digest::of(b"record").to_string())
            .replace("DIGEST", &Digest::of(b"abc").to_string())
        );
        let read = Saved::read(text.as_bytes()).unwrap();
        assert_eq!(read, saved);
        assert_eq!(read.steps().unwrap(), steps[..2]);
    }

    #[test]
    fn what_is_not_a_plan_of_this_version_is_refused() {
        let text = serde_json::to_string(&saved().0).unwrap();
        for (from, to) in [
            (r#""kind":"Plan""#, r#""kind":"BackupList""#),
            ("understudy.dev/v1", "understudy.dev/v2"),
            (r#""act":"create""#, r#""act":"delete""#),
            ("uid-1", "\u{1}"),
        ] {
            assert!(Saved::read(text.replacen(from, to, 1).as_bytes()).is_err(), "{from}");
        }
        let hostile = text.replacen(r#""name":"p""#, r#""name":"../p""#, 1);
        assert!(Saved::read(hostile.as_bytes()).unwrap().steps().is_err());
    }
}
