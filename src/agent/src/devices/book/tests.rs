//! What the book does in a life with plugins that come and go, and what never happens whatever comes.

use proptest::prelude::*;

use super::*;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_000_000 + second).expect("a time")
}

fn devices(list: &[(&str, bool)]) -> Vec<Device> {
    list.iter()
        .map(|(id, well)| Device { id: (*id).into(), health: if *well { HEALTHY } else { "Unhealthy" }.into(), topology: None })
        .collect()
}

const GPU: &str = "example.com/gpu";

fn ask<'a>(container: &'a str, count: usize, reusable: &'a Ids) -> Ask<'a> {
    Ask { uid: container.split('-').next().unwrap_or_default(), container, resource: GPU, count, reusable }
}

fn ids(list: &[&str]) -> Ids {
    list.iter().map(|id| (*id).to_owned()).collect()
}

fn book(list: &[(&str, bool)]) -> (Book, u64) {
    let mut book = Book::default();
    let generation = book.connect(GPU).expect("room");
    book.update(GPU, generation, devices(list));
    for uid in ["a", "b", "c"] {
        book.open(uid);
    }
    (book, generation)
}

fn amounts(book: &Book) -> Vec<(usize, usize)> {
    book.amounts().map(|(_, all, well)| (all, well)).collect()
}

#[test]
fn devices_are_given_to_one_container_at_a_time() {
    let (mut book, _) = book(&[("1", true), ("2", true), ("3", false), ("4", true)]);
    let none = Ids::new();
    assert_eq!(amounts(&book), [(4, 3)]);
    assert_eq!(book.reserve(&ask("a-x", 2, &none), &["4".into(), "9".into()]), Ok(Some(ids(&["1", "4"]))));
    assert_eq!(book.reserve(&ask("a-x", 2, &none), &[]), Ok(None), "it has them");
    let short = Shortage::TooFew { resource: GPU.into(), requested: 2, available: 1 };
    assert_eq!(book.need(&ask("b-x", 2, &none)), Err(short));
    assert_eq!(book.need(&ask("b-x", 1, &none)), Ok(Need::Choose { taken: none.clone(), free: ids(&["2"]) }));
    // The words of upstream's suite.
    let message = book.need(&ask("b-x", 2, &none)).expect_err("too few").to_string();
    assert_eq!(message, "requested number of devices unavailable for example.com/gpu. Requested: 2, Available: 1");
    book.cancel("a", "a-x");
    assert!(!book.has("a"));
    assert_eq!(book.reserve(&ask("b-x", 3, &none), &[]), Ok(Some(ids(&["1", "2", "4"]))));
    book.confirm(&ask("b-x", 3, &none), ContainerAllocateResponse::default()).expect("it is reserved");
    book.cancel("b", "b-x");
    assert!(book.has("b"), "what the plugin has given stays");
    assert!(matches!(book.need(&ask("b-x", 2, &none)), Err(Shortage::Changed { had: 3, wants: 2, .. })));
    assert!(book.release("b") && !book.release("b"));
    assert_eq!(book.reserve(&ask("b-x", 1, &none), &[]), Err(Shortage::Ending));
    assert_eq!(book.confirm(&ask("b-x", 1, &none), ContainerAllocateResponse::default()), Err(Shortage::Ending));
}

#[test]
fn devices_are_handed_on_within_a_pod() {
    let (mut book, _) = book(&[("1", true), ("2", true)]);
    let none = Ids::new();
    let first = book.reserve(&ask("a-init", 2, &none), &[]).expect("free").expect("chosen");
    assert_eq!(book.reserve(&ask("a-main", 1, &first), &["2".into()]), Ok(Some(ids(&["1"]))));
    let left: Ids = first.difference(&ids(&["1"])).cloned().collect();
    assert_eq!(book.reserve(&ask("a-other", 1, &left), &[]), Ok(Some(ids(&["2"]))));
    assert!(book.need(&ask("b-x", 1, &none)).is_err());
}

#[test]
fn a_plugin_that_goes_takes_its_devices_along_after_a_while() {
    let (mut book, generation) = book(&[("1", true), ("2", true)]);
    let none = Ids::new();
    book.reserve(&ask("a-x", 1, &none), &[]).expect("free");
    book.disconnect(GPU, generation + 7, at(0));
    assert_eq!(amounts(&book), [(2, 2)], "another's end");
    book.disconnect(GPU, generation, at(0));
    assert_eq!(amounts(&book), [(2, 0)]);
    assert_eq!(book.need(&ask("b-x", 1, &none)), Err(Shortage::NoneHealthy(GPU.into())));
    assert_eq!(book.need(&ask("a-x", 1, &none)), Ok(Need::Met));
    assert_eq!(book.expire(at(299)), Some(at(300)));
    // Back in time: nothing is given away before it has told of its devices anew.
    let again = book.connect(GPU).expect("room");
    assert_eq!((amounts(&book), book.is_awaited(GPU)), (vec![(2, 0)], true));
    book.update(GPU, generation, devices(&[("9", true)]));
    assert_eq!(amounts(&book), [(2, 0)], "an old connection says nothing any more");
    book.update(GPU, again, devices(&[("1", false), ("2", true)]));
    assert_eq!((amounts(&book), book.is_awaited(GPU)), (vec![(2, 1)], false));
    assert_eq!(book.need(&ask("a-x", 1, &none)), Err(Shortage::Unhealthy(GPU.into())));
    let health = book.health("a", "a-x");
    assert_eq!(health[0].resources.as_ref().expect("one")[0].health.as_deref(), Some("Unhealthy"));
    book.disconnect(GPU, again, at(1000));
    assert_eq!(book.expire(at(1300)), None);
    assert_eq!(amounts(&book), [(0, 0)], "the node says that there are none");
    assert!(book.manages(GPU), "a container has one");
    book.release("a");
    assert!(!book.manages(GPU));
    assert_eq!(book.need(&ask("b-x", 1, &none)), Err(Shortage::Unregistered(GPU.into())));
}

