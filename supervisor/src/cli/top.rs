//! `top`: the processes of a container as the host sees them, from /proc; with options, from the host's ps(1).

use std::{fs, process::Command};

use jiff::Timestamp;
use mysup_ipc::api::{Request, Response};
use nix::unistd::{SysconfVar, sysconf};

use super::{args::TopArgs, client::Instance, error::CliError, output, table, values::Invalid};

const HEAD: &str = "UID\tPID\tPPID\tC\tSTIME\tTTY\tTIME\tCMD";

/// Prints the processes.
///
/// # Errors
/// If the container does not run, or ps(1) fails.
pub(crate) fn top(instance: &Instance, args: &TopArgs) -> Result<u8, CliError> {
    let Some((container, options)) = args.words.split_first() else {
        let verb = "mysup top".to_owned();
        return Err(CliError::MissingArgument { argument: "at least 1 argument".to_owned(), verb });
    };
    let request = Request::Top { container: container.clone() };
    let Response::Processes(pids) = instance.connect()?.ask(&request)? else {
        return Err(CliError::WrongAnswer);
    };
    let lines = if options.is_empty() { own_lines(&pids) } else { lines_of_ps(&pids, options)? };
    output::print(&table::aligned(&lines))?;
    Ok(0)
}

fn own_lines(pids: &[u32]) -> Vec<String> {
    let clock = Clock::read();
    // A process that ended meanwhile is left out.
    let users = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let rows = pids.iter().filter_map(|&pid| Process::read(pid)).map(|mut process| {
        if let Some(name) = user_name(&users, &process.user) {
            process.user = name.to_owned();
        }
        process.line(&clock)
    });
    std::iter::once(HEAD.to_owned()).chain(rows).collect()
}

/// The name in a passwd(5) file. Not through the C library: that would load name services into a static program.
fn user_name<'u>(users: &'u str, uid: &str) -> Option<&'u str> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then_some(name)
    })
}

/// What turns clock ticks into times.
struct Clock {
    ticks_per_second: u64,
    booted_at: u64,
    now: u64,
}

impl Clock {
    fn read() -> Self {
        let ticks = sysconf(SysconfVar::CLK_TCK).ok().flatten().and_then(|ticks| u64::try_from(ticks).ok());
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let booted_at = stat.lines().find_map(|line| line.strip_prefix("btime ")?.trim().parse().ok());
        Self {
            // 100 on every Linux that was ever shipped.
            ticks_per_second: ticks.filter(|&ticks| ticks > 0).unwrap_or(100),
            booted_at: booted_at.unwrap_or(0),
            now: super::describe::now() / 1_000_000_000,
        }
    }
}

/// One process, proc(5).
#[derive(Debug, PartialEq, Eq)]
struct Process {
    pid: u32,
    parent: u32,
    /// Its number; a name where the host's passwd file has one.
    user: String,
    terminal: i32,
    used_ticks: u64,
    started_ticks: u64,
    command: String,
}

impl Process {
    fn read(pid: u32) -> Option<Self> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        Self::parse(pid, &stat, &status, &line)
    }

    fn parse(pid: u32, stat: &str, status: &str, line: &[u8]) -> Option<Self> {
        // The name is in parentheses and may hold anything, parentheses too.
        let (head, tail) = stat.rsplit_once(')')?;
        let name = head.split_once('(')?.1;
        let fields: Vec<&str> = tail.split_ascii_whitespace().collect();
        // Field numbers of proc(5), the third being the first after the name.
        let field = |number: usize| fields.get(number - 3).copied();
        let number = |at: usize| field(at)?.parse::<u64>().ok();
        let uid: u32 = status
            .lines()
            .find_map(|line| line.strip_prefix("Uid:"))
            .and_then(|ids| ids.split_ascii_whitespace().nth(1))
            .and_then(|uid| uid.parse().ok())?;
        let words = String::from_utf8_lossy(line).trim_end_matches('\0').replace('\0', " ");
        let words: String = words.chars().map(|c| if c.is_control() { '?' } else { c }).collect();
        Some(Self {
            pid,
            parent: field(4)?.parse().ok()?,
            user: uid.to_string(),
            terminal: field(7)?.parse().ok()?,
            used_ticks: number(14)? + number(15)?,
            started_ticks: number(22)?,
            command: if words.is_empty() { format!("[{name}]") } else { words },
        })
    }

    fn line(&self, clock: &Clock) -> String {
        let used = self.used_ticks / clock.ticks_per_second;
        let started = clock.booted_at + self.started_ticks / clock.ticks_per_second;
        let lived = clock.now.saturating_sub(started);
        let share = (used * 100).checked_div(lived).unwrap_or(0).min(99);
        format!(
            "{}\t{}\t{}\t{share}\t{}\t{}\t{:02}:{:02}:{:02}\t{}",
            self.user,
            self.pid,
            self.parent,
            start_text(started, clock.now),
            terminal_name(self.terminal),
            used / 3600,
            used / 60 % 60,
            used % 60,
            self.command
        )
    }
}

