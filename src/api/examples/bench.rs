//! How long a write of one Pod takes in this crate, step by step: `cargo run --release --example bench -- pod.json`.

use std::time::Instant;

use coracle_api::{catalogue, decode, defaulting, protobuf, structural, validation};

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
    time("all", &|| {
        let mut value = decode::json(&body).map(|d| d.value).unwrap_or_default();
        let _ = structural::prune(&resource.schema, &mut value);
        defaulting::apply(resource, &mut value);
        drop(validation::create(resource, &value));
        drop(value.to_string());
    });
    Ok(())
}
