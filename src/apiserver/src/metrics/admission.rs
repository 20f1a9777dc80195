//! What is counted of admission: its steps, its plugins, webhooks, match conditions and policies, under upstream's names.
//!
//! What every write pays is a few atomic additions at fixed places: no lock, no look-up, no memory. Series with names that users give are looked
//! up, are as many as a family may have, and go with the object that gave the name.

use std::{
    sync::{
        OnceLock,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::{
    family::Family,
    histogram::Histogram,
    page::{Page, Stability},
    summary::Summary,
};
use crate::admission::Operation;

const DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5];
const WEBHOOK_DURATIONS: &[f64] = &[0.005, 0.025, 0.1, 0.5, 1.0, 2.5, 10.0, 25.0];
const CONDITION_DURATIONS: &[f64] = &[0.001, 0.005, 0.01, 0.025, 0.1, 0.2, 0.25];
const CHECK_DURATIONS: &[f64] = &[0.000_000_5, 0.001, 0.01, 0.1, 1.0];
/// The first of [`DURATIONS`].
const FIRST_BOUND: Duration = Duration::from_millis(5);
/// Codes above are told as this one: a webhook chooses them.
const MAX_CODE: u16 = 600;
const STEPS: [Step; 2] = [Step::Admit, Step::Validate];
const OPERATIONS: [Operation; 4] = [Operation::Create, Operation::Update, Operation::Delete, Operation::Connect];

/// The two steps of admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// All may change the object.
    Admit,
    /// All judge it.
    Validate,
}

/// Which step of what write, and whether it refused.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    /// The step.
    pub step: Step,
    /// Of the write.
    pub operation: Operation,
    /// It goes no further.
    pub refused: bool,
}

/// Who with a name of its own has a say in a write.
#[derive(Clone, Copy, Debug)]
pub struct Named<'a> {
    /// Of the webhook or policy.
    pub name: &'a str,
    /// `webhook` or `policy`.
    pub kind: &'static str,
    /// Upstream's word for the step: `admit`, `validating` or `validate`.
    pub step: &'static str,
    /// Of the write.
    pub operation: Operation,
}

/// One answer of a webhook.
#[derive(Clone, Copy, Debug)]
pub struct Answered {
    /// From the question to the answer.
    pub took: Duration,
    /// Of HTTP, or of the Status.
    pub code: u16,
    /// Why the write goes no further, and with which code, if it does not.
    pub refused: Option<(&'static str, u16)>,
}

/// One check by a policy.
#[derive(Clone, Copy, Debug)]
pub struct Check<'a> {
    /// Its name.
    pub policy: &'a str,
    /// The name of what binds it.
    pub binding: &'a str,
    /// What went wrong, in upstream's words.
    pub fault: &'static str,
    /// Of the expression.
    pub took: Duration,
}

/// Says of a plugin that refused nothing and took less than the first bound, as nearly all do. They lie side by side: what every write counts in is
/// in a few lines of the processor's cache, which its cores take from one another less often than a histogram of each plugin.
#[derive(Debug, Default)]
struct Short {
    count: AtomicU64,
    nanos: AtomicU64,
}

