//! Pure: the section `storage`.

use super::super::file::{self, ServerSide};
use super::super::settings::{Location, S3, ServerSideEncryption, Storage};
use super::{DAY, Notes};
use std::path::PathBuf;
use std::time::Duration;

impl Notes<'_> {
    pub(super) fn storage(&mut self, written: file::Storage) -> Storage {
        let file::Storage {
            s3,
            directory,
            credentials_file,
            poll_interval,
            probe_interval,
            race_interval,
            allow_unfenced,
            cache_dir,
        } = written;
        let poll_interval =
            self.time("storage.pollInterval", poll_interval, Duration::from_secs(10));
        let probe_interval =
            self.time("storage.probeInterval", probe_interval, Duration::from_mins(1));
        let race_interval = self.time("storage.raceInterval", race_interval, DAY);
        let credentials_file = self.optional_path(credentials_file);
        let location = match (s3, self.optional_path(directory)) {
            (Some(s3), None) => Location::S3(self.s3(s3, credentials_file)),
            (None, Some(directory)) => {
                if credentials_file.is_some() {
                    let what = "a directory needs no credentials";
                    self.wrong("storage.credentialsFile", what, "take the key out");
                }
                Location::Directory(directory)
            }
            (Some(_), Some(directory)) => {
                let hint = "keep storage.s3 or storage.directory";
                self.wrong("storage.directory", "there can be one storage only", hint);
                Location::Directory(directory)
            }
            (None, None) => {
                self.missing("storage", "write storage.s3 or storage.directory");
                Location::Directory(PathBuf::new())
            }
        };
        Storage {
            location,
            poll_interval,
            probe_interval,
            race_interval,
            allow_unfenced: allow_unfenced.unwrap_or(false),
            cache_dir: self.optional_path(cache_dir),
        }
    }

    fn s3(&mut self, written: file::S3, credentials_file: Option<PathBuf>) -> S3 {
        let file::S3 {
            endpoint,
            region,
            bucket,
            prefix,
            path_style,
            ca_file,
            server_side_encryption,
            kms_key_id,
        } = written;
        let endpoint = endpoint.filter(|endpoint| !endpoint.is_empty());
        if let Some(url) = &endpoint
            && !url.parse::<http::Uri>().is_ok_and(|uri| {
                matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some()
            })
        {
            let hint = "write https://host or https://host:port";
            self.wrong("storage.s3.endpoint", format!("{url:?} is not an address"), hint);
        }
        let region = region.filter(|region| !region.is_empty()).unwrap_or_else(|| {
            if endpoint.is_none() {
                self.missing("storage.s3.region", "name the region, such as eu-central-1");
            }
            // What stores other than AWS expect where nothing was configured.
            "us-east-1".to_owned()
        });
        let prefix = prefix.unwrap_or_default();
        let prefix = prefix.trim_matches('/');
        if prefix.split('/').any(|part| matches!(part, "." | "..")) || prefix.contains("//") {
            let hint = "write words between single slashes, such as eu-hubs/";
            self.wrong("storage.s3.prefix", format!("{prefix:?} is not a prefix"), hint);
        }
        S3 {
            endpoint,
            region,
            bucket: self.bucket(bucket),
            prefix: if prefix.is_empty() { String::new() } else { format!("{prefix}/") },
            path_style: path_style.unwrap_or(false),
            ca_file: self.optional_path(ca_file),
            server_side_encryption: self.server_side(server_side_encryption, kms_key_id),
            credentials_file,
        }
    }

    fn server_side(
        &mut self,
        written: Option<ServerSide>,
        key_id: Option<String>,
    ) -> Option<ServerSideEncryption> {
        let key_id = key_id.filter(|key| !key.is_empty());
        match written {
            Some(ServerSide::Kms) => Some(ServerSideEncryption::Kms { key_id }),
            other => {
                if key_id.is_some() {
                    let hint = "write storage.s3.serverSideEncryption: aws:kms";
                    self.wrong("storage.s3.kmsKeyId", "is for aws:kms alone", hint);
                }
                other.map(|_| ServerSideEncryption::Aes256)
            }
        }
    }

    fn bucket(&mut self, written: Option<String>) -> String {
        let key = "storage.s3.bucket";
        let Some(bucket) = written.filter(|bucket| !bucket.is_empty()) else {
            self.missing(key, "name the bucket");
            return String::new();
        };
        let legal = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
        if !(3..=255).contains(&bucket.len()) || !bucket.chars().all(legal) {
            let hint = "3 to 63 lower-case letters, digits, dots and dashes; no slash, no address";
            self.wrong(key, format!("{bucket:?} is not a bucket's name"), hint);
        }
        bucket
    }
}
