//! CronJobs: schedules and time zones.

use super::super::field::Field;
use super::job::job_spec;

pub(super) fn cron_job(spec: &Field<'_>) {
    let schedule = spec.at("schedule");
    if schedule.must_exist() {
        if schedule.text().contains("TZ") {
            schedule.invalid("cannot use TZ or CRON_TZ in schedule, use timeZone instead");
        } else if !is_schedule(schedule.text()) {
            schedule.invalid("it is no schedule: five fields, or a word such as @daily, are expected");
        }
    }
    spec.at("startingDeadlineSeconds").not_negative();
    spec.at("concurrencyPolicy").required_one_of(&["Allow", "Forbid", "Replace"]);
    for name in ["successfulJobsHistoryLimit", "failedJobsHistoryLimit"] {
        spec.at(name).not_negative();
    }
    let zone = spec.at("timeZone");
    if zone.exists() && !is_time_zone(zone.text()) {
        zone.invalid("unknown time zone");
    }
    let job = spec.at("jobTemplate");
    job_spec(&job.at("spec"));
}

fn is_time_zone(name: &str) -> bool {
    let part = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'+' | b'-'));
    let known = name.contains('/')
        || name.bytes().filter(u8::is_ascii_uppercase).count() >= 2
        || matches!(name, "Cuba" | "Egypt" | "Japan" | "Zulu" | "Iran");
    !name.eq_ignore_ascii_case("local") && known && name.split('/').all(part) && !name.starts_with('-')
}

/// Five fields of numbers, ranges, steps and names, or a macro.
fn is_schedule(text: &str) -> bool {
    const NAMES: [&str; 19] = [
        "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec", "sun", "mon", "tue", "wed", "thu", "fri", "sat",
    ];
    const BOUNDS: [(u32, u32); 5] = [(0, 59), (0, 23), (1, 31), (1, 12), (0, 7)];
    if let Some(word) = text.strip_prefix('@') {
        let every = word.strip_prefix("every ").is_some_and(|d| crate::structural::parse_duration(d).is_some());
        return every || matches!(word, "yearly" | "annually" | "monthly" | "weekly" | "daily" | "midnight" | "hourly");
    }
    let fields: Vec<&str> = text.split_whitespace().collect();
    let valid = |field: &str, (low, high): (u32, u32)| {
        let number = |text: &str| {
            let named = NAMES.contains(&text.to_lowercase().as_str());
            named || text.parse::<u32>().is_ok_and(|n| (low..=high).contains(&n))
        };
        field.split(',').all(|part| {
            let (range, step) = part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
            let range = matches!(range, "*" | "?") || range.split_once('-').map_or_else(|| number(range), |(a, b)| number(a) && number(b));
            range && step.is_none_or(|s| s.parse::<u32>().is_ok_and(|n| n > 0))
        })
    };
    fields.len() == BOUNDS.len() && fields.iter().zip(BOUNDS).all(|(field, bounds)| valid(field, bounds))
}
