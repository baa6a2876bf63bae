//! Credentials in a file of AWS' shared credentials format, profile `default`.
//!
//! The file is a mounted Secret that somebody rotates while the daemon runs. What may go wrong: a
//! rotation within the resolution of the file's time and with keys of the same length looks like no
//! change; the 403 that follows makes the caller read it again in any case.

use super::{Cause, http_client};
use aws_sdk_s3::config::{Credentials, ProvideCredentials as _};
use aws_smithy_http_client::tls::TlsContext;
use std::path::Path;
use std::time::SystemTime;

/// Tells whether the file changed without reading it.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Stamp {
    modified: Option<SystemTime>,
    length: u64,
}

impl Stamp {
    pub(super) async fn of(file: &Path) -> Result<Self, Cause> {
        let metadata = tokio::fs::metadata(file).await?;
        Ok(Self { modified: metadata.modified().ok(), length: metadata.len() })
    }
}

#[expect(deprecated, reason = "the new path of these types is a crate that nothing else needs")]
pub(super) async fn load(file: &Path) -> Result<Credentials, Cause> {
    use aws_config::profile::ProfileFileCredentialsProvider;
    use aws_config::profile::profile_file::{ProfileFileKind, ProfileFiles};
    let files = ProfileFiles::builder().with_file(ProfileFileKind::Credentials, file).build();
    // A profile may name a role; keys are the normal case and need no connection.
    let config = aws_config::provider_config::ProviderConfig::without_region()
        .with_http_client(http_client(&TlsContext::default()));
    let provider = ProfileFileCredentialsProvider::builder()
        .configure(&config)
        .profile_files(files)
        .profile_name("default")
        .build();
    Ok(provider.provide_credentials().await?)
}

/// Whether a request signed with the one would be answered as with the other.
pub(super) fn same(a: &Credentials, b: &Credentials) -> bool {
    let parts = |c: &Credentials| {
        let token = c.session_token().map(str::to_owned);
        (c.access_key_id().to_owned(), c.secret_access_key().to_owned(), token)
    };
    parts(a) == parts(b)
}
