//! The composition root: clients, loops of this hub's role, the way in and the way out. The only
//! place that spawns.
//!
//! ```text
//!  signals ┐
//!  Hub annotation ├─► control: journal → facts → decide → one action ─► job (backup · sync · activation)
//!  timers  ┘              │                                                │
//!                         └────────────► Board ◄───────────────────────────┘
//!                                          │
//!                        http · metrics · Hub status · Events · heartbeat
//! ```
//!
//! A daemon starts whatever is away: the storage, the API server. It ends only for what an operator
//! must mend first (configuration, key, missing CRD), when a newer daemon of the same hub has taken
//! over, and when it is asked to.

mod beats;
mod clusters;
mod control;
mod jobs;
mod requests;
mod surface;
mod verification;

use crate::config::settings::{Encryption, Settings};
use crate::kube_client;
use crate::kube_status::{self, HubError, ask::Ask, events::Events, publisher::Publisher};
use crate::metrics::Metrics;
use crate::promotion::machine::Trigger;
use crate::repository::keys::{KeyError, Keys};
use crate::repository::storage::{Storage, StorageError};
use crate::retry;
use crate::status::{Board, Guards, Identity, Objectives, Snapshot};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Between two attempts to reach an API server that is away.
const KUBERNETES_RETRY: Duration = Duration::from_secs(2);

/// How long the loops may take to come to an end after SIGTERM.
const DRAIN: Duration = Duration::from_secs(8);

/// Requests that wait to be taken by the control loop; a storm beyond it is dropped, not queued.
const NUDGES: usize = 16;

