//! Cases of OCI bundles.

use super::*;
use crate::{ContainerId, ContainerSpec, Resources, Seccomp, Security, images::Defaults};

fn container() -> Container {
    Container {
        spec: ContainerSpec {
            id: ContainerId { sandbox: "s".into(), id: "c".into() },
            name: "web".into(),
            attempt: 0,
            image: String::new(),
            command: vec![],
            args: vec![],
            working_dir: String::new(),
            env: vec![],
            mounts: vec![],
            devices: vec![],
            resources: Resources::default(),
            security: Security {
                run_as_user: None,
                run_as_group: None,
                run_as_non_root: false,
                supplemental_groups: vec![],
                merge_image_groups: true,
                privileged: false,
                add_capabilities: vec![],
                drop_capabilities: vec![],
                read_only_root: true,
                allow_privilege_escalation: false,
                seccomp: Seccomp::Unconfined,
                proc_unmasked: false,
            },
            log_path: "web/0.log".into(),
            stdin: false,
            stdin_once: false,
            tty: false,
            stop_signal: None,
            labels: Default::default(),
            annotations: Default::default(),
        },
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
        writable: PathBuf::new(),
        filters: vec![],
    }
}

fn sandbox() -> SandboxSpec {
    SandboxSpec {
        id: "s".into(),
        namespace: "default".into(),
        name: "pod".into(),
        uid: "u".into(),
        attempt: 0,
        netns: None,
        hostname: "pod".into(),
        ipc: NamespaceMode::Pod,
        pid: NamespaceMode::Container,
        cgroup: "/coracle/pod".into(),
        resources: Resources::default(),
        sysctls: Default::default(),
        log_directory: PathBuf::new(),
        labels: Default::default(),
        annotations: Default::default(),
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
    let places =
        Places { rootfs: Path::new("/r"), shm: Path::new("/shm"), pid_namespace: Some(7), cgroup: "/coracle/pod/c", legacy_cgroups: false };
    let config = config(&sandbox(), &container, &[], &places);
    let mounts = config["mounts"].as_array().unwrap();
    let order: Vec<&str> = mounts.iter().map(|mount| mount["destination"].as_str().unwrap()).collect();
    assert_eq!(order, ["/proc", "/dev", "/dev/pts", "/dev/mqueue", "/sys", "/sys/fs/cgroup", "/data", "/data/inner", "/dev/shm"]);
    assert_eq!(mounts[7]["options"], json!(["rbind", "rslave", "ro"]));
    assert_eq!(mounts[6]["options"], json!(["rbind", "rprivate", "rw"]));
    assert_eq!(config["linux"]["namespaces"][2]["path"], "/proc/7/ns/pid");
    assert_eq!(config["linux"]["maskedPaths"].as_array().unwrap().len(), MASKED.len());
    assert_eq!(config["root"]["readonly"], true);
    container.spec.security.privileged = true;
    assert_eq!(super::config(&sandbox(), &container, &[], &places)["linux"]["maskedPaths"], json!([]));
}
