//! What is counted of those who ask: whether they are known and may, how long their certificates hold, and whether they ask for what goes.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use jiff::Timestamp;

use super::{
    family::Family,
    histogram::Histogram,
    page::{Page, Stability},
};

/// Seconds: from 1 ms on, each twice the one before. Upstream's.
const DURATIONS: &[f64] = &[0.001, 0.002, 0.004, 0.008, 0.016, 0.032, 0.064, 0.128, 0.256, 0.512, 1.024, 2.048, 4.096, 8.192, 16.384];
/// Seconds: half an hour to a year, and what is over. Upstream's.
const REST_OF_LIFE: &[f64] = &[
    0.0,
    1800.0,
    3600.0,
    7200.0,
    21_600.0,
    43_200.0,
    86_400.0,
    172_800.0,
    345_600.0,
    604_800.0,
    2_592_000.0,
    7_776_000.0,
    15_552_000.0,
    31_104_000.0,
];
/// Users that are told apart, as upstream does it: names of people are nobody's business here, and there is no end of them.
const TOLD_APART: [&str; 5] = ["admin", "client", "kube_proxy", "kubelet", "system:serviceaccount:kube-system:default"];

/// How many and how long, by result.
#[derive(Debug, Default)]
struct Results(Family<1, Timed>);

#[derive(Debug)]
struct Timed {
    took: Histogram,
}

impl Results {
    fn took(&self, result: &str, took: Duration) {
        self.0.get([result], || Timed { took: Histogram::seconds(DURATIONS) }).value.took.took(took);
    }

    fn write(&self, page: &mut Page, (attempts, durations): (&str, &str), help: (&str, &str)) {
        let all = self.0.all();
        page.family(attempts, "counter", Stability::Alpha, help.0);
        all.iter().for_each(|series| page.sample(attempts, &[("result", &series.labels[0])], series.value.took.count()));
        page.family(durations, "histogram", Stability::Alpha, help.1);
        all.iter().for_each(|series| series.value.took.write(page, durations, &[("result", &series.labels[0])]));
    }
}

/// The counters.
#[derive(Debug)]
pub struct Callers {
    authentication: Results,
    authorization: Results,
    users: Family<1, AtomicU64>,
    certificates: Histogram,
    /// Group, version, resource, subresource.
    deprecated: Family<4, AtomicU64>,
    /// Name of the APIService and reason.
    unavailable: Family<2, AtomicU64>,
}

impl Default for Callers {
    fn default() -> Self {
        Self {
            authentication: Results::default(),
            authorization: Results::default(),
            users: Family::default(),
            certificates: Histogram::seconds(REST_OF_LIFE),
            deprecated: Family::default(),
            unavailable: Family::default(),
        }
    }
}

impl Callers {
    /// Somebody is known by this name, or nobody.
    pub fn authenticated(&self, user: Option<&str>, took: Duration) {
        self.authentication.took(if user.is_some() { "success" } else { "failure" }, took);
        let Some(user) = user else { return };
        let told = match user {
            _ if TOLD_APART.contains(&user) => user,
            _ if user.contains('@') => "email_id",
            _ => "other",
        };
        self.users.get([told], AtomicU64::default).value.fetch_add(1, Ordering::Relaxed);
    }

    /// Who asks has shown a certificate that ends in this second.
    pub fn certificate(&self, ends_s: i64, now: Timestamp) {
        let left = u64::try_from(ends_s.saturating_sub(now.as_second())).unwrap_or_default();
        self.certificates.took(Duration::from_secs(left));
    }

    /// It was decided whether somebody may.
    pub fn authorized(&self, result: &str, took: Duration) {
        self.authorization.took(result, took);
    }

    /// Somebody asks for a resource that goes.
    pub fn deprecated(&self, group: &str, version: &str, resource: &str, subresource: &str) {
        self.deprecated.get([group, version, resource, subresource], AtomicU64::default).value.fetch_add(1, Ordering::Relaxed);
    }

