//! Who is who, with the real kubectl: a person by a certificate signing request, a node by a bootstrap token, a token of an OpenID Connect issuer.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use coracle_pki::authority::Authority;
use coracle_tests::{Kubectl, Server};
use k8s_openapi::ByteString;
use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair};
use serde_json::{Value, json};

/// A change of a file is seen within milliseconds; generous, because tests share the machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A kubeconfig like the administrator's for somebody else.
fn login(server: &Server, directory: &Path, name: &str, user: &Value) -> Kubectl {
    let text = server.kubectl().ok(&["config", "view", "--raw", "-o", "json"]);
    let mut config: Value = serde_json::from_str(&text).expect("JSON");
    config["users"][0]["user"] = user.clone();
    let file: PathBuf = directory.join(name);
    fs::write(&file, config.to_string()).expect("written");
    Kubectl::new(&file)
}

fn base64(bytes: &[u8]) -> Value {
    serde_json::to_value(ByteString(bytes.to_vec())).expect("base64")
}

fn decoded(text: &str) -> Vec<u8> {
    serde_json::from_value::<ByteString>(text.into()).expect("base64").0
}

/// A signing request of this subject, as a manifest, with its key.
fn request(name: &str, subject: &[(DnType, &str)], signer: &str) -> (String, KeyPair) {
    let key = KeyPair::generate().expect("a key");
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    for (kind, value) in subject {
        params.distinguished_name.push(kind.clone(), *value);
    }
    let pem = params.serialize_request(&key).expect("a request").pem().expect("PEM");
    let manifest = json!({
        "apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": name},
        "spec": {"request": base64(pem.as_bytes()), "signerName": signer, "usages": ["digital signature", "client auth"], "expirationSeconds": 3600},
    });
    (manifest.to_string(), key)
}

/// The user that a signed request makes.
fn issued(kubectl: &Kubectl, name: &str, key: &KeyPair) -> Value {
    kubectl.wait(&format!("csr/{name}"), "jsonpath={.status.certificate}");
    let certificate = decoded(&kubectl.ok(&["get", "csr", name, "-o", "jsonpath={.status.certificate}"]));
    json!({"client-certificate-data": base64(&certificate), "client-key-data": base64(key.serialize_pem().as_bytes())})
}

fn whoami(kubectl: &Kubectl) -> (String, Vec<String>) {
    let review: Value = serde_json::from_str(&kubectl.ok(&["auth", "whoami", "-o", "json"])).expect("JSON");
    let info = &review["status"]["userInfo"];
    let groups = info["groups"].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned);
    (info["username"].as_str().unwrap_or_default().to_owned(), groups.collect())
}

fn is(kubectl: &Kubectl, name: &str, groups: &[&str]) {
    assert_eq!(whoami(kubectl), (name.to_owned(), groups.iter().map(|group| (*group).to_owned()).collect()));
}

const API_CLIENT: &str = "kubernetes.io/kube-apiserver-client";
const NODE_CLIENT: &str = "kubernetes.io/kube-apiserver-client-kubelet";

fn a_person_becomes_a_user_by_a_certificate(server: &Server, directory: &Path) {
    let kubectl = server.kubectl();
    let (manifest, key) = request("alice", &[(DnType::OrganizationName, "dev"), (DnType::CommonName, "alice")], API_CLIENT);
    kubectl.stdin(&["create", "-f", "-"], &manifest);
    assert!(kubectl.ok(&["get", "csr", "alice"]).contains("Pending"));
    kubectl.ok(&["certificate", "approve", "alice"]);
    let alice = login(server, directory, "alice", &issued(&kubectl, "alice", &key));
    assert!(kubectl.ok(&["get", "csr", "alice"]).contains("Approved,Issued"));
    is(&alice, "alice", &["dev", "system:authenticated"]);
    assert!(alice.fails(&["get", "nodes"]).contains("User \"alice\" cannot list resource \"nodes\""));

    // What she may approve depends on the signer too.
    let (manifest, _) = request("bob", &[(DnType::CommonName, "bob")], API_CLIENT);
    kubectl.stdin(&["create", "-f", "-"], &manifest);
    kubectl.ok(&[
        "create",
        "clusterrole",
        "approver",
        "--verb=get,list,watch,update",
        "--resource=certificatesigningrequests,certificatesigningrequests/approval",
    ]);
    kubectl.ok(&["create", "clusterrolebinding", "approver", "--clusterrole=approver", "--group=dev"]);
    let refused = alice.fails(&["certificate", "approve", "bob"]);
    assert!(refused.contains("user not permitted to approve requests with signerName"), "{refused}");
    kubectl.ok(&[
        "create",
        "clusterrolebinding",
        "signers",
        "--clusterrole=system:certificates.k8s.io:kube-apiserver-client-approver",
        "--user=alice",
    ]);
    alice.ok(&["certificate", "deny", "bob"]);
    assert!(kubectl.ok(&["get", "csr", "bob"]).contains("Denied"));

    let (manifest, _) = request("root", &[(DnType::OrganizationName, "system:masters"), (DnType::CommonName, "root")], API_CLIENT);
    fs::write(directory.join("root.json"), manifest).expect("written");
    let file = directory.join("root.json");
    let refused = kubectl.fails(&["create", "-f", file.to_str().expect("UTF-8")]);
    assert!(refused.contains("system:masters group is not allowed"), "{refused}");
}

