//! Whatever stands where a record, a pack or a name should stand: it is refused or read, and never
//! harms who reads it (F28, F29). Most of it is authentic, because a reader looks at nothing else: the
//! writer is out of its mind, or the key is stolen.
//!
//! `UNDERSTUDY_CAMPAIGN=N` multiplies the number of cases by N.

use crate::Result;
use crate::make;
use proptest::prelude::*;
use proptest::sample::Index;
use serde_json::{Value, json};
use std::io::Write as _;
use std::ops::ControlFlow;
use std::process::Command;
use std::sync::{Arc, LazyLock};
use understudy::clock;
use understudy::object::{Digest, ObjectKey, Set};
use understudy::repository::chain::View;
use understudy::repository::keys::Keys;
use understudy::repository::layout::{self, PackName};
use understudy::repository::pack::{self, PackError};
use understudy::repository::record::{self, Found, PackRef};

const MIB: u64 = 1024 * 1024;

/// What reading a bomb may take beside the program itself: a few buffers, and lines of 20 MiB.
const MEMORY_LIMIT_KIB: u64 = 160 * 1024;

fn config(cases: u32) -> ProptestConfig {
    let times = std::env::var("UNDERSTUDY_CAMPAIGN").ok().and_then(|times| times.parse().ok());
    let cases = cases.saturating_mul(times.unwrap_or(1));
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

static KEYS: LazyLock<Arc<Keys>> = LazyLock::new(|| {
    let folder = tempfile::tempdir().expect("a temporary folder");
    make::new_keys(&folder.path().join("key")).expect("a new key")
});

/// A record as the library writes it, but for what it says.
fn signed(line: &[u8]) -> Vec<u8> {
    let mac = KEYS.sign(&[b"record\n", line].concat());
    [line, b"\n", mac.as_bytes(), b"\n"].concat()
}

fn mark() -> Value {
    json!({"slot": 3, "sha256": "0".repeat(64)})
}

/// The bodies of all kinds, with every field.
fn bodies() -> Vec<Value> {
    let pack = json!({"name": "1-3-01KAJ00000000000000000000A", "length": 1000, "sha256": "0".repeat(64), "lines": 2});
    let set = json!({"levels": [{"packs": [pack]}, {"packs": [pack, pack]}], "objects": 5, "changed": 1, "kinds": {"secrets": 5}});
    let kind = json!({"group": "g", "resource": "r"});
    vec![
        json!({"kind": "Init"}),
        json!({"kind": "Term", "request": "x", "skips": [mark()]}),
        json!({"kind": "Open"}),
        json!({"kind": "Activated", "failed": ["x"]}),
        json!({"kind": "Commit", "sets": {"credentials": set, "resources": set, "activation": set},
            "cut": {"revision": "1", "apart": [kind]}, "rules": "0".repeat(64), "suspect": "x", "partial": [kind]}),
    ]
}

fn record_with(body: &Value) -> Value {
    json!({"repository": "r", "slot": 4, "epoch": 1, "incarnation": 3, "hub": {"name": "a", "uid": "u"},
        "nonce": "n", "prev": mark(), "key": KEYS.id(), "writer": "w", "at": "2026-11-20T17:30:07Z", "body": body})
}

/// What may stand in the place of any value.
fn oddities() -> Vec<Value> {
    let deep = (0..120).fold(Value::Null, |inner, _| json!([inner]));
    let numbers = [json!(u64::MAX), json!(i64::MIN), json!(-1), json!(1_u64 << 53), json!(1e308)];
    let texts = [json!(""), json!("x".repeat(3000)), json!("\u{0}\u{202e}ü")];
    [&numbers[..], &texts, &[Value::Null, json!(true), json!([]), json!({}), deep]].concat()
}

fn odd() -> impl Strategy<Value = Value> {
    let known = proptest::sample::select(oddities());
    let text = any::<String>().prop_map(Value::from);
    prop_oneof![4 => known, 1 => text, 1 => any::<u64>().prop_map(Value::from)]
}

/// Where something stands in a value, outermost first.
fn places(value: &Value, at: &str, found: &mut Vec<String>) {
    found.push(at.to_owned());
    match value {
        Value::Array(values) => {
            let numbered = values.iter().enumerate();
            numbered.for_each(|(number, value)| places(value, &format!("{at}/{number}"), found));
        }
        Value::Object(fields) => {
            fields.iter().for_each(|(name, value)| places(value, &format!("{at}/{name}"), found));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Puts something odd into one of the places, or adds it there.
fn change(value: &mut Value, place: Index, add: bool, odd: Value) {
    let mut found = vec![];
    places(value, "", &mut found);
    let there =
        value.pointer_mut(place.get(found.as_slice()).as_str()).expect("it was found there");
    if add && let Some(fields) = there.as_object_mut() {
        fields.insert("odd".to_owned(), odd);
    } else if add && let Some(values) = there.as_array_mut() {
        values.push(odd);
    } else {
        *there = odd;
    }
}

/// Follows a journal in which the bytes stand in slot 4, behind an `Init`, a `Term` and an `Open`.
fn follow(bytes: &[u8]) -> (Found, View) {
    let mut view = View::default();
    let before = [("Init", 0), ("Term", 1), ("Open", 1)];
    for (slot, (kind, epoch)) in (1..).zip(before) {
        let mut record = record_with(&json!({"kind": kind, "request": "first"}));
        record["slot"] = json!(slot);
        record["epoch"] = json!(epoch);
        record["incarnation"] = json!(0);
        record["prev"] = json!(view.last);
        let bytes = signed(record.to_string().as_bytes());
        view.step(record::decode(&bytes, "r", slot, &KEYS), Digest::of(&bytes));
    }
    assert_eq!((view.frozen.as_ref(), view.incarnation), (None, 3));
    let found = record::decode(bytes, "r", 4, &KEYS);
    view.last = view.last.map(|_| serde_json::from_value(mark()).expect("it is a mark"));
    view.step(found.clone(), Digest::of(bytes));
    (found, view)
}

#[test]
fn an_authentic_record_with_something_odd_in_any_place_harms_nobody() {
    for body in bodies() {
        let mut found = vec![];
        places(&record_with(&body), "", &mut found);
        for place in found {
            for odd in oddities() {
                let mut record = record_with(&body);
                *record.pointer_mut(&place).expect("it was found there") = odd;
                follow(&signed(record.to_string().as_bytes()));
            }
        }
    }
}

proptest! {
    #![proptest_config(config(256))]

    #[test]
    fn bytes_that_nobody_signed_are_never_a_record(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let found = record::decode(&bytes, "r", 1, &KEYS);
        prop_assert!(matches!(found, Found::Junk { .. }), "{found:?}");
        prop_assert!(record::decode_repo(&bytes, &KEYS).is_err());
        prop_assert!(record::decode_beat(&bytes, "r", &KEYS).is_err());
        let lines = signed(&bytes);
        let found = record::decode(&lines, "r", 1, &KEYS);
        prop_assert!(!matches!(found, Found::Record(_)), "{found:?}");
    }

    /// Where it can be read, it says what it says; where it cannot, it freezes.
    #[test]
    fn an_authentic_record_that_is_odd_is_followed_or_freezes(
        body in proptest::sample::select(bodies()),
        changes in proptest::collection::vec((any::<Index>(), any::<bool>(), odd()), 0..3),
    ) {
        let mut written = record_with(&body);
        for (place, add, odd) in changes {
            change(&mut written, place, add, odd);
        }
        let bytes = signed(written.to_string().as_bytes());
        let (found, view) = follow(&bytes);
        match found {
            Found::Record(record) => {
                let again = record::encode(&record, &KEYS);
                prop_assert_eq!(record::decode(&again, "r", 4, &KEYS), Found::Record(record));
            }
            Found::Junk { .. } | Found::UnknownKey { .. } | Found::Newer { .. } => {
                prop_assert!(view.frozen.is_some());
            }
        }
        prop_assert!(view.backups.len() <= 1 && view.epoch <= 2);
    }

    /// Sealed, and named by its commit as it is.
    #[test]
    fn a_pack_that_is_odd_is_refused_or_read_to_its_end(
        lines in proptest::collection::vec(line(), 0..6),
        claimed in 0_u64..6,
        end in proptest::sample::select(vec!["\n", "", "\n\n", "\u{0}"]),
    ) {
        let plain = [lines.join("\n").as_bytes(), end.as_bytes()].concat();
        let compressed = zstd::encode_all(plain.as_slice(), 1).expect("to memory");
        let (sealed, reference) = seal(&compressed, claimed);
        let mut read = 0;
        let outcome = pack::read(&sealed, &reference, "r", Set::Resources, &KEYS, |_| {
            read += 1;
            ControlFlow::Continue(())
        });
        prop_assert!(read <= claimed);
        prop_assert_eq!(outcome.is_ok(), outcome.is_ok() && read == claimed && !lines.is_empty());
    }

    /// Whatever is decrypted, it need not be zstd.
    #[test]
    fn sealed_noise_is_refused(noise in proptest::collection::vec(any::<u8>(), 0..2000)) {
        let frame = [&[0x28, 0xb5, 0x2f, 0xfd][..], &noise].concat();
        for content in [&noise, &frame] {
            let (sealed, reference) = seal(content, 1);
            prop_assert!(read(&sealed, &reference).is_err());
        }
        let reference = PackRef { length: noise.len() as u64, sha256: Digest::of(&noise), ..name(1) };
        prop_assert!(read(&noise, &reference).is_err());
    }

    /// A name is what we would have written, to the letter, or it is none.
    #[test]
    fn names_read_back_or_are_refused(text in name_like()) {
        if let Some(slot) = layout::slot_of_key(&text) {
            prop_assert_eq!(layout::journal_key(slot), text.clone());
        }
        if let Ok(name) = PackName::try_from(text.clone()) {
            prop_assert_eq!(name.to_string(), text.clone());
            prop_assert!(text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
        }
        if let Some(slot) = layout::slot_of_backup_id(&text) {
            prop_assert!(text.ends_with(|c: char| c.is_ascii_digit()), "{}", slot);
        }
        for parts in [["", "r", "ns", text.as_str()], [&text, "r", "", "n"], ["g", &text, &text, "n"]] {
            let [group, resource, namespace, name] = parts;
            if let Ok(key) = ObjectKey::new(group, resource, namespace, name) {
                prop_assert_eq!([key.group(), key.resource(), key.namespace(), key.name()], parts);
                let path = key.url_path("v1?/");
                let parts = parts.iter().filter(|part| !part.is_empty()).count();
                let fixed = if namespace.is_empty() { 3 } else { 4 };
                prop_assert_eq!(path.split('/').count(), parts + fixed, "{}", path);
                prop_assert!(path.split('/').all(|part| part != ".." && part != "."), "{}", path);
                prop_assert!(!path.contains(['?', '#', ' ', '\\']), "{}", path);
            }
        }
    }

    /// No file beside the repository is read or written, whatever the key.
    #[test]
    fn no_key_leaves_the_folder(key in name_like()) {
        let scratch = tempfile::tempdir()?;
        let root = scratch.path().join("repository");
        std::fs::create_dir_all(root.join("journal"))?;
        std::fs::write(scratch.path().join("secret"), "secret")?;
        std::os::unix::fs::symlink(scratch.path().join("secret"), root.join("journal/link"))?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let storage = make::storage(&root).await.expect("a folder");
            if let Ok(Some(stored)) = storage.get(&key, 1000).await {
                assert_ne!(&stored.bytes[..], b"secret", "{key}");
            }
            let _ = storage.create(&key, "mine".into()).await;
            let _ = storage.put(&key, "mine".into()).await;
            let _ = storage.delete(&key).await;
        });
        prop_assert_eq!(std::fs::read(scratch.path().join("secret"))?, b"secret");
        prop_assert_eq!(std::fs::read_dir(scratch.path())?.count(), 2);
    }
}

/// A line of a pack, a header, either of them changed, or anything.
fn line() -> impl Strategy<Value = String> {
    let header = json!({"format": 1, "repository": "r", "epoch": 1, "set": "resources", "index": 0, "revision": "5"});
    let object = json!({"key": ["", "configmaps", "ns", "x"], "version": "v1", "uid": "u", "resourceVersion": "7",
        "object": {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "K", "name": "n", "uid": "u"}]}}});
    let gone = json!({"key": ["", "configmaps", "ns", "y"], "gone": "deleted"});
    let known = proptest::sample::select(vec![header, object, gone]);
    let changed = (known.clone(), any::<Index>(), any::<bool>(), odd());
    let changed = changed.prop_map(|(mut line, place, add, odd)| {
        change(&mut line, place, add, odd);
        line.to_string()
    });
    prop_oneof![3 => known.prop_map(|line| line.to_string()), 3 => changed, 1 => any::<String>()]
}

