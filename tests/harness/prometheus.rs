//! A real Prometheus that scrapes daemons and evaluates rules, asked over its API.

use super::ports::Port;
use super::process::Process;
use super::{Result, eventually, install_tls_provider, tools};
use reqwest::Url;
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

const START_DEADLINE: Duration = Duration::from_mins(1);

pub struct Prometheus {
    // Before its port: it ends first.
    process: Process,
    url: String,
    http: reqwest::Client,
    _port: Port,
}

/// One target: its address, and the labels that a site gives it.
pub struct Target<'a> {
    pub address: String,
    pub hub: &'a str,
    pub pair: &'a str,
}

impl Prometheus {
    /// Scrapes the targets each `every`, and evaluates the rules as often. Its files go into `folder`.
    pub async fn start(
        folder: &Path,
        targets: &[Target<'_>],
        rules: &Path,
        every: &str,
    ) -> Result<Self> {
        install_tls_provider();
        let program = tools::prometheus().await?;
        let targets = targets.iter().map(|Target { address, hub, pair }| {
            json!({"targets": [address], "labels": {"hub": hub, "pair": pair}})
        });
        let job = json!({"job_name": "understudy", "static_configs": targets.collect::<Vec<_>>()});
        let config = json!({
            "global": {"scrape_interval": every, "evaluation_interval": every, "scrape_timeout": every},
            "rule_files": [rules],
            "scrape_configs": [job],
        });
        let file = folder.join("prometheus.yaml");
        // JSON is YAML.
        std::fs::write(&file, config.to_string())?;
        let port = Port::reserve()?;
        let mut command = Command::new(program);
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!("--storage.tsdb.path={}", folder.join("prometheus").display()))
            .arg(format!("--web.listen-address={}", port.address()));
        let process = Process::start("prometheus", command, &folder.join("prometheus.log"))?;
        let http =
            reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        let url = format!("http://{}", port.address());
        let mut prometheus = Self { process, url, http, _port: port };
        let ready = format!("{}/-/ready", prometheus.url);
        eventually(START_DEADLINE, "Prometheus to be ready", async || {
            if let Err(error) = prometheus.process.must_run() {
                return Some(Err(error));
            }
            let answer = prometheus.http.get(&ready).send().await.ok()?;
            answer.status().is_success().then_some(Ok(()))
        })
        .await??;
        Ok(prometheus)
    }

    async fn get(&self, path: &str, query: &[(&str, &str)]) -> Result<Value> {
        let url = Url::parse_with_params(&format!("{}/api/v1/{path}", self.url), query)?;
        let answer: Value = self.http.get(url).send().await?.json().await?;
        if answer["status"] == "success" {
            return Ok(answer["data"].clone());
        }
        Err(format!("{query:?}: {}", answer["error"]).into())
    }

    /// The labels of every alert that fires now.
    pub async fn firing(&self) -> Result<Vec<Value>> {
        let data = self.get("alerts", &[]).await?;
        let alerts = data["alerts"].as_array().ok_or("no alerts")?.iter();
        let firing = alerts.filter(|alert| alert["state"] == "firing");
        Ok(firing.map(|alert| alert["labels"].clone()).collect())
    }

    /// Series that the query gave at any time between the two, in seconds since 1970.
    pub async fn series(&self, query: &str, from: i64, to: i64, step: &str) -> Result<Vec<Value>> {
        let (from, to) = (from.to_string(), to.to_string());
        let range = [("query", query), ("start", &from), ("end", &to), ("step", step)];
        let data = self.get("query_range", &range).await?;
        Ok(data["result"].as_array().cloned().unwrap_or_default())
    }
}
