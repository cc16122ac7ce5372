//! What a program in a container can see and reach.

use std::fs;

use crate::harness::{Case, Sandbox, processes, skip, wait_until};

pub(crate) fn cases() -> Vec<Case> {
    crate::cases![
        program_is_pid_1_and_sees_only_its_own_processes,
        every_namespace_is_its_own,
        hostname_is_the_short_id_or_what_was_asked,
        hosts_hostname_and_resolv_conf_are_the_containers_own,
        network_none_has_only_loopback_and_it_is_up,
        network_host_shares_the_network_of_the_host,
        default_capabilities_are_dockers,
        inheritable_and_ambient_capabilities_are_empty,
        cap_add_and_cap_drop_change_the_set,
        privileged_has_every_capability_and_sees_devices,
        no_new_privileges_is_set_when_asked,
        paths_of_proc_are_masked,
        paths_of_proc_and_sys_are_read_only,
        dev_has_what_programs_need_and_nothing_of_the_host,
        block_devices_cannot_be_opened,
        allowed_devices_work,
        program_has_no_descriptors_of_ours,
        descriptors_of_the_caller_do_not_leak_in,
        program_cannot_write_the_binary_of_its_init,
        host_mounts_are_not_visible_inside,
        mount_needs_a_capability,
        cgroup_namespace_hides_the_path_and_cgroups_cannot_be_written,
        signals_are_reset_for_the_program,
        sockets_of_mysup_cannot_be_reached,
        directories_of_mysup_are_closed_to_others,
        program_keeps_no_terminal_and_leads_a_session,
        oom_score_of_the_shim_is_not_inherited,
    ]
}

fn program_is_pid_1_and_sees_only_its_own_processes(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "echo $$; set -- /proc/[0-9]*; echo $#"), "1\n1");
    let tree = sandbox.sh(&["--init"], "echo $$; cat /proc/1/comm");
    assert!(!tree.starts_with("1\n"), "with --init the program is not PID 1: {tree}");
}

fn every_namespace_is_its_own(sandbox: &Sandbox) {
    let own = i32::try_from(std::process::id()).expect("pids are small");
    let inside =
        sandbox.sh(&[], "cd /proc/self/ns; for n in pid mnt uts ipc net cgroup; do readlink $n; done");
    for (name, inside) in ["pid", "mnt", "uts", "ipc", "net", "cgroup"].iter().zip(inside.lines()) {
        let outside = processes::link(own, &format!("ns/{name}")).expect("we run");
        assert_ne!(outside, inside, "namespace {name} is the host's");
    }
    assert_eq!(inside.lines().count(), 6);
}

fn hostname_is_the_short_id_or_what_was_asked(sandbox: &Sandbox) {
    let id = sandbox.start("one", &[], "hostname; cat /etc/hostname; sleep 1000");
    wait_until("it has printed", || sandbox.ok(&["logs", "one"]).lines().count() == 2);
    assert_eq!(sandbox.ok(&["logs", "one"]), format!("{0}\n{0}", &id[..12]));
    assert_eq!(
        sandbox.sh(&["-h", "box.example"], "hostname; cat /etc/hostname; echo $HOSTNAME"),
        "box.example\nbox.example\nbox.example"
    );
    assert_eq!(sandbox.sh(&["--hostname", "box"], "hostname"), "box");
}

fn hosts_hostname_and_resolv_conf_are_the_containers_own(sandbox: &Sandbox) {
    let script = "grep -w localhost /etc/hosts; grep -w box /etc/hosts; test -f /etc/resolv.conf && echo resolv; \
        echo mine >> /etc/hosts && echo mine > /etc/hostname && echo mine > /etc/resolv.conf && echo writable";
    let output = sandbox.sh(&["-h", "box"], script);
    assert!(output.contains("127.0.0.1") && output.ends_with("resolv\nwritable"), "{output}");
    assert!(!sandbox.sh(&[], "cat /etc/hosts /etc/hostname /etc/resolv.conf").contains("mine"));
}

fn network_none_has_only_loopback_and_it_is_up(sandbox: &Sandbox) {
    for flags in [&[][..], &["--network", "none"], &["--net", "none"], &["--net=none"]] {
        let output = sandbox.sh(flags, "ls /sys/class/net; ip link show lo | grep -c 'LOOPBACK,UP'; ping -c 1 -w 2 127.0.0.1 >/dev/null && echo pong");
        assert_eq!(output, "lo\n1\npong", "{flags:?}");
    }
}

fn network_host_shares_the_network_of_the_host(sandbox: &Sandbox) {
    let own = i32::try_from(std::process::id()).expect("pids are small");
    let outside = processes::link(own, "ns/net").expect("we run");
    assert_eq!(sandbox.sh(&["--network", "host"], "readlink /proc/self/ns/net"), outside);
}