fn a_node_is_let_in_by_a_bootstrap_token(server: &Server, directory: &Path) {
    let kubectl = server.kubectl();
    let secret = |id: &str, more: Value| {
        let mut data = json!({"token-id": id, "token-secret": "0123456789abcdef", "usage-bootstrap-authentication": "true"});
        for (key, value) in more.as_object().expect("an object") {
            data[key] = value.clone();
        }
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": format!("bootstrap-token-{id}"), "namespace": "kube-system"},
               "type": "bootstrap.kubernetes.io/token", "stringData": data})
        .to_string()
    };
    kubectl.apply(&secret("abcdef", json!({"auth-extra-groups": "system:bootstrappers:test", "usage-bootstrap-signing": "true"})));
    let newcomer = login(server, directory, "newcomer", &json!({"token": "abcdef.0123456789abcdef"}));
    is(&newcomer, "system:bootstrap:abcdef", &["system:bootstrappers", "system:bootstrappers:test", "system:authenticated"]);
    for role in ["system:node-bootstrapper", "system:certificates.k8s.io:certificatesigningrequests:nodeclient"] {
        let name = role.rsplit(':').next().expect("a name");
        kubectl.ok(&["create", "clusterrolebinding", name, &format!("--clusterrole={role}"), "--group=system:bootstrappers:test"]);
    }
    let subject = [(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:new")];
    let (manifest, key) = request("node", &subject, NODE_CLIENT);
    newcomer.stdin(&["create", "-f", "-"], &manifest);
    let node = login(server, directory, "node", &issued(&kubectl, "node", &key));
    is(&node, "system:node:new", &["system:nodes", "system:authenticated"]);
    // A node renews its own certificate, and asks for nobody else's.
    let (manifest, _) = request("renewed", &subject, NODE_CLIENT);
    node.stdin(&["create", "-f", "-"], &manifest);
    kubectl.ok(&[
        "create",
        "clusterrolebinding",
        "renew",
        "--clusterrole=system:certificates.k8s.io:certificatesigningrequests:selfnodeclient",
        "--group=system:nodes",
    ]);
    kubectl.wait("csr/renewed", "jsonpath={.status.certificate}");
    let (manifest, _) =
        request("other", &[(DnType::OrganizationName, "system:nodes"), (DnType::CommonName, "system:node:other")], NODE_CLIENT);
    fs::write(directory.join("other.json"), manifest).expect("written");
    let refused = node.fails(&["create", "-f", directory.join("other.json").to_str().expect("UTF-8")]);
    assert!(refused.contains("can only create a node CSR with CN=system:node:new"), "{refused}");

    // The token vouches for what newcomers read before they trust anybody, and one whose time is over is gone.
    kubectl.ok(&["create", "configmap", "cluster-info", "-n", "kube-public", "--from-literal=kubeconfig=here"]);
    kubectl.ok(&["wait", "cm/cluster-info", "-n", "kube-public", "--for=jsonpath={.data.jws-kubeconfig-abcdef}", "--timeout=30s"]);
    kubectl.apply(&secret("oldone", json!({"expiration": "2020-01-01T00:00:00Z"})));
    kubectl.ok(&["wait", "secret/bootstrap-token-oldone", "-n", "kube-system", "--for=delete", "--timeout=30s"]);
    let late = login(server, directory, "late", &json!({"token": "oldone.0123456789abcdef"}));
    assert!(late.fails(&["auth", "whoami"]).contains("Unauthorized"));
}

fn an_account_has_a_token_in_a_secret(server: &Server, directory: &Path) {
    let kubectl = server.kubectl();
    kubectl.ok(&["create", "serviceaccount", "robot"]);
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "robot", "annotations": {"kubernetes.io/service-account.name": "robot"}}});
    kubectl.stdin(&["create", "-f", "-"], &secret.to_string());
    kubectl.wait("secret/robot", "jsonpath={.data.token}");
    let token = decoded(&kubectl.ok(&["get", "secret", "robot", "-o", "jsonpath={.data.token}"]));
    let robot = login(server, directory, "robot", &json!({"token": String::from_utf8(token).expect("text")}));
    assert_eq!(whoami(&robot).0, "system:serviceaccount:default:robot");
    kubectl.ok(&["delete", "serviceaccount", "robot"]);
    assert!(robot.fails(&["auth", "whoami"]).contains("Unauthorized"));
    kubectl.ok(&["wait", "secret/robot", "--for=delete", "--timeout=30s"]);
}

/// An OpenID Connect issuer: two documents over TLS, for as long as the test runs.
struct Issuer {
    url: String,
    authority: Authority,
    _directory: tempfile::TempDir,
}