#[test]
fn after_a_restart_containers_keep_what_they_have() {
    let (mut book, _) = book(&[("1", true), ("2", true)]);
    let none = Ids::new();
    book.reserve(&ask("a-x", 1, &none), &[]).expect("free");
    let mut after = Book::restored(book.everything().clone(), [GPU.to_owned()].into_iter(), at(0));
    after.open("a");
    after.open("b");
    assert_eq!((amounts(&after), after.is_awaited(GPU)), (vec![(0, 0)], true));
    assert_eq!(after.need(&ask("a-x", 1, &none)), Ok(Need::Met));
    let generation = after.connect(GPU).expect("room");
    after.update(GPU, generation, devices(&[("1", true), ("2", true)]));
    assert_eq!(after.reserve(&ask("b-x", 1, &none), &["1".into()]), Ok(Some(ids(&["2"]))));
    assert!(after.retain(|uid| uid == "b"));
    assert!(!after.has("a"));
}

#[derive(Clone, Debug)]
enum Deed {
    Tell(Vec<bool>),
    Reserve { pod: usize, container: usize, count: usize, preferred: Vec<usize> },
    Confirm { pod: usize, container: usize, count: usize },
    Cancel { pod: usize, container: usize },
    Release(usize),
    Lose,
    Find,
}

fn deed() -> impl Strategy<Value = Deed> {
    let (pod, container, count) = (0..3usize, 0..2usize, 1..4usize);
    prop_oneof![
        prop::collection::vec(any::<bool>(), 0..6).prop_map(Deed::Tell),
        (pod.clone(), container.clone(), count.clone(), prop::collection::vec(0..8usize, 0..4))
            .prop_map(|(pod, container, count, preferred)| Deed::Reserve { pod, container, count, preferred }),
        (pod.clone(), container.clone(), count).prop_map(|(pod, container, count)| Deed::Confirm { pod, container, count }),
        (pod.clone(), container).prop_map(|(pod, container)| Deed::Cancel { pod, container }),
        pod.prop_map(Deed::Release),
        Just(Deed::Lose),
        Just(Deed::Find),
    ]
}

proptest! {
    #[test]
    fn no_device_is_ever_given_twice_and_only_healthy_ones_are(deeds in prop::collection::vec(deed(), 1..60)) {
        let (mut book, mut generation) = book(&[("0", true), ("1", true), ("2", true), ("3", true)]);
        let pods = ["a", "b", "c"];
        let names: Vec<[String; 2]> = pods.iter().map(|p| [format!("{p}-0"), format!("{p}-1")]).collect();
        let none = Ids::new();
        for deed in deeds {
            match deed {
                Deed::Tell(well) => {
                    let list = well.iter().enumerate().map(|(n, well)| Device {
                        id: n.to_string(), health: if *well { HEALTHY } else { "no" }.into(), topology: None });
                    book.update(GPU, generation, list.collect());
                }
                Deed::Reserve { pod, container, count, preferred } => {
                    book.open(pods[pod]);
                    let well: Ids = book.registered().flat_map(|(_, ids)| ids).map(str::to_owned).collect();
                    let preferred: Vec<String> = preferred.iter().map(ToString::to_string).collect();
                    if let Ok(Some(chosen)) = book.reserve(&ask(&names[pod][container], count, &none), &preferred) {
                        prop_assert_eq!(chosen.len(), count);
                        prop_assert!(chosen.is_subset(&well));
                    }
                }
                Deed::Confirm { pod, container, count } => {
                    let _ = book.confirm(&ask(&names[pod][container], count, &none), ContainerAllocateResponse::default());
                }
                Deed::Cancel { pod, container } => book.cancel(pods[pod], &names[pod][container]),
                Deed::Release(pod) => {
                    book.release(pods[pod]);
                    prop_assert!(!book.has(pods[pod]));
                }
                Deed::Lose => book.disconnect(GPU, generation, at(0)),
                Deed::Find => generation = book.connect(GPU).expect("room"),
            }
            let all: Vec<&String> = book.all_grants().flat_map(|(_, _, g)| g.values()).flat_map(|g| g.devices.keys()).collect();
            let distinct: BTreeSet<&String> = all.iter().copied().collect();
            prop_assert_eq!(all.len(), distinct.len());
            for (_, have, well) in book.amounts() {
                prop_assert!(well <= have);
            }
        }
    }
}
