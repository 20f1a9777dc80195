//! Against the kernel, each test in a network namespace of its own.

use std::{fs::File, os::fd::AsFd, thread};

use ipnet::Ipv4Net;
use nix::sched::{CloneFlags, unshare};
use rtnetlink::packet_route::link::InfoKind;

use super::{route::Veth, *};

/// Runs `test` in a new network namespace; another one is there for the other ends of links.
fn in_namespace(test: impl FnOnce(&mut Netlink, File) + Send + 'static) {
    let worker = thread::spawn(|| {
        let new = || unshare(CloneFlags::CLONE_NEWNET).expect("unshare needs root");
        new();
        let other = File::open("/proc/thread-self/ns/net").expect("namespace");
        new();
        test(&mut Netlink::open().expect("netlink"), other);
    });
    worker.join().expect("thread");
}

#[test]
fn every_step_of_a_pods_link_may_be_repeated() {
    in_namespace(|netlink, other| {
        let veth = Veth { name: "v0", mac: [10, 0, 0, 0, 0, 1], peer: "eth0", peer_mac: [10, 0, 0, 0, 0, 2], mtu: 1400 };
        netlink.add_veth(&veth, other.as_fd()).expect("pair");
        assert_eq!(netlink.add_veth(&veth, other.as_fd()).expect_err("a pair is made once").raw_os_error(), Some(libc::EEXIST));
        let link = netlink.link("v0").expect("link");
        let (own, pod) = ([10, 42, 0, 1].into(), [10, 42, 0, 7].into());
        for _ in 0..2 {
            netlink.set_up_as(link.index, "coracle/c/s").expect("up");
            netlink.add_address(link.index, own).expect("address");
            netlink.add_link_route(pod, 32, link.index, own).expect("route");
            netlink.add_default_route([169, 254, 1, 1].into(), link.index).expect("default route");
            netlink.add_neighbour(link.index, pod, veth.peer_mac).expect("neighbour");
            netlink.add_clsact(link.index).expect("qdisc");
        }
        let seen = netlink.link("v0").expect("link");
        assert_eq!((seen.alias.as_str(), seen.mtu), ("coracle/c/s", 1400));
        assert!(netlink.links().expect("links").contains(&seen));
        let addresses = netlink.addresses().expect("addresses");
        assert!(addresses.iter().any(|address| (address.link, address.ip) == (link.index, own)), "{addresses:?}");
        let routes = std::fs::read_to_string("/proc/thread-self/net/route").expect("routes");
        // Its addresses are hexadecimal words of this machine's order.
        for target in [u32::from_ne_bytes([10, 42, 0, 7]), 0] {
            let lines = routes.lines().filter(|line| line.starts_with(&format!("v0\t{target:08X}\t")));
            assert_eq!(lines.count(), 1, "{routes}");
        }
        for _ in 0..2 {
            netlink.delete_link(link.index).expect("gone, or gone already");
        }
        assert_eq!(netlink.find_link("v0").expect("look"), None);
    });
}

#[test]
fn a_refusal_says_what_the_kernel_says() {
    in_namespace(|netlink, _| {
        let error = |result: io::Result<()>| result.expect_err("refused").raw_os_error();
        assert_eq!(error(netlink.set_up(77)), Some(libc::ENODEV));
        assert_eq!(error(netlink.add_link("a name that is far too long", InfoKind::Bridge)), Some(libc::ERANGE));
        assert_eq!(error(netlink.add_clsact(77)), Some(libc::ENODEV));
        // After refusals the connection goes on.
        assert_eq!(netlink.link("lo").expect("loopback").index, 1);
    });
}

#[test]
fn a_connection_stays_in_the_namespace_that_it_was_made_in() {
    in_namespace(|netlink, _| {
        let before = netlink.netns_cookie().expect("cookie");
        netlink.add_link("here", InfoKind::Bridge).expect("bridge");
        unshare(CloneFlags::CLONE_NEWNET).expect("unshare");
        let mut there = Netlink::open().expect("netlink");
        assert_ne!(there.netns_cookie().expect("cookie"), before);
        assert_eq!(netlink.netns_cookie().expect("cookie"), before);
        assert!(there.find_link("here").expect("look").is_none() && netlink.find_link("here").expect("look").is_some());
    });
}

#[test]
fn the_masquerade_is_made_anew_and_removed_twice() {
    in_namespace(|_, _| {
        let range = |text: &str| text.parse::<Ipv4Net>().expect("range");
        for pods in ["10.42.0.0/24", "10.42.1.0/24"] {
            nft::masquerade("c", range(pods), range("10.42.0.0/16")).expect("table");
        }
        for _ in 0..2 {
            nft::remove("c").expect("gone, or gone already");
        }
        let error = nft::masquerade(&"c".repeat(300), range("10.42.0.0/24"), range("10.42.0.0/16")).expect_err("a name too long");
        assert!(error.raw_os_error().is_some(), "{error}");
    });
}
