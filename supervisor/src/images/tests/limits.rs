//! Each limit, reached and passed.

use std::{fs, os::unix::fs::MetadataExt};

use super::laboratory::{Laboratory, archive, file, gzip, header, long_name, pax, symlink, zstd};
use crate::images::limits::{Cap, Limits};

fn limited(limits: &[(Cap, u64)]) -> Laboratory {
    let mut laboratory = Laboratory::new();
    laboratory.limits = limits.iter().fold(Limits::default(), |all, (cap, limit)| all.with(*cap, *limit));
    laboratory
}

#[test]
fn one_entry_too_many_is_refused() {
    let entries: Vec<_> = (0..10).map(|number| file(&format!("f{number}"), "")).collect();
    limited(&[(Cap::Entries, 10)]).unpack(&archive(&entries)).unwrap();
    let message = limited(&[(Cap::Entries, 9)]).refusal(&archive(&entries));
    assert!(message.contains("\"f9\"") && message.contains('9'), "{message}");
    limited(&[(Cap::Entries, 9)]).refusal(&archive(&vec![pax_comment(); 20]));
}

fn pax_comment() -> Vec<u8> {
    let mut bytes = pax(&[("comment", b"x")]);
    let size = tar::Header::from_byte_slice(&bytes[..512]).entry_size().unwrap();
    bytes[..512].copy_from_slice(header(b'g', b"g", b"", size).as_bytes());
    bytes
}

#[test]
fn nesting_ends_at_the_limit() {
    let deep = |depth| archive(&[long_name(vec!["d"; depth].join("/").as_bytes()), file("x", "x")]);
    Laboratory::new().unpack(&deep(512)).unwrap();
    let message = Laboratory::new().refusal(&deep(513));
    assert!(message.contains("512"), "{message}");
    Laboratory::new().refusal(&deep(10_000));
}

#[test]
fn names_end_at_the_limit() {
    let named = |name: &str| archive(&[long_name(name.as_bytes()), file("x", "x")]);
    Laboratory::new().unpack(&named(&"n".repeat(255))).unwrap();
    Laboratory::new().refusal(&named(&"n".repeat(256)));
    let component = format!("/{}", "n".repeat(254));
    let longest = component.repeat(16);
    Laboratory::new().unpack(&named(&longest)).unwrap();
    let message = Laboratory::new().refusal(&named(&component.repeat(17)));
    assert!(message.contains("4095") && message.len() < 400, "{message}");
    let target = "t".repeat(4096);
    Laboratory::new().refusal(&archive(&[pax(&[("linkpath", target.as_bytes())]), symlink("l", "x")]));
    // Longer than anything that is held in memory.
    Laboratory::new().refusal(&named(&"n/".repeat(1 << 20)));
}

#[test]
fn bombs_are_refused() {
    let zeros = archive(&[file("zeros", &"\0".repeat(4 << 20))]);
    for bomb in [gzip(&zeros), zstd(&zeros)] {
        let message = limited(&[(Cap::RatioFrom, 1 << 20), (Cap::Ratio, 20)]).refusal(&bomb);
        assert!(message.contains("bomb"), "{message}");
        Laboratory::new().unpack(&bomb).unwrap();
        let message = limited(&[(Cap::Archive, 1 << 20)]).refusal(&bomb);
        assert!(message.contains("1048576"), "{message}");
    }
    // After the end mark too.
    let long = [archive(&[file("a", "a")]), vec![0; 4 << 20]].concat();
    limited(&[(Cap::Archive, 1 << 20)]).refusal(&long);
}

