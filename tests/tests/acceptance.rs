//! The tour that a user takes, as one script that `coracle run` runs with the real kubectl; and afterwards the machine is as it was.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
};

use coracle_tests::{image, left, screen::Follow, server::program};

const SCRIPT: &str = include_str!("acceptance.sh");

#[test]
fn the_whole_tour_works_and_leaves_nothing() {
    let directory = tempfile::tempdir().expect("a directory");
    let (script, archive) = (directory.path().join("tour.sh"), image::busybox(directory.path()));
    std::fs::write(&script, SCRIPT).expect("written");
    let mut command = Command::new(program());
    command.arg("run").arg("--import").arg(archive).args(["--", "bash"]).arg(&script).env("WORK", directory.path());
    command.stderr(Stdio::inherit());
    let mut tour = Follow::start(command);
    tour.see("data directory ");
    let data = PathBuf::from(tour.line());
    let id = left::id(&data).expect("the machine knows it");
    for step in [
        "applied",
        "asked by name",
        "rolled",
        "undone",
        "scaled",
        "replaced",
        "changed",
        "logs",
        "exec",
        "copied",
        "forwarded",
        "explained",
        "deleted",
    ] {
        tour.see(&format!("ok: {step}\n"));
    }
    assert_eq!(tour.wait().code(), Some(0));
    left::assert_nothing(&id, &data);
    assert!(!data.exists(), "the data is gone, too");
}
