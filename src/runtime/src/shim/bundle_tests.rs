//! Cases of OCI bundles.

use serde_json::json;

use super::*;
use crate::{ContainerSpec, ImageMount, Security, images::Defaults, shim::oci};

fn container() -> Container {
    let security = Security { read_only_root: true, allow_privilege_escalation: false, ..Security::default() };
    Container {
        spec: ContainerSpec { security, ..ContainerSpec::default() },
        image_id: String::new(),
        defaults: Defaults {
            entrypoint: vec!["e".into()],
            cmd: vec!["c".into()],
            env: vec!["A=image".into(), "B=b".into()],
            working_dir: "/w".into(),
            ..Defaults::default()
        },
        created_at: jiff::Timestamp::UNIX_EPOCH,
        layers: vec![],
        image_layers: vec![],
        writable: PathBuf::new(),
        filters: vec![],
        seccomp: None,
        apparmor: None,
    }
}

fn user() -> User {
    User { uid: 5, gid: 6, groups: vec![6], home: "/home/x".into() }
}

#[test]
fn command_and_args_replace_the_images() {
    let check = |command: &[&str], args: &[&str]| {
        let list = |from: &[&str]| from.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let mut container = container();
        (container.spec.command, container.spec.args) = (list(command), list(args));
        launch(&container, &user(), None).unwrap().args
    };
    assert_eq!(check(&[], &[]), ["e", "c"]);
    assert_eq!(check(&[], &["x"]), ["e", "x"]);
    assert_eq!(check(&["y"], &[]), ["y"]);
    assert_eq!(check(&["y"], &["x"]), ["y", "x"]);
    let mut nothing = container();
    nothing.defaults = Defaults::default();
    assert!(matches!(launch(&nothing, &user(), None), Err(BundleError::NoCommand)));
}

#[test]
fn the_pods_environment_is_over_the_images() {
    let mut container = container();
    container.spec.env = vec![("A".into(), "pod".into()), ("AB".into(), "1=2".into())];
    let launch = launch(&container, &user(), Some("pod")).unwrap();
    assert_eq!(launch.env, ["HOSTNAME=pod", "HOME=/home/x", PATH, "A=pod", "B=b", "AB=1=2"]);
    assert_eq!((launch.cwd.as_str(), launch.no_new_privileges, launch.capabilities), ("/w", true, 0xa804_25fb));
}

#[test]
fn a_volume_takes_the_place_of_a_mount_of_the_system_and_inner_ones_come_last() {
    let mount = |destination: &str, propagation: &str, read_only| Mount {
        source: "/v".into(),
        destination: destination.into(),
        read_only,
        recursive_read_only: false,
        propagation: propagation.into(),
    };
    let mut container = container();
    container.spec.mounts = vec![mount("/data/inner", "rslave", true), mount("/data", "private", false), mount("/dev/shm", "", false)];
    container.spec.image_mounts = vec![ImageMount { image: "sha256:i".into(), sub_path: String::new(), destination: "/data/image".into() }];
    let described = |container: &Container| {
        let plan = plan(&SandboxSpec::default(), container, vec![], Path::new("/shm"));
        let launch = launch(container, &user(), None).unwrap();
        oci::config(&SandboxSpec::default(), &plan, &launch, Some(7), "/coracle/pod/c")
    };
    let config = described(&container);
    let mounts = config["mounts"].as_array().unwrap();
    let order: Vec<&str> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(
        order,
        ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/data", "/data/inner", "/dev/shm", "/data/image"]
    );
    assert_eq!(mounts[9]["options"], json!(["rbind", "rprivate", "ro", "nosuid", "nodev", "noexec"]));
    assert_eq!(mounts[1]["options"], json!(["nosuid", "strictatime", "mode=755", "size=65536k"]));
    assert_eq!(mounts[2]["options"], json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]));
    assert_eq!(mounts[4]["options"], json!(["nosuid", "noexec", "nodev", "ro"]));
    assert_eq!(mounts[7]["options"], json!(["rbind", "rslave", "ro"]));
    assert_eq!(mounts[6]["options"], json!(["rbind", "rprivate", "rw"]));
    assert_eq!(config["linux"]["namespaces"][2]["path"], "/proc/7/ns/pid");
    assert_eq!(config["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED.len());
    assert_eq!(config["linux"]["rootfsPropagation"], "slave");
    assert_eq!(config["root"]["readonly"], true);
    container.spec.security.privileged = true;
    container.spec.mounts[0].propagation = "rshared".into();
    let config = described(&container);
    assert_eq!((&config["linux"]["maskedPaths"], &config["linux"]["rootfsPropagation"]), (&json!([]), &json!("shared")));
}
