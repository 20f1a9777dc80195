//! Priority and fairness: every request belongs to a flow of a priority level; a level that is full makes its flows wait in turn, or turns away.
//!
//! Who finds a seat pays one look at the schemas and one short lock of its own level. Nothing runs while no level is contended.

mod config;
mod deal;
mod keep;
mod level;
mod queues;
mod share;
mod width;

use std::{
    collections::{BTreeMap, HashMap},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use arc_swap::ArcSwap;
use coracle_api::status::Status;
use http::{HeaderMap, HeaderName, HeaderValue};
use tokio::sync::Notify;

pub(crate) use self::keep::run;
use self::{
    config::{LevelSpec, SchemaSpec, Spec, digest},
    level::{Counts, Level, Refused, Seat},
    share::Seats,
    width::Width,
};
use crate::{
    cache::stored,
    metrics::page::{Page, Stability},
    registry::Registry,
    request::{RequestInfo, User},
};

/// Requests at once: what upstream's bounds on reads and writes are together.
const SEATS: u32 = 600;
/// When who was turned away should ask again, in seconds.
const RETRY_S: u32 = 1;
const SCHEMA: HeaderName = HeaderName::from_static("x-kubernetes-pf-flowschema-uid");
const LEVEL: HeaderName = HeaderName::from_static("x-kubernetes-pf-prioritylevel-uid");

/// A schema at work.
#[derive(Debug)]
struct Schema {
    spec: SchemaSpec,
    level: Arc<Level>,
    counts: Arc<Counts>,
    headers: Headers,
}

/// A level at work, with what it is configured as.
#[derive(Debug)]
struct Running {
    level: Arc<Level>,
    spec: LevelSpec,
    seats: Seats,
}

/// What is configured, at work.
#[derive(Debug, Default)]
struct Plan {
    schemas: Vec<Schema>,
    levels: Vec<Running>,
}

/// The flow control of a server.
#[derive(Debug)]
pub struct Flow {
    plan: ArcSwap<Plan>,
    /// By level and schema: counts outlive a change of the configuration.
    counts: Mutex<BTreeMap<(String, String), Arc<Counts>>>,
    contended: Notify,
    reads: AtomicU64,
    writes: AtomicU64,
}

/// For the answer: by what it was judged.
#[derive(Clone, Debug)]
pub struct Headers {
    schema: HeaderValue,
    level: HeaderValue,
}

impl Headers {
    /// Puts them into an answer.
    pub fn put(self, headers: &mut HeaderMap) {
        headers.insert(SCHEMA, self.schema);
        headers.insert(LEVEL, self.level);
    }
}

/// A request's place.
#[derive(Debug)]
pub struct Place<'a> {
    _seat: Seat,
    served: &'a AtomicU64,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.served.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A request as it is judged.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Who.
    pub user: &'a User,
    /// What.
    pub info: &'a RequestInfo,
    /// Query, decoded.
    pub query: &'a [(String, String)],
}

impl Default for Flow {
    /// With what is mandatory.
    fn default() -> Self {
        let flow = Self {
            plan: ArcSwap::default(),
            counts: Mutex::default(),
            contended: Notify::new(),
            reads: AtomicU64::new(0),
            writes: AtomicU64::new(0),
        };
        flow.configure(digest(&[], &[]));
        flow
    }
}

impl Flow {
    /// A place for the request, when it is its turn. The headers say in any case by what it was judged.
    pub async fn enter(&self, asked: Asked<'_>, registry: &Registry) -> (Option<Headers>, Result<Option<Place<'_>>, Status>) {
        let plan = self.plan.load_full();
        let Asked { user, info, .. } = asked;
        // What is mandatory takes everybody who proved who they are, or did not.
        let Some(schema) = plan.schemas.iter().find(|schema| schema.spec.matches(user, info)) else { return (None, Ok(None)) };
        let flow = schema.spec.flow(user, info);
        let width = width(asked, registry, &schema.level);
        let seat = schema.level.enter(flow, width, &schema.counts, &self.contended).await;
        let served = if matches!(info.verb.as_str(), "get" | "list" | "watch") { &self.reads } else { &self.writes };
        let place = seat.map_err(|refused| turned_away(refused, &schema.spec.name)).map(|seat| {
            served.fetch_add(1, Ordering::Relaxed);
            Some(Place { _seat: seat, served })
        });
        (Some(schema.headers.clone()), place)
    }