/// As ps(1) shows it: the time of a start today, otherwise the day.
fn start_text(started: u64, now: u64) -> String {
    let time = i64::try_from(started).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    let Some(time) = time else { return "?".to_owned() };
    let format = if started / 86_400 == now / 86_400 { "%H:%M" } else { "%b%d" };
    time.strftime(format).to_string()
}

/// `pts/0` of a device number (unix98 ptys are majors 136 to 143), `?` without a terminal.
fn terminal_name(device: i32) -> String {
    let Ok(device) = u32::try_from(device) else { return "?".to_owned() };
    let major = (device >> 8) & 0xfff;
    let minor = (device & 0xff) | ((device >> 12) & 0xfff00);
    match major {
        136..=143 => format!("pts/{}", minor + (major - 136) * 256),
        4 => format!("tty{minor}"),
        _ => "?".to_owned(),
    }
}

fn lines_of_ps(pids: &[u32], options: &[String]) -> Result<Vec<String>, CliError> {
    let output = Command::new("ps")
        .args(options)
        .output()
        .map_err(|source| CliError::Call { action: "run the host's ps", source })?;
    if !output.status.success() {
        let reason = String::from_utf8_lossy(&output.stderr);
        let reason = reason.lines().find(|line| !line.trim().is_empty()).unwrap_or("it gave no reason");
        return Err(Invalid::new(format!("ps {}: {reason}", options.join(" "))).into());
    }
    chosen_lines(&String::from_utf8_lossy(&output.stdout), pids).ok_or_else(|| {
        Invalid::new("the output of ps has no PID column: leave out the option that hides it").into()
    })
}

/// The head, and the lines of these processes, with tabs between the columns.
fn chosen_lines(text: &str, pids: &[u32]) -> Option<Vec<String>> {
    let mut lines = text.lines();
    let head: Vec<&str> = lines.next()?.split_ascii_whitespace().collect();
    let at = head.iter().position(|&column| column == "PID")?;
    let mut chosen = vec![head.join("\t")];
    for line in lines {
        let mut words = line.split_ascii_whitespace();
        // The last column holds the rest of the line, blanks included.
        let mut cells: Vec<String> = words.by_ref().take(head.len() - 1).map(str::to_owned).collect();
        cells.push(words.collect::<Vec<_>>().join(" "));
        let pid = cells.get(at).and_then(|cell| cell.parse().ok());
        if pid.is_some_and(|pid| pids.contains(&pid)) {
            chosen.push(cells.join("\t"));
        }
    }
    Some(chosen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_files_are_understood() {
        let stat = "77 (we) (ird) S 1 77 77 34817 77 4194304 1 0 0 0 150 50 0 0 20 0 1 0 1000 1 1 1";
        let status = "Name:\tx\nUid:\t4294967290\t4294967290\t0\t0\n";
        let process = Process::parse(77, stat, status, b"sleep\x0010\x00").expect("parses");
        let clock = Clock { ticks_per_second: 100, booted_at: 1_700_000_000, now: 1_700_000_030 };
        assert_eq!(process.line(&clock), "4294967290\t77\t1\t10\t22:13\tpts/1\t00:00:02\tsleep 10");
        assert_eq!(Process::parse(77, stat, status, b"").expect("parses").command, "[we) (ird]");
        assert!(Process::parse(77, "77", status, b"").is_none());
    }

    #[test]
    fn own_process_is_listed() {
        assert_eq!(user_name("root:x:0:0:root:/root:/bin/sh\n#\nbob:x:7:7::/:\n", "7"), Some("bob"));
        let lines = own_lines(&[std::process::id(), u32::MAX]);
        assert_eq!(lines.len(), 2);
        assert!(lines[1].contains(&std::process::id().to_string()));
    }

    #[test]
    fn lines_of_other_processes_are_left_out() {
        let text = "  PID USER COMMAND\n    1 root init x\n   22 bob  sleep 10 20\n";
        assert_eq!(
            chosen_lines(text, &[22]),
            Some(vec!["PID\tUSER\tCOMMAND".to_owned(), "22\tbob\tsleep 10 20".to_owned()])
        );
        assert_eq!(chosen_lines("USER\nroot\n", &[1]), None);
    }
}
