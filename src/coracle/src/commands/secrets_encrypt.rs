//! `coracle secrets-encrypt`: asks the running server under which keys Secrets lie, or to change the key.

use http::{Method, Request};
use serde::Deserialize;

use crate::{
    cli::{Output, SecretsEncryptCommand, SecretsEncryptFlags},
    config::server::Defaults,
    failure::Failure,
};

/// Where the server tells of it, and changes it.
const PATH: &str = "/coracle/v1/secrets-encrypt";

/// What the server says.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Census {
    problem: Option<String>,
    keys: Vec<String>,
    sealed: std::collections::BTreeMap<String, usize>,
    plain: usize,
    unreadable: usize,
    unreadable_names: Vec<String>,
}

/// Does what was asked.
pub async fn secrets_encrypt(flags: &SecretsEncryptFlags) -> Result<(), Failure> {
    let kubeconfig = flags.kubeconfig.clone().unwrap_or_else(|| Defaults::server(Some(&flags.data_dir)).kubeconfig);
    let client = coracle_client::from_kubeconfig(&kubeconfig).await.map_err(Failure::of)?;
    let method = match flags.command {
        SecretsEncryptCommand::Status => Method::GET,
        SecretsEncryptCommand::Rotate => Method::POST,
    };
    let request = Request::builder().method(method).uri(PATH).body(Vec::new()).map_err(Failure::of)?;
    let text = client.request_text(request).await.map_err(|error| match error {
        kube::Error::Api(status) => Failure::new(status.message.clone()),
        other => Failure::new("the server does not answer; keys are looked at and changed while it runs").because(other),
    })?;
    if flags.output == Output::Json {
        println!("{text}");
        return Ok(());
    }
    let census: Census = serde_json::from_str(&text).map_err(|error| Failure::new("the server's answer cannot be read").because(error))?;
    print!("{}", told(&census));
    Ok(())
}

/// For people, in the order of what k3s prints.
fn told(census: &Census) -> String {
    let mut out = format!("Encryption Status: {}\n", if census.problem.is_none() { "Enabled" } else { "Broken" });
    if let Some(problem) = &census.problem {
        out += &format!("Problem: {problem}\n");
    }
    let old = census.sealed.iter().filter(|(id, _)| census.keys.first() != Some(*id)).map(|(_, count)| count).sum::<usize>() + census.plain;
    let stage = if census.keys.len() > 1 || old > 0 { "unfinished: run `coracle secrets-encrypt rotate`" } else { "finished" };
    out += &format!("Current Rotation Stage: {stage}\n");
    out += &format!("\nActive  Key Type  {:<16}  Secrets\n------  --------  {:-<16}  -------\n", "Name", "");
    let others = census.sealed.keys().filter(|id| !census.keys.contains(id));
    for (at, id) in census.keys.iter().chain(others).enumerate() {
        let mark = if at == 0 && !census.keys.is_empty() { "  *" } else { "" };
        out += &format!("{mark:<6}  {:<8}  {id:<16}  {}\n", "AES-GCM", census.sealed.get(id).copied().unwrap_or_default());
    }
    if census.plain > 0 {
        out += &format!("{:<6}  {:<8}  {:<16}  {}\n", "", "none", "(plaintext)", census.plain);
    }
    if census.unreadable > 0 {
        out += &format!("\n{} cannot be decrypted: {}\n", census.unreadable, census.unreadable_names.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_see_the_key_and_what_is_left_to_do() {
        let census = |keys: &[&str], sealed: &[(&str, usize)], plain| Census {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            sealed: sealed.iter().map(|(key, count)| ((*key).to_owned(), *count)).collect(),
            plain,
            ..Census::default()
        };
        let text = told(&census(&["aa"], &[("aa", 3)], 0));
        assert!(
            text.contains("Enabled") && text.contains("Stage: finished") && text.contains("  *     AES-GCM   aa                3\n"),
            "{text}"
        );
        for unfinished in [census(&["bb", "aa"], &[], 0), census(&["bb"], &[("bb", 1)], 2)] {
            assert!(told(&unfinished).contains("Stage: unfinished"));
        }
        assert!(told(&census(&["bb"], &[("bb", 1)], 2)).contains("(plaintext)       2\n"));
        let broken = Census { problem: Some("the key file x is missing".into()), ..Census::default() };
        assert!(told(&broken).contains("Broken\nProblem: the key file x is missing\n"));
    }
}
