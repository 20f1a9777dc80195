//! Volumes of pods, and what claims and persistent volumes share with them.

use serde_json::Value;

use super::super::field::Field;
use super::super::rules::{descending_path, label_selector, no_steps_up, quantity};
use super::environment::shown_file;
use crate::names;

const ACCESS_MODES: [&str; 4] = ["ReadOnlyMany", "ReadWriteMany", "ReadWriteOnce", "ReadWriteOncePod"];

/// Fields that a source of this kind must have: kind, name in paths, fields.
const REQUIRED: [(&str, &str, &[&str]); 20] = [
    ("gitRepo", "gitRepo", &["repository"]),
    ("gcePersistentDisk", "persistentDisk", &["pdName"]),
    ("awsElasticBlockStore", "awsElasticBlockStore", &["volumeID"]),
    ("nfs", "nfs", &["server", "path"]),
    ("iscsi", "iscsi", &["targetPortal", "iqn"]),
    ("glusterfs", "glusterfs", &["endpoints", "path"]),
    ("rbd", "rbd", &["monitors", "image"]),
    ("cephfs", "cephfs", &["monitors"]),
    ("cinder", "cinder", &["volumeID"]),
    ("quobyte", "quobyte", &["registry", "volume"]),
    ("flexVolume", "flexVolume", &["driver"]),
    ("vsphereVolume", "vsphereVolume", &["volumePath"]),
    ("photonPersistentDisk", "photonPersistentDisk", &["pdID"]),
    ("portworxVolume", "portworxVolume", &["volumeID"]),
    ("azureDisk", "azureDisk", &["diskName", "diskURI"]),
    ("scaleIO", "scaleIO", &["gateway", "system", "volumeName"]),
    ("hostPath", "hostPath", &["path"]),
    ("local", "local", &["path"]),
    ("csi", "csi", &["driver"]),
    ("azureFile", "azureFile", &["secretName", "shareName"]),
];

/// In which order upstream looks for a volume's source: the second that it finds is one too many.
const ORDER: [&str; 30] = [
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
];

/// Checks all volumes of a pod; returns the valid ones by name.
pub(super) fn all<'a>(volumes: &Field<'a>) -> Vec<(&'a str, &'a Value)> {
    let mut valid: Vec<(&str, &Value)> = Vec::new();
    let mut at = 0;
    volumes.each(|_, volume| {
        let before = volumes.found();
        let name = volume.at("name");
        source(&volume);
        name.must_be_valid(names::dns_label);
        if valid.iter().any(|(known, _)| *known == name.text()) && !name.is_empty() {
            name.duplicate();
        }
        let value = &volumes.list()[at];
        at += 1;
        if volumes.found() == before {
            valid.push((value["name"].as_str().unwrap_or_default(), value));
        }
    });
    valid
}

fn source(volume: &Field<'_>) {
    let mut kinds = kinds(volume, &["name"]);
    kinds.sort_by_key(|kind| ORDER.iter().position(|known| known == kind));
    match kinds.len() {
        0 => volume.required("must specify a volume type"),
        1 => {}
        _ => volume.at(kinds[1]).forbidden("may not specify more than 1 volume type"),
    }
    let Some(kind) = kinds.first() else { return };
    let source = volume.at(kind);
    common_source(volume, kind);
    match *kind {
        "emptyDir" if source.at("sizeLimit").exists() && quantity(&source.at("sizeLimit")).signum() < 0 => {
            source.at("sizeLimit").forbidden("SizeLimit field must be a valid resource quantity");
        }
        "secret" => {
            source.at("secretName").must_exist();
            files(&source);
        }
        "configMap" => {
            source.at("name").must_exist();
            files(&source);
        }
        "persistentVolumeClaim" => drop(source.at("claimName").must_exist()),
        "downwardAPI" => {
            source.at("defaultMode").within(0, 0o777);
            for item in source.at("items").list() {
                shown_file(&source.holding(item));
            }
        }
        "projected" => projected(&source),
        "ephemeral" => {
            let template = source.at("volumeClaimTemplate");
            if template.exists() { claim_spec(&template.at("spec")) } else { template.required("") }
        }
        "image" => {
            source.at("reference").must_exist();
            source.at("pullPolicy").one_of(&["Always", "IfNotPresent", "Never"]);
        }
        "csi" => {
            let secret = source.at("nodePublishSecretRef");
            if secret.exists() {
                let name = source.called("name");
                name.holding(secret.at("name").value()).must_be_valid(names::dns_subdomain);
            }
        }
        _ => {}
    }
}

