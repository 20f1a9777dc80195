//! Descriptions as vendors write them, and those that cannot be used.

use super::*;
use crate::Mount;

const GPUS: &str = r#"
cdiVersion: 0.6.0
kind: vendor.example/gpu
devices:
- name: "0"
  containerEdits:
    deviceNodes: [{path: /dev/gpu0, hostPath: /dev/zero, permissions: rw}, {path: /dev/null}]
    env: [GPU=0]
- name: all
  containerEdits: {deviceNodes: [{path: /dev/gpu0, type: c, major: 195, minor: 1, fileMode: 432}], additionalGids: [0, 44, 44]}
containerEdits:
  env: [GPUS=yes]
  mounts:
  - {hostPath: /usr/lib/libgpu.so, containerPath: /usr/lib/libgpu.so, options: [ro, nosuid, nodev, rbind, rslave]}
  - {containerPath: /run/gpu, type: tmpfs}
"#;

fn directories(files: &[(usize, &str, &str)]) -> (tempfile::TempDir, Vec<PathBuf>) {
    let root = tempfile::tempdir().expect("a directory");
    let dirs: Vec<PathBuf> = ["etc", "run"].map(|d| root.path().join(d)).into();
    for dir in &dirs {
        fs::create_dir(dir).expect("made");
    }
    for (dir, name, text) in files {
        fs::write(dirs[*dir].join(name), text).expect("written");
    }
    (root, dirs)
}

fn asks(names: &[&str]) -> ContainerSpec {
    let own = Mount {
        source: "/own".into(),
        destination: "/run/gpu".into(),
        read_only: false,
        recursive_read_only: false,
        propagation: "private".into(),
    };
    let cdi_devices = names.iter().map(|n| (*n).to_owned()).collect();
    ContainerSpec { cdi_devices, env: vec![("GPU".into(), "none".into())], mounts: vec![own], ..ContainerSpec::default() }
}

#[test]
fn a_container_gets_what_its_devices_mean() {
    let (_root, dirs) =
        directories(&[(0, "gpu.yaml", GPUS), (0, "other.json", r#"{"kind": "vendor.example/nic", "devices": []}"#), (0, "x.txt", "{")]);
    let mut spec = asks(&["vendor.example/gpu=0", "vendor.example/gpu=all"]);
    inject(&mut spec, &dirs).expect("described");
    let env: Vec<_> = spec.env.iter().map(|(n, v)| format!("{n}={v}")).collect();
    assert_eq!(env, ["GPU=none", "GPUS=yes", "GPU=0"], "what is shared comes once");
    let devices: Vec<_> =
        spec.devices.iter().map(|d| (d.host_path.to_str().unwrap(), d.container_path.to_str().unwrap(), &*d.permissions)).collect();
    assert_eq!(devices, [("/dev/null", "/dev/null", ""), ("/dev/gpu0", "/dev/gpu0", "")]);
    assert_eq!(spec.devices[0].numbers, None);
    let numbers = crate::DeviceNumbers { kind: 'c', major: 195, minor: 1, mode: 0o660 };
    assert_eq!(spec.devices[1].numbers, Some(numbers));
    let mounts: Vec<_> =
        spec.mounts.iter().map(|m| (m.source.to_str().unwrap(), m.destination.to_str().unwrap(), m.read_only, &*m.propagation)).collect();
    assert_eq!(mounts, [("/usr/lib/libgpu.so", "/usr/lib/libgpu.so", true, "rslave"), ("", "/run/gpu", false, "private")]);
    assert_eq!(spec.security.supplemental_groups, [44]);
    assert_eq!(spec.cdi_devices.len(), 2, "it still says what it asked for");
    let mut none = asks(&[]);
    inject(&mut none, &[PathBuf::from("/no/such")]).expect("nothing to do");
}

#[test]
fn the_later_directory_counts() {
    let newer = r#"{"kind": "vendor.example/gpu", "devices": [{"name": "0", "containerEdits": {"env": ["GPU=newer"]}}]}"#;
    let (_root, dirs) = directories(&[(0, "gpu.yaml", GPUS), (1, "gpu.json", newer)]);
    let mut spec = asks(&["vendor.example/gpu=0"]);
    inject(&mut spec, &dirs).expect("described");
    assert_eq!(spec.env[1..], [("GPU".to_owned(), "newer".to_owned())]);
    let (_root, dirs) = directories(&[(1, "a.yaml", GPUS), (1, "b.json", newer)]);
    assert!(matches!(inject(&mut asks(&["vendor.example/gpu=0"]), &dirs), Err(CdiError::Conflict { .. })));
}

#[test]
fn what_cannot_be_is_told() {
    let edits = |edits: &str| format!(r#"{{"kind": "v/c", "devices": [{{"name": "d", "containerEdits": {edits}}}]}}"#);
    let check = |name: &str, text: &str, wanted: &str| {
        let (_root, dirs) = directories(&[(0, "a.json", text)]);
        let error = inject(&mut asks(&[name]), &dirs).expect_err(wanted);
        let mut said = error.to_string();
        if let Some(source) = std::error::Error::source(&error) {
            said = format!("{said}: {source}");
        }
        assert!(said.contains(wanted), "{said}");
    };
    check("v/c=d", "{", "a.json: ");
    check("v/c=other", &edits("{}"), "unresolvable CDI devices v/c=other");
    for name in ["v/c", "c=d", "/c=d", "v/=d", "v/c="] {
        check(name, &edits("{}"), "is not the name of a CDI device");
    }
    check("v/c=d", &edits(r#"{"env": ["x"]}"#), "\"x\" is not a variable");
    check(
        "v/c=d",
        &edits(r#"{"hooks": [{"hookName": "createContainer", "path": "/usr/bin/h"}]}"#),
        "wants the hook createContainer (/usr/bin/h)",
    );
    check("v/c=d", &edits(r#"{"netDevices": [{"hostInterfaceName": "eth9"}]}"#), "network device eth9");
}
