//! Volumes that mysup must not take: on `/`, out of the container, and of its own data.

use std::fs;

use crate::harness::{
    Case, Sandbox,
    plant::Bind,
    tree::{Tree, plant_data},
};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        volume_on_the_root_is_refused,
        relative_destination_is_refused,
        destination_with_dots_is_refused,
        two_volumes_on_one_destination_are_refused,
        missing_source_of_mount_is_refused_and_not_made,
        malformed_volumes_are_refused,
        volume_of_mysups_own_data_is_refused,
        volume_of_the_run_root_is_refused,
        volume_that_contains_mysups_data_is_refused,
        volume_of_own_data_through_a_link_is_refused,
        volume_of_own_data_through_a_bind_alias_is_refused,
        volume_of_host_root_is_refused,
        rootfs_inside_own_data_is_refused,
        refused_volume_makes_no_source,
    ]
}

fn refuse(sandbox: &Sandbox, volume: &str, words: &[&str]) {
    let line = sandbox.run_line(&["--rm", "-v", volume], &["true"]);
    sandbox.refused(&line, 125, words);
    assert_eq!(sandbox.ok(&["ps", "-a", "-q"]), "");
}

fn volume_on_the_root_is_refused(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let before = plant_data(&sandbox.place("v"), "precious");
    for destination in ["/", "//", "/."] {
        refuse(sandbox, &format!("{source}:{destination}"), &["/"]);
    }
    let line = sandbox.run_line(&["--rm", "--tmpfs", "/"], &["true"]);
    sandbox.refused(&line, 125, &["/"]);
    before.expect_unchanged(&sandbox.place("v"));
}

fn relative_destination_is_refused(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    refuse(sandbox, &format!("{source}:data"), &["data", "absolute"]);
    refuse(sandbox, &format!("{source}:./data"), &["absolute"]);
}

fn destination_with_dots_is_refused(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    refuse(sandbox, &format!("{source}:/data/../etc"), &[".."]);
    refuse(sandbox, &format!("{source}:/.."), &[".."]);
}

fn two_volumes_on_one_destination_are_refused(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    let volume = format!("{source}:/data");
    for second in [volume.clone(), format!("{source}:/data/"), format!("{source}://data")] {
        let line = sandbox.run_line(&["--rm", "-v", &volume, "-v", &second], &["true"]);
        sandbox.refused(&line, 125, &["/data"]);
    }
}

fn missing_source_of_mount_is_refused_and_not_made(sandbox: &Sandbox) {
    let source = sandbox.place("missing");
    let mount = format!("type=bind,src={},dst=/data", source.display());
    let line = sandbox.run_line(&["--rm", "--mount", &mount], &["true"]);
    sandbox.refused(&line, 125, &["missing"]);
    assert!(!source.exists());
}

fn malformed_volumes_are_refused(sandbox: &Sandbox) {
    let source = sandbox.new_directory("v");
    for volume in [
        ":/data".to_owned(),
        format!("{source}:"),
        format!("{source}:/data:nosuchmode"),
        format!("{source}:/data:ro:ro"),
        "x/y:/data".to_owned(),
        String::new(),
    ] {
        refuse(sandbox, &volume, &[]);
    }
}

fn volume_of_mysups_own_data_is_refused(sandbox: &Sandbox) {
    sandbox.run(&["--name", "other"], &["true"]).expect_code(0);
    let root = sandbox.root().to_string_lossy().into_owned();
    let before = Tree::read(&sandbox.root().join("layers"));
    for below in ["", "/containers", "/layers", "/trash", "/images", "/containers/new-one"] {
        let volume = format!("{root}{below}:/data");
        let line = sandbox.run_line(&["--rm", "-v", &volume], &["rm", "-rf", "/data"]);
        sandbox.refused(&line, 125, &["mysup"]);
    }
    before.expect_unchanged(&sandbox.root().join("layers"));
    assert!(!sandbox.root().join("containers/new-one").exists());
    assert_eq!(sandbox.status("other"), "exited");
}

fn volume_of_the_run_root_is_refused(sandbox: &Sandbox) {
    let root = sandbox.run_root().to_string_lossy().into_owned();
    for below in ["", "/containers"] {
        refuse(sandbox, &format!("{root}{below}:/data"), &["mysup"]);
    }
}

fn volume_that_contains_mysups_data_is_refused(sandbox: &Sandbox) {
    let parent = sandbox.directory().to_string_lossy().into_owned();
    refuse(sandbox, &format!("{parent}:/data"), &["mysup"]);
    refuse(sandbox, &format!("{parent}:/data:ro"), &["mysup"]);
    refuse(sandbox, &format!("{parent}/w/..:/data"), &["mysup"]);
}

fn volume_of_own_data_through_a_link_is_refused(sandbox: &Sandbox) {
    sandbox.image();
    let link = sandbox.place("link");
    std::os::unix::fs::symlink(sandbox.root(), &link).expect("the sandbox is ours");
    refuse(sandbox, &format!("{}:/data", link.display()), &["mysup"]);
    refuse(sandbox, &format!("{}/containers:/data", link.display()), &["mysup"]);
}

fn volume_of_own_data_through_a_bind_alias_is_refused(sandbox: &Sandbox) {
    sandbox.image();
    let own = Bind::new(&sandbox.root(), &sandbox.place("alias"));
    refuse(sandbox, &format!("{}:/data", sandbox.place("alias").display()), &["mysup"]);
    refuse(sandbox, &format!("{}/containers:/data", sandbox.place("alias").display()), &["mysup"]);
    own.remove();
    let parent = Bind::new(sandbox.directory(), &sandbox.place("parent"));
    refuse(sandbox, &format!("{}:/data", sandbox.place("parent").display()), &["mysup"]);
    parent.remove();
}

fn volume_of_host_root_is_refused(sandbox: &Sandbox) {
    // It contains the state root.
    refuse(sandbox, "/:/host", &["mysup"]);
}

fn rootfs_inside_own_data_is_refused(sandbox: &Sandbox) {
    sandbox.image();
    let root = sandbox.root().to_string_lossy().into_owned();
    sandbox.refused(&["run", "--rm", "--rootfs", &root, "true"], 125, &["mysup"]);
    sandbox.refused(&["run", "--rm", "--rootfs", "/no/such/dir", "true"], 125, &["/no/such/dir"]);
    sandbox.refused(&["run", "--rm", "--rootfs", "/etc/passwd", "true"], 125, &["/etc/passwd"]);
}

fn refused_volume_makes_no_source(sandbox: &Sandbox) {
    let source = sandbox.place("new");
    refuse(sandbox, &format!("{}:relative", source.display()), &[]);
    assert!(!source.exists(), "a refused run leaves nothing behind");
    let volume = format!("{}:/data", source.display());
    let line = sandbox.run_line(&["--rm", "-v", &volume, "--memory", "x"], &["true"]);
    sandbox.refused(&line, 125, &[]);
    assert!(fs::symlink_metadata(&source).is_err(), "a refused run leaves nothing behind");
}