fn capabilities(sandbox: &Sandbox, flags: &[&str]) -> Vec<u64> {
    let text = sandbox.sh(flags, "grep Cap /proc/self/status");
    let words = text.lines().filter_map(|line| line.split_whitespace().nth(1));
    words.map(|word| u64::from_str_radix(word, 16).expect("a hexadecimal mask")).collect()
}

const DOCKER: u64 = 0xa804_25fb;

fn default_capabilities_are_dockers(sandbox: &Sandbox) {
    let found = capabilities(sandbox, &[]);
    assert_eq!(found[1..4], [DOCKER, DOCKER, DOCKER], "permitted, effective, bounding: {found:x?}");
}

fn inheritable_and_ambient_capabilities_are_empty(sandbox: &Sandbox) {
    for flags in [&[][..], &["--privileged"], &["-u", "tester"], &["--cap-add", "ALL"]] {
        let found = capabilities(sandbox, flags);
        assert_eq!((found[0], found[4]), (0, 0), "{flags:?}: {found:x?}");
    }
    let user = capabilities(sandbox, &["-u", "tester"]);
    assert_eq!(user[1..4], [0, 0, DOCKER], "{user:x?}");
}

fn cap_add_and_cap_drop_change_the_set(sandbox: &Sandbox) {
    let (chown, net_raw, sys_time) = (1 << 0, 1 << 13, 1 << 25);
    let of = |flags: &[&str]| capabilities(sandbox, flags)[2];
    assert_eq!(of(&["--cap-drop", "CHOWN", "--cap-drop", "cap_net_raw"]), DOCKER & !chown & !net_raw);
    assert_eq!(of(&["--cap-add", "SYS_TIME"]), DOCKER | sys_time);
    assert_eq!(of(&["--cap-drop", "ALL"]), 0);
    assert_eq!(of(&["--cap-drop", "ALL", "--cap-add", "CAP_CHOWN"]), chown);
    assert_eq!(of(&["--cap-add", "ALL"]), of(&["--privileged"]));
    assert_eq!(of(&["--cap-add", "ALL", "--cap-drop", "CHOWN"]), of(&["--privileged"]) & !chown);
}

fn privileged_has_every_capability_and_sees_devices(sandbox: &Sandbox) {
    let own = fs::read_to_string("/proc/self/status").expect("Linux");
    let bound = own.lines().find_map(|line| line.strip_prefix("CapBnd:\t")).expect("Linux");
    let bound = u64::from_str_radix(bound, 16).expect("a hexadecimal mask");
    assert_eq!(capabilities(sandbox, &["--privileged"])[2], bound, "all that the host itself has");
    sandbox.sh(
        &["--privileged"],
        "mount -t tmpfs none /mnt 2>/dev/null || { mkdir -p /mnt && mount -t tmpfs none /mnt; }",
    );
    sandbox.sh(&["--privileged"], "mknod /tmp/null c 1 3 && echo x > /tmp/null");
}

fn no_new_privileges_is_set_when_asked(sandbox: &Sandbox) {
    let script = "grep NoNewPrivs /proc/self/status";
    assert!(sandbox.sh(&["--security-opt", "no-new-privileges"], script).ends_with('1'));
    assert!(sandbox.sh(&["--security-opt=no-new-privileges:true"], script).ends_with('1'));
    assert!(sandbox.sh(&[], script).ends_with('0'));
}

fn paths_of_proc_are_masked(sandbox: &Sandbox) {
    let script = "for f in /proc/kcore /proc/keys /proc/timer_list /proc/sched_debug /proc/latency_stats /proc/interrupts; do \
        [ -e $f ] && [ -n \"$(head -c 1 $f 2>/dev/null | tr -d '\\0')\" ] && echo open $f; done; \
        for d in /proc/acpi /proc/scsi /sys/firmware /sys/devices/virtual/powercap; do [ -n \"$(ls -A $d 2>/dev/null)\" ] && echo open $d; done; true";
    assert_eq!(sandbox.sh(&[], script), "");
    assert_eq!(sandbox.sh(&["--cap-add", "SYS_ADMIN"], script), "");
}