/// Pieces of names and of what must not be in them.
fn name_like() -> impl Strategy<Value = String> {
    let pieces = vec![
        "journal/",
        "packs/",
        "00000000000000000001",
        "99999999999999999999",
        "1-2-",
        "01-2-",
        "3",
        "01KAJ00000000000000000000A",
        "8ZZZZZZZZZZZZZZZZZZZZZZZZZ",
        "..",
        "/",
        ".",
        "secret",
        "link",
        "repository",
        "%2e",
        "\0",
        "\n",
        " ",
        "\\",
        "?",
        "#",
        "-",
        "ü",
        "a",
        "20261120-173007-42",
    ];
    let piece = prop_oneof![8 => proptest::sample::select(pieces).prop_map(str::to_owned), 1 => any::<String>()];
    proptest::collection::vec(piece, 0..6).prop_map(|pieces| pieces.concat())
}

fn name(lines: u64) -> PackRef {
    let name = PackName::new(1, 1, ulid::Ulid::nil());
    PackRef { name, length: 0, sha256: Digest([0; 32]), lines }
}

/// What a commit names: nothing that is wrong with it shows from outside.
fn seal(content: &[u8], lines: u64) -> (Vec<u8>, PackRef) {
    let mut writer = KEYS.seal(Vec::new()).expect("to memory");
    writer.write_all(content).expect("to memory");
    let sealed = writer.finish().expect("to memory");
    let reference =
        PackRef { length: sealed.len() as u64, sha256: Digest::of(&sealed), ..name(lines) };
    (sealed, reference)
}

