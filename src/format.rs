//! Turns `penstock fmt` into a configuration in the one form everybody writes.
//!
//! # Failure
//! A text that does not parse is left as it is; what is wrong with it is shown with its lines. A file is
//! replaced as a whole: a crash leaves the old text or the new one.

use std::ffi::OsString;
use std::io::{IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context, bail};

/// Largest configuration read from stdin; nobody writes one of this size.
const INPUT_BYTES_MAX: u64 = 256 << 20;

/// Formats a configuration file.
#[derive(Debug, clap::Args)]
pub(crate) struct Options {
    /// The file; stdin where there is none, or `-`.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Write the file instead of printing the result.
    #[arg(short, long, conflicts_with = "test")]
    write: bool,
    /// Only tell whether the file is formatted, by the exit code.
    #[arg(short, long)]
    test: bool,
}

/// Formats what `options` name.
///
/// # Errors
/// It cannot be read or written, does not parse, or with `--test` is not formatted.
pub(crate) fn run(options: &Options) -> anyhow::Result<ExitCode> {
    format(options, &mut std::io::stdin(), &mut std::io::stdout())?;
    Ok(ExitCode::SUCCESS)
}

fn format(options: &Options, input: &mut dyn Read, output: &mut dyn Write) -> anyhow::Result<()> {
    let file = options.file.as_deref().filter(|&file| file != "-");
    let name = file.map_or("<stdin>".into(), Path::to_string_lossy);
    let text = match file {
        Some(file) if file.is_dir() => bail!("cannot format a directory"),
        None if options.write => bail!("cannot use --write with stdin"),
        _ => read(file, input)?,
    };
    let formatted = match config::format(&name, &text) {
        Ok(formatted) => formatted,
        Err(all) => {
            show(&all);
            bail!("encountered errors during formatting")
        }
    };
    if options.test {
        if text != formatted {
            bail!("file {name} is not formatted correctly");
        }
        return Ok(());
    }
    match file {
        Some(file) if options.write => {
            if text != formatted {
                replace(file, &formatted).with_context(|| format!("cannot write {name}"))?;
            }
            Ok(())
        }
        _ => Ok(output.write_all(formatted.as_bytes())?),
    }
}

/// The text of a file, or else of `input`.
pub(crate) fn read(file: Option<&Path>, input: &mut dyn Read) -> anyhow::Result<String> {
    if let Some(file) = file {
        return std::fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()));
    }
    let mut text = String::new();
    let mut input = input.take(INPUT_BYTES_MAX);
    input
        .read_to_string(&mut text)
        .context("cannot read stdin")?;
    if input.limit() == 0 {
        bail!("stdin is larger than {} MiB", INPUT_BYTES_MAX >> 20);
    }
    Ok(text)
}

/// Writes diagnostics with the lines they are about.
#[expect(clippy::print_stderr, reason = "this is where people look for it")]
pub(crate) fn show(all: &config::Diagnostics) {
    eprintln!("{}", all.pretty(std::io::stderr().is_terminal()));
}

/// Puts a new file of the same permissions in the place of the old one, behind links too.
fn replace(file: &Path, text: &str) -> std::io::Result<()> {
    let file = std::fs::canonicalize(file)?;
    let mut name = OsString::from(".");
    name.push(file.file_name().unwrap_or_default());
    name.push(format!(".{}", std::process::id()));
    let fresh = file.with_file_name(name);
    let permissions = std::fs::metadata(&file)?.permissions();
    let written = std::fs::write(&fresh, text)
        .and_then(|()| std::fs::set_permissions(&fresh, permissions))
        .and_then(|()| std::fs::File::open(&fresh)?.sync_all())
        .and_then(|()| std::fs::rename(&fresh, &file));
    if written.is_err() && fresh.try_exists()? {
        std::fs::remove_file(&fresh)?;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOSE: &str = "a{\nb=1\n}";
    const FORMATTED: &str = "a {\n\tb = 1\n}\n";

    /// Output or error of one call.
    fn call(file: Option<&Path>, write: bool, test: bool, input: &str) -> Result<String, String> {
        let file = file.map(Path::to_owned);
        let options = Options { file, write, test };
        let mut output = Vec::new();
        match format(&options, &mut input.as_bytes(), &mut output) {
            Ok(()) => Ok(String::from_utf8(output).unwrap()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn stdin_goes_to_stdout() {
        let dash = Path::new("-");
        for file in [None, Some(dash)] {
            assert_eq!(call(file, false, false, LOOSE), Ok(FORMATTED.to_owned()));
            let message = "cannot use --write with stdin".to_owned();
            assert_eq!(call(file, true, false, LOOSE), Err(message));
        }
        let message = "file <stdin> is not formatted correctly".to_owned();
        assert_eq!(call(None, false, true, LOOSE), Err(message));
        assert_eq!(call(None, false, true, FORMATTED), Ok(String::new()));
    }

    #[test]
    fn a_file_is_shown_told_about_or_replaced() {
        use std::os::unix::fs::PermissionsExt;

        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("a.alloy");
        std::fs::write(&file, LOOSE).unwrap();
        std::fs::set_permissions(&file, PermissionsExt::from_mode(0o640)).unwrap();
        let text = || std::fs::read_to_string(&file).unwrap();
        assert_eq!(
            call(Some(&file), false, false, ""),
            Ok(FORMATTED.to_owned())
        );
        let message = call(Some(&file), false, true, "").unwrap_err();
        assert!(
            message.ends_with("a.alloy is not formatted correctly"),
            "{message}"
        );
        assert_eq!(text(), LOOSE);
        let link = dir.path().join("link.alloy");
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert_eq!(call(Some(&link), true, false, ""), Ok(String::new()));
        assert_eq!(text(), FORMATTED);
        let mode = std::fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o640);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_cannot_be_formatted_stays() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(
            call(Some(dir.path()), true, false, ""),
            Err("cannot format a directory".to_owned())
        );
        let file = dir.path().join("a.alloy");
        std::fs::write(&file, "a {").unwrap();
        assert!(call(Some(&file), true, false, "").is_err());
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "a {");
        assert!(call(Some(&dir.path().join("none")), false, false, "").is_err());
    }
}
