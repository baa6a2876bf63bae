//! What the story happens on: two hubs, the repository, the fleet and the configuration files.

use crate::harness::compare::Place;
use crate::harness::config::Config;
use crate::harness::daemon::{Daemon, new_key};
use crate::harness::hub::{Hub, HubOptions};
use crate::harness::s3::S3;
use crate::harness::scratch::Scratch;
use crate::harness::{Result, fleet, pair};
use crate::story::Story;
use crate::{Arguments, Storage};
use serde_json::json;
use std::collections::BTreeMap;
use std::path::PathBuf;
use understudy::object::ObjectKey;

pub(crate) const PRIMARY: &str = "eu-1";
pub(crate) const PASSIVE: &str = "eu-2";
/// Enough to keep an API server busy.
const CONNECTIONS: usize = 32;
const SEED: u64 = 20_261_120;

pub(crate) struct Stage {
    pub(crate) primary: Hub,
    pub(crate) passive: Hub,
    pub(crate) primary_config: PathBuf,
    pub(crate) passive_config: PathBuf,
    places: BTreeMap<ObjectKey, Place>,
    // Kept, because they end when they are dropped.
    _configs: [Config; 2],
    _s3: Option<S3>,
    _scratch: Scratch,
}

impl Stage {
    pub(crate) async fn set(arguments: &Arguments, story: &mut Story) -> Result<Self> {
        Story::heading("Two hubs and a repository");
        let options = HubOptions { audit: false, ..HubOptions::default() };
        let (primary, passive, s3) = tokio::try_join!(
            Hub::start(PRIMARY, options.clone()),
            Hub::start(PASSIVE, options),
            start_storage(arguments.storage)
        )?;
        story.say(format!("{PRIMARY} and {PASSIVE}: etcd, kube-apiserver and controllers run"));
        tokio::try_join!(pair::prepare(&primary), pair::prepare(&passive))?;

        let items = fleet::demo(arguments.clusters, SEED);
        fleet::populate(&primary.api()?, &items, CONNECTIONS).await?;
        let (clusters, objects) = (arguments.clusters, items.len());
        story.say(format!("{PRIMARY}: {clusters} managed clusters, {objects} objects"));

        let scratch = Scratch::new()?;
        let key_file = scratch.path().join("key");
        new_key(&key_file)?;
        let repository = scratch.path().join("repository");
        std::fs::create_dir(&repository)?;
        let config = |name, role| -> Result<Config> {
            let config = Config::new(name, role, &key_file)?.with("hub.pair", json!("eu-hubs"));
            Ok(match &s3 {
                Some(s3) => config.with_s3(s3, "eu-hubs/"),
                None => config.with_directory(&repository),
            })
        };
        let configs = [config(PRIMARY, "primary")?, config(PASSIVE, "passive")?];
        story.say(match &s3 {
            Some(s3) => format!(
                "repository: s3://{}/eu-hubs/ on {}",
                crate::harness::s3::BUCKET,
                s3.endpoint
            ),
            None => format!("repository: {}", repository.display()),
        });
        Ok(Self {
            primary,
            passive,
            primary_config: configs[0].write(&scratch.path().join("primary.yaml"))?,
            passive_config: configs[1].write(&scratch.path().join("passive.yaml"))?,
            places: fleet::places(&items),
            _configs: configs,
            _s3: s3,
            _scratch: scratch,
        })
    }

    /// One object of each kind of change: added, changed in two sets, removed.
    pub(crate) async fn change(&mut self, story: &Story) -> Result<()> {
        let api = self.primary.api()?;
        let secrets = "/api/v1/namespaces/policies/secrets";
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": "signing-key", "namespace": "policies",
                "labels": {"cluster.open-cluster-management.io/backup": ""}},
            "stringData": {"key": "not a real one"},
        });
        api.post(secrets, &secret).await?;
        let policies = "/apis/policy.open-cluster-management.io/v1/namespaces/policies/policies";
        let enforce = json!({"spec": {"remediationAction": "enforce"}});
        api.merge_patch(&format!("{policies}/limit-ranges"), &enforce).await?;
        let clusters = "/apis/cluster.open-cluster-management.io/v1/managedclusters";
        let label = json!({"metadata": {"labels": {"maintenance": "planned"}}});
        api.merge_patch(&format!("{clusters}/cluster-0001"), &label).await?;
        api.delete("/api/v1/namespaces/cluster-0000/configmaps/site").await?;

        self.places.insert(ObjectKey::new("", "secrets", "policies", "signing-key")?, Place::Both);
        self.places.remove(&ObjectKey::new("", "configmaps", "cluster-0000", "site")?);
        story.say(format!(
            "{PRIMARY}: a Secret is new, a Policy and a ManagedCluster changed, a ConfigMap is gone"
        ));
        Ok(())
    }

    pub(crate) fn place(&self, key: &ObjectKey) -> Place {
        self.places.get(key).copied().unwrap_or(Place::Anywhere)
    }

    pub(crate) fn on_both(&self) -> usize {
        self.places.values().filter(|place| **place == Place::Both).count()
    }

    pub(crate) fn on_first_only(&self) -> usize {
        self.places.len() - self.on_both()
    }

    /// Leaves everything running until Ctrl-C.
    pub(crate) async fn keep(&self, primary: &Daemon, passive: &Daemon) -> Result<()> {
        println!("\nEverything keeps running. Have a look, and end it with Ctrl-C.");
        let hubs = [
            (&self.primary, primary, &self.primary_config),
            (&self.passive, passive, &self.passive_config),
        ];
        for (hub, daemon, config) in hubs {
            println!("\n{}", hub.name);
            println!("  page        {}/", daemon.url());
            println!("  kubeconfig  {}", hub.admin_kubeconfig.display());
            println!("  config      {}", config.display());
            println!("  log         {}", daemon.log().display());
        }
        tokio::signal::ctrl_c().await?;
        Ok(())
    }
}

async fn start_storage(storage: Storage) -> Result<Option<S3>> {
    Ok(match storage {
        Storage::S3 => Some(S3::start().await?),
        Storage::Directory => None,
    })
}
