//! `/metrics`: requests by verb and code, in the text format of Prometheus, under upstream's name.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use axum::response::Response;
use http::{HeaderValue, StatusCode};

use crate::{answer, request::RequestInfo};

/// Series that are kept; requests beyond them are counted without names, so that nobody fills the memory with odd paths.
const SERIES_BOUND: usize = 2048;
/// Characters of a label: names are shorter, and a path may be as long as a request's head.
const LABEL_CHARS: usize = 253;
/// What is counted under its name; any other method is `OTHER`.
const VERBS: [&str; 14] = [
    "get",
    "list",
    "watch",
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "proxy",
    "head",
    "options",
    "post",
    "put",
    "connect",
];
const TEXT: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Group, version, resource, subresource, verb, code.
type Series = [String; 6];

/// The counters.
#[derive(Debug, Default)]
pub struct Metrics {
    requests: Mutex<BTreeMap<Series, u64>>,
}

impl Metrics {
    /// Counts an answered request.
    pub fn count(&self, info: &RequestInfo, code: StatusCode) {
        // What is not served at all has no names of its own.
        let known = code != StatusCode::NOT_FOUND;
        let name = |text: &str| if known { escape(text) } else { String::new() };
        let series: Series = [
            name(&info.group),
            name(&info.version),
            name(&info.resource),
            name(&info.subresource),
            VERBS.iter().find(|verb| **verb == info.verb).map_or("OTHER".to_owned(), |verb| verb.to_ascii_uppercase()),
            code.as_str().to_owned(),
        ];
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = if requests.len() >= SERIES_BOUND && !requests.contains_key(&series) { Series::default() } else { series };
        *requests.entry(series).or_default() += 1;
    }

    /// The page.
    pub fn answer(&self) -> Response {
        let mut page = String::from("# HELP apiserver_request_total Answered requests.\n# TYPE apiserver_request_total counter\n");
        for ([group, version, resource, subresource, verb, code], count) in &*self.requests.lock().unwrap_or_else(PoisonError::into_inner) {
            // Writing to a String cannot fail.
            let _ = writeln!(
                page,
                "apiserver_request_total{{code=\"{code}\",group=\"{group}\",resource=\"{resource}\",subresource=\"{subresource}\",verb=\"{verb}\",version=\"{version}\"}} {count}"
            );
        }
        answer::bytes(StatusCode::OK, TEXT, page)
    }
}

/// A label's value.
fn escape(text: &str) -> String {
    text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).take(LABEL_CHARS).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn odd_requests_do_not_fill_the_memory() {
        let metrics = Metrics::default();
        let info = |verb: &str, resource: String| RequestInfo { verb: verb.into(), resource, ..RequestInfo::default() };
        metrics.count(&info("get", "pods".into()), StatusCode::OK);
        metrics.count(&info(&"x".repeat(1000), String::new()), StatusCode::OK);
        metrics.count(&info("get", "none".into()), StatusCode::NOT_FOUND);
        for number in 0..2 * SERIES_BOUND {
            metrics.count(&info("list", format!("{number}{}", "y".repeat(1000))), StatusCode::OK);
        }
        let requests = metrics.requests.lock().unwrap();
        assert!(requests.len() <= SERIES_BOUND + 1);
        assert!(requests.keys().flatten().all(|label| label.len() <= LABEL_CHARS));
        let of = |resource: &str, verb: &str, code: &str| requests.get(&["", "", resource, "", verb, code].map(str::to_owned)).copied();
        assert_eq!((of("pods", "GET", "200"), of("", "OTHER", "200"), of("", "GET", "404")), (Some(1), Some(1), Some(1)));
        assert_eq!(requests.values().sum::<u64>(), 3 + 2 * SERIES_BOUND as u64);
    }
}
