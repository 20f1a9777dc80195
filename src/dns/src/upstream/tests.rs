//! Following resolv.conf: on real files, by real events.

use std::os::unix::fs::symlink;

use super::*;

const OURSELVES: [u8; 4] = [10, 42, 0, 1];

/// Waits until these are the servers.
async fn has(upstream: &Upstream, wanted: &[[u8; 4]]) {
    let wanted: Vec<IpAddr> = wanted.iter().map(|ip| IpAddr::from(*ip)).collect();
    let mut now = upstream.now.subscribe();
    let found = tokio::time::timeout(Duration::from_secs(10), now.wait_for(|now| now.servers == wanted)).await;
    assert!(found.is_ok(), "{wanted:?} did not come, it has {:?}", upstream.now.borrow().servers);
}

fn names(servers: &[[u8; 4]]) -> String {
    servers.iter().map(|ip| format!("nameserver {}\n", IpAddr::from(*ip))).collect()
}

/// As editors and network daemons do: a new file is put in the place of the old.
fn replace(file: &Path, text: &str) {
    let fresh = file.with_extension("fresh");
    fs::write(&fresh, text).expect("write");
    fs::rename(fresh, file).expect("rename");
}

#[test]
fn servers_are_those_of_the_file_but_ourselves() {
    let text = "# a comment\nsearch lan\nnameserver 10.42.0.1\nnameserver 192.0.2.1\noptions ndots:1\nnameserver 2001:db8::1\nnameserver 192.0.2.2\nnameserver 192.0.2.3\n";
    let found: Vec<String> = servers(text.as_bytes(), OURSELVES.into()).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["192.0.2.1", "2001:db8::1", "192.0.2.2"]);
    for nobody in ["", "search lan\n", "nameserver x\n", "nameserver 10.42.0.1\n", "\u{0}\u{1}"] {
        assert!(servers(nobody.as_bytes(), OURSELVES.into()).is_empty(), "{nobody:?}");
    }
}

#[test]
fn links_are_followed_to_where_nothing_is_and_not_for_ever() {
    let directory = tempfile::tempdir().expect("directory");
    let at = |name: &str| directory.path().join(name);
    symlink("b", at("a")).expect("link");
    symlink(at("c"), at("b")).expect("link");
    assert_eq!(hops(&at("a")), [at("a"), at("b"), at("c")]);
    symlink("round", at("round")).expect("link");
    assert_eq!(hops(&at("round")).len(), MAX_LINKS);
}

#[tokio::test]
async fn every_way_to_change_the_file_is_seen() {
    let directory = tempfile::tempdir().expect("directory");
    let (file, run) = (directory.path().join("resolv.conf"), directory.path().join("run"));
    fs::write(&file, names(&[[192, 0, 2, 1]])).expect("write");
    let upstream = Upstream::of(&file, OURSELVES.into());
    has(&upstream, &[[192, 0, 2, 1]]).await;
    let first = upstream.clone();
    let path = file.clone();
    let follower = tokio::spawn(async move { first.follow(&path, OURSELVES.into()).await });

    // Before and after the watch stands: a change in place is seen either way.
    fs::write(&file, names(&[[192, 0, 2, 2]])).expect("write");
    has(&upstream, &[[192, 0, 2, 2]]).await;
    replace(&file, &names(&[[192, 0, 2, 3], [192, 0, 2, 4]]));
    has(&upstream, &[[192, 0, 2, 3], [192, 0, 2, 4]]).await;

    // It becomes a link to a file that is not there yet, in a directory that is: what was known stays until it comes.
    fs::create_dir(&run).expect("directory");
    let link = directory.path().join("link");
    symlink(run.join("stub.conf"), &link).expect("link");
    fs::rename(&link, &file).expect("rename");
    replace(&run.join("stub.conf"), &names(&[[192, 0, 2, 5]]));
    has(&upstream, &[[192, 0, 2, 5]]).await;
    fs::write(run.join("stub.conf"), names(&[[192, 0, 2, 6]])).expect("write");
    has(&upstream, &[[192, 0, 2, 6]]).await;

    // Gone, or empty: nothing changes; and then it is there again.
    fs::write(&file, "").expect("write");
    fs::remove_file(run.join("stub.conf")).expect("remove");
    fs::write(run.join("other.conf"), names(&[[192, 0, 2, 7]])).expect("write");
    replace(&run.join("stub.conf"), &names(&[[192, 0, 2, 8]]));
    has(&upstream, &[[192, 0, 2, 8]]).await;
    assert!(!follower.is_finished(), "it goes on");
    follower.abort();
}

#[tokio::test]
async fn the_same_servers_keep_what_they_said() {
    let directory = tempfile::tempdir().expect("directory");
    let file = directory.path().join("resolv.conf");
    fs::write(&file, names(&[[192, 0, 2, 1]])).expect("write");
    let upstream = Upstream::of(&file, OURSELVES.into());
    let mut now = upstream.now.subscribe();
    for text in ["", "search lan\n", &format!("# changed\n{}", names(&[[192, 0, 2, 1]]))] {
        replace(&file, text);
        upstream.renew(&file, OURSELVES.into());
        assert!(!now.has_changed().expect("open"), "{text:?}");
    }
    replace(&file, &names(&[[192, 0, 2, 9]]));
    upstream.renew(&file, OURSELVES.into());
    assert!(now.has_changed().expect("open"));
    now.mark_unchanged();
    fs::remove_file(&file).expect("remove");
    upstream.renew(&file, OURSELVES.into());
    assert!(!now.has_changed().expect("open") && upstream.exists());
}
