//! A real S3 server: `MinIO` on one folder, with one bucket.

use super::faultd::Faultd;
use super::hub::answers;
use super::ports::Port;
use super::process::Process;
use super::scratch::Scratch;
use super::{Result, eventually, install_tls_provider, tools};
use aws_sdk_s3::config::{BehaviorVersion, Credentials, Region};
use aws_sdk_s3::operation::get_object::GetObjectError;
use bytes::Bytes;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tokio::sync::OnceCell;

pub const BUCKET: &str = "hub-dr";
pub const REGION: &str = "us-east-1";
const USER: &str = "understudy";
const PASSWORD: &str = "understudy-secret";
const READY_DEADLINE: Duration = Duration::from_mins(1);

pub struct S3 {
    pub endpoint: String,
    /// In the format of AWS' shared credentials file, profile `default`.
    pub credentials_file: PathBuf,
    program: PathBuf,
    port: Port,
    running: Option<Process>,
    scratch: Scratch,
}

impl S3 {
    /// The one server of a test run. Each test takes its own [`S3::prefix`].
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<S3> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    pub async fn start() -> Result<Self> {
        install_tls_provider();
        let (program, port, scratch) = (tools::minio().await?, Port::reserve()?, Scratch::new()?);
        let credentials_file = scratch.path().join("credentials");
        let credentials =
            format!("[default]\naws_access_key_id = {USER}\naws_secret_access_key = {PASSWORD}\n");
        std::fs::write(&credentials_file, credentials)?;
        let endpoint = format!("http://{}", port.address());
        let mut s3 = Self { endpoint, credentials_file, program, port, running: None, scratch };
        // MinIO takes every folder below its data for a bucket.
        std::fs::create_dir_all(s3.data().join(BUCKET))?;
        s3.restart().await?;
        Ok(s3)
    }

    /// Starts it on the data and the port of before. Does nothing while it runs.
    pub async fn restart(&mut self) -> Result<()> {
        if self.running.is_some() {
            return Ok(());
        }
        let mut command = Command::new(&self.program);
        command
            .args(["server", "--quiet", "--address", &self.port.address()])
            .arg(self.data())
            .env("MINIO_ROOT_USER", USER)
            .env("MINIO_ROOT_PASSWORD", PASSWORD)
            .envs([("MINIO_BROWSER", "off"), ("MINIO_UPDATE", "off")]);
        let log = self.scratch.path().join("minio.log");
        let mut process = Process::start("minio", command, &log)?;
        let url = format!("{}/minio/health/ready", self.endpoint);
        let client = reqwest::Client::new();
        eventually(READY_DEADLINE, "minio to be ready", async || {
            if let Err(error) = process.must_run() {
                return Some(Err(error));
            }
            answers(client.get(&url)).await.then_some(Ok(()))
        })
        .await??;
        self.running = Some(process);
        Ok(())
    }

    pub fn kill(&mut self) {
        self.running = None;
    }

    /// The server hangs: connections are accepted and nothing is answered.
    pub fn pause(&self) -> Result<()> {
        self.running.as_ref().ok_or("minio was killed")?.signal("STOP")
    }

    pub fn resume(&self) -> Result<()> {
        self.running.as_ref().ok_or("minio was killed")?.signal("CONT")
    }

    /// A prefix that nobody else of this run uses.
    pub fn prefix(test: &str) -> String {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        format!("{test}-{}/", NEXT.fetch_add(1, Ordering::Relaxed))
    }

    /// A fault proxy before this server.
    pub async fn faultd(&self) -> Result<Faultd> {
        Faultd::start(&self.endpoint, PASSWORD).await
    }

    /// Every object that the bucket holds below the prefix, as any reader of the bucket sees it, by
    /// the name behind the prefix.
    pub async fn stored(&self, prefix: &str) -> Result<BTreeMap<String, Bytes>> {
        let mut stored = BTreeMap::new();
        self.read_on(prefix, &mut stored).await?;
        Ok(stored)
    }

    /// The same, where some of it is known. What is written once is not read again.
    pub async fn read_on(&self, prefix: &str, known: &mut BTreeMap<String, Bytes>) -> Result<()> {
        let client = self.client();
        let once = |name: &str| name.starts_with("journal/") || name.starts_with("packs/");
        let mut before = std::mem::take(known);
        let mut pages =
            client.list_objects_v2().bucket(BUCKET).prefix(prefix).into_paginator().send();
        while let Some(page) = pages.next().await {
            for object in page?.contents() {
                let key = object.key().ok_or("an object without a key")?;
                let name = key.strip_prefix(prefix).unwrap_or(key).to_owned();
                let bytes = if let Some(bytes) = before.remove(&name).filter(|_| once(&name)) {
                    bytes
                } else {
                    match client.get_object().bucket(BUCKET).key(key).send().await {
                        Ok(answer) => answer.body.collect().await?.into_bytes(),
                        // It was deleted since it was listed, as what a probe leaves is.
                        Err(error)
                            if error
                                .as_service_error()
                                .is_some_and(GetObjectError::is_no_such_key) =>
                        {
                            continue;
                        }
                        Err(error) => return Err(error.into()),
                    }
                };
                known.insert(name, bytes);
            }
        }
        Ok(())
    }

    /// The journal below the prefix, from its first slot on, believed as it is written.
    pub async fn records(&self, prefix: &str) -> Result<Vec<serde_json::Value>> {
        let stored = self.stored(&format!("{prefix}journal/")).await?;
        let line = |bytes: Bytes| bytes.split(|byte| *byte == b'\n').next().map(<[u8]>::to_vec);
        let lines = stored.into_values().filter_map(line);
        lines.map(|line| Ok(serde_json::from_slice(&line)?)).collect()
    }

    /// Where the server keeps its files.
    pub fn data(&self) -> PathBuf {
        self.scratch.path().join("data")
    }

    /// For tests that damage what is stored. A new one at every call, because a client lives and
    /// dies with the runtime of its test.
    pub fn client(&self) -> aws_sdk_s3::Client {
        let http = aws_smithy_http_client::Builder::new().build_http();
        let config = aws_sdk_s3::Config::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .region(Region::new(REGION))
            .endpoint_url(&self.endpoint)
            .force_path_style(true)
            .credentials_provider(Credentials::new(USER, PASSWORD, None, None, "test"))
            .http_client(http)
            .build();
        aws_sdk_s3::Client::from_conf(config)
    }
}

/// All bytes of the files below `folder`.
pub fn bytes_below(folder: &Path) -> Result<u64> {
    let mut bytes = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let metadata = entry.metadata()?;
        bytes += if metadata.is_dir() { bytes_below(&entry.path())? } else { metadata.len() };
    }
    Ok(bytes)
}