    /// Takes another configuration. Who has a place, or waits for one, goes on.
    fn configure(&self, spec: Spec) {
        let claims: Vec<share::Claim> = spec.levels.iter().map(|level| level.claim).collect();
        let seats = share::divide(SEATS, &claims);
        let before = self.plan.load_full();
        let known = |name: &str| before.levels.iter().find(|running| running.spec.name == name);
        let levels: Vec<Running> = spec
            .levels
            .into_iter()
            .zip(seats)
            .map(|(spec, seats)| {
                let LevelSpec { exempt, shape, .. } = spec;
                let level = match known(&spec.name) {
                    Some(running) => {
                        if (running.spec.exempt, running.spec.shape, running.seats) != (exempt, shape, seats) {
                            running.level.reshape(exempt, shape, seats.nominal);
                        }
                        Arc::clone(&running.level)
                    }
                    None => Arc::new(Level::new(exempt, shape, seats.nominal)),
                };
                Running { level, spec, seats }
            })
            .collect();
        let by_name: HashMap<&str, &Running> = levels.iter().map(|running| (running.spec.name.as_str(), running)).collect();
        let schemas = spec.schemas.into_iter().filter_map(|spec| {
            let running = by_name.get(spec.level.as_str())?;
            let header = |uid: &str| HeaderValue::try_from(uid).unwrap_or(HeaderValue::from_static(""));
            let headers = Headers { schema: header(&spec.uid), level: header(&running.spec.uid) };
            let counts = self.counts(&spec.level, &spec.name);
            Some(Schema { level: Arc::clone(&running.level), counts, headers, spec })
        });
        let schemas: Vec<Schema> = schemas.collect();
        self.forget(&schemas);
        self.plan.store(Arc::new(Plan { schemas, levels }));
    }

    fn counts(&self, level: &str, schema: &str) -> Arc<Counts> {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(all.entry((level.to_owned(), schema.to_owned())).or_default())
    }

