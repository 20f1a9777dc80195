//! What a write goes through before it is stored, one request a line: `{"group", "version", "plural", "sub", "body", "old"}` in, the verdict out.
//! For judging this crate against recorded answers without a server.

use std::io::{BufRead, Write};

use coracle_api::{catalogue, decode, defaulting, structural, validation};
use serde_json::{Value, json};

fn main() -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    for line in std::io::stdin().lock().lines() {
        let verdict = match serde_json::from_str(&line?) {
            Ok(request) => judge(&request),
            Err(error) => json!({"error": error.to_string()}),
        };
        writeln!(out, "{verdict}")?;
    }
    Ok(())
}

fn judge(request: &Value) -> Value {
    let text = |name: &str| request[name].as_str().unwrap_or_default();
    let Some(resource) = catalogue::builtin().resource(text("group"), text("version"), text("plural")) else {
        return json!({"code": 404});
    };
    let read = |value: &Value| -> Result<(Value, Vec<String>), decode::DecodeError> {
        let mut decoded = decode::json(value.to_string().as_bytes())?;
        let unknown = structural::prune(&resource.schema, &mut decoded.value)?;
        defaulting::apply(resource, &mut decoded.value);
        Ok((decoded.value, unknown))
    };
    let (object, unknown) = match read(&request["body"]) {
        Ok(read) => read,
        Err(error) => return json!({"code": 400, "message": error.to_string()}),
    };
    if !unknown.is_empty() {
        return json!({"code": 400, "strict": unknown});
    }
    let causes = match request.get("old") {
        Some(old) => match read(old) {
            Ok((old, _)) => validation::update(resource, &object, &old, text("sub")),
            Err(error) => return json!({"code": 500, "message": error.to_string()}),
        },
        None => validation::create(resource, &object),
    };
    if causes.is_empty() {
        return json!({"code": 200, "object": object});
    }
    let causes: Vec<Value> = causes.iter().map(|c| json!([c.reason, c.field])).collect();
    json!({"code": 422, "causes": causes})
}
