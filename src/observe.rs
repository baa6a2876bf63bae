//! Times one request to another server and reports it once, whatever becomes of it. The metrics own
//! the other end of the [`Observer`]; the clients of Kubernetes and of the storage know no metric.
//!
//! The report happens on drop, so that a request which is given up half way is counted as well.

use std::sync::Arc;
use std::time::Instant;

/// Takes what was done (a verb of a closed set), the class of the answer (`2xx` … `5xx`, [`THROTTLED`],
/// or `error` when there was none) and the seconds it took.
pub type Observer = Arc<dyn Fn(&'static str, &'static str, f64) + Send + Sync>;

/// The server had too much to do: a class of its own, for it says nothing against the request.
pub const THROTTLED: &str = "429";

/// For callers without metrics, such as a command that runs once.
pub fn nobody() -> Observer {
    Arc::new(|_, _, _| {})
}

/// A request under way.
pub struct Observation {
    observer: Observer,
    what: &'static str,
    code: &'static str,
    started: Instant,
}

impl Observation {
    pub fn start(observer: &Observer, what: &'static str) -> Self {
        let started = crate::clock::monotonic();
        Self { observer: Arc::clone(observer), what, code: "error", started }
    }

    /// The server answered with this status.
    pub fn answered(&mut self, status: u16) {
        self.code = match status {
            100..=199 => "1xx",
            200..=299 => "2xx",
            300..=399 => "3xx",
            429 => THROTTLED,
            400..=499 => "4xx",
            500..=599 => "5xx",
            _ => "error",
        };
    }

    /// The answer began but broke off, or makes no sense.
    pub fn broken(&mut self) {
        self.code = "error";
    }
}

impl Drop for Observation {
    fn drop(&mut self) {
        let seconds = crate::clock::monotonic().saturating_duration_since(self.started);
        (self.observer)(self.what, self.code, seconds.as_secs_f64());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    #[test]
    fn every_request_is_reported_exactly_once_with_the_class_of_its_answer() {
        for (status, code) in [
            (Some(200), "2xx"),
            (Some(307), "3xx"),
            (Some(412), "4xx"),
            (Some(429), "429"),
            (Some(503), "5xx"),
            (Some(0), "error"),
            (None, "error"),
        ] {
            let reports = Arc::new(Mutex::new(Vec::new()));
            let sink = Arc::clone(&reports);
            let observer: Observer =
                Arc::new(move |what, code, _| sink.lock().unwrap().push((what, code)));
            let mut observation = Observation::start(&observer, "get");
            if let Some(status) = status {
                observation.answered(status);
            }
            drop(observation);
            assert_eq!(*reports.lock().unwrap(), [("get", code)], "{status:?}");
        }
    }
}
