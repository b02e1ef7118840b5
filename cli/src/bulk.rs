//! Changes of many jobs: shown before, asked about, made in bounded batches, stopped by ctrl-c, and accounted for.

use std::collections::BTreeMap;
use std::io::{self, IsTerminal, Write};

use clap::Args;
use indicatif::ProgressBar;
use leasehold::backend::{Action, Amend, AmendAnswer, Select};
use leasehold::{JobId, Store};
use serde::Serialize;

use crate::commands::Context;
use crate::failure::{CONFLICT, FAILED, Failure, NOT_FOUND};
use crate::output::{say, style};
use crate::selection::Targets;
use crate::words::thousands;

/// Which jobs are to be changed, and how carefully.
#[derive(Debug, Clone, Args)]
pub(crate) struct Many {
    #[command(flatten)]
    pub(crate) targets: Targets,
    #[command(flatten)]
    pub(crate) care: Care,
}

/// How a change of many is to go.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Care")]
pub(crate) struct Care {
    /// Only tell what would be done
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
}

/// What became of a change.
#[derive(Debug, Default, Serialize)]
struct Account {
    /// What was asked for.
    action: String,
    /// Whether it was only looked what would be done.
    dry_run: bool,
    /// How many jobs were changed, or would be.
    changed: u64,
    /// How many were so before.
    already: u64,
    /// How many run, and were asked to end.
    requested: u64,
    /// How many their state did not allow it, by that state.
    refused: BTreeMap<String, u64>,
    /// How many were not there.
    missing: u64,
    /// Whether it was stopped before all were looked at.
    stopped: bool,
}

impl Account {
    fn note(&mut self, answer: AmendAnswer) {
        match answer {
            AmendAnswer::Applied => self.changed += 1,
            AmendAnswer::AlreadyApplied => self.already += 1,
            AmendAnswer::Requested => self.requested += 1,
            AmendAnswer::Refused(state) => *self.refused.entry(state.to_string()).or_default() += 1,
            AmendAnswer::Held(job) => {
                *self.refused.entry(format!("unique key held by {job}")).or_default() += 1;
            }
            AmendAnswer::NotFound => self.missing += 1,
        }
    }

    fn told(&self) -> String {
        let would = if self.dry_run { "would be " } else { "" };
        let mut parts = vec![format!("{} {would}{}", thousands(self.changed), self.action)];
        let mut add = |number: u64, what: &str| {
            if number > 0 {
                parts.push(format!("{} {what}", thousands(number)));
            }
        };
        add(self.requested, "running, asked to end");
        add(self.already, "as they are");
        add(self.missing, "not there");
        for (state, number) in &self.refused {
            add(*number, &format!("left alone ({state})"));
        }
        if self.stopped {
            parts.push("stopped before the rest".to_owned());
        }
        parts.join(", ")
    }
}

/// Changes these jobs. `done` is what has been done to one, as "cancelled".
pub(crate) async fn change(
    context: &Context,
    Many { targets, care }: &Many,
    action: Action,
    done: &str,
) -> Result<(), Failure> {
    targets.check()?;
    let store = &context.store().await?;
    let mut account = Account { action: done.to_owned(), dry_run: care.dry_run, ..Account::default() };
    if targets.ids.is_empty() {
        by_filter(store, targets, care, action, &mut account).await?;
    } else {
        by_id(store, &targets.ids, care, &action, &mut account).await?;
    }
    context.output.line(&account, &account.told())?;
    match account {
        Account { stopped: true, .. } => Err(Failure::said(FAILED)),
        // Where jobs were named, each was to be changed.
        Account { missing, .. } if missing > 0 => Err(Failure::said(NOT_FOUND)),
        Account { refused, .. } if !targets.ids.is_empty() && !refused.is_empty() => {
            Err(Failure::said(CONFLICT))
        }
        _ => Ok(()),
    }
}

async fn by_id(
    store: &Store,
    ids: &[JobId],
    care: &Care,
    action: &Action,
    account: &mut Account,
) -> Result<(), Failure> {
    for ids in ids.chunks(store.limits().batch) {
        let select = Select::Ids(ids.to_vec());
        let request = Amend { select, action: action.clone(), preview: care.dry_run };
        let amended = store.backend().amend(store.deadline(), request).await?;
        amended.jobs.into_iter().for_each(|(_, answer)| account.note(answer));
    }
    Ok(())
}

async fn by_filter(
    store: &Store,
    targets: &Targets,
    care: &Care,
    action: Action,
    account: &mut Account,
) -> Result<(), Failure> {
    let filter = targets.selection.filter(store).await?;
    let bulk = async || store.amend_all(filter.clone(), action.clone()).await;
    let asks = !care.yes && !care.dry_run;
    if care.dry_run || asks {
        let mut preview = Account { dry_run: true, action: account.action.clone(), ..Account::default() };
        walk(bulk().await?.preview(), &mut preview, "looking").await?;
        if care.dry_run || preview.stopped {
            *account = preview;
            return Ok(());
        }
        confirm(&preview.told())?;
    }
    walk(bulk().await?, account, "changing").await
}

/// Goes through all batches, until somebody stops it.
async fn walk(mut bulk: leasehold::client::Bulk, account: &mut Account, verb: &str) -> Result<(), Failure> {
    let progress = ProgressBar::new_spinner();
    progress.set_style(style("{spinner} {msg} {human_pos} jobs, {per_sec}, {elapsed}"));
    progress.set_message(verb.to_owned());
    let stop = tokio::signal::ctrl_c();
    tokio::pin!(stop);
    loop {
        // Between two batches: one that was begun is finished, so that what is told of it is so.
        if futures::poll!(&mut stop).is_ready() {
            account.stopped = true;
            break;
        }
        let Some(batch) = bulk.next().await? else { break };
        progress.inc(batch.len() as u64);
        batch.into_iter().for_each(|(_, answer)| account.note(answer));
    }
    progress.finish_and_clear();
    Ok(())
}

/// Asks whoever sits at the terminal.
pub(crate) fn confirm(what: &str) -> Result<(), Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::usage(format!("{what}; nobody can be asked here, so say --yes to do it")));
    }
    let _ = write!(io::stderr(), "{what}. Go on? [y/N] ");
    let _ = io::stderr().flush();
    let mut answer = String::new();
    io::stdin().read_line(&mut answer)?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        return Ok(());
    }
    say("nothing was changed");
    Err(Failure::said(FAILED))
}