    /// An extension API server turned out not to be there, or not for the reason of before.
    pub fn unavailable(&self, service: &str, reason: &str) {
        self.unavailable.get([service, reason], AtomicU64::default).value.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes the families; of the APIServices, by name, whether each is there.
    pub fn write(&self, page: &mut Page, services: &[(String, bool)]) {
        let names = ("authentication_attempts", "authentication_duration_seconds");
        self.authentication.write(page, names, ("Requests by whether it is known who asks.", "How long it takes to know who asks."));
        let names = ("authorization_attempts_total", "authorization_duration_seconds");
        self.authorization.write(page, names, ("Requests by whether they may.", "How long it takes to know whether a request may."));
        page.family("authenticated_user_requests", "counter", Stability::Alpha, "Requests by who asks.");
        for series in self.users.all() {
            let count = series.value.load(Ordering::Relaxed);
            page.sample("authenticated_user_requests", &[("username", &series.labels[0])], count);
        }
        let name = "apiserver_client_certificate_expiration_seconds";
        page.family(name, "histogram", Stability::Alpha, "How long the certificates of those who ask will hold.");
        self.certificates.write(page, name, &[]);
        let name = "apiserver_requested_deprecated_apis";
        page.family(
            name,
            "gauge",
            Stability::Stable,
            "Resources that go and were asked for, with the release in which they are gone, if it is known.",
        );
        for series in self.deprecated.all() {
            let [group, version, resource, subresource] = &series.labels;
            let labels =
                [("group", &**group), ("version", version), ("resource", resource), ("subresource", subresource), ("removed_release", "")];
            page.sample(name, &labels, 1);
        }
        let name = "aggregator_unavailable_apiservice";
        page.family(name, "gauge", Stability::Alpha, "Whether an APIService is not available.");
        services.iter().for_each(|(service, available)| page.sample(name, &[("name", service)], u8::from(!available)));
        let name = "aggregator_unavailable_apiservice_total";
        page.family(name, "counter", Stability::Alpha, "How often an APIService became unavailable, by reason.");
        for series in self.unavailable.all() {
            let [service, reason] = &series.labels;
            page.sample(name, &[("name", service), ("reason", reason)], series.value.load(Ordering::Relaxed));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callers_are_counted_without_their_names() {
        let (callers, now) = (Callers::default(), Timestamp::UNIX_EPOCH);
        for user in [Some("jane"), Some("joe@example.org"), Some("admin"), None] {
            callers.authenticated(user, Duration::from_millis(3));
        }
        callers.authorized("allowed", Duration::from_millis(1));
        callers.certificate(7200, now);
        callers.certificate(-5, now);
        for _ in 0..2 {
            callers.deprecated("", "v1", "endpoints", "");
            callers.unavailable("v1.a.test", "FailedDiscoveryCheck");
        }
        let mut page = Page::default();
        callers.write(&mut page, &[("v1.".into(), true), ("v1.a.test".into(), false)]);
        let page = page.finish();
        for line in [
            "authentication_attempts{result=\"success\"} 3\n",
            "authentication_attempts{result=\"failure\"} 1\n",
            "authentication_duration_seconds_bucket{result=\"success\",le=\"0.004\"} 3\n",
            "authorization_attempts_total{result=\"allowed\"} 1\n",
            "authenticated_user_requests{username=\"other\"} 1\n",
            "authenticated_user_requests{username=\"email_id\"} 1\n",
            "authenticated_user_requests{username=\"admin\"} 1\n",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"0\"} 1\n",
            "apiserver_client_certificate_expiration_seconds_bucket{le=\"7200\"} 2\n",
            "apiserver_requested_deprecated_apis{group=\"\",version=\"v1\",resource=\"endpoints\",subresource=\"\",removed_release=\"\"} 1\n",
            "aggregator_unavailable_apiservice{name=\"v1.\"} 0\n",
            "aggregator_unavailable_apiservice{name=\"v1.a.test\"} 1\n",
            "aggregator_unavailable_apiservice_total{name=\"v1.a.test\",reason=\"FailedDiscoveryCheck\"} 2\n",
        ] {
            assert!(page.contains(line), "{line} is in {page}");
        }
        assert!(!page.contains("jane") && !page.contains("joe"));
    }
}
