//! Whether this machine can carry the dataplane, and what to do where it cannot.

use std::{fs, path::Path};

use crate::{kernel::object, netlink::nft};

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked at: `BPF file system`.
    pub what: &'static str,
    /// How it stands.
    pub verdict: Verdict,
}

/// How it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// There; the text says which.
    Good(String),
    /// Works without, less well: what is lost, and what to do.
    Lacking(String),
    /// Pods get no network: what to do.
    Missing(String),
}

/// What was seen of the machine, before judgement.
#[derive(Clone, Debug)]
struct Sight {
    root: bool,
    release: (u32, u32),
    btf: bool,
    bpffs: bool,
    cgroup2: Option<String>,
    netfilter: bool,
    forwarding: bool,
}

/// Looks at the kernel's features, bpffs, BTF and cgroups of this machine. Changes nothing.
pub fn probe() -> Vec<Finding> {
    judge(&Sight::take())
}

impl Sight {
    fn take() -> Self {
        Self {
            root: nix::unistd::geteuid().is_root(),
            release: release(&fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default()),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            bpffs: object::has_bpffs(),
            cgroup2: cgroup2(&fs::read_to_string("/proc/self/mounts").unwrap_or_default()),
            netfilter: nft::available(),
            forwarding: fs::read_to_string("/proc/sys/net/ipv4/ip_forward").is_ok_and(|text| text.trim() == "1"),
        }
    }
}

/// Each thing that the dataplane needs, and what to do where it is not there. Pure.
fn judge(sight: &Sight) -> Vec<Finding> {
    let good = |text: &str| Verdict::Good(text.into());
    let (major, minor) = sight.release;
    let kernel = match sight.release {
        release if release >= (6, 6) => Verdict::Good(format!("{major}.{minor}, with TCX links")),
        release if release >= (5, 18) => {
            Verdict::Lacking(format!("{major}.{minor}: no TCX before 6.6, so clsact filters are used; an upgrade replaces them one by one"))
        }
        _ => Verdict::Missing(format!("{major}.{minor} is too old: 5.18 or later is needed (a refused connect() must be able to say so)")),
    };
    let rights = if sight.root {
        good("root")
    } else {
        Verdict::Missing("not root: run as root, or with CAP_BPF, CAP_NET_ADMIN and CAP_SYS_ADMIN".into())
    };
    let btf = if sight.btf {
        good("/sys/kernel/btf/vmlinux")
    } else {
        Verdict::Lacking("the kernel was built without CONFIG_DEBUG_INFO_BTF: programs load, tools cannot show their types".into())
    };
    let bpffs = if sight.bpffs {
        good("mounted on /sys/fs/bpf")
    } else {
        Verdict::Lacking(
            "not mounted on /sys/fs/bpf; it is mounted at the start (for good: `bpf /sys/fs/bpf bpf defaults` in /etc/fstab)".into(),
        )
    };
    let cgroup = match &sight.cgroup2 {
        Some(path) => Verdict::Good(format!("mounted on {path}")),
        None => Verdict::Missing("no cgroup hierarchy of version 2 is mounted: mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with systemd.unified_cgroup_hierarchy=1".into()),
    };
    let netfilter = if sight.netfilter {
        good("netfilter answers")
    } else {
        Verdict::Missing("the kernel has no netfilter netlink (CONFIG_NETFILTER_NETLINK, CONFIG_NF_TABLES, CONFIG_NFT_MASQ): pods could not reach beyond the cluster".into())
    };
    let forwarding =
        if sight.forwarding { good("on") } else { Verdict::Lacking("off; it is switched on at the start (net.ipv4.ip_forward)".into()) };
    [
        ("rights", rights),
        ("kernel", kernel),
        ("BTF", btf),
        ("BPF file system", bpffs),
        ("cgroup v2", cgroup),
        ("nftables", netfilter),
        ("IPv4 forwarding", forwarding),
    ]
    .into_iter()
    .map(|(what, verdict)| Finding { what, verdict })
    .collect()
}

fn release(text: &str) -> (u32, u32) {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit()).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

fn cgroup2(mounts: &str) -> Option<String> {
    let mut of_type = mounts.lines().map(|line| line.split(' ').collect::<Vec<_>>()).filter(|words| words.get(2) == Some(&"cgroup2"));
    Some((*of_type.next()?.get(1)?).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_says_what_to_do() {
        let all = Sight {
            root: true,
            release: (6, 8),
            btf: true,
            bpffs: true,
            cgroup2: Some("/sys/fs/cgroup".into()),
            netfilter: true,
            forwarding: true,
        };
        assert!(judge(&all).iter().all(|finding| matches!(finding.verdict, Verdict::Good(_))));
        let none = Sight { root: false, release: (5, 4), btf: false, bpffs: false, cgroup2: None, netfilter: false, forwarding: false };
        let missing: Vec<_> =
            judge(&none).into_iter().filter(|finding| matches!(finding.verdict, Verdict::Missing(_))).map(|f| f.what).collect();
        assert_eq!(missing, ["rights", "kernel", "cgroup v2", "nftables"]);
        let older = judge(&Sight { release: (5, 19), ..all });
        assert!(matches!(&older[1].verdict, Verdict::Lacking(text) if text.contains("clsact")));
    }

    #[test]
    fn releases_and_mounts_are_read_as_the_kernel_writes_them() {
        assert_eq!(release("6.18.44-fc-v657\n"), (6, 18));
        assert_eq!(release("5.15"), (5, 15));
        assert_eq!(release(""), (0, 0));
        assert_eq!(cgroup2("cgroup /a cgroup rw 0 0\ncgroup2 /b cgroup2 rw 0 0\n").as_deref(), Some("/b"));
        assert_eq!(cgroup2("proc /proc proc rw 0 0\n"), None);
    }
}