/// Members of a volume that say what it is.
fn kinds<'a>(volume: &Field<'a>, others: &[&str]) -> Vec<&'a str> {
    let members = volume.value().as_object().into_iter().flatten();
    members.filter(|(name, value)| !others.contains(&name.as_str()) && value.is_object()).map(|(name, _)| name.as_str()).collect()
}

fn common_source(volume: &Field<'_>, kind: &str) {
    let source = volume.at(kind);
    if let Some((_, name, fields)) = REQUIRED.iter().find(|r| r.0 == kind) {
        let place = volume.called(name);
        let place = place.holding(source.value());
        for field in *fields {
            place.at(field).must_exist();
        }
    }
    match kind {
        "nfs" if !source.at("path").text().starts_with('/') => source.at("path").invalid("must be an absolute path"),
        "hostPath" => {
            no_steps_up(&source.at("path"));
            source.at("type").optional_one_of(&[
                "",
                "BlockDevice",
                "CharDevice",
                "Directory",
                "DirectoryOrCreate",
                "File",
                "FileOrCreate",
                "Socket",
            ]);
        }
        "iscsi" => {
            let iqn = source.at("iqn");
            if !iqn.is_empty() && !["iqn", "eui", "naa"].iter().any(|p| iqn.text().starts_with(p)) {
                iqn.invalid("must be valid format starting with iqn, eui, or naa");
            }
            source.at("lun").within(0, 255);
        }
        "fc" if source.at("targetWWNs").is_empty() && source.at("wwids").is_empty() => {
            source.at("targetWWNs").required("must specify either targetWWNs or wwids, but not both");
        }
        "fc" if !source.at("targetWWNs").is_empty() && !source.at("wwids").is_empty() => {
            source.at("targetWWNs").invalid("targetWWNs and wwids can not be specified simultaneously");
        }
        "fc" if source.at("wwids").is_empty() && !source.at("lun").exists() => {
            source.at("lun").required("lun is required if targetWWNs is specified");
        }
        "azureDisk" => {
            source.at("cachingMode").optional_one_of(&["None", "ReadOnly", "ReadWrite"]);
            let (kind, disk) = (source.at("kind"), source.at("diskURI"));
            kind.optional_one_of(&["Dedicated", "Managed", "Shared"]);
            if kind.text() == "Managed" && !disk.text().starts_with("/subscriptions/") {
                disk.not_supported(&["/subscriptions/{sub-id}/resourcegroups/{group-name}/providers/microsoft.compute/disks/{disk-id}"]);
            } else if kind.text() != "Managed" && !disk.text().starts_with("https://") {
                disk.not_supported(&["https://{account-name}.blob.core.windows.net/{container-name}/{disk-name}.vhd"]);
            }
        }
        "storageos" => {
            source.at("volumeName").may_be_valid(names::dns_label);
            source.at("volumeNamespace").may_be_valid(names::dns_label);
        }
        _ => {}
    }
}

/// Keys of a Secret or ConfigMap that become files.
fn files(source: &Field<'_>) {
    source.at("defaultMode").within(0, 0o777);
    source.at("items").each(|_, item| {
        item.at("key").must_exist();
        if item.at("path").must_exist() {
            descending_path(&item.at("path"));
        }
        item.at("mode").within(0, 0o777);
    });
}

