//! What was asked, what the server was sent and answered, and what the client was shown, each with
//! its place in one order: the evidence for a checker.

use super::Fault;
use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode, Uri};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use understudy::object::Digest;

/// Larger bodies are kept by length and digest alone. A record of the journal fits.
const KEEP: usize = 64 * 1024;

/// Moments count up over a whole history: the smaller one was earlier.
pub type Moment = u64;

#[derive(Clone, Debug)]
pub struct Exchange {
    pub number: u64,
    /// As in a rule: `PUT`, `GET`, `DELETE`, `LIST`.
    pub method: String,
    /// Within the bucket; of a listing, the prefix that it asks for.
    pub key: String,
    target: String,
    pub sent: Content,
    /// The client asked for create-if-absent.
    pub conditional: bool,
    pub fault: Option<Fault>,
    pub received: Moment,
    pub deliveries: Vec<Delivery>,
    /// None: the connection ended without a whole answer.
    pub shown: Option<(Moment, Answer)>,
}

/// The request as the server got it.
#[derive(Clone, Debug)]
pub struct Delivery {
    pub sent: Moment,
    pub content: Content,
    pub conditional: bool,
    /// None: there was no whole answer; the server may have acted.
    pub answer: Option<(Moment, Answer)>,
}

#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub content: Content,
}

#[derive(Clone, Debug)]
pub struct Content {
    pub length: u64,
    pub sha256: Digest,
    /// None: too large to be kept.
    pub bytes: Option<Bytes>,
}

impl Content {
    pub fn of(bytes: &Bytes) -> Self {
        let kept = (bytes.len() <= KEEP).then(|| bytes.clone());
        Self { length: bytes.len() as u64, sha256: Digest::of(bytes), bytes: kept }
    }
}

impl Answer {
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }
}

impl Exchange {
    pub(super) fn received(
        method: &Method,
        target: &Uri,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Self {
        let query = target.query().unwrap_or_default();
        let listed = || query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        // `/bucket/key…`
        let path = target.path().trim_start_matches('/').split_once('/').map_or("", |(_, key)| key);
        let (method, key) = if *method == Method::GET && query.contains("list-type=2") {
            ("LIST".to_owned(), listed().unwrap_or_default().replace("%2F", "/"))
        } else {
            (method.to_string(), path.to_owned())
        };
        Self {
            number: 0,
            method,
            key,
            target: target.to_string(),
            sent: Content::of(body),
            conditional: conditional(headers),
            fault: None,
            received: 0,
            deliveries: vec![],
            shown: None,
        }
    }

    /// Of an API server: whether it may change something.
    pub fn is_dry_run(&self) -> bool {
        self.target.contains("dryRun=All")
    }
}

fn conditional(headers: &HeaderMap) -> bool {
    headers.get("if-none-match").is_some_and(|value| value == "*")
}

#[derive(Default)]
pub struct History {
    /// The last moment, of all histories that share one order.
    last: Arc<AtomicU64>,
    exchanges: Vec<Exchange>,
}

impl History {
    fn moment(&self) -> Moment {
        self.last.fetch_add(1, Ordering::SeqCst) + 1
    }

    pub(super) fn last(&self) -> Moment {
        self.last.load(Ordering::SeqCst)
    }

    pub(super) fn order(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.last)
    }

    pub(super) fn follow(&mut self, order: Arc<AtomicU64>) {
        self.last = order;
    }

    pub(super) fn push(&mut self, exchange: Exchange) -> u64 {
        let number = self.moment();
        self.exchanges.push(Exchange { number, received: number, ..exchange });
        number
    }

    /// The place of the new delivery among those of its exchange.
    pub(super) fn sent(&mut self, number: u64, headers: &HeaderMap, body: &Bytes) -> usize {
        let (sent, content) = (self.moment(), Content::of(body));
        let conditional = conditional(headers);
        let Some(exchange) = self.find(number) else { return 0 };
        exchange.deliveries.push(Delivery { sent, content, conditional, answer: None });
        exchange.deliveries.len() - 1
    }

    pub(super) fn answered(
        &mut self,
        number: u64,
        delivery: usize,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) {
        let answer = (self.moment(), answer(status, headers, body));
        let delivery = self.find(number).and_then(|exchange| exchange.deliveries.get_mut(delivery));
        if let Some(delivery) = delivery {
            delivery.answer = Some(answer);
        }
    }

    pub(super) fn shown(
        &mut self,
        number: u64,
        status: StatusCode,
        headers: &HeaderMap,
        body: &Bytes,
    ) {
        let shown = (self.moment(), answer(status, headers, body));
        if let Some(exchange) = self.find(number) {
            exchange.shown = Some(shown);
        }
    }

    /// The server's first answer to what is asked again here.
    pub(super) fn first_answer(&self, number: u64) -> Option<(StatusCode, HeaderMap, Bytes)> {
        let asked = self.exchanges.iter().find(|exchange| exchange.number == number)?;
        let mut same = self
            .exchanges
            .iter()
            .filter(|exchange| exchange.method == asked.method && exchange.target == asked.target);
        let (_, answer) = same.find_map(|exchange| exchange.deliveries.first()?.answer.as_ref())?;
        let bytes = answer.content.bytes.clone()?;
        Some((StatusCode::from_u16(answer.status).ok()?, answer.headers.clone(), bytes))
    }

    pub(super) fn below(&self, prefix: &str) -> Vec<Exchange> {
        self.exchanges.iter().filter(|exchange| exchange.key.starts_with(prefix)).cloned().collect()
    }

    pub(super) fn since(&self, moment: Moment) -> impl Iterator<Item = &Exchange> {
        self.exchanges.iter().filter(move |exchange| exchange.received > moment)
    }

    pub(super) fn take(&mut self, prefix: &str) -> Vec<Exchange> {
        self.exchanges.extract_if(.., |exchange| exchange.key.starts_with(prefix)).collect()
    }

    fn find(&mut self, number: u64) -> Option<&mut Exchange> {
        let at = self.exchanges.binary_search_by_key(&number, |exchange| exchange.number).ok()?;
        self.exchanges.get_mut(at)
    }
}

fn answer(status: StatusCode, headers: &HeaderMap, body: &Bytes) -> Answer {
    Answer { status: status.as_u16(), headers: headers.clone(), content: Content::of(body) }
}
