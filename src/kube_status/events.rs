//! Events on the own `Hub`, as `kubectl describe` shows them.
//!
//! An Event is a courtesy: it never blocks a loop. The sender drops it when the queue is full, the
//! other end gives a write a few seconds and then goes on.

use super::Hub;
use crate::status::notice::{EventReason, Notice};
use kube::Resource as _;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use std::future::Future;
use std::time::Duration;
use tokio::sync::mpsc;

/// More at once than this means that something repeats itself.
const QUEUE: usize = 64;
const TIMEOUT: Duration = Duration::from_secs(5);
/// The API server refuses notes of 1 KiB and more.
const MAX_NOTE: usize = 1000;
const CONTROLLER: &str = "understudy.dev/understudy";

#[derive(Clone, Debug)]
pub struct Events {
    queue: mpsc::Sender<Notice>,
}

impl Events {
    pub fn tell(&self, reason: EventReason, note: impl Into<String>) {
        self.send(Notice { reason, note: note.into() });
    }

    pub fn send(&self, notice: Notice) {
        if let Err(error) = self.queue.try_send(notice) {
            tracing::debug!(error = %error, "an event was dropped");
        }
    }
}

/// The sending half, and the future that writes what it sends. The future ends when every sender is
/// gone.
pub fn events(client: kube::Client, hub: &Hub) -> (Events, impl Future<Output = ()> + use<>) {
    let (queue, mut incoming) = mpsc::channel::<Notice>(QUEUE);
    let regarding = hub.object_ref(&());
    let reporter =
        Reporter { controller: CONTROLLER.to_owned(), instance: hub.metadata.name.clone() };
    let recorder = Recorder::new(client, reporter);
    let writer = async move {
        while let Some(notice) = incoming.recv().await {
            let event = event(&notice);
            match tokio::time::timeout(TIMEOUT, recorder.publish(&event, &regarding)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(reason = event.reason, error = %error, "failed to write an event");
                }
                Err(_) => tracing::warn!(reason = event.reason, "writing an event timed out"),
            }
        }
    };
    (Events { queue }, writer)
}

fn event(notice: &Notice) -> Event {
    let mut note = notice.note.clone();
    while note.len() > MAX_NOTE {
        note.pop();
    }
    Event {
        type_: if notice.reason.warns() { EventType::Warning } else { EventType::Normal },
        reason: notice.reason.word(),
        note: Some(note),
        action: notice.reason.action().to_owned(),
        secondary: None,
    }
}