fn read(sealed: &[u8], reference: &PackRef) -> std::result::Result<(), PackError> {
    pack::read(sealed, reference, "r", Set::Resources, &KEYS, |_| ControlFlow::Continue(()))
}

/// A zstd frame of one byte, as often as told in MiB: four bytes for each 128 KiB.
fn run_of(byte: u8, window_log: u8, mebibytes: u64) -> Vec<u8> {
    let block = |last: u8| [(1 << 1) | last, 0, 0x10, byte];
    let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, (window_log - 10) << 3];
    (1..mebibytes * 8).for_each(|_| frame.extend(block(0)));
    frame.extend(block(1));
    frame
}

const HEADER: &str =
    r#"{"format":1,"repository":"r","epoch":1,"set":"resources","index":0,"revision":"5"}"#;

fn compressed(text: &str) -> Vec<u8> {
    zstd::encode_all(text.as_bytes(), 1).expect("to memory")
}

#[test]
fn a_frame_made_by_hand_is_one() -> Result<()> {
    let plain = zstd::decode_all(run_of(b'x', 23, 3).as_slice())?;
    assert!(plain.len() as u64 == 3 * MIB && plain.iter().all(|byte| *byte == b'x'));
    Ok(())
}

/// In a process of its own, whose memory tells what reading them takes.
#[test]
fn a_bomb_ends_with_an_error_and_takes_no_memory() -> Result<()> {
    let child = Command::new(std::env::current_exe()?)
        .args(["--ignored", "--exact", "fuzz::bombs", "--nocapture"])
        .output()?;
    let told = String::from_utf8_lossy(&child.stdout).into_owned();
    let error = String::from_utf8_lossy(&child.stderr).into_owned();
    assert!(child.status.success() && told.contains("1 passed"), "{told}\n{error}");
    print!("{told}");
    Ok(())
}