/// The counters.
#[derive(Debug)]
pub struct Admission {
    began: Instant,
    steps: Each<(Histogram, Summary)>,
    /// In the order of the plugins.
    plugins: Vec<(&'static str, Each<Histogram>)>,
    /// What is not in those yet: see [`Short`]. By step and operation, in the order of the plugins.
    short: [Box<[Short]>; STEPS.len() * OPERATIONS.len()],
    /// By name, type, operation and rejected.
    webhooks: Family<4, Histogram>,
    /// By name, type, operation, code and rejected.
    webhook_requests: Family<5, AtomicU64>,
    /// By name, type, operation, error type and code.
    webhook_rejections: Family<5, AtomicU64>,
    /// By name and type.
    fail_opens: Family<2, AtomicU64>,
    /// By name, kind, type and operation, as the next two.
    conditions: Family<4, Histogram>,
    condition_errors: Family<4, AtomicU64>,
    condition_exclusions: Family<4, AtomicU64>,
    /// By policy, binding, error type and action.
    validating: Family<4, Histogram>,
    /// By policy, binding and error type.
    mutating: Family<3, Histogram>,
}

impl Admission {
    /// Of these plugins.
    pub fn of(plugins: impl Iterator<Item = &'static str>) -> Self {
        let plugins: Vec<(&'static str, Each<Histogram>)> = plugins.map(|name| (name, Each::default())).collect();
        let short = |_| plugins.iter().map(|_| Short::default()).collect();
        Self {
            began: Instant::now(),
            steps: Each::default(),
            short: std::array::from_fn(short),
            plugins,
            webhooks: Family::default(),
            webhook_requests: Family::default(),
            webhook_rejections: Family::default(),
            fail_opens: Family::default(),
            conditions: Family::default(),
            condition_errors: Family::default(),
            condition_exclusions: Family::default(),
            validating: Family::default(),
            mutating: Family::default(),
        }
    }

    /// A step is over.
    pub fn step(&self, outcome: Outcome, start: Instant) {
        let (took, age) = (start.elapsed(), start.saturating_duration_since(self.began));
        let (histogram, summary) = self.steps.get(outcome, || (Histogram::seconds(DURATIONS), Summary::default()));
        histogram.took(took);
        summary.took(took, age);
    }

    /// A plugin has had its say, which began at `start`; the next one's begins at what is returned.
    pub fn plugin(&self, at: usize, outcome: Outcome, start: Instant) -> Instant {
        let now = Instant::now();
        let took = now.saturating_duration_since(start);
        if !outcome.refused
            && took < FIRST_BOUND
            && let Some(short) = self.short[outcome.place() / 2].get(at)
        {
            short.count.fetch_add(1, Ordering::Relaxed);
            short.nanos.fetch_add(u64::from(took.subsec_nanos()), Ordering::Relaxed);
        } else if let Some((_, each)) = self.plugins.get(at) {
            each.get(outcome, || Histogram::seconds(DURATIONS)).took(took);
        }
        now
    }

    /// Brings what was short where the rest is.
    fn settle(&self) {
        for outcome in Outcome::all().filter(|outcome| !outcome.refused) {
            for ((_, each), short) in self.plugins.iter().zip(&self.short[outcome.place() / 2]) {
                let (count, nanos) = (short.count.swap(0, Ordering::Relaxed), short.nanos.swap(0, Ordering::Relaxed));
                if count > 0 {
                    each.get(outcome, || Histogram::seconds(DURATIONS)).observe_short(count, nanos);
                }
            }
        }
    }

    /// A webhook was asked.
    pub fn webhook(&self, Named { name, step, operation, .. }: Named<'_>, answered: Answered) {
        let (operation, rejected) = (word(operation), flag(answered.refused.is_some()));
        self.webhooks.get([name, step, operation, rejected], || Histogram::seconds(WEBHOOK_DURATIONS)).value.took(answered.took);
        let code = answered.code.min(MAX_CODE).to_string();
        add(&self.webhook_requests, [name, step, operation, &code, rejected]);
        if let Some((error, code)) = answered.refused {
            add(&self.webhook_rejections, [name, step, operation, error, &code.min(MAX_CODE).to_string()]);
        }
    }

    /// A webhook could not be asked, which counts as its consent.
    pub fn failed_open(&self, named: Named<'_>) {
        add(&self.fail_opens, [named.name, named.step]);
    }

    /// Match conditions were asked; so many of them went wrong.
    pub fn conditions(&self, Named { name, kind, step, operation }: Named<'_>, took: Duration, errors: usize, excluded: bool) {
        let labels = [name, kind, step, word(operation)];
        self.conditions.get(labels, || Histogram::seconds(CONDITION_DURATIONS)).value.took(took);
        if errors > 0 {
            self.condition_errors.get(labels, AtomicU64::default).value.fetch_add(errors as u64, Ordering::Relaxed);
        }
        if excluded {
            add(&self.condition_exclusions, labels);
        }
    }

    /// A validating policy found something; `action` is what its binding makes of that.
    pub fn validated(&self, Check { policy, binding, fault, took }: Check<'_>, action: &'static str) {
        self.validating.get([policy, binding, fault, action], || Histogram::seconds(CHECK_DURATIONS)).value.took(took);
    }

    /// A mutation was made, or not.
    pub fn mutated(&self, Check { policy, binding, fault, took }: Check<'_>) {
        self.mutating.get([policy, binding, fault], || Histogram::seconds(CHECK_DURATIONS)).value.took(took);
    }

    /// Webhooks are there no more that had a say in this step.
    pub fn forget_webhooks(&self, step: &str, gone: &dyn Fn(&str) -> bool) {
        let stays = |name: &str, of: &str| of != step || !gone(name);
        self.webhooks.retain(|labels| stays(&labels[0], &labels[1]));
        self.webhook_requests.retain(|labels| stays(&labels[0], &labels[1]));
        self.webhook_rejections.retain(|labels| stays(&labels[0], &labels[1]));
        self.fail_opens.retain(|labels| stays(&labels[0], &labels[1]));
        self.forget_conditions("webhook", step, gone);
    }

    /// Policies are there no more, or no more bound.
    pub fn forget_policies(&self, mutating: bool, unbound: &dyn Fn(&str, &str) -> bool, gone: &dyn Fn(&str) -> bool) {
        if mutating {
            self.mutating.retain(|labels| !unbound(&labels[0], &labels[1]));
        } else {
            self.validating.retain(|labels| !unbound(&labels[0], &labels[1]));
        }
        // Both kinds of policies count theirs as one.
        self.forget_conditions("policy", "validate", gone);
    }

    fn forget_conditions(&self, kind: &str, step: &str, gone: &dyn Fn(&str) -> bool) {
        let stays = |labels: &[Box<str>; 4]| *labels[1] != *kind || *labels[2] != *step || !gone(&labels[0]);
        self.conditions.retain(stays);
        self.condition_errors.retain(stays);
        self.condition_exclusions.retain(stays);
    }

    /// All samples.
    pub fn write(&self, page: &mut Page) {
        self.settle();
        self.write_steps(page);
        self.write_webhooks(page);
        self.write_conditions(page);
        self.write_policies(page);
    }

    fn write_steps(&self, page: &mut Page) {
        let name = "apiserver_admission_step_admission_duration_seconds";
        page.family(name, "histogram", Stability::Stable, "How long a step of admission takes, by operation and whether it refused.");
        for (outcome, (histogram, _)) in self.steps.all() {
            histogram.write(page, name, &outcome.labels());
        }
        let name = "apiserver_admission_step_admission_duration_seconds_summary";
        page.family(name, "summary", Stability::Alpha, "How long steps of admission took in the last five hours.");
        for (outcome, (_, summary)) in self.steps.all() {
            summary.write(page, name, &outcome.labels(), self.began.elapsed());
        }
        let name = "apiserver_admission_controller_admission_duration_seconds";
        page.family(
            name,
            "histogram",
            Stability::Stable,
            "How long a plugin takes, by its name, the step, the operation and whether it refused.",
        );
        for (plugin, each) in &self.plugins {
            for (outcome, histogram) in each.all() {
                let [operation, rejected, step] = outcome.labels();
                histogram.write(page, name, &[("name", plugin), operation, rejected, step]);
            }
        }
    }

    fn write_webhooks(&self, page: &mut Page) {
        let name = "apiserver_admission_webhook_admission_duration_seconds";
        page.family(
            name,
            "histogram",
            Stability::Stable,
            "How long a webhook takes, by its name, the step, the operation and whether it refused.",
        );
        for series in self.webhooks.all() {
            let [hook, step, operation, rejected] = &series.labels;
            series.value.write(page, name, &[("name", hook), ("operation", operation), ("rejected", rejected), ("type", step)]);
        }
        let name = "apiserver_admission_webhook_request_total";
        page.family(name, "counter", Stability::Alpha, "Questions to webhooks, by what was answered; codes above 600 are told as 600.");
        for series in self.webhook_requests.all() {
            let [hook, step, operation, code, rejected] = &series.labels;
            let labels = [("code", &**code), ("name", hook), ("operation", operation), ("rejected", rejected), ("type", step)];
            page.sample(name, &labels, series.value.load(Ordering::Relaxed));
        }
        let name = "apiserver_admission_webhook_rejection_count";
        page.family(
            name,
            "counter",
            Stability::Alpha,
            "Writes that webhooks stop: by their word (no_error), or as they could not be asked.",
        );
        for series in self.webhook_rejections.all() {
            let [hook, step, operation, error, code] = &series.labels;
            let labels = [("error_type", &**error), ("name", hook), ("operation", operation), ("rejection_code", code), ("type", step)];
            page.sample(name, &labels, series.value.load(Ordering::Relaxed));
        }
        let name = "apiserver_admission_webhook_fail_open_count";
        page.family(name, "counter", Stability::Alpha, "Webhooks that could not be asked, where that counts as consent.");
        for series in self.fail_opens.all() {
            let [hook, step] = &series.labels;
            page.sample(name, &[("name", hook), ("type", step)], series.value.load(Ordering::Relaxed));
        }
    }

    fn write_conditions(&self, page: &mut Page) {
        let name = "apiserver_admission_match_condition_evaluation_seconds";
        page.family(name, "histogram", Stability::Alpha, "How long the match conditions of a webhook or policy take.");
        for series in self.conditions.all() {
            series.value.write(page, name, &of_condition(&series.labels));
        }
        let counters: [(&str, &str, &Family<4, AtomicU64>); 2] = [
            ("evaluation_errors_total", "Match conditions that went wrong.", &self.condition_errors),
            ("exclusions_total", "Writes that match conditions leave out.", &self.condition_exclusions),
        ];
        for (name, help, family) in counters {
            let name = format!("apiserver_admission_match_condition_{name}");
            page.family(&name, "counter", Stability::Alpha, help);
            for series in family.all() {
                page.sample(&name, &of_condition(&series.labels), series.value.load(Ordering::Relaxed));
            }
        }
    }

    fn write_policies(&self, page: &mut Page) {
        let (checks, durations) = ("check_total", "check_duration_seconds");
        let name = |kind: &str, what: &str| format!("apiserver_{kind}_admission_policy_{what}");
        page.family(
            &name("validating", checks),
            "counter",
            Stability::Beta,
            "What policies found, by policy, binding and what came of it.",
        );
        let all = self.validating.all();
        for series in &all {
            page.sample(&name("validating", checks), &of_validation(&series.labels), series.value.count());
        }
        let help = "How long the expressions of policies take that found something.";
        page.family(&name("validating", durations), "histogram", Stability::Beta, help);
        for series in &all {
            series.value.write(page, &name("validating", durations), &of_validation(&series.labels));
        }
        page.family(&name("mutating", checks), "counter", Stability::Alpha, "Mutations by policies, by policy and binding.");
        let all = self.mutating.all();
        for series in &all {
            page.sample(&name("mutating", checks), &of_mutation(&series.labels), series.value.count());
        }
        page.family(&name("mutating", durations), "histogram", Stability::Alpha, "How long mutations by policies take.");
        for series in &all {
            series.value.write(page, &name("mutating", durations), &of_mutation(&series.labels));
        }
    }
}

fn add<const N: usize>(family: &Family<N, AtomicU64>, labels: [&str; N]) {
    family.get(labels, AtomicU64::default).value.fetch_add(1, Ordering::Relaxed);
}

fn of_condition([name, kind, step, operation]: &[Box<str>; 4]) -> [(&'static str, &str); 4] {
    [("kind", kind), ("name", name), ("operation", operation), ("type", step)]
}

fn of_validation([policy, binding, fault, action]: &[Box<str>; 4]) -> [(&'static str, &str); 4] {
    [("enforcement_action", action), ("error_type", fault), ("policy", policy), ("policy_binding", binding)]
}

fn of_mutation([policy, binding, fault]: &[Box<str>; 3]) -> [(&'static str, &str); 3] {
    [("error_type", fault), ("policy", policy), ("policy_binding", binding)]
}

fn word(operation: Operation) -> &'static str {
    match operation {
        Operation::Create => "CREATE",
        Operation::Update => "UPDATE",
        Operation::Delete => "DELETE",
        Operation::Connect => "CONNECT",
    }
}

fn flag(value: bool) -> &'static str {
    if value { "true" } else { "false" }
}

impl Outcome {
    fn labels(self) -> [(&'static str, &'static str); 3] {
        let step = match self.step {
            Step::Admit => "admit",
            Step::Validate => "validate",
        };
        [("operation", word(self.operation)), ("rejected", flag(self.refused)), ("type", step)]
    }

    /// All there are, each at its place.
    fn all() -> impl Iterator<Item = Self> {
        let of_step =
            |step| OPERATIONS.into_iter().flat_map(move |operation| [false, true].map(|refused| Self { step, operation, refused }));
        STEPS.into_iter().flat_map(of_step)
    }

    fn place(self) -> usize {
        (self.step as usize * OPERATIONS.len() + self.operation as usize) * 2 + usize::from(self.refused)
    }
}

/// One of a kind for each outcome, made when it is first needed.
#[derive(Debug)]
struct Each<T>([OnceLock<T>; STEPS.len() * OPERATIONS.len() * 2]);

impl<T> Default for Each<T> {
    fn default() -> Self {
        Self([const { OnceLock::new() }; STEPS.len() * OPERATIONS.len() * 2])
    }
}

impl<T> Each<T> {
    fn get(&self, outcome: Outcome, make: impl FnOnce() -> T) -> &T {
        self.0[outcome.place()].get_or_init(make)
    }

    fn all(&self) -> impl Iterator<Item = (Outcome, &T)> {
        Outcome::all().filter_map(|outcome| self.0[outcome.place()].get().map(|value| (outcome, value)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(admission: &Admission) -> String {
        let mut page = Page::default();
        admission.write(&mut page);
        page.finish()
    }

    fn has(page: &str, line: &str) {
        assert!(page.lines().any(|found| found == line), "no line {line:?} in\n{page}");
    }

    const NAMED: Named<'static> = Named { name: "a.test", kind: "webhook", step: "admit", operation: Operation::Create };

    #[test]
    fn outcomes_have_places_of_their_own() {
        assert!(Outcome::all().map(Outcome::place).eq(0..16));
    }

    #[test]
    fn steps_and_plugins_are_told_under_upstreams_names() {
        let admission = Admission::of(["A", "B"].into_iter());
        let outcome = Outcome { step: Step::Validate, operation: Operation::Delete, refused: true };
        let start = Instant::now();
        let next = admission.plugin(1, outcome, start);
        assert!(next >= start);
        let passed = Outcome { refused: false, ..outcome };
        admission.plugin(1, passed, Instant::now());
        admission.plugin(1, passed, start.checked_sub(FIRST_BOUND * 2).expect("the machine is up for a while"));
        admission.step(outcome, start);
        let page = page(&admission);
        let labels = "operation=\"DELETE\",rejected=\"true\",type=\"validate\"";
        has(&page, &format!("apiserver_admission_controller_admission_duration_seconds_count{{name=\"B\",{labels}}} 1"));
        let (family, passed) = ("apiserver_admission_controller_admission_duration_seconds", labels.replace("\"true\"", "\"false\""));
        has(&page, &format!("{family}_bucket{{name=\"B\",{passed},le=\"0.005\"}} 1"));
        has(&page, &format!("{family}_count{{name=\"B\",{passed}}} 2"));
        has(&page, &format!("apiserver_admission_step_admission_duration_seconds_bucket{{{labels},le=\"2.5\"}} 1"));
        has(&page, &format!("apiserver_admission_step_admission_duration_seconds_summary_count{{{labels}}} 1"));
        assert!(!page.contains("name=\"A\""), "who was not asked is not told of");
    }

    #[test]
    fn webhooks_are_told_and_forgotten() {
        let admission = Admission::of(std::iter::empty());
        let answered = |code, refused| Answered { took: Duration::from_secs(3), code, refused };
        admission.webhook(NAMED, answered(200, None));
        admission.webhook(NAMED, answered(999, Some(("no_error", 999))));
        admission.webhook(Named { step: "validating", ..NAMED }, answered(503, None));
        admission.failed_open(Named { step: "validating", ..NAMED });
        admission.conditions(NAMED, Duration::from_millis(2), 2, true);
        let told = page(&admission);
        let of = "name=\"a.test\",operation=\"CREATE\"";
        for line in [
            format!("apiserver_admission_webhook_request_total{{code=\"600\",{of},rejected=\"true\",type=\"admit\"}} 1"),
            format!("apiserver_admission_webhook_rejection_count{{error_type=\"no_error\",{of},rejection_code=\"600\",type=\"admit\"}} 1"),
            "apiserver_admission_webhook_fail_open_count{name=\"a.test\",type=\"validating\"} 1".to_owned(),
            format!("apiserver_admission_webhook_admission_duration_seconds_bucket{{{of},rejected=\"false\",type=\"admit\",le=\"10\"}} 1"),
            format!("apiserver_admission_match_condition_evaluation_errors_total{{kind=\"webhook\",{of},type=\"admit\"}} 2"),
            format!("apiserver_admission_match_condition_exclusions_total{{kind=\"webhook\",{of},type=\"admit\"}} 1"),
            format!("apiserver_admission_match_condition_evaluation_seconds_count{{kind=\"webhook\",{of},type=\"admit\"}} 1"),
        ] {
            has(&told, &line);
        }
        admission.forget_webhooks("admit", &|name| name == "a.test");
        let left = page(&admission);
        assert!(!left.contains("type=\"admit\"") && left.contains("type=\"validating\""), "{left}");
    }

    #[test]
    fn policies_are_told_and_forgotten() {
        let admission = Admission::of(std::iter::empty());
        let check = Check { policy: "p", binding: "b", fault: "invalid_error", took: Duration::from_millis(5) };
        admission.validated(check, "deny");
        admission.mutated(Check { fault: "no_error", ..check });
        admission.conditions(Named { name: "p", kind: "policy", step: "validate", ..NAMED }, Duration::ZERO, 0, false);
        let told = page(&admission);
        let labels = "enforcement_action=\"deny\",error_type=\"invalid_error\",policy=\"p\",policy_binding=\"b\"";
        has(&told, &format!("apiserver_validating_admission_policy_check_total{{{labels}}} 1"));
        has(&told, &format!("apiserver_validating_admission_policy_check_duration_seconds_bucket{{{labels},le=\"0.01\"}} 1"));
        has(&told, "apiserver_mutating_admission_policy_check_total{error_type=\"no_error\",policy=\"p\",policy_binding=\"b\"} 1");
        admission.forget_policies(false, &|policy, binding| (policy, binding) == ("p", "b"), &|_| false);
        let left = page(&admission);
        assert!(!left.contains("enforcement_action") && left.contains("error_type=\"no_error\"") && left.contains("kind=\"policy\""));
        admission.forget_policies(true, &|policy, _| policy == "p", &|name| name == "p");
        assert!(!page(&admission).contains("policy=\"p\"") && !page(&admission).contains("kind=\"policy\""));
    }
}
