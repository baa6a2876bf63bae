//! The daemon, and the verbs that need neither hub nor storage.

use super::Global;
use super::exit::{Code, Failure};
use super::status::{self, Seen, StatusError};
use crate::config::{self, settings::Settings};
use crate::daemon::{self, Place, Signals};
use crate::kube_client;
use crate::kube_status::resource;
use crate::observe;
use crate::retry;
use std::time::Duration;

/// Of a command, which reads a few objects one after another.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const MAX_IN_FLIGHT: usize = 4;

/// The configuration that `-c` names.
pub(super) fn settings(global: &Global) -> Result<Settings, Failure> {
    let path = global.config.as_deref().ok_or_else(|| {
        Failure::new(Code::Usage, "no configuration file is named")
            .with_hint("add -c FILE, for instance config/primary.yaml")
    })?;
    Ok(config::load(path, std::env::vars())?)
}

pub(super) fn place(global: &Global) -> Place {
    Place {
        kubeconfig: global.kubeconfig.clone(),
        context: global.context.clone(),
        namespace: global.home(),
    }
}

/// Runs until it is told to stop.
pub(super) async fn run(global: &Global, signals: Signals) -> Result<(), Failure> {
    let settings = settings(global)?;
    crate::logging::start(&settings.log);
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        hub = settings.hub.name,
        pair = settings.hub.pair,
        "understudy starts"
    );
    daemon::run(settings, place(global), signals).await.map_err(Failure::from)
}

/// A client for the API server of the hub.
pub(super) async fn client(global: &Global) -> Result<kube::Client, Failure> {
    let options = kube_client::Options {
        kubeconfig: global.kubeconfig.clone(),
        context: global.context.clone(),
        request_timeout: REQUEST_TIMEOUT,
        max_in_flight: MAX_IN_FLIGHT,
        gzip: false,
    };
    let connected = kube_client::connect(&options, observe::nobody()).await;
    connected.map_err(|error| {
        Failure::new(Code::KubernetesUnreachable, retry::chain(&error)).with_hint(error.hint())
    })
}

/// From the `Hub` resource, which works also when the daemon is down; or from the daemon itself.
pub(super) async fn status(
    global: &Global,
    exit_code: bool,
    url: Option<&str>,
) -> Result<(), Failure> {
    let seen = match url {
        Some(url) => status::from_http(url).await.map_err(of_status)?,
        None => seen(global).await?,
    };
    let report = status::report(&seen, global.output, crate::clock::now()).map_err(of_status)?;
    print!("{}", report.text);
    if exit_code && !report.healthy {
        return Err(Failure::new(Code::NotHealthy, "the hub is not healthy"));
    }
    Ok(())
}

/// What the daemon last wrote into the `Hub` resource.
pub(super) async fn seen(global: &Global) -> Result<Seen, Failure> {
    let settings = global.config.is_some().then(|| settings(global)).transpose()?;
    let name = settings.as_ref().map(|settings| settings.hub.name.as_str());
    let seen = status::from_hub(&client(global).await?, &global.home(), name).await;
    seen.map_err(of_status)
}

fn of_status(error: StatusError) -> Failure {
    match error {
        StatusError::Hub(error) => error.into(),
        error @ (StatusError::NoHub { .. }
        | StatusError::UnknownHub { .. }
        | StatusError::SeveralHubs { .. }
        | StatusError::NoStatus { .. }
        | StatusError::Http { .. }
        | StatusError::Json(_)) => Failure::new(Code::Failed, retry::chain(&error)),
    }
}

pub(super) fn crd() -> Result<(), Failure> {
    let yaml =
        resource::crd_yaml().map_err(|error| Failure::new(Code::Failed, error.to_string()))?;
    print!("{yaml}");
    Ok(())
}