#[test]
#[ignore = "run in a process of its own by the test before it"]
fn bombs() -> Result<()> {
    let key = ["", "configmaps", "ns", &"y".repeat(253)];
    let gone = format!("{}\n", json!({"key": key, "gone": "deleted"}));
    let many = compressed(&gone.repeat(usize::try_from(16 * MIB)? / gone.len()));
    let header = compressed(&format!("{HEADER}\n"));
    let (start, before) = (clock::monotonic(), peak_memory_kib()?);
    let check = |what: &str, content: Vec<u8>, lines: u64, expected: fn(&PackError) -> bool| {
        let (sealed, reference) = seal(&content, lines);
        let error = read(&sealed, &reference).expect_err(what);
        println!("{what}: {} bytes sealed, {error}", sealed.len());
        assert!(expected(&error), "{what}: {error:?}");
    };
    let too_long = |error: &PackError| matches!(error, PackError::LineTooLong { .. });
    let window = |error: &PackError| matches!(error, PackError::Read(_));
    let ten_gib = run_of(b'x', 23, 10 * 1024);
    check("a header of 10 GiB", ten_gib.clone(), 1, too_long);
    check("a line of 10 GiB", [header.clone(), ten_gib].concat(), 1, too_long);
    let nested = run_of(b'[', 23, 10 * 1024);
    check("10 GiB of brackets", [header.clone(), nested].concat(), 1, too_long);
    let all = [header.clone(), many.repeat(640)].concat();
    check("10 GiB of lines", all.clone(), 1, |e| matches!(e, PackError::MoreLines { .. }));
    check("10 GiB of lines, as committed", all, u64::MAX, |e| matches!(e, PackError::TooMuch));
    let wide = [header.clone(), run_of(b'\n', 24, 1)].concat();
    check("a window of 16 MiB", wide, 1, window);
    check("a window of 1 GiB", [header.clone(), run_of(b'\n', 30, 1)].concat(), 1, window);
    // One segment of 2^60 bytes: the window is as large as the content says it is.
    let claimed = [&[0x28, 0xb5, 0x2f, 0xfd, 0xe0][..], &(1_u64 << 60).to_le_bytes(), &[3, 0, 0]];
    check("a frame of 2^60 bytes", [header, claimed.concat()].concat(), 1, window);
    let (seconds, memory) = ((clock::monotonic() - start).as_secs(), peak_memory_kib()? - before);
    println!("all in {seconds} s, {} MiB more than before", memory / 1024);
    assert!(memory < MEMORY_LIMIT_KIB, "{memory} KiB more than before");
    Ok(())
}

