//! A shim and a main process of different builds: the messages and files of protocol 1, written out as they were, in both directions.

use std::{
    fs,
    io::{Read, Write},
    os::unix::net::{UnixListener, UnixStream},
    path::{Path, PathBuf},
    process::{Child, Command},
    time::Duration,
};

use coracle_runtime::{ContainerId, ContainerState, PodRuntime, RuntimeEvent};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::house::{House, PATIENCE, container, exited, unique};

fn send(mut socket: &UnixStream, message: &str) {
    socket.write_all(&(message.len() as u32).to_le_bytes()).unwrap();
    socket.write_all(message.as_bytes()).unwrap();
}

/// The next message; `None` at the end.
fn receive(mut socket: &UnixStream) -> Option<Value> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut bytes = vec![0; u32::from_le_bytes(length) as usize];
    socket.read_exact(&mut bytes).unwrap();
    Some(serde_json::from_slice(&bytes).unwrap())
}

fn connect(dir: &Path) -> UnixStream {
    let socket = UnixStream::connect(dir.join("socket")).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}

fn ask(dir: &Path, message: &str) -> Value {
    let socket = connect(dir);
    send(&socket, message);
    receive(&socket).unwrap()
}

#[tokio::test]
async fn a_shim_of_this_build_serves_an_older_main_process() {
    let house = House::new().await;
    let pod = house.pod().await;
    let dir = house.dir().join("state").join(&pod.id);
    // A container.json of this very image, with what a later version might add.
    let template = container(&pod, "exit 7");
    house.runtime.create_container(&template).await.unwrap();
    let mut record: Value = serde_json::from_slice(&fs::read(dir.join(&template.id.id).join("container.json")).unwrap()).unwrap();
    let (old, writable) = (unique(), house.dir().join("data/containers/old"));
    record["spec"]["id"]["id"] = json!(old);
    record["spec"]["a_later_field"] = json!({"x": 1});
    record["spec"]["log_path"] = json!(format!("{old}.log"));
    record["writable"] = json!(writable);
    fs::create_dir_all(dir.join(&old)).unwrap();
    fs::create_dir_all(&writable).unwrap();
    fs::write(dir.join(&old).join("container.json"), record.to_string()).unwrap();

    let watch = connect(&dir);
    send(&watch, r#""Watch""#);
    assert_eq!(receive(&watch), Some(json!("Done")));
    let created = ask(&dir, &format!(r#"{{"Create":{{"id":"{old}","later":true}}}}"#));
    assert_eq!(created["Life"]["state"], "Created", "{created}");
    assert!(created["Life"]["pid"].is_u64() && created["Life"]["user"] == json!([0, 0, [0]]), "{created}");
    let unknown = ask(&dir, r#"{"Later":{"id":"x"}}"#);
    assert!(unknown["Failed"]["System"].as_str().is_some_and(|why| why.contains("Later")), "{unknown}");
    let started = ask(&dir, &format!(r#"{{"Start":{{"id":"{old}"}}}}"#));
    assert!(started["Life"]["state"]["Running"]["started_at"].is_string(), "{started}");
    let exit = receive(&watch).unwrap();
    assert_eq!((&exit["Exit"]["id"], &exit["Exit"]["life"]["state"]["Exited"]["exit_code"]), (&json!(old), &json!(7)), "{exit}");
    assert_eq!(ask(&dir, &format!(r#"{{"Signal":{{"id":"{old}","signal":9}}}}"#)), json!({"Failed": "NotFound"}));
    assert_eq!(ask(&dir, &format!(r#"{{"Reopen":{{"id":"{old}"}}}}"#)), json!("Done"));
    assert_eq!(ask(&dir, &format!(r#"{{"Forget":{{"id":"{old}"}}}}"#)), json!("Done"));
    fs::remove_dir_all(&writable).unwrap();
    house.close().await;
}

/// A shim of protocol 1, as far as its main process sees it: a process, files, and a socket that answers word by word.
struct OldShim {
    process: Child,
    listener: UnixListener,
    sandbox: String,
    container: String,
    dir: PathBuf,
}

impl OldShim {
    fn new(house: &House) -> Self {
        let (sandbox, container) = (unique(), unique());
        let dir = house.dir().join("state").join(&sandbox);
        fs::create_dir_all(dir.join(&container)).unwrap();
        let process = Command::new("sleep").arg("1000").spawn().unwrap();
        let stat = fs::read_to_string(format!("/proc/{}/stat", process.id())).unwrap();
        let start_time: u64 = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(19).unwrap().parse().unwrap();
        let resources = r#"{"cpu_shares":null,"cpu_quota":null,"cpu_period":null,"memory_limit":null,"pids_limit":null,"oom_score_adj":null,"hugepages":{}}"#;
        let security = r#"{"run_as_user":null,"run_as_group":null,"run_as_non_root":false,"supplemental_groups":[],"merge_image_groups":true,"privileged":false,
            "add_capabilities":[],"drop_capabilities":[],"read_only_root":false,"allow_privilege_escalation":true,"seccomp":"RuntimeDefault","proc_unmasked":false}"#;
        let logs = house.log_dir();
        let write = |path: PathBuf, text: String| fs::write(path, text).unwrap();
        write(
            dir.join("sandbox.json"),
            format!(
                r#"{{"spec":{{"id":"{sandbox}","namespace":"default","name":"old","uid":"u","attempt":0,"netns":null,"hostname":"old","ipc":"Pod","pid":"Container",
                "cgroup":"{}/old{sandbox}","resources":{resources},"sysctls":{{}},"log_directory":{logs:?},"labels":{{"a":"b"}},"annotations":{{}}}},
                "created_at":"2026-11-01T10:00:00Z","shim_cgroup":"{}/shims"}}"#,
                house.prefix(),
                house.prefix()
            ),
        );
        write(dir.join("shim.json"), format!(r#"{{"protocol":1,"pid":{},"start_time":{start_time},"unknown":0}}"#, process.id()));
        write(
            dir.join(&container).join("container.json"),
            format!(
                r#"{{"spec":{{"id":{{"sandbox":"{sandbox}","id":"{container}"}},"name":"c","attempt":2,"image":"busybox:test","command":[],"args":[],"working_dir":"","env":[["A","1"]],
                "mounts":[{{"source":"/v","destination":"/w","read_only":true,"recursive_read_only":false,"propagation":"private"}}],"devices":[],"resources":{resources},
                "security":{security},"log_path":"c.log","stdin":false,"stdin_once":false,"tty":false,"stop_signal":null,"labels":{{}},"annotations":{{}}}},
                "image_id":"sha256:0","defaults":{{"Env":[],"Cmd":["/bin/sh"]}},"created_at":"2026-11-01T10:00:01Z","layers":[],"writable":"/nonexistent/writable",
                "filters":[[6,0,0,0,0,0,255,127]]}}"#
            ),
        );
        let running = r#"{"pid":4711,"user":[1000,1001,[1001]],"state":{"Running":{"started_at":"2026-11-01T10:00:02Z"}}}"#;
        write(dir.join(&container).join("life.json"), running.to_owned());
        let listener = UnixListener::bind(dir.join("socket")).unwrap();
        Self { process, listener, sandbox, container, dir }
    }

    /// Serves until it is told to end; gives all that was asked.
    fn serve(mut self) -> Vec<Value> {
        let (mut asked, mut watch) = (Vec::new(), None::<UnixStream>);
        loop {
            let (socket, _) = self.listener.accept().unwrap();
            let Some(request) = receive(&socket) else { continue };
            asked.push(request.clone());
            let exited = r#"{"pid":null,"user":[1000,1001,[1001]],"state":{"Exited":{"started_at":"2026-11-01T10:00:02Z","finished_at":"2026-11-01T10:00:03Z",
                "exit_code":137,"signal":9,"reason":"Error","message":""}},"later":1}"#;
            if request == json!("Watch") {
                send(&socket, r#""Done""#);
                watch = Some(socket);
            } else if request.get("Signal").is_some() {
                send(&socket, r#""Done""#);
                fs::write(self.dir.join(&self.container).join("life.json"), exited).unwrap();
                let watch = watch.as_ref().unwrap();
                // An event that this build does not know, and one that it does.
                send(watch, r#"{"Frozen":{"id":"x"}}"#);
                send(watch, &format!(r#"{{"Exit":{{"id":"{}","life":{exited},"later":2}}}}"#, self.container));
            } else if request.get("Exec").is_some() {
                send(&socket, r#"{"Failed":{"Invalid":"the container is not running"}}"#);
            } else {
                send(&socket, r#""Done""#);
            }
            if request == json!("Shutdown") {
                self.process.kill().unwrap();
                self.process.wait().unwrap();
                return asked;
            }
        }
    }
}

#[tokio::test]
async fn a_shim_of_an_older_build_is_adopted() {
    let house = House::new().await;
    let shim = OldShim::new(&house);
    let id = ContainerId { sandbox: shim.sandbox.clone(), id: shim.container.clone() };
    let serving = std::thread::spawn(move || shim.serve());
    let runtime = house.reopened().await;
    let sandboxes = runtime.sandboxes().await.unwrap();
    let found = sandboxes.iter().find(|sandbox| sandbox.spec.id == id.sandbox).unwrap();
    assert!(found.ready && found.spec.name == "old" && found.spec.labels["a"] == "b", "{found:?}");
    let status = runtime.container(&id).await.unwrap();
    assert_eq!((status.pid, status.user.clone(), status.spec.attempt), (Some(4711), Some((1000, 1001, vec![1001])), 2));
    assert!(matches!(status.state, ContainerState::Running { .. }), "{status:?}");
    assert_eq!((status.spec.mounts.len(), status.spec.env[0].0.as_str()), (1, "A"));
    let refused = runtime.exec_sync(&id, &["true".into()], Some(Duration::from_secs(5))).await.unwrap_err();
    assert!(refused.to_string().contains("not running"), "{refused}");
    let mut events = runtime.events();
    runtime.signal_container(&id, 9).await.unwrap();
    let state = exited(&*runtime, &id).await.state;
    assert!(matches!(state, ContainerState::Exited { exit_code: 137, signal: Some(9), .. }), "{state:?}");
    assert!(matches!(events.next().await, Some(RuntimeEvent::Exited(which)) if which == id));
    runtime.remove_sandbox(&id.sandbox).await.unwrap();
    let asked = serving.join().unwrap();
    let signal = json!({"Signal": {"id": id.id, "signal": 9}});
    assert!(asked.contains(&signal) && asked.first() == Some(&json!("Watch")) && asked.last() == Some(&json!("Shutdown")), "{asked:?}");
    house.close().await;
}