#[test]
fn attributes_end_at_the_limit() {
    let value = [b'v'; 100];
    let one = archive(&[pax(&[("SCHILY.xattr.user.a", &value)]), file("a", "a")]);
    limited(&[(Cap::Attributes, 106)]).unpack(&one).unwrap();
    limited(&[(Cap::Attributes, 105)]).refusal(&one);
    let pair = [pax(&[("SCHILY.xattr.user.a", &value)]), file("a", "a")].concat();
    let message =
        limited(&[(Cap::AllAttributes, 250)]).refusal(&archive(&[pair.clone(), pair.clone(), pair]));
    assert!(message.contains("250"), "{message}");
    let names: Vec<String> = (0..1001).map(|number| format!("SCHILY.xattr.user.{number}")).collect();
    let many: Vec<(&str, &[u8])> = names.iter().map(|name| (name.as_str(), &b""[..])).collect();
    let message = Laboratory::new().refusal(&archive(&[pax(&many), file("a", "a")]));
    assert!(message.contains("1000"), "{message}");
    // More than the kernel takes.
    Laboratory::new()
        .refusal(&archive(&[pax(&[("SCHILY.xattr.user.a", &vec![b'v'; 70_000])]), file("a", "a")]));
    // More than is held in memory.
    Laboratory::new()
        .refusal(&archive(&[pax(&[("SCHILY.xattr.user.a", &vec![b'v'; 2 << 20])]), file("a", "a")]));
}

#[test]
fn attributes_that_would_be_policy_are_not_taken() {
    for name in ["trusted.overlay.opaque", "trusted.overlay.redirect", "user.overlay.whiteout"] {
        let key = format!("SCHILY.xattr.{name}");
        let message = Laboratory::new().refusal(&archive(&[pax(&[(&key, b"y")]), file("a", "a")]));
        assert!(message.contains(name), "{message}");
    }
    let laboratory = Laboratory::new();
    let records: [(&str, &[u8]); 3] = [
        ("SCHILY.xattr.security.selinux", b"x"),
        ("SCHILY.xattr.trusted.mine", b"x"),
        ("SCHILY.xattr.system.posix_acl_default", b"x"),
    ];
    let totals = laboratory.unpack(&archive(&[pax(&records), file("a", "a")])).unwrap();
    assert_eq!(totals.attributes_left_out, 3);
}

#[test]
fn holes_cost_nothing_and_end_at_the_limit() {
    let sparse = |size: &str| {
        let records: [(&str, &[u8]); 3] = [
            ("GNU.sparse.size", size.as_bytes()),
            ("GNU.sparse.map", b"0,2,4096,1"),
            ("GNU.sparse.name", b"s"),
        ];
        archive(&[pax(&records), file("x", "abc")])
    };
    let laboratory = Laboratory::new();
    let totals = laboratory.unpack(&sparse("5000000000")).unwrap();
    assert_eq!(totals.bytes, 3);
    let data = fs::metadata(laboratory.layer().join("s")).unwrap();
    assert_eq!(data.len(), 5_000_000_000);
    assert!(data.blocks() < 100);
    Laboratory::new().refusal(&sparse("18446744073709551615"));
    Laboratory::new().refusal(&sparse("4096"));
    limited(&[(Cap::File, 4_999_999_999)]).refusal(&sparse("5000000000"));
    limited(&[(Cap::Segments, 1)]).refusal(&sparse("5000"));
    for map in ["0,2,1,1", "0,1", "0,4", "4,2,0,1", "0", "0,x", "", "18446744073709551615,3"] {
        let records: [(&str, &[u8]); 2] = [("GNU.sparse.size", b"10000"), ("GNU.sparse.map", map.as_bytes())];
        Laboratory::new().refusal(&archive(&[pax(&records), file("x", "abc")]));
    }
}

#[test]
fn owners_beyond_the_kernels_are_refused() {
    for id in ["4294967295", "4294967296", "-1"] {
        Laboratory::new().refusal(&archive(&[pax(&[("uid", id.as_bytes())]), file("a", "a")]));
        Laboratory::new().refusal(&archive(&[pax(&[("gid", id.as_bytes())]), file("a", "a")]));
    }
    let laboratory = Laboratory::new();
    laboratory.unpack(&archive(&[pax(&[("uid", b"4294967294")]), file("a", "a")])).unwrap();
    assert_eq!(fs::metadata(laboratory.layer().join("a")).unwrap().uid(), 4_294_967_294);
}
