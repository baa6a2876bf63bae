//! Structured logs on standard error: JSON for machines, text for a terminal.

use crate::config::settings::{Log, LogFormat};
use std::io::IsTerminal as _;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, fmt};

/// On a type error kube logs whole response bodies, which may be Secrets; `aws_config` names the access
/// key at every request; the others are only loud.
const QUIET: &str = "kube_client=error,aws_config=warn,aws_smithy_runtime=warn,hyper=warn,\
                     hyper_util=warn,rustls=warn";

/// Once a process. A level that does not parse falls back to `info`: the configuration was checked.
pub fn start(log: &Log) {
    let filter = EnvFilter::try_new(format!("{},{QUIET}", log.level))
        .unwrap_or_else(|_| EnvFilter::new(format!("info,{QUIET}")));
    let json = match log.format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !std::io::stderr().is_terminal(),
    };
    let registry = tracing_subscriber::registry().with(filter);
    if json {
        registry.with(fmt::layer().json().flatten_event(true).with_writer(std::io::stderr)).init();
    } else {
        registry.with(fmt::layer().with_target(false).with_writer(std::io::stderr)).init();
    }
}