fn projected(source: &Field<'_>) {
    source.at("defaultMode").within(0, 0o777);
    let mut paths: Vec<String> = Vec::new();
    let mut unique = |path: &str| {
        if !path.is_empty() && paths.iter().any(|p| p == path) {
            source.invalid("conflicting duplicate paths");
        }
        paths.push(path.to_owned());
    };
    source.at("sources").each(|_, part| {
        let kinds = kinds(&part, &[]);
        if kinds.len() > 1 {
            part.forbidden("may not specify more than 1 volume type per source");
        }
        let Some(kind) = kinds.first() else { return };
        let inner = part.at(kind);
        match *kind {
            "secret" | "configMap" => {
                inner.at("name").must_exist();
                files(&inner);
                inner.at("items").list().iter().for_each(|item| unique(item["path"].as_str().unwrap_or_default()));
            }
            "downwardAPI" => {
                for item in inner.at("items").list() {
                    shown_file(&inner.holding(item));
                    unique(item["path"].as_str().unwrap_or_default());
                }
            }
            "serviceAccountToken" => {
                inner.at("expirationSeconds").within(600, 1 << 32);
                let path = source.called("path");
                let path = path.holding(inner.at("path").value());
                if path.must_exist() {
                    descending_path(&path);
                }
                unique(path.text());
            }
            _ => {}
        }
    });
}

/// A reference to an object of a kind in the same namespace; core kinds may leave out the group.
fn local_object(reference: &Field<'_>) {
    if !reference.exists() {
        return;
    }
    reference.at("name").must_exist();
    reference.at("kind").must_exist();
    if reference.at("apiGroup").is_empty() && reference.at("kind").text() != "PersistentVolumeClaim" {
        reference.invalid("must be 'PersistentVolumeClaim' when referencing the default apiGroup");
    }
}

/// What a claim asks for.
pub(in super::super) fn claim_spec(spec: &Field<'_>) {
    access_modes(&spec.at("accessModes"));
    label_selector(&spec.at("selector"));
    let requests = spec.at("resources");
    let requests_map = requests.at("requests");
    let storage = requests.key("storage");
    let storage = storage.holding(&requests_map.value()["storage"]);
    if !storage.exists() {
        storage.required("");
    } else if quantity(&storage).signum() <= 0 {
        storage.invalid("must be greater than zero");
    }
    spec.at("storageClassName").may_be_valid(names::dns_subdomain);
    spec.at("volumeAttributesClassName").may_be_valid(names::dns_subdomain);
    spec.at("volumeMode").optional_one_of(&["Block", "Filesystem"]);
    local_object(&spec.at("dataSource"));
    local_object(&spec.at("dataSourceRef"));
}

pub(in super::super) fn access_modes(modes: &Field<'_>) {
    if modes.is_empty() {
        modes.required("at least 1 access mode is required");
    }
    for mode in modes.list() {
        if !ACCESS_MODES.iter().any(|m| mode == m) {
            modes.holding(mode).not_supported(&ACCESS_MODES);
        }
    }
    if modes.list().len() > 1 && modes.list().iter().any(|m| m == "ReadWriteOncePod") {
        modes.forbidden("may not use ReadWriteOncePod with other access modes");
    }
}

/// The source of a persistent volume: exactly one.
pub(in super::super) fn persistent_source(spec: &Field<'_>) {
    const OTHERS: [&str; 8] = [
        "capacity",
        "accessModes",
        "claimRef",
        "persistentVolumeReclaimPolicy",
        "storageClassName",
        "mountOptions",
        "volumeMode",
        "nodeAffinity",
    ];
    let kinds = kinds(spec, &OTHERS);
    match kinds.len() {
        0 => spec.required("must specify a volume type"),
        1 => {}
        _ => spec.at(kinds[1]).forbidden("may not specify more than 1 volume type"),
    }
    for kind in kinds.iter().take(1) {
        common_source(spec, kind);
        let source = spec.at(kind);
        if *kind == "csi" {
            source.at("volumeHandle").must_exist();
            source.at("driver").may_be_valid(names::dns_subdomain);
            for name in ["controllerPublishSecretRef", "nodePublishSecretRef", "controllerExpandSecretRef", "nodeExpandSecretRef"] {
                let secret = source.at(name);
                if secret.exists() {
                    secret.at("name").must_be_valid(names::dns_subdomain);
                    secret.at("namespace").must_be_valid(names::dns_label);
                }
            }
        }
    }
}
