//! Limits of memory, processes and CPU, and what a container uses.

use coracle_runtime::{PodRuntime, Resources};

use crate::house::{House, cgroups, exited};

#[tokio::test]
async fn a_container_beyond_its_memory_is_killed_and_says_so() {
    let house = House::new().await;
    let limit = Resources { memory_limit: Some(24 << 20), ..Resources::default() };
    let (code, reason, _) =
        house.output("x=$(tr '\\0' x < /dev/zero | head -c 100000000); echo ${#x}", move |spec| spec.resources = limit).await;
    assert_eq!((code, reason.as_str()), (137, "OOMKilled"));
    house.close().await;
}

#[tokio::test]
async fn a_container_makes_no_more_processes_than_allowed() {
    let house = House::new().await;
    let limit = Resources { pids_limit: Some(8), ..Resources::default() };
    let script = "for i in 1 2 3 4 5 6 7 8 9 10 11 12; do sleep 1000 & done; echo all";
    let (code, _, log) = house.output(script, move |spec| spec.resources = limit).await;
    assert!(code != 0 && !log.contains("all"), "{code} {log}");
    house.close().await;
}

#[tokio::test]
async fn limits_can_be_changed_and_use_is_told() {
    let house = House::new().await;
    let pod = house.pod().await;
    let limit = Resources {
        memory_limit: Some(64 << 20),
        cpu_shares: Some(512),
        cpu_quota: Some(50_000),
        cpu_period: Some(100_000),
        ..Resources::default()
    };
    let id = house.run(&pod, "head -c 3000000 /dev/zero > /file; sleep 1000", |spec| spec.resources = limit.clone()).await;
    while house.runtime.stats(&id).await.unwrap().rootfs_bytes < 3_000_000 {
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    }
    let stats = house.runtime.stats(&id).await.unwrap();
    assert!(stats.cpu_nanoseconds > 0 && stats.pids >= 1 && stats.memory_usage > 0 && stats.memory_usage < 64 << 20, "{stats:?}");
    let detail = stats.detail.expect("cgroups tell it");
    assert!(detail.cpu_user_nanoseconds + detail.cpu_system_nanoseconds > 0 && detail.oom_kills == 0, "{detail:?}");
    let whole = house.runtime.sandbox_stats(&pod.id).await.unwrap().expect("cgroups tell it");
    assert!(whole.cpu_nanoseconds >= stats.cpu_nanoseconds && whole.pids >= stats.pids && whole.detail.is_some(), "{whole:?}");
    for memory in [128i64 << 20, 32 << 20] {
        house.runtime.update_container(&id, &Resources { memory_limit: Some(memory), ..limit.clone() }).await.unwrap();
        let dirs = cgroups(&format!("{}/{}", pod.cgroup, id.id));
        let read = |file: &str| dirs.iter().find_map(|dir| std::fs::read_to_string(dir.join(file)).ok()).map(|text| text.trim().to_owned());
        assert_eq!(read("memory.limit_in_bytes").or_else(|| read("memory.max")), Some(memory.to_string()));
    }
    let whole = Resources { cpu_shares: Some(256), cpu_quota: Some(80_000), cpu_period: Some(100_000), ..Resources::default() };
    house.runtime.update_sandbox(&pod.id, &whole).await.unwrap();
    let read = |file: &str| cgroups(&pod.cgroup).iter().find_map(|dir| std::fs::read_to_string(dir.join(file)).ok());
    let quota = read("cpu.cfs_quota_us").or_else(|| read("cpu.max")).unwrap();
    assert_eq!(quota.split_whitespace().next(), Some("80000"));
    house.runtime.signal_container(&id, 9).await.unwrap();
    exited(&*house.runtime, &id).await;
    house.close().await;
}

#[tokio::test]
async fn a_container_sees_its_own_limit() {
    let house = House::new().await;
    let limit = Resources { memory_limit: Some(48 << 20), ..Resources::default() };
    let script = "cat /sys/fs/cgroup/memory/memory.limit_in_bytes 2>/dev/null || cat /sys/fs/cgroup/memory.max; mkdir /sys/fs/cgroup/x 2>&1; cat /proc/self/cgroup";
    let (_, _, log) = house.output(script, move |spec| spec.resources = limit).await;
    assert!(log.starts_with(&(48 << 20).to_string()) && log.contains("Read-only"), "{log}");
    assert!(log.lines().filter(|line| line.contains("::") || line.contains(":memory:")).all(|line| line.ends_with(":/")), "{log}");
    house.close().await;
}
