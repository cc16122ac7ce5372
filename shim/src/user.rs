//! Who the program runs as: `name|uid[:group|gid]`, looked up in the container's own passwd and group files.
//!
//! No NSS: it would run code of the container's in our process (CVE-2019-14271). The files are opened below the root, must
//! be regular, and only so much of them is read (a FIFO or an endless file must not stop a start).

use std::{fs::File, io::Read, os::fd::BorrowedFd};

use rustix::fs::{FileType, OFlags};

use crate::{error::StartError, rootfs::open_in_root};

/// Bytes of a passwd or group file that are read; what follows is not seen.
const MAX_FILE: u64 = 4 << 20;

/// Numbers and home of the program's user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct User {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Supplementary groups, the primary one included.
    pub(crate) groups: Vec<u32>,
    /// Home directory.
    pub(crate) home: String,
}

/// Looks up `text` below `root`.
pub(crate) fn look_up(root: BorrowedFd<'_>, text: &str) -> Result<User, StartError> {
    let passwd = read_file(root, "/etc/passwd");
    let group = read_file(root, "/etc/group");
    resolve(text, &passwd, &group)
}

fn read_file(root: BorrowedFd<'_>, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    let Ok(fd) = open_in_root(root, path, flags) else {
        return String::new();
    };
    let regular = rustix::fs::fstat(&fd)
        .is_ok_and(|status| FileType::from_raw_mode(status.st_mode) == FileType::RegularFile);
    let mut bytes = Vec::new();
    if regular {
        // An unreadable file knows nobody; a name is then refused with its own message.
        let _ = File::from(fd).take(MAX_FILE).read_to_end(&mut bytes);
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

struct Entry<'a> {
    name: &'a str,
    uid: u32,
    gid: u32,
    home: &'a str,
}

fn entries(passwd: &str) -> impl Iterator<Item = Entry<'_>> {
    passwd.lines().filter_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        let uid = number(fields.nth(1)?)?;
        let gid = number(fields.next()?)?;
        Some(Entry { name, uid, gid, home: fields.nth(1).unwrap_or("/") })
    })
}

/// An id; what looks like one is never taken for a name (an image could define the name `0`).
fn number(text: &str) -> Option<u32> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    // The kernel takes 2^32-1 for "no change", and docker stops at 2^31-1.
    text.parse().ok().filter(|id| digits && *id <= 0x7fff_ffff)
}

fn looks_numeric(text: &str) -> bool {
    text.bytes().next().is_some_and(|byte| byte.is_ascii_digit() || byte == b'-' || byte == b'+')
        && number(text).is_none()
        && text.bytes().skip(1).all(|byte| byte.is_ascii_digit())
}

fn resolve(text: &str, passwd: &str, group: &str) -> Result<User, StartError> {
    let (user, group_part) = match text.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (text, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let unknown = || StartError::UnknownUser(user.to_owned());
    if looks_numeric(user) {
        return Err(unknown());
    }
    let entry = match number(user) {
        Some(uid) => entries(passwd).find(|entry| entry.uid == uid),
        None => Some(entries(passwd).find(|entry| entry.name == user).ok_or_else(unknown)?),
    };
    let uid = entry.as_ref().map_or_else(|| number(user), |entry| Some(entry.uid)).ok_or_else(unknown)?;
    let home = entry.as_ref().map(|entry| entry.home).filter(|home| !home.is_empty()).unwrap_or("/");
    let (gid, groups) = match group_part {
        Some(name) => {
            let gid = group_id(name, group)?;
            (gid, vec![gid])
        }
        None => {
            let gid = entry.as_ref().map_or(0, |entry| entry.gid);
            let mut groups = vec![gid];
            let name = entry.as_ref().map(|entry| entry.name);
            groups.extend(memberships(name, group).filter(|other| *other != gid));
            (gid, groups)
        }
    };
    Ok(User { uid, gid, groups, home: home.to_owned() })
}

fn group_id(name: &str, group: &str) -> Result<u32, StartError> {
    if let Some(gid) = number(name) {
        return Ok(gid);
    }
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then(|| number(fields.nth(1)?)).flatten()
    });
    found.filter(|_| !looks_numeric(name)).ok_or_else(|| StartError::UnknownGroup(name.to_owned()))
}

fn memberships<'a>(user: Option<&'a str>, group: &'a str) -> impl Iterator<Item = u32> + 'a {
    group.lines().filter_map(move |line| {
        let mut fields = line.split(':').skip(2);
        let gid = number(fields.next()?)?;
        let member = fields.next()?.split(',').any(|member| Some(member) == user);
        member.then_some(gid)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nbroken\n7:x:77:77::/seven:\nann:x:1000:1001::/home/ann:\n";
    const GROUP: &str = "root:x:0:\nusers:x:100:bob,ann\nann:x:1001:\nwheel:x:10:ann\n";

    fn user(text: &str) -> User {
        resolve(text, PASSWD, GROUP).expect(text)
    }

    #[test]
    fn names_and_numbers_are_found() {
        assert_eq!(user("").home, "/root");
        assert_eq!((user("ann").uid, user("ann").gid), (1000, 1001));
        assert_eq!(user("ann").groups, [1001, 100, 10]);
        assert_eq!(user("1000").groups, [1001, 100, 10]);
        assert_eq!((user("4242").uid, user("4242").gid), (4242, 0));
        assert_eq!(user("4242").home, "/");
        assert_eq!((user("ann:users").gid, user("ann:users").groups), (100, vec![100]));
        assert_eq!(user("5:6").gid, 6);
    }

    #[test]
    fn a_number_is_never_a_name_and_is_bounded() {
        assert_eq!(user("7").uid, 7);
        for bad in
            ["4294967295", "2147483648", "-1", "+1", "99999999999999999999", "nobody-here", "1:nogroup"]
        {
            assert!(resolve(bad, PASSWD, GROUP).is_err(), "{bad}");
        }
    }
}
