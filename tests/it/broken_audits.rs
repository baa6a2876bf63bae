//! The oracle over audit logs finds what it is there to find: a sound log is broken in every way that
//! it knows, and each time it says so.

use crate::harness::hub::{AuditEvent, DAEMON_USER, NAMESPACE};
use crate::harness::oracle::Oracle;
use jiff::{Timestamp, ToSpan as _};
use serde_json::{Value, json};
use understudy::object::ObjectKey;

type Change = fn(&mut AuditEvent);

fn event(user: &str, verb: &str, resource: &str, name: &str, code: u16) -> AuditEvent {
    let text = str::to_owned;
    let guards = json!({"preconditions": {"uid": "u", "resourceVersion": "7"}});
    AuditEvent {
        verb: text(verb),
        user: text(user),
        user_agent: String::new(),
        group: String::new(),
        resource: text(resource),
        subresource: String::new(),
        namespace: text("team"),
        name: text(name),
        at: Timestamp::UNIX_EPOCH + 10.hours(),
        code,
        dry_run: false,
        sent: if verb == "delete" { guards } else { Value::Null },
    }
}

/// What a daemon does on a good day; the last one is what is broken.
fn sound() -> Vec<AuditEvent> {
    let in_own = |event: AuditEvent| AuditEvent { namespace: NAMESPACE.to_owned(), ..event };
    let group = |event: AuditEvent, group: &str| AuditEvent { group: group.to_owned(), ..event };
    vec![
        group(in_own(event(DAEMON_USER, "patch", "hubs", "eu-2", 200)), "understudy.dev"),
        in_own(event(DAEMON_USER, "create", "configmaps", "state", 201)),
        in_own(event(DAEMON_USER, "create", "events", "e", 201)),
        AuditEvent {
            namespace: String::new(),
            ..group(
                event(DAEMON_USER, "create", "selfsubjectaccessreviews", "", 201),
                "authorization.k8s.io",
            )
        },
        event("admin", "create", "configmaps", "theirs", 201),
        event("admin", "create", "configmaps", "adopted", 201),
        event(DAEMON_USER, "create", "configmaps", "theirs", 409),
        event(DAEMON_USER, "create", "configmaps", "ours", 201),
        event(DAEMON_USER, "update", "configmaps", "adopted", 200),
        event(DAEMON_USER, "patch", "configmaps", "ours", 200),
        event(DAEMON_USER, "delete", "configmaps", "ours", 200),
        event(DAEMON_USER, "create", "clusters", "one", 201),
        event(DAEMON_USER, "create", "configmaps", "again", 201),
        event(DAEMON_USER, "delete", "configmaps", "again", 200),
    ]
}

fn key(resource: &str, name: &str) -> ObjectKey {
    ObjectKey::new("", resource, "team", name).expect("a good key")
}

fn judge(log: &[AuditEvent]) -> Vec<String> {
    let oracle = Oracle {
        held_back: [key("clusters", "one"), key("clusters", "two")].into(),
        term: Some(Timestamp::UNIX_EPOCH + 9.hours()),
        adopted: [key("configmaps", "adopted")].into(),
        allowed: vec!["customresourcedefinitions.apiextensions.k8s.io".to_owned()],
    };
    oracle.judge(log)
}

const BREAKS: &[(&str, Change)] = &[
    ("more than one object", |e| e.verb = "deletecollection".into()),
    ("Understudy's own", |e| e.group = "understudy.dev".into()),
    ("Understudy's own", |e| {
        (e.namespace, e.resource) = (NAMESPACE.into(), "secrets".into());
    }),
    ("Understudy's own", |e| {
        (e.namespace, e.resource, e.name) =
            (NAMESPACE.into(), "namespaces".into(), NAMESPACE.into());
    }),
    ("Kubernetes' own", |e| e.namespace = "kube-system".into()),
    ("belongs to the hub", |e| e.resource = "pods".into()),
    ("belongs to the hub", |e| {
        (e.group, e.resource) = ("events.k8s.io".into(), "events".into());
    }),
    ("not allowed", |e| {
        (e.group, e.resource) = ("rbac.authorization.k8s.io".into(), "roles".into());
    }),
    ("held back", |e| {
        (e.verb, e.resource, e.name) = ("create".into(), "clusters".into(), "two".into());
        e.at = Timestamp::UNIX_EPOCH;
    }),
    ("made by somebody else", |e| (e.verb, e.name) = ("update".into(), "theirs".into())),
    ("not made by the daemon", |e| e.name = "theirs".into()),
    ("not made by the daemon", |e| e.name = "adopted".into()),
    ("not made by the daemon", |e| e.name = "unheard".into()),
    ("any object of that name", |e| e.sent = Value::Null),
    ("any object of that name", |e| {
        e.sent = json!({"preconditions": {"uid": "", "resourceVersion": "7"}});
    }),
    ("whatever it became", |e| e.sent = json!({"preconditions": {"uid": "u"}})),
];

#[test]
fn the_oracle_finds_every_offence() {
    assert_eq!(judge(&sound()), [""; 0]);
    for (expected, change) in BREAKS {
        let mut log = sound();
        log.iter_mut().next_back().into_iter().for_each(change);
        let offences = judge(&log);
        assert!(offences.len() == 1 && offences[0].contains(expected), "{expected}: {offences:?}");
    }
}

#[test]
fn what_looks_like_an_offence_and_is_none() {
    let changes: [Change; 5] = [
        |e| (e.user, e.resource) = ("admin".into(), "pods".into()),
        |e| (e.dry_run, e.resource) = (true, "pods".into()),
        |e| (e.verb, e.resource) = ("list".into(), "pods".into()),
        // To be made anew: what it owns stays.
        |e| {
            e.sent = json!({"propagationPolicy": "Orphan", "preconditions": {"uid": "u"}});
        },
        |e| {
            e.group = "apiextensions.k8s.io".into();
            (e.verb, e.resource) = ("create".into(), "customresourcedefinitions".into());
        },
    ];
    for change in changes {
        let mut log = sound();
        log.iter_mut().next_back().into_iter().for_each(change);
        assert_eq!(judge(&log), [""; 0]);
    }
}
