//! Archives that are put into a real directory.

use std::{io::Write as _, time::Duration};

use tokio::sync::mpsc;

use super::*;
use crate::images::tests::{layer, saved};

/// Longer than any import takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

struct Node {
    dir: tempfile::TempDir,
    store: Arc<ImageStore>,
    told: mpsc::UnboundedReceiver<()>,
    arrivals: Option<Arrivals>,
}

impl Node {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Arc::new(ImageStore::open(dir.path()).unwrap());
        fs::create_dir(dir.path().join("drop")).unwrap();
        let mut node = Self { dir, store, told: mpsc::unbounded_channel().1, arrivals: None };
        node.start();
        node
    }

    fn start(&mut self) {
        let (tell, told) = mpsc::unbounded_channel();
        self.told = told;
        let changed = move || {
            let _ = tell.send(());
        };
        self.arrivals = Some(follow(Arc::clone(&self.store), self.dir.path().join("drop"), changed).unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join("drop").join(name)
    }

    /// Waits until the store has told of a change and the image is there.
    async fn arrives(&mut self, image: &str) {
        while self.store.get(image).unwrap().is_none() {
            tokio::time::timeout(PATIENCE, self.told.recv()).await.unwrap_or_else(|_| panic!("{image} does not come")).unwrap();
        }
    }

    /// Waits until the import of an archive is over: its image is there before what it was made of is gone and the archive remembered.
    async fn is_done_with(&self, archive: &str) {
        let done = async {
            while !taken(&self.store).contains_key(archive) {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(PATIENCE, done).await.unwrap_or_else(|_| panic!("{archive} is not remembered"));
    }
}

fn archive(tag: &str) -> Vec<u8> {
    let file = tempfile::NamedTempFile::new().unwrap();
    saved(file.path(), tag, &[layer(&[("name", tag)])]);
    fs::read(file.path()).unwrap()
}

#[tokio::test]
async fn archives_are_taken_when_they_are_whole() {
    let mut node = Node::new();
    let bytes = archive("moved");
    fs::write(node.path(".hidden.tar"), &bytes).unwrap();
    fs::rename(node.path(".hidden.tar"), node.path("moved.tar")).unwrap();
    node.arrives("moved").await;
    let zipped = zstd::encode_all(&archive("zipped")[..], 1).unwrap();
    let mut file = fs::File::create(node.path("zipped.tar.zst")).unwrap();
    file.write_all(&zipped[..100]).unwrap();
    // Another one comes whole in the meantime, and nobody looks at the half one.
    fs::write(node.path("other.tar"), archive("other")).unwrap();
    node.arrives("other").await;
    assert!(node.store.get("zipped").unwrap().is_none());
    file.write_all(&zipped[100..]).unwrap();
    drop(file);
    node.arrives("zipped").await;
}

#[tokio::test]
async fn what_is_no_archive_harms_nothing() {
    let mut node = Node::new();
    fs::write(node.path("broken.tar"), "broken").unwrap();
    fs::write(node.path("broken.tar.gz"), [0x1f, 0x8b, 0, 0]).unwrap();
    fs::write(node.path("read.me"), archive("unread")).unwrap();
    fs::create_dir(node.path("directory.tar")).unwrap();
    std::os::unix::fs::symlink("/nowhere", node.path("gone.tar")).unwrap();
    fs::write(node.path("z.tar"), archive("good")).unwrap();
    node.arrives("good").await;
    node.is_done_with("z.tar").await;
    assert_eq!(node.store.list().unwrap().len(), 1);
    assert_eq!(fs::read_dir(node.store.root.join("incoming")).unwrap().count(), 0);
}

#[tokio::test]
async fn an_archive_is_taken_once_and_again_when_it_changes_or_its_image_is_gone() {
    let mut node = Node::new();
    fs::write(node.path("a.tar"), archive("a")).unwrap();
    node.arrives("a").await;
    node.is_done_with("a.tar").await;
    node.arrivals = None;
    let id = node.store.get("a").unwrap().unwrap().id;
    // A later image took the name; the archive does not take it back at the next start.
    saved(&node.dir.path().join("newer"), "a", &[layer(&[("newer", "")])]);
    node.store.import(&node.dir.path().join("newer"), None).unwrap();
    fs::write(node.path("b.tar"), archive("b")).unwrap();
    node.start();
    node.arrives("b").await;
    assert_ne!(node.store.get("a").unwrap().unwrap().id, id);
    node.arrivals = None;
    node.store.remove("b", &Default::default()).unwrap();
    node.start();
    node.arrives("b").await;
}
