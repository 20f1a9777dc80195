//! The node's own name servers: where questions about the rest of the world go. Follows resolv.conf through its links.

use std::{
    collections::BTreeSet,
    ffi::OsString,
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use hickory_resolver::{
    TokioResolver,
    config::{NameServerConfig, ResolveHosts, ResolverConfig, ResolverOpts},
};
use inotify::{Inotify, WatchMask};
use tokio::{io::unix::AsyncFd, sync::watch as latest};

/// As many as resolv.conf(5) has; further ones are not looked at by anybody.
const MAX_SERVERS: usize = 3;
/// Answers that are remembered.
const CACHE_ENTRIES: u64 = 4096;
/// What upstream says is believed no longer.
const CACHE_TTL: Duration = Duration::from_secs(300);
/// For one server to answer one try. A resolver of a pod waits five seconds in all.
const TIMEOUT: Duration = Duration::from_secs(2);
/// Tries of a question.
const ATTEMPTS: usize = 2;
/// Links on the way from resolv.conf to the file; the kernel follows no more.
const MAX_LINKS: usize = 40;
/// For many events at once; what does not fit is read next.
const EVENT_BYTES: usize = 4096;

/// Whoever answers external names at the moment. Clones share it.
#[derive(Clone, Default)]
pub struct Upstream {
    now: Arc<latest::Sender<Now>>,
}

#[derive(Default)]
struct Now {
    servers: Vec<IpAddr>,
    resolver: Option<TokioResolver>,
}

impl Upstream {
    /// The name servers in `file`, those at `ourselves` aside.
    pub fn of(file: &Path, ourselves: IpAddr) -> Self {
        let upstream = Self::default();
        upstream.renew(file, ourselves);
        upstream
    }

    /// This one, for good.
    #[cfg(test)]
    pub fn fixed(resolver: TokioResolver) -> Self {
        Self { now: Arc::new(latest::Sender::new(Now { servers: Vec::new(), resolver: Some(resolver) })) }
    }

    /// `None`: the node has no name server but ourselves.
    pub fn resolver(&self) -> Option<TokioResolver> {
        self.now.borrow().resolver.clone()
    }

    /// Whether there is one.
    pub fn exists(&self) -> bool {
        self.now.borrow().resolver.is_some()
    }

    /// Follows the file for as long as it is polled; returns why it cannot go on.
    pub async fn follow(&self, file: &Path, ourselves: IpAddr) -> io::Error {
        loop {
            let hops = hops(file);
            let mut changes = match watch(&hops) {
                Ok(changes) => changes,
                Err(error) => return error,
            };
            // After the watch stands, so that no change falls between. A link may lead elsewhere by now: the next round sees it.
            self.renew(file, ourselves);
            if let Err(error) = changed(&mut changes, &hops).await {
                return error;
            }
        }
    }

    /// Takes the file's servers, when they are others than before: so the answers that are remembered stay. A file that is gone or names
    /// nobody, as while it is written, changes nothing.
    fn renew(&self, file: &Path, ourselves: IpAddr) {
        let servers = fs::read(file).map(|text| servers(&text, ourselves)).unwrap_or_default();
        if servers.is_empty() || servers == self.now.borrow().servers {
            return;
        }
        match resolver(servers.iter().map(|ip| NameServerConfig::udp_and_tcp(*ip)).collect(), CACHE_ENTRIES) {
            Ok(resolver) => drop(self.now.send_replace(Now { servers, resolver: Some(resolver) })),
            Err(error) => eprintln!("coracle dns: the name servers of {} are not used: {error}", file.display()),
        }
    }
}

/// The servers that the text of a resolv.conf names, in its order.
fn servers(text: &[u8], ourselves: IpAddr) -> Vec<IpAddr> {
    let Ok((config, _)) = hickory_resolver::system_conf::parse_resolv_conf(text) else { return Vec::new() };
    config.name_servers().iter().map(|server| server.ip).filter(|ip| *ip != ourselves).take(MAX_SERVERS).collect()
}

/// Asks these servers, and remembers up to `cache` answers.
pub fn resolver(servers: Vec<NameServerConfig>, cache: u64) -> Result<TokioResolver, hickory_resolver::net::NetError> {
    let config = ResolverConfig::from_parts(None, Vec::new(), servers);
    let mut builder = TokioResolver::builder_with_config(config, Default::default());
    let options: &mut ResolverOpts = builder.options_mut();
    options.cache_size = cache;
    options.positive_max_ttl = Some(CACHE_TTL);
    options.negative_max_ttl = Some(CACHE_TTL);
    options.timeout = TIMEOUT;
    options.attempts = ATTEMPTS;
    options.preserve_intermediates = true;
    options.use_hosts_file = ResolveHosts::Never;
    builder.build()
}

/// The file, and every link on the way to it, whether or not there is anything at the end.
fn hops(file: &Path) -> Vec<PathBuf> {
    let mut hops = vec![file.to_owned()];
    while hops.len() < MAX_LINKS
        && let Some(last) = hops.last()
        && let Ok(target) = fs::read_link(last)
    {
        let next = last.parent().unwrap_or(Path::new("/")).join(target);
        hops.push(next);
    }
    hops
}

/// Looks at the directory of every hop, where files are put in place of others, and at the file itself, which may be mounted from elsewhere. What is
/// not there cannot be looked at, and is not missed: it cannot come without a link that does change.
fn watch(hops: &[PathBuf]) -> io::Result<AsyncFd<Inotify>> {
    let inotify = Inotify::init()?;
    let directories =
        hops.iter().filter_map(|hop| hop.parent()).map(|path| (path, WatchMask::CLOSE_WRITE | WatchMask::CREATE | WatchMask::MOVED_TO));
    let file = hops.last().map(|file| (file.as_path(), WatchMask::CLOSE_WRITE));
    for (path, mask) in directories.chain(file) {
        match inotify.watches().add(path, mask) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    // SAFETY: an `Inotify` has one descriptor, which it owns until it is dropped, after the `AsyncFd` around it.
    unsafe { AsyncFd::register(inotify) }.map_err(Into::into)
}

/// Waits until something happened to one of the hops.
async fn changed(changes: &mut AsyncFd<Inotify>, hops: &[PathBuf]) -> io::Result<()> {
    let names: BTreeSet<OsString> = hops.iter().filter_map(|hop| hop.file_name()).map(Into::into).collect();
    let mut buffer = [0; EVENT_BYTES];
    loop {
        let mut ready = changes.readable_mut().await?;
        match ready.get_inner_mut().read_events(&mut buffer) {
            Ok(mut events) => {
                // An event without a name is the file's own, or says that events were lost.
                if events.any(|event| event.name.is_none_or(|name| names.contains(name))) {
                    return Ok(());
                }
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => ready.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests;
