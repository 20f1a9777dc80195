//! How long a write of one Pod takes in this crate, step by step: `cargo run --release --example write_path -- pod.json`.

use std::time::Instant;

use std::sync::Arc;

use coracle_api::{
    apply::{self, Act, Managers, Reach, Versions},
    catalogue, decode, defaulting, protobuf,
    schema::Schema,
    structural, validation,
};
use serde_json::Value;

/// Pods have one version.
struct OneVersion(Arc<Schema>);

impl Versions for OneVersion {
    fn schema(&self, _: &str) -> Option<Arc<Schema>> {
        Some(Arc::clone(&self.0))
    }

    fn convert(&self, object: &Value, _: &str, _: &str) -> Option<Value> {
        Some(object.clone())
    }
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let path = std::env::args().nth(1).ok_or("give the file of a Pod")?;
    let body = std::fs::read(path)?;
    let start = Instant::now();
    let resource = catalogue::builtin().resource("", "v1", "pods").ok_or("no pods")?;
    println!("catalogue            {:>8.1} ms", start.elapsed().as_secs_f64() * 1e3);
    let rounds = 2000;
    let mut value = decode::json(&body)?.value;
    structural::prune(&resource.schema, &mut value)?;
    defaulting::apply(resource, &mut value);
    println!("{} bytes sent, {} bytes stored, {} causes", body.len(), value.to_string().len(), validation::create(resource, &value).len());
    let time = |name: &str, work: &dyn Fn()| {
        let start = Instant::now();
        (0..rounds).for_each(|_| work());
        println!("{name:<20} {:>8.1} us", start.elapsed().as_secs_f64() * 1e6 / f64::from(rounds));
    };
    time("decode", &|| drop(decode::json(&body)));
    time("decode+prune", &|| {
        let mut value = decode::json(&body).map(|d| d.value).unwrap_or_default();
        let _ = structural::prune(&resource.schema, &mut value);
    });
    time("default", &|| defaulting::apply(resource, &mut value.clone()));
    time("(clone)", &|| drop(value.clone()));
    time("validate", &|| drop(validation::create(resource, &value)));
    time("encode", &|| drop(value.to_string()));
    time("protobuf", &|| drop(protobuf::encode(&resource.schema, &value)));
    let act = Act { manager: "m", api_version: "v1", subresource: "", now: "2026-01-01T00:00:00Z", reach: &Reach::Whole };
    let (versions, nothing) = (OneVersion(Arc::clone(&resource.schema)), structural::zero(&resource.schema));
    let track = |old: &Value, new: &Value, known| apply::track(&resource.schema, old, new, known, &act, &versions).write();
    time("manage (create)", &|| drop(track(&nothing, &value, Managers::default())));
    let mut held = value.clone();
    held["metadata"]["uid"] = "u".into();
    held["metadata"]["managedFields"] = track(&nothing, &value, Managers::default());
    println!("{} bytes with managedFields", held.to_string().len());
    let mut changed = held.clone();
    changed["status"]["message"] = "changed".into();
    time("manage (update)", &|| {
        let known = Managers::read(&held["metadata"]["managedFields"]).unwrap_or_default();
        drop(track(&held, &changed, known));
    });
    time("apply (unchanged)", &|| {
        let known = Managers::read(&held["metadata"]["managedFields"]).unwrap_or_default();
        drop(apply::apply(&resource.schema, &held, &value, known, &act, true, &versions));
    });
    time("parse (held)", &|| drop(serde_json::from_slice::<Value>(held.to_string().as_bytes())));
    time("all", &|| {
        let mut value = decode::json(&body).map(|d| d.value).unwrap_or_default();
        let _ = structural::prune(&resource.schema, &mut value);
        defaulting::apply(resource, &mut value);
        drop(validation::create(resource, &value));
        drop(value.to_string());
    });
    Ok(())
}