    /// Drops the counts of schemas that are gone: who makes and deletes them for ever fills no memory.
    fn forget(&self, schemas: &[Schema]) {
        let mut all = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(level, schema), _| schemas.iter().any(|there| there.spec.name == *schema && there.spec.level == *level));
    }

    /// Lends and borrows by what levels wanted of late; whether one of them still has somebody who waits.
    fn adjust(&self) -> bool {
        let plan = self.plan.load_full();
        let limited: Vec<&Running> = plan.levels.iter().filter(|running| !running.spec.exempt).collect();
        let demands: Vec<(u32, bool)> = limited.iter().map(|running| running.level.demand()).collect();
        let seats: Vec<Seats> = limited.iter().map(|running| running.seats).collect();
        let wanted: Vec<u32> = demands.iter().map(|(wanted, _)| *wanted).collect();
        for (running, limit) in limited.iter().zip(share::lend(&seats, &wanted)) {
            running.level.limit(limit, running.spec.shape);
        }
        demands.iter().any(|(_, waits)| *waits)
    }

    /// Its samples.
    pub fn write(&self, page: &mut Page) {
        let name = "apiserver_current_inflight_requests";
        page.family(name, "gauge", Stability::Stable, "Requests that are served, by whether they write.");
        page.sample(name, &[("request_kind", "mutating")], self.writes.load(Ordering::Relaxed));
        page.sample(name, &[("request_kind", "readOnly")], self.reads.load(Ordering::Relaxed));
        let plan = self.plan.load_full();
        type Of = fn(&Running) -> Option<u32>;
        let of_level: [(&str, Stability, &str, Of); 5] = [
            ("nominal_limit_seats", Stability::Beta, "Seats of its own.", |running| Some(running.seats.nominal)),
            ("lower_limit_seats", Stability::Alpha, "Seats that it keeps.", |running| Some(running.seats.lower)),
            ("upper_limit_seats", Stability::Alpha, "Seats that it never exceeds.", |running| Some(running.seats.upper)),
            ("current_limit_seats", Stability::Alpha, "Seats that it may take now.", |running| {
                running.level.seats().map(|(limit, _, _)| limit)
            }),
            ("demand_seats_high_watermark", Stability::Alpha, "Most seats wanted at once of late.", |running| {
                running.level.seats().map(|(_, taken, waits)| taken + waits)
            }),
        ];
        for (name, stability, help, value) in of_level {
            let name = format!("apiserver_flowcontrol_{name}");
            page.family(&name, "gauge", stability, help);
            for running in &plan.levels {
                if let Some(value) = value(running) {
                    page.sample(&name, &[("priority_level", &running.spec.name)], value);
                }
            }
        }
        self.write_schemas(page);
    }

    fn write_schemas(&self, page: &mut Page) {
        let all: Vec<((String, String), Arc<Counts>)> = self
            .counts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .iter()
            .map(|(key, counts)| (key.clone(), Arc::clone(counts)))
            .collect();
        let name = "apiserver_flowcontrol_dispatched_requests_total";
        page.family(name, "counter", Stability::Beta, "Requests that got their turn.");
        for ((level, schema), counts) in &all {
            page.sample(name, &[("flow_schema", schema), ("priority_level", level)], counts.dispatched.load(Ordering::Relaxed));
        }
        let name = "apiserver_flowcontrol_rejected_requests_total";
        page.family(name, "counter", Stability::Beta, "Requests that were turned away.");
        for ((level, schema), counts) in &all {
            let reasons =
                [("queue-full", &counts.queue_full), ("concurrency-limit", &counts.concurrency_limit), ("time-out", &counts.time_out)];
            for (reason, count) in reasons {
                let count = count.load(Ordering::Relaxed);
                if count > 0 {
                    page.sample(name, &[("flow_schema", schema), ("priority_level", level), ("reason", reason)], count);
                }
            }
        }
        type Of = fn(&Counts) -> i64;
        let gauges: [(&str, &str, Of); 3] = [
            ("current_executing_requests", "Requests that are served.", |counts| counts.executing.load(Ordering::Relaxed)),
            ("current_executing_seats", "Seats of requests that are served.", |counts| counts.executing_seats.load(Ordering::Relaxed)),
            ("current_inqueue_requests", "Requests that wait.", |counts| counts.waiting.load(Ordering::Relaxed)),
        ];
        for (name, help, value) in gauges {
            let name = format!("apiserver_flowcontrol_{name}");
            page.family(&name, "gauge", Stability::Beta, help);
            for ((level, schema), counts) in &all {
                page.sample(&name, &[("flow_schema", schema), ("priority_level", level)], value(counts));
            }
        }
        let name = "apiserver_flowcontrol_request_wait_duration_seconds";
        page.family(name, "histogram", Stability::Beta, "How long requests wait for their turn, in seconds.");
        for ((level, schema), counts) in &all {
            counts.waits.write(page, name, &[("execute", "true"), ("flow_schema", schema), ("priority_level", level)]);
        }
        let name = "apiserver_flowcontrol_request_execution_seconds";
        page.family(name, "histogram", Stability::Alpha, "How long requests keep their seats, in seconds.");
        for ((level, schema), counts) in &all {
            counts.executions.write(page, name, &[("flow_schema", schema), ("priority_level", level), ("type", "regular")]);
        }
    }
}

/// How many seats the request takes.
fn width(asked: Asked<'_>, registry: &Registry, level: &Level) -> Width {
    let Asked { info, query, .. } = asked;
    let verb = info.verb.as_str();
    if !info.is_resource || matches!(verb, "get" | "proxy") || level.seats().is_none() {
        return Width::ONE;
    }
    let nominal = level.nominal.load(Ordering::Relaxed);
    let catalogue = registry.catalogue();
    let Some(resource) = catalogue.resource(&info.group, &info.version, &info.resource) else { return Width::ONE };
    let collection = || registry.collection(&stored(&resource.storage.group, &resource.storage.plural));
    let param = |name: &str| query.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str()).unwrap_or_default();
    match verb {
        "list" if crate::request_info::selected_name(query).is_some() => Width::ONE,
        // All reads are the cache's: a page costs what it holds, a selector what there is.
        "list" => width::list(collection().len(), param("limit").parse().ok().filter(|limit| *limit > 0), nominal),
        "watch" if param("sendInitialEvents") == "true" || matches!(param("resourceVersion"), "" | "0") => {
            width::list(collection().len(), None, nominal)
        }
        "watch" => Width::ONE,
        // These are written all the time and watched by few.
        "create" | "update" | "patch" | "delete" | "deletecollection" if resource.plural != "leases" && info.subresource.is_empty() => {
            width::write(collection().watchers(), nominal)
        }
        _ => Width::ONE,
    }
}

fn turned_away(refused: Refused, schema: &str) -> Status {
    tracing::debug!(?refused, schema, "a request is turned away");
    let mut status = Status::new(429, "TooManyRequests", "Too many requests, please try again later.");
    status.details.get_or_insert_default().retry_after_seconds = RETRY_S;
    status
}