fn paths_of_proc_and_sys_are_read_only(sandbox: &Sandbox) {
    let script = "for f in /proc/sys/kernel/hostname /proc/sysrq-trigger /proc/irq/default_smp_affinity /sys/kernel/mm/x /proc/sys/vm/drop_caches; do \
        (echo 1 > $f) 2>/dev/null && echo wrote $f; done; (mkdir /sys/x) 2>/dev/null && echo made /sys/x; true";
    assert_eq!(sandbox.sh(&[], script), "");
    let mounts = sandbox.sh(&[], "cat /proc/mounts");
    for (target, word) in [("/sys", "ro,"), ("/proc/sys", "ro,"), ("/proc", "nosuid,nodev,noexec")] {
        let found = mounts.lines().any(|line| line.split(' ').nth(1) == Some(target) && line.contains(word));
        assert!(found, "{target} is not {word}:\n{mounts}");
    }
}

fn dev_has_what_programs_need_and_nothing_of_the_host(sandbox: &Sandbox) {
    let names = sandbox.sh(&[], "ls /dev | sort | tr '\\n' ' '");
    let allowed = [
        "console", "core", "fd", "full", "mqueue", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin",
        "stdout", "tty", "urandom", "zero",
    ];
    for name in names.split_whitespace() {
        assert!(allowed.contains(&name), "/dev/{name} has no business there: {names}");
    }
    for name in [
        "fd", "full", "null", "ptmx", "pts", "random", "shm", "stderr", "stdin", "stdout", "tty", "urandom",
        "zero",
    ] {
        assert!(names.split_whitespace().any(|found| found == name), "/dev/{name} is missing: {names}");
    }
    let script = "stat -c '%n %a %t:%T' /dev/null /dev/zero /dev/full /dev/random /dev/urandom /dev/tty; stat -c '%a' /dev/shm; for l in fd stdin ptmx; do readlink /dev/$l; done";
    let expected = "/dev/null 666 1:3\n/dev/zero 666 1:5\n/dev/full 666 1:7\n/dev/random 666 1:8\n/dev/urandom 666 1:9\n\
        /dev/tty 666 5:0\n1777\n/proc/self/fd\n/proc/self/fd/0\npts/ptmx";
    assert_eq!(sandbox.sh(&[], script), expected);
    sandbox.sh(&[], "echo x > /dev/shm/file && cat /dev/shm/file");
}

fn block_devices_cannot_be_opened(sandbox: &Sandbox) {
    let own = fs::read_to_string("/proc/self/mountinfo").expect("Linux");
    let root = own.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("there is a root");
    let (major, minor) =
        root.split(' ').nth(2).and_then(|device| device.split_once(':')).expect("a device number");
    if major == "0" {
        skip("the root file system of the host is on no block device");
    }
    let script = format!(
        "mknod /tmp/disk b {major} {minor} && echo made; head -c 1 /tmp/disk >/dev/null 2>&1 && echo opened; \
        mknod /tmp/mem c 1 1; head -c 1 /tmp/mem > /dev/null 2>&1 && echo opened mem; true"
    );
    assert_eq!(
        sandbox.sh(&[], &script),
        "made",
        "CAP_MKNOD makes the node, the device cgroup refuses to open it"
    );
}

fn allowed_devices_work(sandbox: &Sandbox) {
    let script = "mknod /tmp/null c 1 3 && echo x > /tmp/null && head -c 4 /dev/zero | wc -c; head -c 4 /dev/urandom | wc -c; (echo x > /dev/full) 2>/dev/null || echo full";
    assert_eq!(sandbox.sh(&[], script), "4\n4\nfull");
}

fn program_has_no_descriptors_of_ours(sandbox: &Sandbox) {
    for flags in [&[][..], &["-i"], &["--init"]] {
        // 3 is the directory that ls itself reads.
        assert_eq!(
            sandbox.run(&[&["--rm"], flags].concat(), &["ls", "/proc/self/fd"]).expect_code(0).text(),
            "0\n1\n2\n3"
        );
    }
    let script = "for fd in /proc/1/fd/*; do [ ${fd##*/} -gt 2 ] && readlink $fd; done; true";
    let init = sandbox.sh(&["--init"], script);
    assert!(init.lines().all(|target| target.starts_with("anon_inode:")), "the reaper holds {init}");
}

fn descriptors_of_the_caller_do_not_leak_in(sandbox: &Sandbox) {
    let program = crate::harness::command::program().to_string_lossy().into_owned();
    let image = sandbox.image();
    let script = format!(
        "exec 7</etc/hostname 8</dev/null 19</etc; exec '{program}' run --rm {image} ls /proc/self/fd"
    );
    for state in ["supervisor runs", "supervisor is started by the call"] {
        let mut call = crate::harness::command::Call::new(std::path::Path::new("bash"), ["-c", &script]);
        for (name, value) in sandbox.environment() {
            call = call.env(name, value);
        }
        assert_eq!(call.ok(), "0\n1\n2\n3", "{state}");
        sandbox.ok(&["shutdown"]);
    }
    let held = processes::descriptors(sandbox.supervisor());
    assert!(!held.keys().any(|name| name == "/etc"), "{held:?}");
}

