//! Where containers see volumes: mounts and block devices.

use super::super::field::Field;
use super::super::rules::descending_path;
use super::containers::Surroundings;

pub(super) fn mounts(container: &Field<'_>, around: &Surroundings<'_>) {
    let list = container.at("volumeMounts");
    let mut paths: Vec<String> = Vec::new();
    list.each(|_, mount| {
        let (name, path) = (mount.at("name"), mount.at("mountPath"));
        name.must_exist();
        let volume = around.volume(name.text());
        if volume.is_none() {
            name.not_found();
        }
        if path.must_exist() && paths.iter().any(|p| p == path.text()) {
            path.invalid("must be unique");
        }
        paths.push(path.text().to_owned());
        let (sub, expression) = (mount.at("subPath"), mount.at("subPathExpr"));
        descending_path(&sub);
        descending_path(&expression);
        if !sub.is_empty() && !expression.is_empty() {
            expression.invalid("subPathExpr and subPath are mutually exclusive");
        }
        let shared = list.holding(mount.value());
        let propagation = shared.at("mountPropagation");
        propagation.optional_one_of(&["Bidirectional", "HostToContainer", "None"]);
        if propagation.text() == "Bidirectional" && container.value()["securityContext"]["privileged"] != true {
            propagation.forbidden("Bidirectional mount propagation is available only to privileged containers");
        }
        let recursive = shared.at("recursiveReadOnly");
        recursive.optional_one_of(&["Disabled", "Enabled", "IfPossible"]);
        if matches!(recursive.text(), "Enabled" | "IfPossible") {
            if !mount.at("readOnly").is_true() {
                recursive.forbidden("may only be specified when readOnly is true");
            }
            if !matches!(propagation.text(), "" | "None") {
                recursive.forbidden("may only be specified when mountPropagation is None or not specified");
            }
        }
    });
}

pub(super) fn devices(container: &Field<'_>, around: &Surroundings<'_>) {
    let (mut names, mut paths): (Vec<String>, Vec<String>) = Default::default();
    container.at("volumeDevices").each(|_, device| {
        let (name, path) = (device.at("name"), device.at("devicePath"));
        if name.must_exist() && names.iter().any(|n| n == name.text()) {
            name.invalid("must be unique");
        }
        names.push(name.text().to_owned());
        match around.volume(name.text()) {
            None => name.not_found(),
            Some(volume) if volume["persistentVolumeClaim"].is_null() && volume["ephemeral"].is_null() => {
                name.invalid("can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode");
            }
            Some(_) => {}
        }
        if path.must_exist() && paths.iter().any(|p| p == path.text()) {
            path.invalid("must be unique");
        }
        paths.push(path.text().to_owned());
    });
}
