//! Settings and where each comes from: a flag, the environment, a file, or the default, in this order.

use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold::authoring::url::shown;
use serde::{Deserialize, Serialize};

use crate::args::Global;
use crate::failure::Failure;
use crate::output::Format;

/// The file that is read if it is there and none is named.
const FILE: &str = "leasehold.toml";
/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a file may say.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    url: Option<String>,
    output: Option<Format>,
    timeout: Option<String>,
}

/// A setting, and where it comes from.
#[derive(Debug, Clone)]
pub(crate) struct Setting<T> {
    pub(crate) value: T,
    pub(crate) from: String,
}

/// What holds for this run.
#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) url: Option<Setting<String>>,
    pub(crate) output: Setting<Format>,
    pub(crate) timeout: Setting<Duration>,
}

/// A setting as it is shown.
#[derive(Debug, Serialize)]
pub(crate) struct Shown {
    pub(crate) setting: &'static str,
    pub(crate) value: String,
    pub(crate) from: String,
}

impl Settings {
    pub(crate) fn read(global: &Global) -> Result<Self, Failure> {
        let (path, must_exist) = match (&global.config, variable("LEASEHOLD_CONFIG")) {
            (Some(path), _) => (path.clone(), true),
            (None, Some(path)) => (PathBuf::from(path), true),
            (None, None) => (PathBuf::from(FILE), false),
        };
        let (file, path) = match read(&path, must_exist)? {
            Some(file) => (file, Some(path)),
            None => (File::default(), None),
        };
        let of_file = path.as_deref().map(|path| path.display().to_string()).unwrap_or_default();
        let from_file = |value: Option<String>| value.map(|value| Setting { value, from: of_file.clone() });
        let url = layered(global.url.clone(), "--url", "LEASEHOLD_URL", from_file(file.url));
        let output = layered(
            global.output.map(|format| format.to_string()),
            "--output",
            "LEASEHOLD_OUTPUT",
            from_file(file.output.map(|format| format.to_string())),
        );
        let timeout = layered(
            global.timeout.map(|timeout| timeout.to_string()),
            "--timeout",
            "LEASEHOLD_TIMEOUT",
            from_file(file.timeout),
        );
        Ok(Self {
            url,
            output: parsed(output, Format::Table, str::parse::<Format>)?,
            timeout: parsed(timeout, TIMEOUT, |text| {
                humantime::parse_duration(text).map_err(|error| error.to_string())
            })?,
        })
    }

    /// The store's URL.
    pub(crate) fn url(&self) -> Result<&str, Failure> {
        self.url.as_ref().map(|url| url.value.as_str()).ok_or_else(|| {
            Failure::usage(
                "which store? Say --url sqlite:jobs.db, or set LEASEHOLD_URL, or `url` in leasehold.toml",
            )
        })
    }

    /// All settings, and where they come from; no password among them.
    pub(crate) fn shown(&self) -> Vec<Shown> {
        let url = self
            .url
            .as_ref()
            .map_or(("".to_owned(), "not set".to_owned()), |url| (shown_url(&url.value), url.from.clone()));
        let timeout = humantime::format_duration(self.timeout.value).to_string();
        vec![
            Shown { setting: "url", value: url.0, from: url.1 },
            Shown { setting: "output", value: self.output.value.to_string(), from: self.output.from.clone() },
            Shown { setting: "timeout", value: timeout, from: self.timeout.from.clone() },
        ]
    }
}

/// A URL without its password; that of a file has none.
pub(crate) fn shown_url(url: &str) -> String {
    if url.contains("://") { shown(url) } else { url.split('?').next().unwrap_or_default().to_owned() }
}

fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn layered(
    flag: Option<String>,
    flag_name: &str,
    variable_name: &str,
    file: Option<Setting<String>>,
) -> Option<Setting<String>> {
    let setting = |from: &str| {
        let from = from.to_owned();
        move |value| Setting { value, from }
    };
    let of_environment = || variable(variable_name).map(setting(variable_name));
    flag.map(setting(flag_name)).or_else(of_environment).or(file)
}

fn parsed<T>(
    setting: Option<Setting<String>>,
    default: T,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Setting<T>, Failure> {
    let Some(Setting { value, from }) = setting else {
        return Ok(Setting { value: default, from: "default".into() });
    };
    match parse(&value) {
        Ok(value) => Ok(Setting { value, from }),
        Err(why) => Err(Failure::usage(format!("{from} says {value:?}: {why}"))),
    }
}

fn read(path: &Path, must_exist: bool) -> Result<Option<File>, Failure> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound && !must_exist => return Ok(None),
        Err(error) => return Err(Failure::usage(format!("{} cannot be read: {error}", path.display()))),
    };
    toml::from_str(&text).map(Some).map_err(|error| {
        // Its own words quote the line, which may have a password in it.
        let line = error.span().map_or(0, |span| 1 + text[..span.start].matches('\n').count());
        Failure::usage(format!("{}, line {line}: {}", path.display(), error.message()))
    })
}
