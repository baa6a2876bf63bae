//! A backup is read without Understudy: with `age`, `zstd` and `jq`, by the very lines of
//! docs/format.md.

use crate::harness::{Result, status, tools};
use crate::scene::{DEADLINE, Scene, journal, until_role};
use serde_json::{Deserializer, Value, json};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use understudy::object::Set;

const DOCUMENT: &str = include_str!("../../docs/format.md");
/// The slot that the document takes for an example.
const EXAMPLE: &str = "00000000000000000042";

const SITE: &str = "/api/v1/namespaces/cluster-0000/configmaps/site";
const LOGIN: &str = "/api/v1/namespaces/cluster-0000/secrets/console-login";

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_read_with_stock_tools() -> Result<()> {
    let scene = Scene::set(1).await?;
    let api = scene.pair.primary.api()?;
    let mut first = scene.start_first().await?;
    until_role(&mut first, "primary").await?;
    first.until(DEADLINE, "a first backup", |seen| status::newest(seen).map(|_| ())).await?;
    // A level on top of the base: one object changed, one gone.
    api.merge_patch(SITE, &json!({"data": {"site": "<rack 2> \"ü\" 12345678901234567890"}}))
        .await?;
    api.delete(LOGIN).await?;
    scene.backup(&mut first).await?;
    first.kill9();

    let shell = Shell::new(&scene).await?;
    let [list, read] = &blocks()[..2] else { return Err("the document has two blocks".into()) };
    let records = journal(&scene.repository)?;
    let slots: Vec<u64> = records.iter().filter(|r| r.kind == "Commit").map(|r| r.slot).collect();
    let listed: Vec<u64> =
        shell.run(list)?.iter().filter_map(|commit| commit["slot"].as_u64()).collect();
    assert_eq!(listed, slots, "the commits of the journal");

    let newest = slots.last().ok_or("there is no commit")?;
    let record = records.iter().find(|record| record.slot == *newest).ok_or("no record")?;
    assert!(read.contains(EXAMPLE) && read.contains(".sets.resources."), "{read}");
    let read = read.replace(EXAMPLE, &format!("{newest:020}"));
    for set in Set::ALL {
        let objects = shell.run(&read.replace(".sets.resources.", &format!(".sets.{set}.")))?;
        assert_eq!(Some(objects.len() as u64), record.body["sets"][set.name()]["objects"].as_u64());
        for item in scene.items.iter().filter(|item| item.set == Some(set)) {
            let path = item.key.url_path(&item.kind.version);
            let found = objects.iter().find(|object| is(object, &item.body));
            let Some(live) = api.find(&path).await? else {
                assert_eq!((path.as_str(), found), (LOGIN, None));
                continue;
            };
            let found = found.ok_or_else(|| format!("{path} was not found"))?;
            for (field, value) in found.as_object().ok_or("not an object")? {
                assert!(field == "metadata" || live[field] == *value, "{path} differs in {field}");
            }
        }
    }
    Ok(())
}

fn is(object: &Value, wanted: &Value) -> bool {
    let same = |pointer| object.pointer(pointer) == wanted.pointer(pointer);
    ["/apiVersion", "/kind", "/metadata/namespace", "/metadata/name"].into_iter().all(same)
}

/// The blocks of shell under the document's heading, in their order.
fn blocks() -> Vec<&'static str> {
    let (_, section) = DOCUMENT.split_once("## Reading it with stock tools").unwrap_or_default();
    let (section, _) = section.split_once("\n## ").unwrap_or((section, ""));
    let blocks = section.split("```sh\n").skip(1);
    blocks.filter_map(|block| Some(block.split_once("```")?.0)).collect()
}

/// Stands in the copy of the storage, with the key file beside it.
struct Shell {
    folder: PathBuf,
    path: String,
}

impl Shell {
    async fn new(scene: &Scene) -> Result<Self> {
        let programs = scene.scratch.path().join("programs");
        std::fs::create_dir(&programs)?;
        for program in tools::stock().await? {
            symlink(&program, programs.join(program.file_name().ok_or("no name")?))?;
        }
        std::fs::copy(&scene.key, scene.repository.join("pair.key"))?;
        let path = std::env::var("PATH")?;
        let path = format!("{}:{path}", programs.display());
        Ok(Self { folder: scene.repository.clone(), path })
    }

    /// What the script prints: a row of JSON values.
    fn run(&self, script: &str) -> Result<Vec<Value>> {
        let mut command = Command::new("sh");
        let command = command.args(["-euc", script]).current_dir(&self.folder);
        let output = command.env("PATH", &self.path).output()?;
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && error.is_empty(), "{script}\n{error}");
        Ok(Deserializer::from_slice(&output.stdout).into_iter().collect::<Result<_, _>>()?)
    }
}
