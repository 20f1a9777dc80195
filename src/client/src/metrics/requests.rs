//! The families of requests to API servers: how many, how they ended, how long the answers took.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Instant,
};

use futures::future::BoxFuture;
use http::{Method, Request, Response};
use tower::Service;

use super::{Distribution, family, sample};

/// Seconds. Upstream's.
const DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0];
/// What requests are told apart by; any other method is none of ours.
const METHODS: [&str; 6] = ["GET", "POST", "PUT", "PATCH", "DELETE", "other"];
/// A request without an answer.
const NO_ANSWER: &str = "<error>";

/// All servers that were asked; a process has one or two.
static ALL: Mutex<BTreeMap<String, Arc<Requests>>> = Mutex::new(BTreeMap::new());

/// What is counted of the requests to one server.
#[derive(Debug)]
struct Requests {
    /// By method and code.
    ended: Mutex<BTreeMap<(usize, Option<u16>), u64>>,
    took: [Distribution; METHODS.len()],
}

fn of(host: &str) -> Arc<Requests> {
    let new = || Arc::new(Requests { ended: Mutex::default(), took: std::array::from_fn(|_| Distribution::new(DURATIONS)) });
    Arc::clone(ALL.lock().unwrap_or_else(PoisonError::into_inner).entry(host.to_owned()).or_insert_with(new))
}

impl Requests {
    fn ended(&self, method: usize, code: Option<u16>, since: Instant) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry((method, code)).or_default() += 1;
        self.took[method].took(since.elapsed());
    }
}

fn number(method: &Method) -> usize {
    METHODS.iter().position(|known| *known == method.as_str()).unwrap_or(METHODS.len() - 1)
}

/// A way to a server on which requests are counted.
#[derive(Clone, Debug)]
pub struct Counted<S> {
    inner: S,
    requests: Arc<Requests>,
}

impl<S> Counted<S> {
    /// To this host.
    pub fn new(inner: S, host: &str) -> Self {
        Self { inner, requests: of(host) }
    }
}

impl<S, A, B> Service<Request<A>> for Counted<S>
where
    S: Service<Request<A>, Response = Response<B>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    B: 'static,
{
    type Response = Response<B>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Self::Response, Self::Error>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<A>) -> Self::Future {
        let (requests, method, since) = (Arc::clone(&self.requests), number(request.method()), Instant::now());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await;
            requests.ended(method, answer.as_ref().ok().map(|answer| answer.status().as_u16()), since);
            answer
        })
    }
}

/// Writes the families.
pub fn write(out: &mut String) {
    let all: Vec<(String, Arc<Requests>)> =
        ALL.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(host, requests)| (host.clone(), Arc::clone(requests))).collect();
    if all.is_empty() {
        return;
    }
    family(out, "rest_client_requests_total", "counter", "Requests to API servers, by what became of them.");
    for (host, requests) in &all {
        for ((method, code), count) in requests.ended.lock().unwrap_or_else(PoisonError::into_inner).iter() {
            let code = code.map_or_else(|| NO_ANSWER.to_owned(), |code| code.to_string());
            sample(out, "rest_client_requests_total", &[("code", &code), ("host", host), ("method", METHODS[*method])], count);
        }
    }
    let name = "rest_client_request_duration_seconds";
    family(out, name, "histogram", "How long API servers take to answer: of a watch, to begin.");
    for (host, requests) in &all {
        for (method, took) in METHODS.iter().zip(&requests.took) {
            took.write(out, name, &[("host", host), ("verb", method)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use tower::{ServiceExt as _, service_fn};

    use super::*;

    #[tokio::test]
    async fn answers_and_failures_are_counted_by_method_and_host() {
        let server = service_fn(|request: Request<()>| async move {
            match request.uri().path() {
                "/gone" => Err("no way there"),
                path => Ok(Response::builder().status(if path == "/" { 200 } else { 404 }).body(()).expect("an answer")),
            }
        });
        let ask = async |method: &str, path: &str| {
            let request = Request::builder().method(method).uri(path).body(()).expect("a request");
            let _ = Counted::new(server, "tested:1").oneshot(request).await;
        };
        for (method, path) in [("GET", "/"), ("GET", "/"), ("GET", "/x"), ("DELETE", "/gone"), ("BREW", "/")] {
            ask(method, path).await;
        }
        let mut page = String::new();
        write(&mut page);
        for line in [
            "rest_client_requests_total{code=\"200\",host=\"tested:1\",method=\"GET\"} 2\n",
            "rest_client_requests_total{code=\"404\",host=\"tested:1\",method=\"GET\"} 1\n",
            "rest_client_requests_total{code=\"<error>\",host=\"tested:1\",method=\"DELETE\"} 1\n",
            "rest_client_requests_total{code=\"200\",host=\"tested:1\",method=\"other\"} 1\n",
            "rest_client_request_duration_seconds_count{host=\"tested:1\",verb=\"GET\"} 3\n",
        ] {
            assert!(page.contains(line), "{line} is in {page}");
        }
    }
}
