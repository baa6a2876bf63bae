//! Reads the configuration file and makes [`Settings`] of it. What may go wrong is told all at once.

use super::errors::{ConfigError, ConfigErrors, Place};
use super::settings::Settings;
use super::tree::Tree;
use super::{overrides, settle, typed};
use std::io::Read;
use std::path::Path;

/// A configuration is written by hand; what is larger is another file.
const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// The settings of `file`, overridden by the variables `UNDERSTUDY_…` among `env`. Relative paths in
/// the file are taken from its own folder.
pub fn load(
    file: &Path,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigErrors> {
    let text = read(file).map_err(|cause| {
        let hint = "name the file with --config FILE".to_owned();
        let what = format!("failed to read the configuration: {cause}");
        let error = ConfigError { place: Place::File, key: String::new(), what, hint };
        ConfigErrors { file: file.to_owned(), errors: vec![error] }
    })?;
    understand(file, &text, env)
}

fn read(file: &Path) -> std::io::Result<String> {
    let mut text = String::new();
    std::fs::File::open(file)?.take(MAX_FILE_BYTES + 1).read_to_string(&mut text)?;
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(std::io::Error::other("it is larger than 1 MiB"));
    }
    Ok(text)
}

fn understand(
    file: &Path,
    text: &str,
    env: impl Iterator<Item = (String, String)>,
) -> Result<Settings, ConfigErrors> {
    let fail = |errors| ConfigErrors { file: file.to_owned(), errors };
    let mut tree = Tree::parse(text).map_err(|error| fail(vec![error]))?;
    let mut errors = overrides::apply(&mut tree, env);
    if let Some(written) = typed::read(&mut tree, &mut errors) {
        let folder = file.parent().unwrap_or(Path::new(""));
        let settings = settle::settle(written, &tree, folder, &mut errors);
        if errors.is_empty() {
            return Ok(settings);
        }
    }
    errors.sort_by_key(|error| match &error.place {
        Place::File => (0, 0),
        Place::Line { line, column: _ } => (1, *line),
        Place::Variable(_) => (2, 0),
    });
    Err(fail(errors))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::settings::{InitialRole, Location};
    use std::time::Duration;

    const LEAST: &str = "apiVersion: understudy.dev/v1alpha1\nkind: HubConfig\nhub: {name: a, pair: p}\nstorage: {directory: repo}\nencryption: {keyFiles: [keys/k]}\npresets: [ocm]\n";

    fn settings(text: &str, env: &[(&str, &str)]) -> Result<Settings, ConfigErrors> {
        let env = env.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        understand(Path::new("dir/hub.yaml"), text, env)
    }

    /// The errors of the least configuration with `text` behind it, without the file's name.
    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        check_file(&format!("{LEAST}{text}"), &[], expected);
    }

    #[track_caller]
    fn check_file(text: &str, env: &[(&str, &str)], expected: &[&str]) {
        let errors = settings(text, env).expect_err(text).to_string();
        let errors: Vec<&str> =
            errors.lines().map(|line| line.strip_prefix("dir/hub.yaml:").unwrap_or(line)).collect();
        assert_eq!(errors, expected);
    }

    #[test]
    fn the_least_configuration_has_all_defaults() {
        let settings = settings(LEAST, &[]).unwrap();
        assert_eq!(settings.hub.initial_role, InitialRole::Passive);
        assert_eq!(settings.hub.heartbeat, Duration::from_secs(10));
        assert_eq!(settings.storage.location, Location::Directory("dir/repo".into()));
        assert_eq!(settings.encryption.key_files, [Path::new("dir/keys/k")]);
        assert_eq!(settings.kubernetes.max_in_flight, 32);
        assert_eq!(settings.storage.poll_interval, Duration::from_secs(10));
        assert_eq!(settings.storage.probe_interval, Duration::from_mins(1));
        assert_eq!(settings.schedule.cron.to_string(), "*/30 * * * * UTC");
        assert!(settings.schedule.on_start && settings.schedule.record_unchanged);
        assert_eq!(
            (settings.schedule.jitter, settings.schedule.max_shrink),
            (Duration::from_secs(30), 0.3)
        );
        assert_eq!(settings.retention.keep_last, 48);
        assert!(settings.passive.prune);
        assert_eq!((settings.passive.max_deletes, settings.passive.max_shrink), (500, 0.3));
        assert_eq!(settings.promotion.primary_silence, Duration::from_mins(1));
        assert_eq!(settings.http.listen.to_string(), "0.0.0.0:8080");
        assert_eq!(settings.http.base_path, "/");
        assert_eq!(settings.restore.adopt.len(), 2);
    }

    #[test]
    fn what_restoring_may_take_over_or_create_again_is_named() {
        check(
            "passive: {recreate: [secrets, namespaces]}\n",
            &[
                "7: passive.recreate[1]: namespaces are never deleted to be created again; take it out",
            ],
        );
        check(
            "passive: {conflict: [{name: a, policy: adopt}, {policy: keep}]}\n",
            &["7: passive.conflict[1]: names nothing; write group: \"*\" if every object is meant"],
        );
    }

    #[test]
    fn a_transform_names_what_it_is_for_and_touches_no_more_than_it_may() {
        check(
            "passive:\n  transforms:\n    - {patch: {a: 1}}\n    - {group: '*', patch: {a: 1}}\n    \
             - {kind: [Job, Secret], patch: {a: 1}}\n    - {kind: Job, patch: {kind: x}}\n    \
             - {kind: Job, patch: [1]}\n    - {kind: Job}\n    - {kind: Job, labels: a, patch: {}}\n",
            &[
                "9: passive.transforms[0]: names nothing; write group: \"*\" if every object is meant",
                "10: passive.transforms[1]: reaches Secrets, and an annotation would show what they hold; name other kinds, or another group than \"\"",
                "11: passive.transforms[2]: reaches Secrets, and an annotation would show what they hold; name other kinds, or another group than \"\"",
                "12: passive.transforms[3].patch: a transform may not touch kind",
                "13: passive.transforms[4].patch: expected a map, found sequence",
                "14: passive.transforms[5]: missing field `patch`",
                "15: passive.transforms[6].labels: unknown key; known here: group, kind, category, namespace, name, patch",
            ],
        );
        let rules = "passive: {transforms: [{kind: Job, name: a, patch: {}}, {kind: Job, \
                     patch: {spec: {suspend: true, x: null}}}]}\n";
        let settings = settings(&format!("{LEAST}{rules}"), &[]).unwrap();
        let [_, patched] = &settings.restore.transforms[..] else { panic!("there are two") };
        assert!(format!("{patched:?}").contains(r#""x":null"#), "{patched:?}");
    }

    #[test]
    fn the_shipped_examples_parse_and_differ_in_name_and_role_only() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("config");
        let load = |name: &str| load(&folder.join(name), std::iter::empty()).unwrap();
        let (primary, mut passive) = (load("primary.yaml"), load("passive.yaml"));
        assert_eq!(
            (primary.hub.name.as_str(), primary.hub.initial_role),
            ("eu-1", InitialRole::Primary)
        );
        assert_eq!(
            (passive.hub.name.as_str(), passive.hub.initial_role),
            ("eu-2", InitialRole::Passive)
        );
        passive.hub.name.clone_from(&primary.hub.name);
        passive.hub.initial_role = primary.hub.initial_role;
        assert_eq!(format!("{primary:?}"), format!("{passive:?}"));
    }

    #[test]
    fn an_empty_file_names_all_that_is_needed() {
        check_file(
            "# nothing\n",
            &[],
            &[
                "1: apiVersion: is missing; write apiVersion: understudy.dev/v1alpha1",
                "1: kind: is missing; write kind: HubConfig",
                "1: hub.name: is missing; name this hub, such as eu-1",
                "1: hub.pair: is missing; name the pair, the same on all its hubs",
                "1: presets: is missing; write what this hub runs, such as presets: [ocm] (there are ocm, acm, argocd, capi, crossplane, karmada, rancher), or rules under sets",
                "1: storage: is missing; write storage.s3 or storage.directory",
                "1: encryption.keyFiles: is missing; name at least one key file; understudy key new --out FILE makes one",
            ],
        );
    }

    #[test]
    fn all_errors_are_told_at_once_with_their_lines() {
        check_file(
            "apiVersion: understudy.dev/v2\nkind: HubConfig\nhub:\n  nmae: eu-1\n  name: Eu_1\n  pair: 7\n  heartbeat: 30\nstorage:\n  s3: {bukcet: b, endpoint: minio:9000}\nencryption:\npresets: [ocn]\nsets:\n  resources:\n    include:\n      - {kinds: A}\n      - {kind: A}\n      - {labels: \"a within (b)\"}\n      - {}\npassive: {maxShrink: 130%, prune: all}\nschedule: {cron: \"0 0 30 2 *\", timezone: Mars, maxShrink: 1/3}\nnotify: {}\n",
            &[],
            &[
                "1: apiVersion: \"understudy.dev/v2\" is not known to this version; write apiVersion: understudy.dev/v1alpha1",
                "4: hub.nmae: unknown key; did you mean name?",
                "5: hub.name: \"Eu_1\" is not a DNS label; up to 63 lower-case letters, digits and dashes, a letter or digit at both ends",
                "6: hub.pair: expected a string, found integer `7`; put it in quotes",
                "7: hub.heartbeat: expected a duration, found integer `30`; write it with its unit, such as 30s, 5m or 1h",
                "9: storage.s3.bukcet: unknown key; did you mean bucket?",
                "9: storage.s3.endpoint: \"minio:9000\" is not an address; write https://host or https://host:port",
                "9: storage.s3.bucket: is missing; name the bucket",
                "10: encryption.keyFiles: is missing; name at least one key file; understudy key new --out FILE makes one",
                "11: presets[0]: there is no preset \"ocn\"; did you mean ocm?",
                "15: sets.resources.include[0].kinds: unknown key; did you mean kind?",
                "17: sets.resources.include[2].labels: \"within\" is neither `in` nor `notin`",
                "18: sets.resources.include[3]: this rule names nothing and would match every object; write {group: \"*\"} if that is meant",
                "19: passive.maxShrink: \"130%\" is not a share; write it from 0% to 100%",
                "19: passive.prune: \"all\" is not known here; write none or restored",
                "20: schedule.maxShrink: \"1/3\" is not a share; write it from 0% to 100%",
                "20: schedule.timezone: there is no time zone \"Mars\"; write a name such as UTC or Europe/Berlin",
                "20: schedule.cron: \"0 0 30 2 *\" never fires: no month has such a day; write minute, hour, day of month, month and day of week, such as \"*/30 * * * *\"",
                "21: notify: unknown key; known here: apiVersion, kind, hub, kubernetes, storage, encryption, presets, sets, status, schedule, retention, passive, promotion, objectives, http, log",
            ],
        );
    }

    #[test]
    fn what_does_not_fit_together_is_told() {
        check(
            "promotion: {primarySilence: 20s}\nkubernetes: {maxInFlight: 0}\nhttp: {basePath: x}\nretention: {keepLast: 0}\npassive: {syncInterval: 0s, fullCheck: 1000y}\nlog: {level: \"a=b=c\"}\n",
            &[
                "7: promotion.primarySilence: is shorter than three heartbeats (hub.heartbeat is 10s); write at least 30s",
                "8: kubernetes.maxInFlight: 0 requests at once cannot be kept; write 1 to 1024",
                "9: http.basePath: \"x\" is not the path of a page; write / or words between slashes, such as /understudy",
                "10: retention.keepLast: at least one backup is kept; write 1 or more",
                "11: passive.syncInterval: is too short; 100ms is the shortest",
                "11: passive.fullCheck: is too long; ten years are the longest; m is minutes, M is months",
                "12: log.level: error parsing level filter: expected one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\", or a number 0-5; write error, warn, info, debug or trace, or info,understudy=debug",
            ],
        );
        let s3 = LEAST.replace("directory: repo", "s3: {bucket: hub}");
        let told = ["4: storage.s3.region: is missing; name the region, such as eu-central-1"];
        check_file(&s3, &[], &told);
        let both =
            LEAST.replace("directory: repo", "directory: repo, s3: {bucket: hub, region: x}");
        let told = [
            "4: storage.directory: there can be one storage only; keep storage.s3 or storage.directory",
        ];
        check_file(&both, &[], &told);
        let sealed = "s3: {bucket: hub, region: x, serverSideEncryption: AES256, kmsKeyId: k}";
        let told = [
            "4: storage.s3.kmsKeyId: is for aws:kms alone; write storage.s3.serverSideEncryption: aws:kms",
        ];
        check_file(&LEAST.replace("directory: repo", sealed), &[], &told);
        let twice = LEAST.replace("[ocm]", "[ocm, ocm]");
        check_file(&twice, &[], &["6: presets[1]: \"ocm\" stands there twice; take one out"]);
    }

    #[test]
    fn keys_that_are_documented_and_not_built_yet_are_refused() {
        for key in [
            "tracing: {}",
            "notify: {}",
            "http: {auth: none}",
            "http: {tls: {}}",
            "schedule: {missedRun: once}",
            "conflict: []",
            "recreate: []",
            "transforms: []",
            "onFenced: []",
        ] {
            let errors = settings(&format!("{LEAST}{key}\n"), &[]).expect_err(key);
            assert!(errors.to_string().contains("unknown key"), "{key}: {errors}");
        }
    }

    #[test]
    fn variables_stand_above_the_file_and_take_the_type_of_their_key() {
        let env = [
            ("UNDERSTUDY_HUB__NAME", "7"),
            ("UNDERSTUDY_KUBERNETES__MAXINFLIGHT", "64"),
            ("UNDERSTUDY_SCHEDULE__ONSTART", "false"),
            ("UNDERSTUDY_ENCRYPTION__KEYFILES", "/keys/one"),
            ("UNDERSTUDY_PASSIVE__ALLOWKINDS", "[secrets, roles.rbac.authorization.k8s.io]"),
            ("UNDERSTUDY_PASSIVE__FULLCHECK", "2h"),
        ];
        let settings = settings(LEAST, &env).unwrap();
        assert_eq!(settings.hub.name, "7");
        assert_eq!(settings.kubernetes.max_in_flight, 64);
        assert!(!settings.schedule.on_start);
        assert_eq!(settings.encryption.key_files, [Path::new("/keys/one")]);
        assert_eq!(settings.restore.allow_kinds.len(), 2);
        assert_eq!(settings.passive.full_check, Duration::from_hours(2));
    }

    #[test]
    fn what_a_variable_breaks_is_told_by_its_name() {
        check_file(
            LEAST,
            &[
                ("UNDERSTUDY_KUBERNETES__MAXINFLIGHT", "many"),
                ("UNDERSTUDY_HUB__NAME", "A"),
                ("UNDERSTUDY_HUB__NMAE", "a"),
                ("UNDERSTUDY_ENCRYPTION__KEYFILES", "[1]"),
            ],
            &[
                "UNDERSTUDY_HUB__NMAE: hub.nmae: there is no such key; did you mean name?",
                "UNDERSTUDY_ENCRYPTION__KEYFILES: encryption.keyFiles[0]: expected path string, found integer `1`; put it in quotes",
                "UNDERSTUDY_KUBERNETES__MAXINFLIGHT: kubernetes.maxInFlight: expected usize, found string \"many\"",
                "UNDERSTUDY_HUB__NAME: hub.name: \"A\" is not a DNS label; up to 63 lower-case letters, digits and dashes, a letter or digit at both ends",
            ],
        );
    }

    #[test]
    fn what_cannot_be_read_at_all_is_one_error() {
        let file = Path::new("does/not/exist.yaml");
        let errors = load(file, std::iter::empty()).expect_err("there is no such file").to_string();
        assert!(errors.starts_with("does/not/exist.yaml: failed to read"), "{errors}");
        let duplicate = format!("{LEAST}hub: {{}}\n");
        check_file(&duplicate, &[], &["7:1: not readable as YAML: duplicate mapping key: hub"]);
        check_file(
            "just words\n",
            &[],
            &["1: expected a map of keys, found string \"just words\""],
        );
        let list = LEAST.replace("{name: a, pair: p}", "[a, p]");
        check_file(&list, &[], &["3: hub: expected a map of keys, found a list; write key: value"]);
        let list = format!("{LEAST}sets: {{resources: {{include: [[g, k]]}}}}\n");
        let told = [
            "7: sets.resources.include[0]: expected a map of keys, found a list; write key: value",
        ];
        check_file(&list, &[], &told);
        check_file(
            "- a list\n",
            &[],
            &["1: expected a map of keys, found a list; write key: value"],
        );
    }

    #[test]
    fn more_errors_than_anybody_reads_come_to_an_end() {
        let keys: Vec<String> = (0..200).map(|n| format!("key{n}: 1\n")).collect();
        let errors = settings(&format!("{LEAST}{}", keys.concat()), &[]).unwrap_err();
        assert_eq!(errors.errors.len(), 50);
    }
}
