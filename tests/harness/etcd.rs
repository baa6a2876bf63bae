//! The store below an API server, reached past it: to compact revisions away when a test wants it, and
//! to spoil a value that no API server would write.
//!
//! It speaks etcd's JSON over HTTP, in which keys and values are base64.

use super::Result;
use k8s_openapi::ByteString;
use serde_json::{Value, json};

/// Of one hub. Lives and dies with the runtime of its test.
pub struct Etcd {
    http: reqwest::Client,
    url: String,
}

impl Etcd {
    pub(super) fn new(address: &str) -> Result<Self> {
        let http = reqwest::Client::builder().no_proxy().build()?;
        Ok(Self { http, url: format!("http://{address}/v3") })
    }

    /// Every revision but the newest is gone.
    pub async fn compact(&self) -> Result<()> {
        let newest = self.ask("kv/range", &json!({"key": text("/"), "limit": 1})).await?;
        let revision = &newest["header"]["revision"];
        self.ask("kv/compaction", &json!({"revision": revision, "physical": true})).await?;
        Ok(())
    }

    pub async fn put(&self, key: &str, value: &str) -> Result<()> {
        self.ask("kv/put", &json!({"key": text(key), "value": text(value)})).await?;
        Ok(())
    }

    pub async fn delete(&self, key: &str) -> Result<()> {
        self.ask("kv/deleterange", &json!({"key": text(key)})).await?;
        Ok(())
    }

    /// As an operator does once there is room again: gives it back, and takes writes again.
    pub async fn make_room(&self) -> Result<()> {
        self.compact().await?;
        self.ask("maintenance/defragment", &json!({})).await?;
        let alarms = self.ask("maintenance/alarm", &json!({"action": "GET"})).await?;
        for alarm in alarms["alarms"].as_array().into_iter().flatten() {
            let (member, alarm) = (&alarm["memberID"], &alarm["alarm"]);
            let off = json!({"action": "DEACTIVATE", "memberID": member, "alarm": alarm});
            self.ask("maintenance/alarm", &off).await?;
        }
        Ok(())
    }

    async fn ask(&self, what: &str, body: &Value) -> Result<Value> {
        let request = self.http.post(format!("{}/{what}", self.url));
        let response = request.body(body.to_string()).send().await?;
        let (status, body) = (response.status(), response.bytes().await?);
        if !status.is_success() {
            return Err(format!("etcd {what}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(serde_json::from_slice(&body)?)
    }
}

fn text(plain: &str) -> ByteString {
    ByteString(plain.as_bytes().to_vec())
}
