//! Requests on the own `Hub` become nudges of the control loop: the annotations that ask for a
//! promotion, and what the command line asks for.

use super::surface::show_refusal;
use super::{Nudge, PromotionAsked, Shared};
use crate::kube_status::{self, Hub, ask, request, request::Malformed};
use crate::promotion::machine::Trigger;
use crate::retry;
use crate::status::Frozen;
use crate::status::notice::EventReason;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// A poll, not a watch: one GET of one object has no connection to lose and no gap to reason about.
const REQUEST_POLL: Duration = Duration::from_secs(1);

/// Looks at the annotations of the own `Hub`: what asks for something is handed on or refused, then
/// removed. What asks for a promotion stays there until its request is durable, so a crash in between
/// loses nothing; the command line asks again for what was not answered.
pub(super) async fn watch(shared: Shared, nudges: mpsc::Sender<Nudge>, stop: CancellationToken) {
    let (namespace, name) = (&shared.place.namespace, &shared.settings.hub.name);
    let follow = async {
        loop {
            tokio::time::sleep(REQUEST_POLL).await;
            match kube_status::load(&shared.client, namespace, name).await {
                Ok(Some(hub)) => {
                    take_promotion(&shared, &nudges, &hub).await;
                    take_ask(&shared, &nudges, &hub).await;
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::debug!(error = retry::chain(&error), "cannot look for requests");
                }
            }
        }
    };
    stop.run_until_cancelled(follow).await;
}

async fn take_promotion(shared: &Shared, nudges: &mpsc::Sender<Nudge>, hub: &Hub) {
    let (namespace, name) = (&shared.place.namespace, &shared.settings.hub.name);
    match request::promotion_request(hub) {
        None => return,
        Some(asked) if !shared.settings.promotion.annotation => {
            let refusal = Frozen {
                reason: "PromotionRefused".to_owned(),
                message: "promotion.annotation is false".to_owned(),
                hint: "send SIGUSR1 to the daemon".to_owned(),
            };
            let named = asked.ok().and_then(|request| request.named);
            show_refusal(shared, refusal, named.map(|named| named.id));
        }
        Some(Ok(request)) => {
            let request::Request { forced, named, guards } = request;
            let trigger = if named.is_some() { Trigger::Cli } else { Trigger::Annotation };
            let told = format!("asked for by the {}", trigger.words());
            shared.events.tell(EventReason::PromotionRequested, told);
            let (taken, mut until_taken) = mpsc::channel(1);
            let asked = PromotionAsked { trigger, forced, named, guards, taken: Some(taken) };
            if nudges.send(Nudge::Promote(asked)).await.is_err() {
                return;
            }
            // Nothing is ever sent: it ends when the other end is dropped.
            until_taken.recv().await;
        }
        Some(Err(malformed)) => {
            let hint = malformed.hint(namespace, name);
            tracing::warn!(error = %malformed, hint, "promotion refused");
            let stale = matches!(malformed, Malformed::Replayed { .. });
            let reason = if stale { "PromotionRequestStale" } else { "PromotionRefused" };
            let message = malformed.to_string();
            let refusal = Frozen { reason: reason.to_owned(), message, hint };
            show_refusal(shared, refusal, None);
        }
    }
    clear(shared, hub, &request::PROMOTION).await;
}

async fn take_ask(shared: &Shared, nudges: &mpsc::Sender<Nudge>, hub: &Hub) {
    match ask::asked(hub) {
        None => return,
        Some(Ok(ask)) => {
            if nudges.send(Nudge::Ask(ask)).await.is_err() {
                return;
            }
        }
        Some(Err(why)) => tracing::warn!(why, "a request is refused"),
    }
    clear(shared, hub, &[ask::REQUEST]).await;
}

async fn clear(shared: &Shared, hub: &Hub, annotations: &[&str]) {
    let cleared =
        request::clear_annotations(&shared.client, &shared.place.namespace, hub, annotations).await;
    if let Err(error) = cleared {
        tracing::warn!(error = retry::chain(&error), "an annotation could not be removed");
    }
}
