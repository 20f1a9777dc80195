//! The demo's client: asks a Service by its short name until enough different pods have answered.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    process::ExitCode,
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
};

/// All must have answered by then.
const LIMIT: Duration = Duration::from_secs(30);
/// One request.
const PATIENCE: Duration = Duration::from_secs(2);
/// Between requests that failed: the Service may have no endpoint yet.
const REST: Duration = Duration::from_millis(20);

/// Asks `host` (a name and a port), prints an answer per line; fails when fewer than `pods` pods answered in time.
pub fn ask(host: &str, pods: usize) -> ExitCode {
    let Some((name, port)) = host.split_once(':').and_then(|(name, port)| Some((name, port.parse::<u16>().ok()?))) else {
        eprintln!("{host:?} is not name:port");
        return ExitCode::from(2);
    };
    let began = Instant::now();
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    let mut seen: BTreeSet<String> = BTreeSet::new();
    let mut last = String::new();
    while seen.len() < pods && began.elapsed() < LIMIT {
        match resolve(name).and_then(|ip| get(SocketAddr::new(ip, port), name)) {
            Ok(answer) => {
                seen.extend(answer.split_whitespace().next().map(str::to_owned));
                *answers.entry(answer).or_default() += 1;
            }
            Err(error) => {
                last = error;
                std::thread::sleep(REST);
            }
        }
    }
    for (answer, times) in &answers {
        println!("{name} -> {answer} ({times}x)");
    }
    if seen.len() >= pods {
        return ExitCode::SUCCESS;
    }
    eprintln!("{} of {pods} pods answered in {} s; last failure: {last}", seen.len(), LIMIT.as_secs());
    ExitCode::FAILURE
}

fn get(address: SocketAddr, host: &str) -> Result<String, String> {
    let ask = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n")?;
        let mut text = String::new();
        stream.read_to_string(&mut text)?;
        Ok(text.split_once("\r\n\r\n").map(|(_, body)| body.trim().to_owned()).unwrap_or_default())
    };
    ask().map_err(|e| format!("{address}: {e}"))
}

/// By the pod's resolv.conf; glibc's resolver is not in a static binary.
fn resolve(name: &str) -> Result<IpAddr, String> {
    let look_up = async {
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build()).map_err(|e| e.to_string())?;
        let found = resolver.lookup_ip(name).await.map_err(|e| format!("{name}: {e}"))?;
        found.iter().next().ok_or_else(|| format!("{name} has no address"))
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(|e| e.to_string())?;
    runtime.block_on(look_up)
}

/// Waits until the DNS server at `address` knows the API server's Service.
pub async fn ask_dns(address: SocketAddr, domain: &str) {
    let mut connection = ConnectionConfig::udp();
    connection.port = address.port();
    let server = NameServerConfig::new(address.ip(), true, vec![connection]);
    let config = ResolverConfig::from_parts(None, Vec::new(), vec![server]);
    let name = format!("kubernetes.default.svc.{domain}.");
    loop {
        let mut builder = TokioResolver::builder_with_config(config.clone(), TokioRuntimeProvider::default());
        builder.options_mut().timeout = Duration::from_millis(200);
        builder.options_mut().attempts = 1;
        if let Ok(resolver) = builder.build()
            && resolver.lookup_ip(name.as_str()).await.is_ok()
        {
            return;
        }
        tokio::time::sleep(REST).await;
    }
}
