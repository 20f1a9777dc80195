//! Who pulled what with which credentials, on disk in the kubelet's own format: `pulled/` (ImagePulledRecord) and `pulling/` (ImagePullIntent).
//!
//! An intent is written before a pull and goes after its record: an image that comes while the process dies is known to be pulled, by nobody.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fs::{self, File},
    io::{self, Read as _, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::keys::{Key, Owner, Source};

/// Bytes of a record: some thousand Secrets.
const RECORD_BYTES: u64 = 4 << 20;
const API_VERSION: &str = "kubelet.config.k8s.io/v1beta1";

/// Who may use an image, by what it was pulled with.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Access {
    /// Pods with these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_secrets: Vec<SecretUse>,
    /// Pods of these.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub kubernetes_service_accounts: Vec<Owner>,
    /// All: it needed no credentials, or the node's.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub node_pods_accessible: bool,
}

/// A Secret as it was when it opened a registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct SecretUse {
    /// Which.
    #[serde(flatten)]
    pub owner: Owner,
    /// Of the credentials that it held.
    pub credential_hash: String,
}

impl Access {
    /// What a pull with this key proves.
    pub fn of(key: Option<&Key>) -> Self {
        match key.map(|key| (&key.source, key)) {
            None | Some((Source::Node, _)) => Self { node_pods_accessible: true, ..Self::default() },
            Some((Source::Secret(owner), key)) => {
                Self { kubernetes_secrets: vec![SecretUse { owner: owner.clone(), credential_hash: key.hash() }], ..Self::default() }
            }
            Some((Source::ServiceAccount(owner), _)) => Self { kubernetes_service_accounts: vec![owner.clone()], ..Self::default() },
        }
    }

    /// Adds what a further pull proved; whether that was news.
    fn add(&mut self, more: Self) -> bool {
        let before = self.clone();
        if more.node_pods_accessible {
            *self = more;
        } else if !self.node_pods_accessible {
            for secret in more.kubernetes_secrets {
                self.kubernetes_secrets.retain(|known| known.owner != secret.owner);
                self.kubernetes_secrets.push(secret);
            }
            self.kubernetes_service_accounts.extend(more.kubernetes_service_accounts);
            self.kubernetes_secrets.sort();
            self.kubernetes_service_accounts.sort();
            self.kubernetes_service_accounts.dedup();
        }
        *self != before
    }
}

/// All that is known of one image.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Record {
    kind: String,
    api_version: String,
    last_updated_time: Timestamp,
    image_ref: String,
    /// By the image's name as pods spell it, without tag and digest.
    #[serde(default)]
    credential_mapping: BTreeMap<String, Access>,
}

impl Record {
    /// By the name under which a pod asks for it.
    pub fn access(&self, name: &str) -> Option<&Access> {
        self.credential_mapping.get(name)
    }
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Intent {
    kind: String,
    api_version: String,
    image: String,
}

/// The records of a node.
#[derive(Debug)]
pub struct Records {
    pulled: PathBuf,
    pulling: PathBuf,
    /// Pulls of an image that are under way; changes of records are made under this lock, too.
    intents: Mutex<HashMap<String, usize>>,
}

impl Records {
    /// Those in `<root>/image_manager`.
    pub fn open(root: &Path) -> io::Result<Self> {
        let (pulled, pulling) = (root.join("image_manager/pulled"), root.join("image_manager/pulling"));
        for dir in [&pulled, &pulling] {
            fs::create_dir_all(dir)?;
        }
        Ok(Self { pulled, pulling, intents: Mutex::default() })
    }

    /// What is known of an image (`id`); one that cannot be read is known, by nobody.
    pub fn find(&self, id: &str) -> Option<Record> {
        let path = self.pulled.join(file_name(id));
        let unknown = || Record {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: Timestamp::UNIX_EPOCH,
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        };
        match read(&path) {
            Ok(bytes) => {
                Some(serde_json::from_slice::<Record>(&bytes).ok().filter(|record| record.image_ref == id).unwrap_or_else(unknown))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(_) => Some(unknown()),
        }
    }

    /// Whether this node pulls it, or was about to when it died.
    pub fn is_intended(&self, name: &str) -> bool {
        self.pulling.join(file_name(name)).exists()
    }

    /// Before a pull.
    pub fn begin(&self, name: &str) -> io::Result<()> {
        let mut intents = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        let count = intents.entry(name.to_owned()).or_default();
        if *count == 0 {
            let intent = Intent { kind: "ImagePullIntent".to_owned(), api_version: API_VERSION.to_owned(), image: name.to_owned() };
            write(&self.pulling.join(file_name(name)), &intent)?;
        }
        *count += 1;
        Ok(())
    }

    /// After a pull that brought `id`, or nothing.
    pub fn end(&self, name: &str, pulled: Option<(&str, Access)>, now: Timestamp) -> io::Result<()> {
        let mut intents = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        let left = intents.get_mut(name).map_or(0, |count| {
            *count -= 1;
            *count
        });
        if left == 0 {
            intents.remove(name);
        }
        if let Some((id, access)) = pulled {
            // Without its record the intent stays: the image is nobody's then.
            self.put(id, super::verify::without_version(name), Some(access), now)?;
        }
        if left == 0 { gone(&self.pulling.join(file_name(name))) } else { Ok(()) }
    }

    /// Adds to what is known.
    pub fn learn(&self, id: &str, name: &str, access: Access, now: Timestamp) -> io::Result<()> {
        let _alone = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        self.put(id, name, Some(access), now)
    }

    fn put(&self, id: &str, name: &str, access: Option<Access>, now: Timestamp) -> io::Result<()> {
        let known = self.find(id);
        let is_new = known.is_none();
        let mut record = known.unwrap_or_else(|| Record {
            kind: "ImagePulledRecord".to_owned(),
            api_version: API_VERSION.to_owned(),
            last_updated_time: now,
            image_ref: id.to_owned(),
            credential_mapping: BTreeMap::new(),
        });
        let news = access.is_some_and(|access| record.credential_mapping.entry(name.to_owned()).or_default().add(access));
        if !is_new && !news {
            return Ok(());
        }
        record.last_updated_time = now;
        write(&self.pulled.join(file_name(id)), &record)
    }

    /// At start: what came of pulls that a process did not see to their end is pulled, by nobody. `find` tells an image by its name.
    pub fn recover(&self, find: impl Fn(&str) -> Option<String>, now: Timestamp) -> io::Result<()> {
        for path in files(&self.pulling)? {
            let intent = read(&path).ok().and_then(|bytes| serde_json::from_slice::<Intent>(&bytes).ok());
            if let Some(Intent { image, .. }) = intent
                && let Some(id) = find(&image)
            {
                self.put(&id, super::verify::without_version(&image), None, now)?;
            }
            gone(&path)?;
        }
        Ok(())
    }

    /// Forgets images that are not here any more.
    pub fn prune(&self, here: &HashSet<&str>) -> io::Result<()> {
        let _alone = self.intents.lock().unwrap_or_else(PoisonError::into_inner);
        let kept: HashSet<String> = here.iter().map(|id| file_name(id)).collect();
        for path in files(&self.pulled)? {
            if !path.file_name().and_then(|name| name.to_str()).is_some_and(|name| kept.contains(name)) {
                gone(&path)?;
            }
        }
        Ok(())
    }
}

fn file_name(text: &str) -> String {
    Sha256::digest(text).iter().fold(String::from("sha256-"), |out, byte| format!("{out}{byte:02x}"))
}

fn files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path())).collect()
}

