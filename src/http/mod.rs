//! What a hub shows over HTTP: probes, metrics, the status as JSON, and the page.
//!
//! Everything is read-only and everything is derived from one snapshot taken at the request. Counts,
//! times and states need no login; names of objects are never shown here. Readiness does not depend on
//! the storage: an outage there must not take the pod, and with it the metrics, out of its Service.

mod page;

use crate::clock::now;
use crate::metrics::Metrics;
use crate::status::conditions::{Condition, conditions};
use crate::status::verdict::{Verdict, verdict};
use crate::status::{BackupSummary, Board, Snapshot};
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Json, Redirect, Response};
use axum::routing::get;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

pub use page::page;

pub const API_VERSION: &str = "understudy.dev/v1";

/// A connection that outlives the end of the daemon by more than this is cut.
const DRAIN: Duration = Duration::from_secs(3);

/// The page carries its style and no script; nothing may be loaded, framed or sent from it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; \
                                       base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

#[derive(Debug, thiserror::Error)]
#[error("failed to serve HTTP")]
pub struct HttpError(#[source] std::io::Error);

#[derive(Clone)]
pub struct AppState {
    pub board: Board,
    pub metrics: Arc<Metrics>,
}

/// `base_path` starts and ends with a slash. Everything answers at the root as well: some proxies
/// strip the prefix, others do not, and probes come without it. Links on the page are relative.
pub fn router(state: AppState, base_path: &str) -> Router {
    let routes = Router::new()
        .route("/", get(first_page))
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .route("/api/v1/status", get(status))
        .route("/api/v1/backups", get(backups))
        .with_state(state);
    let prefix = base_path.trim_end_matches('/');
    let routes = if prefix.is_empty() {
        routes
    } else {
        // Without its slash the page's relative links would miss the prefix.
        let slashed = format!("{prefix}/");
        let redirect = get(move || async move { Redirect::permanent(&slashed) });
        Router::new()
            .route(prefix, redirect)
            .nest(&format!("{prefix}/"), routes.clone())
            .merge(routes)
    };
    routes.layer(axum::middleware::map_response(guarded))
}

/// Serves until the token is cancelled, then lets running answers end.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    stop: CancellationToken,
) -> Result<(), HttpError> {
    let graceful = stop.clone().cancelled_owned();
    let server = axum::serve(listener, router).with_graceful_shutdown(graceful);
    let drained = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        ended = async { server.await } => ended.map_err(HttpError),
        () = drained => Ok(()),
    }
}

/// What is true now must not come out of a cache, and the page trusts nothing but itself.
async fn guarded(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    headers
        .insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    response
}

async fn first_page(State(state): State<AppState>) -> Response {
    let html = page(&state.board.read(), now()).into_string();
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], html).into_response()
}

/// 503 with the name of the loop when one has not turned for too long: a restart helps, and is safe.
async fn livez(State(state): State<AppState>) -> Response {
    let (snapshot, now) = (state.board.read(), now());
    let stalled: Vec<String> = snapshot
        .stalled_loops(now)
        .into_iter()
        .map(|(name, last)| {
            format!(
                "the {name} loop has not turned for {}",
                crate::status::words::age_of(last, now)
            )
        })
        .collect();
    if stalled.is_empty() {
        "ok\n".into_response()
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", stalled.join("\n"))).into_response()
    }
}

/// The daemon serves only with a configuration that was found valid; the storage is not asked.
async fn readyz() -> &'static str {
    "ok\n"
}

async fn metrics(State(state): State<AppState>) -> Response {
    let text = state.metrics.render(&state.board.read(), now());
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// The status as others read it: who is asked, when, what it means, and every fact.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusDocument {
    pub api_version: &'static str,
    pub kind: &'static str,
    /// When the facts were looked at.
    pub time: Timestamp,
    pub verdict: Verdict,
    pub conditions: Vec<Condition>,
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

impl StatusDocument {
    /// Without names of objects.
    pub fn of(mut snapshot: Snapshot, now: Timestamp) -> Self {
        let kinds = snapshot.sync.held.iter_mut().flat_map(|held| &mut held.kinds);
        kinds.for_each(|kind| kind.first.clear());
        snapshot.sync.going.clear();
        snapshot.clusters.named.clear();
        Self {
            api_version: API_VERSION,
            kind: "Status",
            time: now,
            verdict: verdict(&snapshot, now),
            conditions: conditions(&snapshot, now),
            snapshot,
        }
    }
}

/// What a reader of another version takes out of a [`StatusDocument`].
#[derive(Debug, Deserialize)]
pub struct ReadStatus {
    pub time: Timestamp,
    #[serde(flatten)]
    pub snapshot: Snapshot,
}

async fn status(State(state): State<AppState>) -> Json<StatusDocument> {
    Json(StatusDocument::of(state.board.read(), now()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct BackupList {
    api_version: &'static str,
    kind: &'static str,
    /// Newest first.
    items: Arc<[BackupSummary]>,
}

async fn backups(State(state): State<AppState>) -> Json<BackupList> {
    let items = state.board.read().backups;
    Json(BackupList { api_version: API_VERSION, kind: "BackupList", items })
}

#[cfg(test)]
mod tests;
