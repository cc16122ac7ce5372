//! Archives that try to reach what is not theirs.

use std::{fs, os::unix::fs::MetadataExt};

use super::laboratory::{
    Laboratory, archive, device, directory, file, hardlink, long_name, pax, survey, symlink,
};

#[test]
fn names_that_lead_upwards_are_refused() {
    for name in ["../x", "a/../../x", "/../x", "a/..", "..", "./../x", "a//..//x"] {
        let laboratory = Laboratory::new();
        let message = laboratory.refusal(&archive(&[directory("a"), file(name, "x")]));
        assert!(message.contains("\"..\"") && message.contains(name), "{message}");
        let laboratory = Laboratory::new();
        laboratory.refusal(&archive(&[pax(&[("path", name.as_bytes())]), file("x", "x")]));
        let laboratory = Laboratory::new();
        laboratory.refusal(&archive(&[long_name(name.as_bytes()), file("x", "x")]));
    }
}

#[test]
fn absolute_names_are_below_the_root() {
    let laboratory = Laboratory::new();
    let outside = laboratory.decoy().join("secret").display().to_string();
    laboratory.unpack(&archive(&[file("//etc///./passwd", "x"), file(&outside, "mine")])).unwrap();
    assert_eq!(fs::read_to_string(laboratory.layer().join("etc/passwd")).unwrap(), "x");
    assert_eq!(fs::read_to_string(laboratory.layer().join(outside.trim_start_matches('/'))).unwrap(), "mine");
}

/// Whatever is between a link and a use of it, and whether it is taken or refused: the decoy is left alone.
#[test]
fn links_never_lead_out() {
    let uses: [fn(&str) -> Vec<u8>; 9] = [
        |link| file(&format!("{link}/secret"), "changed"),
        |link| file(&format!("{link}/new"), "new"),
        |link| directory(&format!("{link}/directory")),
        |link| directory(link),
        |link| directory(&format!("{link}/")),
        |link| symlink(&format!("{link}/secret"), "x"),
        |link| hardlink(&format!("{link}/secret"), "own"),
        |link| device(b'3', &format!("{link}/secret"), 1, 3),
        |link| device(b'6', &format!("{link}/directory/fifo"), 0, 0),
    ];
    for made in uses {
        for absolute in [true, false] {
            for chained in [true, false] {
                let laboratory = Laboratory::new();
                let decoy = match absolute {
                    true => laboratory.decoy().display().to_string(),
                    false => "../decoy".to_owned(),
                };
                let mut entries = vec![file("own", "own"), symlink("a", &decoy)];
                if chained {
                    entries.extend([directory("d"), symlink("d/b", "../a"), symlink("c", "d/b/.")]);
                }
                entries.push(made(if chained { "c" } else { "a" }));
                // Both outcomes are right: inside the root the target may not exist.
                let _ = laboratory.unpack(&archive(&entries));
            }
        }
    }
}

#[test]
fn links_with_dots_end_at_the_root() {
    let laboratory = Laboratory::new();
    let entries = [directory("decoy"), symlink("a", "../../../../decoy"), file("a/secret", "inside")];
    laboratory.unpack(&archive(&entries)).unwrap();
    assert_eq!(fs::read_to_string(laboratory.layer().join("decoy/secret")).unwrap(), "inside");
}

#[test]
fn links_into_proc_are_not_followed() {
    let laboratory = Laboratory::new();
    for target in ["/proc/self/fd/3", "/proc/self/root", "/proc/self/cwd", "/dev/fd/3"] {
        laboratory.refusal(&archive(&[symlink("a", target), file("a/x", "x")]));
    }
}

#[test]
fn hard_links_never_lead_out() {
    let laboratory = Laboratory::new();
    let secret = laboratory.decoy().join("secret").display().to_string();
    let decoy = laboratory.decoy().display().to_string();
    for entries in [
        vec![hardlink("x", "../decoy/secret")],
        vec![hardlink("x", &secret)],
        vec![symlink("a", &decoy), hardlink("x", "a/secret")],
        vec![symlink("a", "../decoy"), hardlink("x", "a/secret")],
        vec![symlink("s", &secret), hardlink("x", "s"), hardlink("y", "x/.")],
        vec![hardlink("x", "/")],
        vec![directory("d"), hardlink("x", "d")],
        vec![hardlink("x", "")],
        vec![hardlink("x", "later"), file("later", "later")],
    ] {
        // The fifth makes a second name of the link itself.
        let _ = laboratory.unpack(&archive(&entries));
        assert_eq!(fs::metadata(laboratory.decoy().join("secret")).unwrap().nlink(), 1);
    }
}

#[test]
fn a_hard_link_to_a_symbolic_link_is_the_link_itself() {
    let laboratory = Laboratory::new();
    let secret = laboratory.decoy().join("secret").display().to_string();
    laboratory.unpack(&archive(&[symlink("s", &secret), hardlink("x", "s"), file("x", "written")])).unwrap();
    let layer = survey(&laboratory.layer());
    assert_eq!(layer["s".as_ref() as &std::path::Path].content, secret.as_bytes());
    assert_eq!(layer["x".as_ref() as &std::path::Path].content, b"written");
}