/// The handlers of all signals. Made as the first act of `main`: the default action of SIGUSR1 would
/// end the process.
pub struct Signals {
    promote: Signal,
    run_now: Signal,
    hang_up: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    /// Needs a running tokio runtime.
    pub fn install() -> std::io::Result<Self> {
        Ok(Self {
            promote: signal(SignalKind::user_defined1())?,
            run_now: signal(SignalKind::user_defined2())?,
            hang_up: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    /// For a command: installed handlers keep a signal from ending the process by itself. Whether it
    /// was Ctrl-C (SIGINT), and not SIGTERM.
    pub async fn interrupted(&mut self) -> bool {
        tokio::select! {
            _ = self.interrupt.recv() => true,
            _ = self.terminate.recv() => false,
        }
    }
}

/// What the command line adds to the configuration.
#[derive(Clone, Debug)]
pub struct Place {
    pub kubeconfig: Option<PathBuf>,
    pub context: Option<String>,
    /// Where this daemon and its `Hub` resource live.
    pub namespace: String,
}

#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    #[error(transparent)]
    Key(#[from] KeyError),
    #[error("failed to set up the storage")]
    Storage(#[source] StorageError),
    #[error(transparent)]
    Client(#[from] kube_client::ConnectError),
    #[error(transparent)]
    Hub(HubError),
    #[error("failed to listen on {address}")]
    Listen { address: std::net::SocketAddr, source: std::io::Error },
    #[error("failed to make the cache folder")]
    Cache(#[source] std::io::Error),
    #[error("a newer daemon of this hub has opened the term")]
    Superseded,
}

/// What asks the control loop to look now.
#[derive(Clone, Debug)]
enum Nudge {
    Promote(PromotionAsked),
    /// A backup on a primary, a sync on a passive hub.
    RunNow,
    /// The command line asks.
    Ask(Ask),
}

#[derive(Clone, Debug)]
struct PromotionAsked {
    trigger: Trigger,
    forced: Option<String>,
    /// None: an id is chosen here, and it is for the term in force.
    named: Option<kube_status::request::Named>,
    guards: Guards,
    /// Dropped once the request is durable, or came to nothing.
    taken: Option<mpsc::Sender<()>>,
}

/// What every loop holds.
#[derive(Clone)]
struct Shared {
    settings: Arc<Settings>,
    place: Place,
    client: kube::Client,
    storage: Storage,
    keys: Arc<Keys>,
    board: Board,
    metrics: Arc<Metrics>,
    publisher: Arc<Publisher>,
    cache: PathBuf,
    beats: beats::Beats,
    events: Events,
}

/// Runs until it is told to stop.
pub async fn run(settings: Settings, place: Place, signals: Signals) -> Result<(), DaemonError> {
    let settings = Arc::new(settings);
    let stop = CancellationToken::new();
    let tasks = TaskTracker::new();
    let (sender, nudges) = mpsc::channel(NUDGES);

    let Encryption { key_files, recipients } = &settings.encryption;
    let keys = Arc::new(Keys::load(key_files, recipients)?);
    let metrics = Arc::new(Metrics::new());
    let storage = Storage::open(&settings.storage.location, metrics.storage_observer()).await;
    let storage = storage.map_err(DaemonError::Storage)?;
    let client =
        kube_client::connect(&client_options(&settings, &place), metrics.kube_observer()).await?;
    let board = Board::new(starting(&settings, &place, &storage));
    let temporary = tempfile::tempdir().map_err(DaemonError::Cache)?;
    let cache = settings.storage.cache_dir.clone();
    let cache = cache.unwrap_or_else(|| temporary.path().to_owned());

    serve_http(&settings, &board, &metrics, &tasks, &stop).await?;
    tasks.spawn(follow_signals(signals, settings.promotion.signal, sender.clone(), stop.clone()));
    let work = async {
        let found = find_hub(&client, &place.namespace, &settings.hub.name, &board);
        let Some(found) = stop.run_until_cancelled(found).await else { return Ok(()) };
        let (hub, uid) = found?;
        surface::remember(&board, &metrics, &hub, &uid, &settings.objectives);
        let (events, deliver) = kube_status::events::events(client.clone(), &hub);
        tasks.spawn(deliver);
        let (namespace, name) = (place.namespace.clone(), settings.hub.name.clone());
        let publisher = Arc::new(Publisher::new(client.clone(), namespace, name, hub));
        let beats = beats::Beats::default();
        let settings = settings.clone();
        let shared = Shared {
            settings,
            place,
            client,
            storage,
            keys,
            board,
            metrics,
            publisher,
            cache,
            beats,
            events,
        };
        tasks.spawn(surface::publish(shared.clone(), stop.clone()));
        tasks.spawn(surface::tell_events(shared.clone(), stop.clone()));
        tasks.spawn(requests::watch(shared.clone(), sender, stop.clone()));
        tasks.spawn(beats::run(shared.clone(), uid.clone(), stop.clone()));
        tasks.spawn(verification::run(shared.clone(), stop.clone()));
        tasks.spawn(clusters::run(shared.clone(), stop.clone()));
        control::Control::new(shared, uid, tasks.clone(), stop.clone()).run(nudges).await
    };
    let patience = async {
        stop.cancelled().await;
        tokio::time::sleep(DRAIN).await;
    };
    // A control loop that is asked to stop writes down what it has seen; one that waits for a storage
    // that does not answer cannot.
    let result = tokio::select! {
        result = work => result,
        () = patience => Ok(()),
    };
    stop.cancel();
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("some loops did not come to an end in time");
    }
    result
}

async fn serve_http(
    settings: &Settings,
    board: &Board,
    metrics: &Arc<Metrics>,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<(), DaemonError> {
    let address = settings.http.listen;
    let listener = tokio::net::TcpListener::bind(address).await;
    let listener = listener.map_err(|source| DaemonError::Listen { address, source })?;
    let router = surface::router(settings, board, metrics);
    tasks.spawn(crate::http::serve(listener, router, stop.clone()));
    Ok(())
}

fn client_options(settings: &Settings, place: &Place) -> kube_client::Options {
    kube_client::Options {
        kubeconfig: place.kubeconfig.clone(),
        context: place.context.clone(),
        request_timeout: settings.kubernetes.request_timeout,
        gzip: settings.kubernetes.gzip,
        max_in_flight: settings.kubernetes.max_in_flight,
    }
}

fn starting(settings: &Settings, place: &Place, storage: &Storage) -> Snapshot {
    let identity = Identity {
        hub: settings.hub.name.clone(),
        pair: settings.hub.pair.clone(),
        namespace: place.namespace.clone(),
        configured_role: settings.hub.initial_role,
        objectives: Objectives {
            rpo_seconds: settings.objectives.rpo.as_secs(),
            rto_seconds: settings.objectives.rto.as_secs(),
        },
        storage_location: storage.location().to_owned(),
    };
    let mut snapshot = Snapshot::starting(identity, crate::clock::now());
    snapshot.storage.allow_unfenced = settings.storage.allow_unfenced;
    snapshot.backup.timeout_seconds = settings.schedule.timeout.as_secs();
    snapshot.keys.known = settings.encryption.key_files.len();
    snapshot
}

/// The own `Hub` resource and the UID of the cluster, from an API server that may come up later.
async fn find_hub(
    client: &kube::Client,
    namespace: &str,
    name: &str,
    board: &Board,
) -> Result<(kube_status::Hub, String), DaemonError> {
    loop {
        let found = async {
            let hub = kube_status::ensure(client, namespace, name).await?;
            let uid = kube_status::cluster_uid(client).await?;
            Ok((hub, uid))
        };
        match found.await {
            Ok(found) => {
                board.update(|s| s.kubernetes_error = None);
                return Ok(found);
            }
            Err(error @ (HubError::CrdMissing | HubError::NamespaceMissing { .. })) => {
                return Err(DaemonError::Hub(error));
            }
            Err(error) => {
                let error = retry::chain(&error);
                if board.update(|s| s.kubernetes_error.replace(error.clone())).is_none() {
                    tracing::error!(error, "the API server does not answer, trying on");
                }
                tokio::time::sleep(KUBERNETES_RETRY).await;
            }
        }
    }
}

/// Signals become nudges, until one of them says stop. A storm of them is one request: what does not
/// fit is dropped.
async fn follow_signals(
    mut signals: Signals,
    promotion_allowed: bool,
    nudges: mpsc::Sender<Nudge>,
    stop: CancellationToken,
) {
    loop {
        let nudge = tokio::select! {
            Some(()) = signals.promote.recv() => {
                if !promotion_allowed {
                    tracing::warn!("SIGUSR1 is ignored: promotion.signal is false");
                    continue;
                }
                Nudge::Promote(PromotionAsked {
                    trigger: Trigger::Signal,
                    forced: None,
                    named: None,
                    guards: Guards::default(),
                    taken: None,
                })
            }
            Some(()) = signals.run_now.recv() => Nudge::RunNow,
            Some(()) = signals.hang_up.recv() => {
                tracing::warn!("SIGHUP changes nothing: restart to read the configuration again");
                continue;
            }
            _ = signals.terminate.recv() => break,
            _ = signals.interrupt.recv() => break,
            () = stop.cancelled() => return,
        };
        let _ = nudges.try_send(nudge);
    }
    tracing::info!("asked to stop");
    stop.cancel();
}
