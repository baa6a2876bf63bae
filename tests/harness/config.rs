//! Configuration files of daemons, in the layout of those in `config/`.

use super::Result;
use super::ports::Port;
use super::s3::{BUCKET, REGION, S3};
use serde_json::{Map, Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// One daemon's configuration. Keeps the daemon's port as long as it lives.
pub struct Config {
    sections: Map<String, Value>,
    port: Port,
}

impl Config {
    /// Everything fast enough for a test, and a schedule that never fires by itself (30 February
    /// would be refused; 1 January at midnight is far enough).
    pub fn new(name: &str, initial_role: &str, key_file: &Path) -> Result<Self> {
        let port = Port::reserve()?;
        let sections = json!({
            "hub": {
                "name": name, "pair": "test", "initialRole": initial_role, "heartbeat": "1s",
            },
            "storage": {"pollInterval": "1s"},
            "encryption": {"keyFiles": [key_file]},
            "presets": ["ocm"],
            "schedule": {
                "cron": "0 0 1 1 *", "timezone": "UTC", "onStart": true, "jitter": "0s",
                "timeout": "10m",
            },
            "retention": {"keepLast": 20},
            "passive": {"syncInterval": "2s"},
            "promotion": {"primarySilence": "5s", "maxDataAge": "2h"},
            "http": {"listen": port.address()},
            "log": {"format": "json", "level": "info"},
        });
        let Value::Object(sections) = sections else { return Err("not an object".into()) };
        Ok(Self { sections, port })
    }

    pub fn with_s3(mut self, s3: &S3, prefix: &str) -> Self {
        self.set(
            "storage.s3",
            json!({
                "endpoint": s3.endpoint, "region": REGION, "bucket": BUCKET, "prefix": prefix,
                "pathStyle": true,
            }),
        );
        self.set("storage.credentialsFile", json!(s3.credentials_file));
        self
    }

    pub fn with_directory(mut self, directory: &Path) -> Self {
        self.set("storage.directory", json!(directory));
        self
    }

    pub fn with(mut self, key: &str, value: Value) -> Self {
        self.set(key, value);
        self
    }

    /// `key` as in error messages: `passive.syncInterval`.
    pub fn set(&mut self, key: &str, value: Value) {
        let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut map = &mut self.sections;
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            let child = map.entry(part).or_insert_with(|| json!({}));
            if !child.is_object() {
                *child = json!({});
            }
            map = child.as_object_mut().expect("it was made an object just now");
        }
        map.insert(last.to_owned(), value);
    }

    /// As if it had never been set.
    pub fn remove(&mut self, key: &str) {
        let (parents, last) = key.rsplit_once('.').unwrap_or(("", key));
        let mut map = Some(&mut self.sections);
        for part in parents.split('.').filter(|part| !part.is_empty()) {
            map = map.and_then(|map| map.get_mut(part)?.as_object_mut());
        }
        map.and_then(|map| map.remove(last));
    }

    /// `127.0.0.1:12345`
    pub fn listen(&self) -> String {
        self.port.address()
    }

    /// One line a section, as people write it.
    pub fn text(&self) -> String {
        let mut text = "apiVersion: understudy.dev/v1alpha1\nkind: HubConfig\n".to_owned();
        for (name, value) in &self.sections {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{name}: {}", flow(value));
        }
        text
    }

    pub fn write(&self, file: &Path) -> Result<PathBuf> {
        std::fs::write(file, self.text())?;
        Ok(file.to_owned())
    }
}

/// YAML's flow style: JSON with bare keys.
fn flow(value: &Value) -> String {
    match value {
        Value::Object(map) => {
            let fields: Vec<_> =
                map.iter().map(|(name, value)| format!("{name}: {}", flow(value))).collect();
            format!("{{{}}}", fields.join(", "))
        }
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(flow).collect();
            format!("[{}]", items.join(", "))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => value.to_string(),
    }
}