/// The raw objects in a pack are never taken apart deeper than they must be.
#[test]
fn an_object_of_any_depth_and_width_is_carried_as_it_is() -> Result<()> {
    let deep = format!("{}{}", "[".repeat(1_000_000), "]".repeat(1_000_000));
    let wide: Vec<String> = (0..1_000_000).map(|n| format!("\"k{n}\":0")).collect();
    for object in [format!("{{\"a\":{deep}}}"), format!("{{{}}}", wide.join(","))] {
        let line = format!(
            "{{\"key\":[\"\",\"configmaps\",\"ns\",\"x\"],\"version\":\"v1\",\"uid\":\"u\",\"resourceVersion\":\"7\",\"object\":{object}}}"
        );
        let (sealed, reference) = seal(&compressed(&format!("{HEADER}\n{line}\n")), 1);
        let mut carried = 0;
        pack::read(&sealed, &reference, "r", Set::Resources, &KEYS, |line| {
            if let pack::Line::Object(line) = line {
                carried = line.object.get().len();
                assert_eq!(pack::owners(line.object).len(), 0);
            }
            ControlFlow::Continue(())
        })?;
        assert_eq!(carried, object.len());
    }
    // A record is read into its types: there depth ends early.
    for key in ["body", "writer", "odd"] {
        let mut record = record_with(&json!({"kind": "Open"})).to_string();
        let nested = format!(",\"{key}\":{}{}}}", "[".repeat(30_000), "]".repeat(30_000));
        record.pop();
        let (found, _) = follow(&signed((record + &nested).as_bytes()));
        let expected = key == "odd";
        assert_eq!(matches!(found, Found::Record(_)), expected, "{key}");
    }
    Ok(())
}

fn peak_memory_kib() -> Result<u64> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).ok_or("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}
