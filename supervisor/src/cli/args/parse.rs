//! From argv to [`CommandLine`], with docker's habits that clap does not have by itself: booleans take `=false`, flags
//! of `run`, `create` and `top` stop at the first word that is none, errors are one line with docker's exit codes.

use std::ffi::OsString;

use clap::{
    ArgAction, CommandFactory, FromArgMatches,
    builder::ValueParser,
    error::{ContextKind, ContextValue, ErrorKind},
};

use super::CommandLine;
use crate::cli::error::CliError;

/// Verbs whose flags stop at the first word that is no flag.
const STOP_AT_FIRST_WORD: [&str; 3] = ["run", "create", "top"];

/// What argv asks for.
#[derive(Debug)]
pub(crate) enum Parsed {
    /// A command.
    Command(Box<CommandLine>),
    /// A text for stdout: help or version.
    Text(String),
}

/// Parses argv, program name included.
///
/// # Errors
/// One line that says what was wrong.
pub(crate) fn parse(argv: impl IntoIterator<Item = OsString>) -> Result<Parsed, CliError> {
    let mut words = Vec::new();
    for word in argv {
        words
            .push(word.into_string().map_err(|word| CliError::NotUtf8(word.to_string_lossy().into_owned()))?);
    }
    let mut command = command();
    let words = mark_first_word(&command, words);
    let matched = command.try_get_matches_from_mut(&words);
    match matched.and_then(|mut matches| CommandLine::from_arg_matches_mut(&mut matches)) {
        Ok(line) => Ok(Parsed::Command(Box::new(line))),
        Err(error) => text_or_error(&error, verb_of(&command, &words)),
    }
}

/// The command with every switch turned into an option that takes `=true` or `=false`, or nothing.
fn command() -> clap::Command {
    let command = CommandLine::command().mut_args(switch);
    command.mut_subcommands(with_switches)
}

fn with_switches(verb: clap::Command) -> clap::Command {
    verb.args_override_self(true).mut_args(switch).mut_subcommands(with_switches)
}

fn switch(arg: clap::Arg) -> clap::Arg {
    if !matches!(arg.get_action(), ArgAction::SetTrue) {
        return arg;
    }
    arg.action(ArgAction::Set)
        .num_args(0..=1)
        .require_equals(true)
        .default_missing_value("true")
        .default_value("false")
        .hide_default_value(true)
        .value_name("true|false")
        .value_parser(ValueParser::new(boolean))
}

/// The spellings of Go's strconv.ParseBool, which docker takes.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false is allowed".to_owned()),
    }
}

/// Puts `--` before the first word after the flags of `run`, `create` and `top`: what follows is not ours.
fn mark_first_word(command: &clap::Command, mut words: Vec<String>) -> Vec<String> {
    let Some(verb_at) = first_word(command, &words, 1) else { return words };
    let verb = &words[verb_at];
    if !STOP_AT_FIRST_WORD.contains(&verb.as_str()) {
        return words;
    }
    let Some(verb) = command.find_subcommand(verb) else { return words };
    if let Some(at) = first_word(verb, &words, verb_at + 1) {
        words.insert(at, "--".to_owned());
    }
    words
}

/// Index of the first word that is neither a flag nor the value of one; `None` if there is none, at `--`, and at a
/// flag that is not known, about which clap is to complain.
fn first_word(command: &clap::Command, words: &[String], from: usize) -> Option<usize> {
    let mut at = from;
    while let Some(word) = words.get(at) {
        if word == "--" {
            return None;
        }
        let wants_next = if let Some(long) = word.strip_prefix("--") {
            let name = long.split_once('=').map_or(long, |(name, _)| name);
            let arg = command.get_arguments().find(|arg| has_long(arg, name));
            // --help and --version are made by clap later, and take no value.
            arg.is_some_and(takes_value) && !long.contains('=')
        } else if let Some(shorts) = word.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
            shorts_want_next(command, shorts)?
        } else {
            return Some(at);
        };
        at += if wants_next { 2 } else { 1 };
    }
    None
}

/// Whether the last of these short flags takes the next word; `None` if one is unknown.
fn shorts_want_next(command: &clap::Command, shorts: &str) -> Option<bool> {
    for (at, short) in shorts.char_indices() {
        if short == '=' {
            return Some(false);
        }
        let arg = command.get_arguments().find(|arg| arg.get_short() == Some(short));
        if takes_value(arg?) {
            return Some(at + short.len_utf8() == shorts.len());
        }
    }
    Some(false)
}

fn has_long(arg: &clap::Arg, name: &str) -> bool {
    arg.get_long() == Some(name) || arg.get_all_aliases().is_some_and(|aliases| aliases.contains(&name))
}

fn takes_value(arg: &clap::Arg) -> bool {
    matches!(arg.get_action(), ArgAction::Set | ArgAction::Append) && !arg.is_require_equals_set()
}

fn verb_of(command: &clap::Command, words: &[String]) -> String {
    let verb = first_word(command, words, 1).map(|at| words[at].as_str());
    match verb.filter(|verb| command.find_subcommand(verb).is_some()) {
        Some(verb) => format!("mysup {verb}"),
        None => "mysup".to_owned(),
    }
}

