//! What a person types before something is done.

use super::exit::{Code, Failure};
use std::io::{IsTerminal as _, Write as _};

/// `command` is the one that needs no answer.
pub(super) fn refused(why: &str, command: &str) -> Failure {
    Failure::new(Code::NotConfirmed, why).with_hint(command)
}

/// Fails where nobody could type an answer.
pub(super) fn terminal(command: &str) -> Result<(), Failure> {
    if std::io::stdin().is_terminal() {
        Ok(())
    } else {
        Err(refused("not confirmed, and there is no terminal to ask on", command))
    }
}

/// The answer; empty where it could not be read.
pub(super) fn typed(question: &str, command: &str) -> Result<String, Failure> {
    terminal(command)?;
    eprint!("{question} ");
    let mut answer = String::new();
    let read = std::io::stderr().flush().and_then(|()| std::io::stdin().read_line(&mut answer));
    Ok(read.map_or_else(|_| String::new(), |_| answer.trim().to_owned()))
}

pub(super) fn confirm(yes: bool, question: &str, command: &str) -> Result<(), Failure> {
    if yes || matches!(&*typed(&format!("{question} [y/N]"), command)?, "y" | "Y" | "yes") {
        return Ok(());
    }
    Err(refused("not confirmed, nothing was done", command))
}

/// For what is not undone by a second command.
pub(super) fn confirm_by_name(
    yes: bool,
    hub: &str,
    what: &str,
    command: &str,
) -> Result<(), Failure> {
    if yes || typed(&format!("Type {hub} to {what}:"), command)? == hub {
        return Ok(());
    }
    Err(refused("not confirmed, nothing was done", command))
}
