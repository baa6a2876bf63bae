//! Two hubs, ready for daemons.
//!
//! Most tests share one pair and keep to namespaces and a repository prefix of their own. What
//! touches cluster-scoped objects takes a fresh pair, which costs about 4 seconds.

use super::hub::{Hub, HubOptions, NAMESPACE};
use super::kinds::is_established;
use super::{Result, daemon, eventually, kinds};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Output;
use std::time::Duration;
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

/// A pair with its daemons takes most of two cores and 1 GiB.
const FRESH_PAIRS_AT_ONCE: usize = 2;
static FRESH: Semaphore = Semaphore::const_new(FRESH_PAIRS_AT_ONCE);

pub struct Pair {
    pub primary: Hub,
    pub passive: Hub,
    _permit: Option<SemaphorePermit<'static>>,
}

impl Pair {
    /// The one pair of a test run. It ends with the process.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Pair> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(HubOptions::default(), None)).await
    }

    pub async fn fresh() -> Result<Self> {
        Self::fresh_with(HubOptions::default()).await
    }

    pub async fn fresh_with(options: HubOptions) -> Result<Self> {
        let permit = FRESH.acquire().await?;
        Self::start(options, Some(permit)).await
    }

    async fn start(options: HubOptions, permit: Option<SemaphorePermit<'static>>) -> Result<Self> {
        let (primary, passive) = tokio::try_join!(
            Hub::start("primary", options.clone()),
            Hub::start("passive", options)
        )?;
        tokio::try_join!(prepare(&primary), prepare(&passive))?;
        Ok(Self { primary, passive, _permit: permit })
    }
}

/// What an operator does before the first daemon, and the kinds of a fleet beside it.
pub async fn prepare(hub: &Hub) -> Result<()> {
    install_understudy(hub).await?;
    kinds::install(&hub.api()?).await
}

/// The `Hub` CRD as the program prints it, and the daemon's namespace.
pub async fn install_understudy(hub: &Hub) -> Result<()> {
    let api = hub.api()?;
    let output = daemon::cli(&["crd"])?;
    if !output.status.success() {
        let error = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`understudy crd` ended with {}: {error}", output.status).into());
    }
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/hubs.understudy.dev";
    api.apply(path, output.stdout).await?;
    eventually(Duration::from_secs(30), "the Hub CRD to be established", async || {
        is_established(&api.get_json(path).await.ok()?).then_some(())
    })
    .await?;
    let namespace =
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    api.post("/api/v1/namespaces", &namespace).await?;
    Ok(())
}

/// The kubeconfig of an operator: both hubs in one file, each in a context of its name.
pub fn operator(hubs: [(&Hub, &str); 2], file: &Path) -> Result<()> {
    let mut both = json!({"apiVersion": "v1", "kind": "Config"});
    for (hub, name) in hubs {
        let mut one: Value = serde_json::from_slice(&std::fs::read(&hub.kubeconfig)?)?;
        for (list, of) in [("clusters", None), ("users", None), ("contexts", Some("context"))] {
            let mut entry = one[list][0].take();
            entry["name"] = name.into();
            if let Some(of) = of {
                entry[of] = json!({"cluster": name, "user": name});
            }
            let all = both.as_object_mut().ok_or("no object")?.entry(list).or_insert(json!([]));
            all.as_array_mut().ok_or("no list")?.push(entry);
        }
    }
    Ok(std::fs::write(file, serde_json::to_vec(&both)?)?)
}

/// Runs `understudy switchover` with that kubeconfig and the configuration of the hub `from`.
pub fn switchover(
    kubeconfig: &Path,
    config: &Path,
    from: &str,
    to: &str,
    more: &[&str],
) -> Result<Output> {
    let (kubeconfig, config) = (kubeconfig.display().to_string(), config.display().to_string());
    let contexts = ["--primary-context", from, "--passive-context", to];
    let files = ["--kubeconfig", &kubeconfig, "-c", &config, "-n", NAMESPACE];
    daemon::cli(&[&["switchover", "--to", to], &contexts[..], &files, more].concat())
}