fn text_or_error(error: &clap::Error, verb: String) -> Result<Parsed, CliError> {
    let context = |kind| error.get(kind).map(context_text);
    let argument = context(ContextKind::InvalidArg).unwrap_or_default();
    match error.kind() {
        ErrorKind::DisplayHelp
        | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand
        | ErrorKind::DisplayVersion => Ok(Parsed::Text(error.to_string())),
        ErrorKind::MissingSubcommand => Ok(Parsed::Text(command().render_help().to_string())),
        ErrorKind::InvalidSubcommand => {
            let name = context(ContextKind::InvalidSubcommand).unwrap_or_default();
            Err(CliError::UnknownCommand(name))
        }
        ErrorKind::UnknownArgument if argument.starts_with('-') => {
            Err(CliError::UnknownFlag { flag: argument, verb })
        }
        ErrorKind::UnknownArgument => Err(CliError::ExtraArgument { argument, verb }),
        ErrorKind::MissingRequiredArgument => Err(CliError::MissingArgument { argument, verb }),
        ErrorKind::InvalidValue
        | ErrorKind::NoEquals
        | ErrorKind::ValueValidation
        | ErrorKind::TooManyValues
        | ErrorKind::TooFewValues
        | ErrorKind::WrongNumberOfValues
        | ErrorKind::ArgumentConflict
        | ErrorKind::InvalidUtf8
        | ErrorKind::Io
        | ErrorKind::Format
        | _ => {
            let given = context(ContextKind::InvalidValue).unwrap_or_default();
            if given.is_empty() {
                return Err(CliError::FlagValueMissing { flag: argument, verb });
            }
            let reason = match std::error::Error::source(error) {
                Some(source) => source.to_string(),
                None => first_line(error),
            };
            Err(CliError::FlagSyntax { flag: argument, given, reason })
        }
    }
}

fn context_text(value: &ContextValue) -> String {
    if let ContextValue::Strings(list) = value { list.join(" ") } else { value.to_string() }
}

fn first_line(error: &clap::Error) -> String {
    let text = error.to_string();
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{
        args::{RunArgs, Verb},
        error::Rule,
    };

    fn verb_of_line(line: &[&str]) -> Verb {
        match parse(["mysup"].iter().chain(line).map(OsString::from)).expect("parses") {
            Parsed::Command(line) => line.verb,
            Parsed::Text(text) => panic!("{text}"),
        }
    }

    fn run_args(line: &[&str]) -> RunArgs {
        let Verb::Run(args) = verb_of_line(line) else { panic!("another verb") };
        *args
    }

    fn error_of(line: &[&str]) -> CliError {
        parse(["mysup"].iter().chain(line).map(OsString::from)).expect_err("is refused")
    }

    #[test]
    fn clap_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn short_flags_combine_and_stop_at_the_image() {
        let args = run_args(&["run", "-dit", "--name", "c1", "busybox", "ls", "-l", "--rm", "--", "x"]);
        assert!(args.detach && args.container.interactive && args.container.tty && !args.container.rm);
        assert_eq!(args.container.words, ["busybox", "ls", "-l", "--rm", "--", "x"]);
        let args =
            run_args(&["--root", "/r", "run", "-e", "A=1", "-eB", "-h", "host", "--mem=6m", "i", "-c"]);
        assert_eq!(args.container.env, ["A=1", "B"]);
        assert_eq!(args.container.hostname.as_deref(), Some("host"));
        assert_eq!(args.container.memory.as_deref(), Some("6m"));
        assert_eq!(args.container.words, ["i", "-c"]);
    }

    #[test]
    fn switches_take_a_value_only_with_equals() {
        let args = run_args(&["run", "--rm=false", "-d=false", "-it", "--init", "img"]);
        assert!(!args.container.rm && !args.detach && args.container.tty && args.container.init);
        assert_eq!(args.container.words, ["img"]);
        assert!(run_args(&["run", "--rm", "--rm=false", "--rm", "img"]).container.rm);
        assert!(matches!(error_of(&["run", "--rm=maybe", "img"]), CliError::FlagSyntax { .. }));
    }

    #[test]
    fn the_last_of_a_repeated_option_wins() {
        let args = run_args(&["run", "--name", "a1", "--name", "b1", "img"]);
        assert_eq!(args.container.name.as_deref(), Some("b1"));
    }

    #[test]
    fn errors_have_dockers_exit_codes() {
        let cases: [(&[&str], u8); 11] = [
            (&["run", "--nope", "img"], 125),
            (&["ps", "--nope"], 125),
            (&["-x", "ps"], 125),
            (&["ps", "-n", "three"], 125),
            (&["run", "--name"], 125),
            (&["nope"], 1),
            (&["rm"], 1),
            (&["rename", "a"], 1),
            (&["rename", "a", "b", "c"], 1),
            (&["import"], 1),
            (&["top"], 1),
        ];
        for (line, code) in cases {
            let error = error_of(line);
            assert_eq!(error.exit_code(Rule::Other), code, "{line:?}: {error}");
            assert!(!error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn other_verbs_take_flags_anywhere() {
        let Verb::Rm(args) = verb_of_line(&["rm", "c1", "-f", "c2"]) else { panic!("another verb") };
        assert!(args.force && args.containers == ["c1", "c2"]);
    }

    #[test]
    fn help_is_text() {
        for line in [vec!["mysup", "run", "--help"], vec!["mysup", "--help"], vec!["mysup"]] {
            assert!(matches!(parse(line.iter().map(OsString::from)), Ok(Parsed::Text(_))), "{line:?}");
        }
    }
}