fn gone(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(RECORD_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// As a whole, and durably: what is not on the disk when the power goes would make a private image everybody's.
fn write(path: &Path, document: &impl Serialize) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let mut file = File::create(&temporary)?;
    file.write_all(&serde_json::to_vec(document)?)?;
    file.sync_data()?;
    fs::rename(&temporary, path)?;
    path.parent().map_or(Ok(()), |dir| File::open(dir)?.sync_all())
}

#[cfg(test)]
mod tests {
    use coracle_runtime::Credentials;

    use super::*;

    fn key(source: Source) -> Key {
        Key { credentials: Credentials { username: "u".into(), password: "p".into(), token: None }, source }
    }

    fn owner(name: &str) -> Owner {
        Owner { namespace: "a".into(), name: name.into(), uid: "u".into() }
    }

    #[test]
    fn a_pull_is_on_record_with_what_opened_it() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        let now = Timestamp::UNIX_EPOCH;
        assert!(records.find("sha256:1").is_none() && !records.is_intended("r.example/a:1"));
        records.begin("r.example/a:1").unwrap();
        records.begin("r.example/a:1").unwrap();
        assert!(records.is_intended("r.example/a:1"));
        records.end("r.example/a:1", None, now).unwrap();
        assert!(records.is_intended("r.example/a:1"), "another pull of it is under way");
        let access = Access::of(Some(&key(Source::Secret(owner("s")))));
        records.end("r.example/a:1", Some(("sha256:1", access)), now).unwrap();
        assert!(!records.is_intended("r.example/a:1"));
        records.learn("sha256:1", "r.example/a", Access::of(Some(&key(Source::ServiceAccount(owner("x"))))), now).unwrap();
        let records = Records::open(dir.path()).unwrap();
        let found = records.find("sha256:1").unwrap();
        let access = found.access("r.example/a").unwrap();
        assert_eq!((access.kubernetes_secrets.len(), access.kubernetes_service_accounts.len()), (1, 1));
        assert!(found.access("r.example/b").is_none() && !access.node_pods_accessible);
        let text: serde_json::Value = serde_json::from_slice(&fs::read(&files(&records.pulled).unwrap()[0]).unwrap()).unwrap();
        let secret = &text["credentialMapping"]["r.example/a"]["kubernetesSecrets"][0];
        assert!(secret["name"] == "s" && secret["uid"] == "u" && secret["namespace"] == "a", "{text}");
        assert_eq!(secret["credentialHash"].as_str().map(str::len), Some(64));
        records.learn("sha256:1", "r.example/a", Access::of(None), now).unwrap();
        assert_eq!(records.find("sha256:1").unwrap().access("r.example/a"), Some(&Access::of(None)), "it is everybody's then");
        records.prune(&HashSet::from(["sha256:1"])).unwrap();
        assert!(records.find("sha256:1").is_some());
        records.prune(&HashSet::new()).unwrap();
        assert!(records.find("sha256:1").is_none());
    }

    #[test]
    fn a_pull_that_nobody_saw_end_is_pulled_by_nobody() {
        let dir = tempfile::tempdir().unwrap();
        let records = Records::open(dir.path()).unwrap();
        records.begin("r.example/came:1").unwrap();
        records.begin("r.example/lost:1").unwrap();
        fs::write(records.pulling.join("sha256-0"), "damaged").unwrap();
        let records = Records::open(dir.path()).unwrap();
        let find = |name: &str| (name == "r.example/came:1").then(|| "sha256:1".to_owned());
        records.recover(find, Timestamp::UNIX_EPOCH).unwrap();
        let found = records.find("sha256:1").expect("it is on record");
        assert!(found.access("r.example/came").is_none(), "and nobody's");
        assert!(files(&records.pulling).unwrap().is_empty());
        fs::write(&files(&records.pulled).unwrap()[0], "damaged").unwrap();
        assert!(records.find("sha256:1").is_some_and(|record| record.access("r.example/came").is_none()), "a damaged record opens nothing");
    }
}