impl Issuer {
    fn start() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let authority = Authority::open(directory.path()).expect("authorities");
        let pair = authority.issue_server(&["localhost".to_owned()], &[]).expect("a certificate");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().expect("TLS");
        let tls = builder.with_no_client_auth().with_single_cert(vec![pair.certificate], pair.key).expect("TLS");
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let url = format!("https://localhost:{}", listener.local_addr().expect("an address").port());
        let discovery = json!({"issuer": url, "jwks_uri": format!("{url}/keys")}).to_string();
        let keys = authority.signer().verifier().key_set().to_string();
        let tls = Arc::new(tls);
        // The thread ends with the process: it holds a socket of the loopback and nothing else.
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let Ok(connection) = rustls::ServerConnection::new(Arc::clone(&tls)) else { continue };
                let mut stream = BufReader::new(rustls::StreamOwned::new(connection, stream));
                let mut first = String::new();
                let mut line = String::new();
                if stream.read_line(&mut first).is_err() {
                    continue;
                }
                while stream.read_line(&mut line).is_ok_and(|read| read > 2) {
                    line.clear();
                }
                let body = if first.starts_with("GET /keys ") { &keys } else { &discovery };
                let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len());
                let _ = stream.get_mut().write_all(answer.as_bytes());
                let _ = stream.get_mut().flush();
            }
        });
        Self { url, authority, _directory: directory }
    }

    fn token(&self, claims: Value) -> String {
        let mut all = json!({"iss": self.url, "aud": "coracle", "exp": 4_000_000_000_i64});
        for (name, value) in claims.as_object().expect("an object") {
            all[name] = value.clone();
        }
        self.authority.signer().sign(&all).expect("signed")
    }

    fn configuration(&self, prefix: &str) -> String {
        json!({
            "apiVersion": "apiserver.config.k8s.io/v1", "kind": "AuthenticationConfiguration",
            "anonymous": {"enabled": true, "conditions": [{"path": "/livez"}]},
            "jwt": [{
                "issuer": {"url": self.url, "audiences": ["coracle"], "certificateAuthority": self.authority.server_ca_pem()},
                "claimMappings": {
                    "username": {"expression": format!("'{prefix}:' + claims.sub")},
                    "groups": {"claim": "groups", "prefix": format!("{prefix}:")},
                    "extra": [{"key": "example.org/team", "valueExpression": "claims.?team.orValue('')"}],
                },
                "userValidationRules": [{"expression": "!user.username.endsWith(':root')", "message": "nobody is root"}],
            }],
        })
        .to_string()
    }
}

fn an_issuers_tokens_are_known(server: &Server, directory: &Path, issuer: &Issuer, configuration: &Path) {
    let with = |name: &str, claims: Value| login(server, directory, name, &json!({"token": issuer.token(claims)}));
    let carol = with("carol", json!({"sub": "carol", "groups": ["dev"], "team": "blue"}));
    is(&carol, "oidc:carol", &["oidc:dev", "system:authenticated"]);
    assert!(carol.ok(&["auth", "whoami", "-o", "json"]).contains("example.org/team"));
    for (name, claims) in [
        ("audience", json!({"sub": "carol", "aud": "another"})),
        ("expired", json!({"sub": "carol", "exp": 1_000_000_000})),
        ("root", json!({"sub": "root"})),
        ("nameless", json!({})),
    ] {
        assert!(with(name, claims).fails(&["auth", "whoami"]).contains("Unauthorized"), "{name}");
    }
    let review =
        json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": issuer.token(json!({"sub": "carol"}))}});
    let answer: Value =
        serde_json::from_str(&server.kubectl().stdin(&["create", "-f", "-", "-o", "json"], &review.to_string())).expect("JSON");
    assert_eq!((&answer["status"]["authenticated"], &answer["status"]["user"]["username"]), (&json!(true), &json!("oidc:carol")));

    // A mistake in the file changes nothing, a change counts at once.
    fs::write(configuration, "jwt: 7").expect("written");
    is(&carol, "oidc:carol", &["oidc:dev", "system:authenticated"]);
    let fresh = configuration.with_extension("new");
    fs::write(&fresh, issuer.configuration("corp")).expect("written");
    fs::rename(&fresh, configuration).expect("renamed");
    let begin = Instant::now();
    while whoami(&carol).0 != "corp:carol" {
        assert!(begin.elapsed() < LIMIT, "the new configuration was not taken");
    }
}

#[test]
fn people_nodes_and_tokens_are_who_they_are() {
    let issuer = Issuer::start();
    let directory = tempfile::tempdir().expect("a directory");
    let configuration = directory.path().join("authentication.yaml");
    fs::write(&configuration, issuer.configuration("oidc")).expect("written");
    let flag = format!("--authentication-config={}", configuration.display());
    let server = Server::start(&["--disable-agent", &flag]);
    a_person_becomes_a_user_by_a_certificate(&server, directory.path());
    a_node_is_let_in_by_a_bootstrap_token(&server, directory.path());
    an_account_has_a_token_in_a_secret(&server, directory.path());
    an_issuers_tokens_are_known(&server, directory.path(), &issuer, &configuration);
}