fn program_cannot_write_the_binary_of_its_init(sandbox: &Sandbox) {
    let shim = crate::harness::command::program().with_file_name("mysup-shim");
    let before = crate::harness::tree::sha256(&fs::read(&shim).expect("the shim is built"));
    let script = "for p in /proc/1/exe /proc/self/exe; do (echo x >> $p) 2>/dev/null && echo wrote $p; done; \
        (exec 9<>/proc/1/exe) 2>/dev/null && echo opened; true";
    for flags in [
        &["--init"][..],
        &["--init", "--cap-add", "SYS_PTRACE", "--cap-add", "SYS_ADMIN"],
        &["--init", "--privileged"],
    ] {
        let output = sandbox.sh(flags, script);
        assert!(!output.contains("/proc/1/exe") && !output.contains("opened"), "{flags:?}: {output}");
    }
    assert_eq!(crate::harness::tree::sha256(&fs::read(&shim).expect("the shim is built")), before);
}

fn host_mounts_are_not_visible_inside(sandbox: &Sandbox) {
    let mounts = sandbox.sh(&[], "cat /proc/self/mountinfo");
    for line in mounts.lines() {
        let target = line.split(' ').nth(4).unwrap_or("");
        let known =
            target == "/" || ["/proc", "/sys", "/dev", "/etc/"].iter().any(|known| target.starts_with(known));
        assert!(known, "a mount that is none of the container's: {line}");
    }
    assert!(!mounts.contains("/old") && !mounts.contains(" - ext4 "), "{mounts}");
    assert_eq!(
        sandbox.sh(&[], "cat /proc/1/root/etc/plain; cat /proc/1/cwd/etc/plain"),
        "not a program
not a program"
    );
}

fn mount_needs_a_capability(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "mount -t tmpfs none /tmp 2>/dev/null || echo refused"), "refused");
    assert_eq!(
        sandbox.sh(&["--cap-add", "SYS_ADMIN"], "mount -t tmpfs none /tmp && echo mounted"),
        "mounted"
    );
}

fn cgroup_namespace_hides_the_path_and_cgroups_cannot_be_written(sandbox: &Sandbox) {
    let lines = sandbox.sh(&[], "cat /proc/self/cgroup");
    assert!(lines.lines().all(|line| line.ends_with(":/")), "{lines}");
    let script = "find /sys/fs/cgroup -name cgroup.procs 2>/dev/null | while read f; do (echo 1 > $f) 2>/dev/null && echo wrote $f; done; \
        find /sys/fs/cgroup -name release_agent 2>/dev/null | while read f; do (echo /x > $f) 2>/dev/null && echo wrote $f; done; true";
    assert_eq!(sandbox.sh(&[], script), "");
}

fn signals_are_reset_for_the_program(sandbox: &Sandbox) {
    let output =
        sandbox.run(&["--rm"], &["grep", "-E", "^Sig(Blk|Ign)", "/proc/self/status"]).expect_code(0).text();
    assert!(output.lines().all(|line| line.ends_with("0000000000000000")), "{output}");
    assert_eq!(output.lines().count(), 2);
}

fn sockets_of_mysup_cannot_be_reached(sandbox: &Sandbox) {
    let shown = sandbox.sh(&["--network", "host"], "cat /proc/net/unix");
    let abstracts: Vec<&str> =
        shown.lines().filter(|line| line.contains('@') && line.contains("mysup")).collect();
    assert!(abstracts.is_empty(), "nothing of ours is abstract: {abstracts:?}");
    let script = format!("ls {} 2>&1; true", sandbox.run_root().display());
    assert!(sandbox.sh(&["--network", "host"], &script).contains("No such file"));
}

fn directories_of_mysup_are_closed_to_others(sandbox: &Sandbox) {
    sandbox.start("one", &[], "sleep 1000");
    for root in [sandbox.root(), sandbox.run_root()] {
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(&root).expect("it exists")) & 0o777;
        assert_eq!(mode, 0o700, "{}", root.display());
    }
}

fn program_keeps_no_terminal_and_leads_a_session(sandbox: &Sandbox) {
    assert_eq!(sandbox.sh(&[], "cut -d' ' -f6,7 /proc/1/stat"), "1 0", "session 1, no terminal");
}

fn oom_score_of_the_shim_is_not_inherited(sandbox: &Sandbox) {
    let own = fs::read_to_string("/proc/self/oom_score_adj").expect("Linux");
    assert_eq!(sandbox.sh(&[], "cat /proc/self/oom_score_adj"), own.trim());
}
