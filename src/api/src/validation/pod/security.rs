//! Security contexts of pods and containers.

use super::super::field::Field;
use super::super::rules::descending_path;

/// Users and groups of Linux are told by 31 bits.
const MAX_ID: i64 = i32::MAX as i64;
const PROFILE_TYPES: [&str; 3] = ["Localhost", "RuntimeDefault", "Unconfined"];

pub(super) fn pod(spec: &Field<'_>) {
    super::resources::pod_resources(spec);
    let context = spec.at("securityContext");
    ids(&context);
    context.at("fsGroup").within(0, MAX_ID);
    context.at("supplementalGroups").each(|_, group| group.within(0, MAX_ID));
    let mut names: Vec<String> = Vec::new();
    context.at("sysctls").each(|_, sysctl| {
        let name = sysctl.at("name");
        name.must_be_valid(sysctl_name);
        if names.iter().any(|n| n == name.text()) {
            name.duplicate();
        }
        names.push(name.text().to_owned());
    });
    context.at("fsGroupChangePolicy").optional_one_of(&["Always", "OnRootMismatch"]);
    context.at("supplementalGroupsPolicy").optional_one_of(&["Merge", "Strict"]);
    context.at("seLinuxChangePolicy").optional_one_of(&["MountOption", "Recursive"]);
    profiles(&context);
    windows(&context.at("windowsOptions"));
    let host_process = |context: &serde_json::Value| context["windowsOptions"]["hostProcess"] == true;
    let containers = ["containers", "initContainers"].iter().flat_map(|list| spec.value()[*list].as_array().into_iter().flatten());
    let any_host_process = host_process(context.value()) || containers.clone().any(|c| host_process(&c["securityContext"]));
    if any_host_process && !spec.at("hostNetwork").is_true() {
        spec.at("hostNetwork").invalid("hostNetwork must be true if pod contains any hostProcess containers");
    }
    if spec.at("shareProcessNamespace").is_true() && spec.at("hostPID").is_true() {
        spec.at("shareProcessNamespace").invalid("ShareProcessNamespace and HostPID cannot both be enabled");
    }
    if spec.at("hostUsers").value() == false {
        for name in ["hostNetwork", "hostPID", "hostIPC"] {
            if spec.at(name).is_true() {
                spec.at(name).forbidden("when `pod.Spec.HostUsers` is false");
            }
        }
    }
}

pub(super) fn container(context: &Field<'_>, host_users: bool) {
    if !context.exists() {
        return;
    }
    ids(context);
    let mount = context.at("procMount");
    mount.optional_one_of(&["Default", "Unmasked"]);
    if mount.text() == "Unmasked" && host_users {
        mount.invalid("`hostUsers` must be false to use `Unmasked`");
    }
    if context.at("allowPrivilegeEscalation").value() == false {
        if context.at("privileged").is_true() {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `privileged` to true");
        }
        let added = context.value()["capabilities"]["add"].as_array();
        if added.is_some_and(|caps| caps.iter().any(|c| c == "CAP_SYS_ADMIN")) {
            context.invalid("cannot set `allowPrivilegeEscalation` to false and `capabilities.Add` CAP_SYS_ADMIN");
        }
    }
    profiles(context);
    windows(&context.at("windowsOptions"));
}

fn ids(context: &Field<'_>) {
    context.at("runAsUser").within(0, MAX_ID);
    context.at("runAsGroup").within(0, MAX_ID);
}

/// Seccomp and AppArmor: a type, and a profile exactly when it is on the node.
fn profiles(context: &Field<'_>) {
    for name in ["seccompProfile", "appArmorProfile"] {
        let profile = context.at(name);
        if !profile.exists() {
            continue;
        }
        let (kind, file) = (profile.at("type"), profile.at("localhostProfile"));
        if kind.is_empty() {
            kind.required("type is required");
        } else {
            kind.one_of(&PROFILE_TYPES);
        }
        match (kind.text(), file.exists()) {
            ("Localhost", false) => file.required("must be set when type is Localhost"),
            ("Localhost", true) if name == "seccompProfile" => descending_path(&file),
            ("Localhost", true) if file.is_empty() => file.required("must be set when type is Localhost"),
            (_, true) if kind.text() != "Localhost" && !kind.is_empty() => file.invalid("can only be set when type is Localhost"),
            _ => {}
        }
    }
}

fn sysctl_name(name: &str) -> Result<(), String> {
    let part = |part: &str| {
        let bytes = part.as_bytes();
        bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'_'))
    };
    if name.len() <= 253 && name.split(['.', '/']).all(part) {
        Ok(())
    } else {
        Err("must have at most 253 characters and be a sysctl's name".into())
    }
}

fn windows(options: &Field<'_>) {
    let (spec, user) = (options.at("gmsaCredentialSpecName"), options.at("runAsUserName"));
    if spec.exists() {
        spec.valid_by(crate::names::dns_subdomain);
    }
    if user.exists() {
        let (domain, name) = user.text().split_once('\\').unwrap_or(("", user.text()));
        if user.is_empty() {
            user.invalid("runAsUserName cannot be an empty string");
        } else if domain.len() > 256 || name.is_empty() || name.len() > 104 {
            user.invalid("runAsUserName is not a valid user of Windows");
        }
    }
}
