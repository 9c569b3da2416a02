//! docs/reference/configuration.md, from the command lines of the three programs.

use clap::{Arg, Command, CommandFactory};
use consumer::cli::ConsumerCli;
use producer::cli::ProducerCli;
use standalone::settings::StandaloneCli;

use super::{begin_page, check_generated_page, table_head, table_row};

/// The heading of the flags that `--help` shows first, as "Options".
const FIRST_HEADING: &str = "General";

const INTRODUCTION: &str = "\
Every setting is a flag, an environment variable and a default. The flag wins over the environment, and the \
environment over a file `.env` in the current folder or in one above it. Durations are a whole number with `ms`, \
`s`, `m`, `h` or `d`; without a unit they are seconds. P: producer, C: consumer, S: standalone.\n";

/// A flag of one or more programs that means the same in all of them.
struct Setting {
    heading: String,
    flag: String,
    default: String,
    meaning: String,
    variables: Vec<String>,
    programs: Vec<&'static str>,
    secret: bool,
}

impl Setting {
    fn from_arg(program: &'static str, arg: &Arg) -> Self {
        let (meaning, default) = split_default(arg);
        Self {
            heading: arg.get_help_heading().unwrap_or(FIRST_HEADING).to_owned(),
            flag: format!("`--{}`", arg.get_long().expect("a long flag")),
            default,
            meaning,
            variables: arg
                .get_env()
                .map(|name| format!("`{}`", name.display()))
                .into_iter()
                .collect(),
            programs: vec![program],
            secret: arg.is_hide_env_values_set(),
        }
    }

    fn means_the_same(&self, other: &Self) -> bool {
        (&self.heading, &self.flag, &self.default, &self.meaning)
            == (&other.heading, &other.flag, &other.default, &other.meaning)
    }
}

/// A flag's help without the default that it ends with, such as `[default: any]`, and the default.
fn split_default(arg: &Arg) -> (String, String) {
    let help = arg.get_long_help().or(arg.get_help()).expect("a help text").to_string();
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut values: Vec<_> = arg.get_default_values().iter().map(|v| v.to_string_lossy()).collect();
    values.retain(|value| !value.is_empty() && arg.get_action().takes_values());
    let (meaning, written) = help.split_once(" [default: ").unwrap_or((&help, "none]"));
    let written = written.strip_suffix(']').expect("a default at the end");
    let default = if !values.is_empty() {
        format!("`{}`", values.join(","))
    } else if arg.get_action().takes_values() {
        written.to_owned()
    } else {
        "off".to_owned()
    };
    let choices = arg.get_possible_values();
    let choices: Vec<_> = choices.iter().map(|value| format!("`{}`", value.get_name())).collect();
    let meaning = meaning.trim_end_matches('.');
    if arg.get_action().takes_values() && !choices.is_empty() {
        (format!("{meaning}. One of {}", choices.join(", ")), default)
    } else {
        (meaning.to_owned(), default)
    }
}

fn programs() -> [(&'static str, Command); 3] {
    [("P", ProducerCli::command()), ("C", ConsumerCli::command()), ("S", StandaloneCli::command())]
}

fn all_settings() -> Vec<Setting> {
    let mut settings: Vec<Setting> = Vec::new();
    for (program, command) in programs() {
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            let setting = Setting::from_arg(program, arg);
            let Some(known) = settings.iter_mut().find(|known| known.means_the_same(&setting))
            else {
                settings.push(setting);
                continue;
            };
            known.programs.push(program);
            let new = setting.variables.into_iter().filter(|name| !known.variables.contains(name));
            let new: Vec<_> = new.collect();
            known.variables.extend(new);
        }
    }
    settings
}

/// A command of one or more programs: its names, what it does, and its own flags.
struct CommandRow {
    names: Vec<String>,
    about: String,
    flags: String,
}

/// Adds the commands below `command`, whose name is `name`.
fn add_commands(rows: &mut Vec<CommandRow>, name: &str, command: &Command) {
    for command in command.get_subcommands() {
        let name = format!("{name} {}", command.get_name());
        if command.has_subcommands() {
            add_commands(rows, &name, command);
            continue;
        }
        let name = format!("`{name}`");
        let about = command.get_about().expect("a description").to_string();
        if let Some(row) = rows.iter_mut().find(|row| row.about == about) {
            row.names.push(name);
            continue;
        }
        let flags: String = command.get_arguments().map(describe_argument).collect();
        rows.push(CommandRow { names: vec![name], about, flags });
    }
}

/// A sentence about a command's own flag or value.
fn describe_argument(arg: &Arg) -> String {
    let (meaning, default) = split_default(arg);
    let name = match arg.get_long() {
        Some(long) => format!("--{long}"),
        None => arg.get_value_names().and_then(|names| names.first()).expect("a name").to_string(),
    };
    let default =
        if default.starts_with('`') { format!(" (by default {default})") } else { String::new() };
    format!(". `{name}`: {}{}{default}", meaning[..1].to_lowercase(), &meaning[1..])
}

#[test]
fn the_page_of_settings_is_what_the_programs_take() {
    let settings = all_settings();
    let mut page = begin_page("Configuration") + INTRODUCTION;
    let secrets: Vec<_> = settings.iter().filter(|setting| setting.secret).collect();
    let secrets: Vec<_> = secrets.iter().flat_map(|setting| setting.variables.clone()).collect();
    page += &format!(
        "\nSecrets ({}) are shown neither in logs nor by `--help`. Other users of the machine can see flags: \
         keep secrets in the environment or in a file.\n",
        secrets.join(", ")
    );
    let mut headings: Vec<_> = settings.iter().map(|setting| &setting.heading).collect();
    let mut seen = Vec::new();
    headings.retain(|heading| {
        !seen.contains(heading) && {
            seen.push(*heading);
            true
        }
    });
    for heading in headings {
        page += &format!("\n## {heading}\n\n");
        page += &table_head(&["flag", "environment", "default", "of", "meaning"]);
        for setting in settings.iter().filter(|setting| setting.heading == *heading) {
            let Setting { flag, variables, default, programs, meaning, .. } = setting;
            let (variables, programs) = (variables.join(", "), programs.join(" "));
            page += &table_row(&[flag, &variables, default, &programs, meaning]);
        }
    }
    let standalone = StandaloneCli::command();
    let ignored = standalone.get_arguments().filter(|arg| arg.is_hide_set());
    let ignored: Vec<_> =
        ignored.filter_map(Arg::get_long).map(|flag| format!("`--{flag}`")).collect();
    page += &format!(
        "\n`standalone` accepts {} as well, and ignores them: it is one process with one copy of the log.\n",
        ignored.join(", ")
    );
    page += "\n## Commands\n\nWithout a command, a program serves. `--help` of a command lists the settings above \
             that it takes too.\n\n";
    page += &table_head(&["command", "what it does"]);
    let mut rows = Vec::new();
    for (_, command) in programs() {
        add_commands(&mut rows, command.get_name(), &command);
    }
    for CommandRow { names, about, flags } in rows {
        page += &table_row(&[&names.join(", "), &format!("{about}{flags}")]);
    }
    check_generated_page("configuration.md", &page);
}
