//! Who has which device, on disk: in the shape and at the place that upstream's node has it, for the tools that read it there.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Write as _},
    path::Path,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use prost::Message as _;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::{
    book::{Book, Grant, Grants},
    v1beta1::ContainerAllocateResponse,
};

/// The file, in the directory of the plugins' sockets.
pub const FILE: &str = "kubelet_internal_checkpoint";
/// What upstream puts where a device is near no NUMA node in particular.
const NOWHERE: i64 = -1;

/// What is on disk cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// the file is there and cannot be read
    #[error("cannot read it")]
    Io(#[from] io::Error),
    /// it is no checkpoint
    #[error("it is damaged")]
    Json(#[from] serde_json::Error),
    /// a plugin's answer in it is none
    #[error("the answer of the plugin of {resource} for container {container} in it is damaged")]
    Response {
        /// Of what.
        resource: String,
        /// Of whom.
        container: String,
    },
    /// it was cut or changed
    #[error("its checksum is that of another one")]
    Checksum,
}

/// Grants by pod and container.
pub type Everything = BTreeMap<String, BTreeMap<String, Grants>>;

#[derive(Serialize, Deserialize)]
struct File {
    #[serde(rename = "Data")]
    data: Data,
    #[serde(rename = "Checksum")]
    checksum: u64,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Data {
    pod_device_entries: Option<Vec<Entry>>,
    registered_devices: Option<BTreeMap<String, Vec<String>>>,
}

#[derive(Serialize, Deserialize)]
struct Entry {
    #[serde(rename = "PodUID")]
    uid: String,
    #[serde(rename = "ContainerName")]
    container: String,
    #[serde(rename = "ResourceName")]
    resource: String,
    /// By NUMA node.
    #[serde(rename = "DeviceIDs")]
    devices: BTreeMap<i64, Vec<String>>,
    #[serde(rename = "AllocResp")]
    response: String,
}

/// The book as a file. What a plugin has not said yes to is not in it.
pub fn encode(book: &Book) -> serde_json::Result<Vec<u8>> {
    let mut entries = Vec::new();
    for (uid, containers) in book.everything() {
        for (container, grants) in containers {
            for (resource, grant) in grants {
                let Some(response) = &grant.response else { continue };
                let mut devices: BTreeMap<i64, Vec<String>> = BTreeMap::new();
                for (id, nodes) in &grant.devices {
                    for node in if nodes.is_empty() { &[NOWHERE][..] } else { nodes } {
                        devices.entry(*node).or_default().push(id.clone());
                    }
                }
                let (uid, container, resource) = (uid.clone(), container.clone(), resource.clone());
                entries.push(Entry { uid, container, resource, devices, response: STANDARD.encode(response.encode_to_vec()) });
            }
        }
    }
    let registered = book.registered().map(|(name, ids)| (name.to_owned(), ids.into_iter().map(str::to_owned).collect()));
    let data = Data { pod_device_entries: Some(entries), registered_devices: Some(registered.collect()) };
    let checksum = checksum(&data)?;
    serde_json::to_vec(&File { data, checksum })
}

/// Reads a file's bytes: who had what, and which resources had a plugin. A file that another program wrote has a checksum that only it
/// can tell; ours are checked.
pub fn decode(bytes: &[u8]) -> Result<(Everything, Vec<String>), ReadError> {
    let File { data, checksum: sum } = serde_json::from_slice(bytes)?;
    // Upstream's are 32 bits of a dump of its memory's layout; ours never fit in so few.
    if sum > u64::from(u32::MAX) && sum != checksum(&data)? {
        return Err(ReadError::Checksum);
    }
    let mut out = Everything::new();
    for entry in data.pod_device_entries.into_iter().flatten() {
        let damaged = || ReadError::Response { resource: entry.resource.clone(), container: entry.container.clone() };
        let response = STANDARD.decode(&entry.response).map_err(|_| damaged())?;
        let response = ContainerAllocateResponse::decode(&response[..]).map_err(|_| damaged())?;
        let mut devices: BTreeMap<String, Vec<i64>> = BTreeMap::new();
        for (node, ids) in entry.devices {
            for id in ids {
                let nodes = devices.entry(id).or_default();
                nodes.extend(Some(node).filter(|n| *n != NOWHERE));
            }
        }
        let grant = Grant { devices, response: Some(response) };
        out.entry(entry.uid).or_default().entry(entry.container).or_default().insert(entry.resource, grant);
    }
    let registered = data.registered_devices.into_iter().flatten().map(|(name, _)| name);
    Ok((out, registered.collect()))
}

fn checksum(data: &Data) -> serde_json::Result<u64> {
    let digest = Sha256::digest(serde_json::to_vec(data)?);
    let mut first = [0; 8];
    first.copy_from_slice(&digest[..8]);
    // 53 bits are what every reader of JSON keeps; the highest of them is set, to be told from upstream's.
    Ok((u64::from_be_bytes(first) >> 12) | 1 << 52)
}

/// Reads what the agent before has left; nothing where there was none.
pub fn read(dir: &Path) -> Result<(Everything, Vec<String>), ReadError> {
    match fs::read(dir.join(FILE)) {
        Ok(bytes) => decode(&bytes),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Default::default()),
        Err(error) => Err(error.into()),
    }
}

/// Replaces the file: after a crash at any moment the old or the new one is there, whole.
pub fn write(dir: &Path, bytes: &[u8]) -> io::Result<()> {
    let new = dir.join(".kubelet_internal_checkpoint.new");
    let mut file = fs::File::create(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(&new, dir.join(FILE))?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn everything() -> impl Strategy<Value = Everything> {
        let response = (prop::collection::btree_map("[A-Z]{1,4}", "\\PC{0,6}", 0..3), "[a-z]{0,3}").prop_map(|(envs, name)| {
            let cdi_devices = vec![crate::devices::v1beta1::CdiDevice { name }];
            ContainerAllocateResponse { envs, cdi_devices, ..Default::default() }
        });
        let nodes = prop::collection::btree_set(0..4i64, 0..3).prop_map(|set| set.into_iter().collect());
        let grant = (prop::collection::btree_map("[a-z0-9]{1,4}", nodes, 1..3), response)
            .prop_map(|(devices, response)| Grant { devices, response: Some(response) });
        let grants = prop::collection::btree_map("[a-z]/[a-z]{1,3}", grant, 1..3);
        let containers = prop::collection::btree_map("[a-z]{1,3}", grants, 1..3);
        prop::collection::btree_map("[a-f0-9]{4}", containers, 0..3)
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(grants in everything(), names in prop::collection::btree_set("[a-z]/[a-z]", 0..3)) {
            let now = jiff::Timestamp::from_second(0).expect("a time");
            let book = Book::restored(grants.clone(), names.iter().cloned(), now);
            let bytes = encode(&book).expect("encoded");
            let (back, registered) = decode(&bytes).expect("decoded");
            prop_assert_eq!(back, grants);
            prop_assert_eq!(registered, names.into_iter().collect::<Vec<_>>());
        }
    }

    #[test]
    fn what_is_damaged_is_told_and_what_is_foreign_is_read() {
        let book = Book::restored(Everything::new(), ["a/b".to_owned()].into_iter(), jiff::Timestamp::UNIX_EPOCH);
        let text = String::from_utf8(encode(&book).expect("encoded")).expect("text");
        assert!(matches!(decode(text.replace("a/b", "a/c").as_bytes()), Err(ReadError::Checksum)), "{text}");
        assert!(matches!(decode(&text.as_bytes()[..text.len() - 2]), Err(ReadError::Json(_))));
        // As an upstream node leaves it.
        let foreign = r#"{"Data":{"PodDeviceEntries":[{"PodUID":"u","ContainerName":"c","ResourceName":"e.com/d",
            "DeviceIDs":{"-1":["x"],"1":["y"]},"AllocResp":"CgYKAUsSAVY="}],"RegisteredDevices":{"e.com/d":["x","y"]}},"Checksum":1234567}"#;
        let (grants, registered) = decode(foreign.as_bytes()).expect("decoded");
        let grant = &grants["u"]["c"]["e.com/d"];
        assert_eq!(grant.devices, BTreeMap::from([("x".into(), vec![]), ("y".into(), vec![1])]));
        assert_eq!(grant.response.as_ref().expect("an answer").envs["K"], "V");
        assert_eq!(registered, ["e.com/d"]);
        let none = r#"{"Data":{"PodDeviceEntries":null,"RegisteredDevices":null},"Checksum":1}"#;
        assert_eq!(decode(none.as_bytes()).expect("decoded"), Default::default());
    }

    #[test]
    fn the_file_is_replaced() {
        let dir = tempfile::tempdir().expect("a directory");
        assert_eq!(read(dir.path()).expect("nothing yet"), Default::default());
        for names in [vec!["a/b"], vec!["a/b", "c/d"]] {
            let book = Book::restored(Everything::new(), names.iter().map(|n| (*n).to_owned()), jiff::Timestamp::UNIX_EPOCH);
            write(dir.path(), &encode(&book).expect("encoded")).expect("written");
            assert_eq!(read(dir.path()).expect("read").1, names);
        }
        assert_eq!(fs::read_dir(dir.path()).expect("listed").count(), 1);
    }
}