/// CVE-2025-47290: the directory of the entry before is kept, and an entry replaces a part of its path by a link.
#[test]
fn a_directory_replaced_by_a_link_is_not_used_again() {
    for target in ["../decoy", "decoy", "."] {
        let laboratory = Laboratory::new();
        let decoy = laboratory.decoy().display().to_string();
        let link = if target == "decoy" { decoy.as_str() } else { target };
        let entries = [
            directory("p"),
            directory("p/a"),
            file("p/a/secret", "1"),
            directory("p/e"),
            symlink("p/e", link),
            file("p/e/secret", "2"),
        ];
        let _ = laboratory.unpack(&archive(&entries));
        let entries = [
            symlink("q", "p"),
            directory("q/x"),
            device(b'6', "q/f", 0, 0),
            symlink("q", link),
            file("q/secret", "3"),
            directory("q/directory"),
        ];
        let _ = laboratory.unpack(&archive(&entries));
    }
}

#[test]
fn a_link_to_its_own_directory_can_be_replaced_through_itself() {
    let laboratory = Laboratory::new();
    let _ =
        laboratory.unpack(&archive(&[directory("x"), symlink("x/l", "."), symlink("x/l/l", "../../decoy")]));
    let _ = laboratory.unpack(&archive(&[symlink("y", "."), directory("y/y"), file("y/secret", "x")]));
    // The name that led to the directory of the entry before is a file now.
    let entries = [directory("z"), symlink("z/l", "."), file("z/l/l", "x"), file("z/l/f", "x")];
    let message = laboratory.refusal(&archive(&entries));
    assert!(message.contains("no directory"), "{message}");
}

#[test]
fn circles_of_links_are_refused() {
    let laboratory = Laboratory::new();
    let message = laboratory.refusal(&archive(&[symlink("a", "b"), symlink("b", "a"), file("a/x", "x")]));
    assert!(message.contains("circle"), "{message}");
}

#[test]
fn symbolic_links_keep_any_text() {
    let laboratory = Laboratory::new();
    let texts = ["../../../../etc/shadow", "/", ".", "\u{7}\n", "a//b/"];
    let entries: Vec<_> =
        texts.iter().enumerate().map(|(at, text)| symlink(&format!("l{at}"), text)).collect();
    laboratory.unpack(&archive(&entries)).unwrap();
    for (at, text) in texts.iter().enumerate() {
        let target = fs::read_link(laboratory.layer().join(format!("l{at}"))).unwrap();
        assert_eq!(target.to_str().unwrap(), *text);
    }
}

#[test]
fn devices_are_made_but_never_overlays_mark() {
    let laboratory = Laboratory::new();
    laboratory.unpack(&archive(&[device(b'3', "null", 1, 3), device(b'4', "sda", 8, 0x12345)])).unwrap();
    let layer = survey(&laboratory.layer());
    assert_eq!(layer["null".as_ref() as &std::path::Path].device, rustix::fs::makedev(1, 3));
    assert_eq!(layer["sda".as_ref() as &std::path::Path].device, rustix::fs::makedev(8, 0x12345));
    assert_eq!(layer["sda".as_ref() as &std::path::Path].mode, 0o060_640);
    laboratory.refusal(&archive(&[device(b'3', "gone", 0, 0)]));
    laboratory.refusal(&archive(&[device(b'3', "huge", 4096, 0)]));
}

#[test]
fn marks_of_removed_files_make_nothing() {
    let laboratory = Laboratory::new();
    let entries = [file("a", "a"), file(".wh.a", ""), file("d/.wh..wh..opq", ""), symlink("d/.wh.b", "/")];
    assert_eq!(laboratory.unpack(&archive(&entries)).unwrap().marks, 3);
    let names: Vec<_> = survey(&laboratory.layer()).into_keys().collect();
    assert_eq!(names, ["", "a"].map(std::path::PathBuf::from));
    for malformed in [".wh.", ".wh..", ".wh...", ".wh.d/x", "a/.wh.b/c"] {
        laboratory.refusal(&archive(&[file(malformed, "")]));
    }
}

#[test]
fn names_with_control_characters_cannot_write_to_the_terminal() {
    let laboratory = Laboratory::new();
    let message = laboratory.refusal(&archive(&[file("a\u{1b}[2J\n/../x", "x")]));
    assert!(!message.contains('\u{1b}') && !message.contains('\n'), "{message:?}");
}

/// Random changes of a good archive, with right checksums: taken or refused, but no panic, and the decoy is left alone.
#[test]
fn random_changes_never_lead_out() {
    let good = archive(&[
        directory("d"),
        pax(&[("path", b"d/f"), ("mtime", b"1.5"), ("SCHILY.xattr.user.a", b"b")]),
        file("x", "data"),
        long_name(b"d/long"),
        symlink("s", "../decoy"),
        pax(&[("GNU.sparse.size", b"9000"), ("GNU.sparse.map", b"0,2,4096,1")]),
        file("sparse", "abc"),
        hardlink("h", "d/f"),
        device(b'6', "s/fifo", 0, 0),
        directory("s/directory"),
    ]);
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = |below: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        usize::try_from(state >> 33).unwrap() % below
    };
    for _ in 0..400 {
        let laboratory = Laboratory::new();
        let mut bad = good.clone();
        for _ in 0..=random(3) {
            let at = random(bad.len() - 1024);
            bad[at] = *[b'/', b'.', 0, b'0', b'7', 0xff, b'=', b'\n', b'5'].get(random(10)).unwrap_or(&b'2');
            let block = at / 512 * 512;
            if bad[block + 257..].starts_with(b"ustar") {
                let mut header = tar::Header::from_byte_slice(&bad[block..block + 512]).clone();
                header.set_cksum();
                bad[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
        let _ = laboratory.unpack(&bad);
    }
}
