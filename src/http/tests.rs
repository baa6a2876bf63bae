//! The endpoints over a real socket, and the page of every situation.

use super::*;
use crate::status::samples;
use crate::status::{Outcome, STALLED_AFTER};

struct Server {
    board: Board,
    url: String,
    stop: CancellationToken,
}

/// Runs `check` against a server that shows `snapshot` under `base_path`.
async fn with_server<F: Future<Output = ()>>(
    snapshot: Snapshot,
    base_path: &str,
    check: impl FnOnce(Server) -> F,
) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (board, stop) = (Board::new(snapshot), CancellationToken::new());
    let shared = AppState { board: board.clone(), metrics: Arc::new(Metrics::new()) };
    let server = serve(listener, router(shared, base_path), stop.clone());
    let checked = async {
        check(Server { board, url, stop: stop.clone() }).await;
        stop.cancel();
    };
    let (ended, ()) = tokio::join!(server, checked);
    ended.unwrap();
}

async fn get(url: String) -> (u16, String) {
    let response = reqwest::get(url).await.unwrap();
    (response.status().as_u16(), response.text().await.unwrap())
}

/// reqwest is built without a TLS provider, so the process names one, as `main` does.
fn provider() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}

#[tokio::test]
async fn a_stalled_loop_fails_the_probe_of_life_and_nothing_else() {
    provider();
    let mut snapshot = samples::passive();
    snapshot.loops.values_mut().for_each(|at| *at = now());
    with_server(snapshot, "/", |server| async move {
        assert_eq!(get(format!("{}/livez", server.url)).await, (200, "ok\n".to_owned()));
        let long_ago = now() - STALLED_AFTER - STALLED_AFTER;
        server.board.tick("sync", long_ago);
        let (code, text) = get(format!("{}/livez", server.url)).await;
        assert_eq!((code, text.as_str()), (503, "the sync loop has not turned for 10m\n"));
        server.board.update(|snapshot| snapshot.storage.up = Some(false));
        assert_eq!(get(format!("{}/readyz", server.url)).await.0, 200);
    })
    .await;
}

#[tokio::test]
async fn the_status_reads_back_as_the_snapshot_it_was_made_from() {
    provider();
    for snapshot in [samples::primary(), samples::passive(), samples::promoting()] {
        let expected = Snapshot { backups: Arc::default(), ..snapshot.clone() };
        with_server(snapshot, "/", |server| async move {
            let (code, text) = get(format!("{}/api/v1/status", server.url)).await;
            let value: serde_json::Value = serde_json::from_str(&text).unwrap();
            assert_eq!(
                (code, &value["apiVersion"], &value["kind"]),
                (200, &"understudy.dev/v1".into(), &"Status".into())
            );
            assert!(value["verdict"]["headline"].is_string());
            assert_eq!(value["conditions"][0]["type"], "Ready");
            let read: ReadStatus = serde_json::from_str(&text).unwrap();
            assert_eq!(read.snapshot, expected);
        })
        .await;
    }
}

#[tokio::test]
async fn metrics_and_backups_are_served() {
    provider();
    with_server(samples::primary(), "/", |server| async move {
        let (code, text) = get(format!("{}/metrics", server.url)).await;
        assert_eq!(code, 200);
        assert!(text.contains("\nunderstudy_epoch 7\n"), "{text}");
        assert!(text.contains("\nprocess_resident_memory_bytes "), "{text}");
        let (_, text) = get(format!("{}/api/v1/backups", server.url)).await;
        let list: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(list["kind"], "BackupList");
        assert_eq!(list["items"][1]["id"], "20261120-170000-41");
    })
    .await;
}

#[tokio::test]
async fn everything_answers_with_and_without_the_base_path() {
    provider();
    with_server(samples::passive(), "/dr/eu-2/", |server| async move {
        for path in ["/", "/livez", "/metrics", "/api/v1/status", "/api/v1/backups", "/readyz"] {
            for base in ["", "/dr/eu-2"] {
                let (code, text) = get(format!("{}{base}{path}", server.url)).await;
                assert!(code == 200 || path == "/livez", "{base}{path}: {code} {text}");
            }
        }
        let response = reqwest::get(format!("{}/dr/eu-2", server.url)).await.unwrap();
        assert_eq!((response.status().as_u16(), response.url().path()), (200, "/dr/eu-2/"));
        assert_eq!(response.headers()["cache-control"], "no-store");
        assert_eq!(get(format!("{}/nowhere", server.url)).await.0, 404);
    })
    .await;
}

#[tokio::test]
async fn an_open_connection_does_not_keep_the_daemon() {
    provider();
    let started = crate::clock::monotonic();
    with_server(samples::passive(), "/", |server| async move {
        let _idle =
            tokio::net::TcpStream::connect(server.url.trim_start_matches("http://")).await.unwrap();
        server.stop.cancel();
    })
    .await;
    assert!(started.elapsed() < DRAIN * 2, "{:?}", started.elapsed());
}

fn situations() -> Vec<(&'static str, Snapshot)> {
    let mut ill = samples::passive();
    ill.storage.up = Some(false);
    ill.storage.error = Some("connection refused".to_owned());
    ill.sync.prune_held = Some("612 deletions are more than 500".to_owned());
    vec![
        ("starting", samples::starting()),
        ("primary", samples::primary()),
        ("passive", samples::passive()),
        ("abandoned", samples::abandoned()),
        ("ill", ill),
        ("promoting", samples::promoting()),
        ("fenced", samples::fenced()),
        ("frozen", samples::frozen()),
    ]
}

#[test]
fn the_page_says_the_verdict_and_stays_small() {
    for (name, mut snapshot) in situations() {
        let busy = samples::run("sync", 40, Outcome::Failed, 4);
        snapshot.runs = vec![crate::status::Run { message: "x".repeat(4000), ..busy }; 20];
        snapshot.peers = (0..100).flat_map(|_| samples::passive().peers).collect();
        let headline = verdict(&snapshot, samples::now()).headline;
        let html = page(&snapshot, samples::now()).into_string();
        assert!(html.contains(&headline), "{name}: {headline}");
        assert!(html.len() <= 50_000, "{name}: {} bytes", html.len());
        assert!(!html.contains("<script"), "{name}");
    }
}

#[test]
fn what_others_wrote_is_escaped() {
    let mut snapshot = samples::passive();
    snapshot.peers[0].hub = "<script>alert(1)</script>".to_owned();
    snapshot.sync.damaged = Some("\"><img src=x onerror=alert(1)>".to_owned());
    let html = page(&snapshot, samples::now()).into_string();
    assert!(!html.contains("<script") && !html.contains("<img"), "{html}");
}
