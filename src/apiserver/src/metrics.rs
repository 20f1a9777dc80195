//! `/metrics`: requests by verb and code, in the text format of Prometheus, under upstream's name.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Mutex, PoisonError},
};

use http::{HeaderValue, Response, StatusCode};

use crate::{answer, body::Body, request::RequestInfo};

/// Series that are kept; requests beyond them are counted without names, so that nobody fills the memory with odd paths.
const SERIES_BOUND: usize = 2048;
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
            escape(&info.verb).to_ascii_uppercase(),
            code.as_str().to_owned(),
        ];
        let mut requests = self.requests.lock().unwrap_or_else(PoisonError::into_inner);
        let series = if requests.len() >= SERIES_BOUND && !requests.contains_key(&series) { Series::default() } else { series };
        *requests.entry(series).or_default() += 1;
    }

    /// The page.
    pub fn answer(&self) -> Response<Body> {
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
    text.chars().filter(|c| c.is_ascii_graphic() && !matches!(c, '"' | '\\')).collect()
}
