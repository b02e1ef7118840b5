use std::str::FromStr;

use clap::{Args, Subcommand, ValueEnum};
use leasehold::schedule::{CatchUp, Overlap, Rule, Schedule, ScheduleRecord, Weekday};
use leasehold::{Kind, NewJob, Payload, QueueName, RegisterName, Store};
use serde::Serialize;

use super::Context;
use crate::bulk::confirm;
use crate::failure::Failure;
use crate::output::say;
use crate::selection::named;
use crate::words::{moment, moment_or, relative};

/// Schedules: what recurs, and when.
#[derive(Debug, Subcommand)]
pub(crate) enum Schedules {
    /// Lists the schedules.
    #[command(after_help = "Examples:\n  leasehold schedules list")]
    List,
    /// Shows a schedule, its next ticks, its latest runs and edits.
    #[command(after_help = "Examples:\n  leasehold schedules show nightly")]
    Show {
        /// Which
        name: RegisterName,
    },
    Add(Add),
    /// Removes a schedule; its jobs stay.
    #[command(after_help = "Examples:\n  leasehold schedules remove nightly --yes")]
    Remove {
        /// Which
        name: RegisterName,
        /// Do not ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Lets a schedule rest.
    #[command(after_help = "Examples:\n  leasehold schedules pause nightly")]
    Pause {
        /// Which
        name: RegisterName,
    },
    /// Lets a schedule go on with its next tick.
    #[command(after_help = "Examples:\n  leasehold schedules resume nightly")]
    Resume {
        /// Which
        name: RegisterName,
    },
    /// Fires a schedule's job now, and prints the job's id.
    #[command(after_help = "Examples:\n  leasehold schedules run nightly")]
    Run {
        /// Which
        name: RegisterName,
    },
    Next(Next),
}

/// Makes a schedule, or changes it.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold schedules add nightly report '{\"of\": \"yesterday\"}' --cron '30 2 * * *' --zone Europe/Berlin\n  leasehold schedules add beat ping --every 30s --queue monitor\n  leasehold schedules add pay run --rrule 'DTSTART;TZID=Europe/Berlin:20260130T170000\nRRULE:FREQ=MONTHLY;BYDAY=-1FR'"
)]
pub(crate) struct Add {
    /// Its name
    name: RegisterName,
    /// The kind of its jobs
    kind: Kind,
    /// Their payload
    payload: Option<String>,
    /// Their queue
    #[arg(short, long)]
    queue: Option<QueueName>,
    #[command(flatten)]
    rule: RuleFlags,
    /// The time zone of --cron, --daily, --weekly and --monthly
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
    /// What becomes of ticks that came while no scheduler ran
    #[arg(long, value_enum, default_value_t = Missed::Once)]
    catch_up: Missed,
    /// What a tick does while the job of an earlier one has not ended
    #[arg(long, value_parser = named::<Overlap>, default_value = "allow")]
    overlap: Overlap,
    /// Make it paused
    #[arg(long)]
    paused: bool,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(crate) struct RuleFlags {
    /// A cron line of five fields, or six with seconds first
    #[arg(long, value_name = "LINE")]
    cron: Option<String>,
    /// Each time that this span has passed
    #[arg(long, value_name = "TIME")]
    every: Option<humantime::Duration>,
    /// Each day at this time, HH:MM
    #[arg(long, value_name = "TIME")]
    daily: Option<String>,
    /// Each week on this day and time, as mon/08:30
    #[arg(long, value_name = "DAY/TIME")]
    weekly: Option<String>,
    /// Each month on this day and time, as 1/08:30
    #[arg(long, value_name = "DAY/TIME")]
    monthly: Option<String>,
    /// A recurrence of iCalendar: a DTSTART and RRULE, a line each
    #[arg(long, value_name = "TEXT")]
    rrule: Option<String>,
}

/// What becomes of ticks that were missed.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Missed {
    /// They are left out
    Skip,
    /// One of them fires
    Once,
    /// All of them fire, a hundred at most
    All,
}

/// Previews the next ticks of a schedule, or of a rule before it is used.
#[derive(Debug, Args)]
#[command(
    after_help = "Examples:\n  leasehold schedules next nightly\n  leasehold schedules next --cron '30 2 * * *' --zone Europe/Berlin --after 2026-03-27 -n 10"
)]
pub(crate) struct Next {
    /// Of this schedule
    #[arg(required_unless_present = "rule", conflicts_with = "rule")]
    name: Option<RegisterName>,
    /// How many
    #[arg(short = 'n', long, value_name = "NUMBER", default_value_t = 10)]
    number: usize,
    /// After this moment [default: now]
    #[arg(long, value_name = "TIME")]
    after: Option<crate::selection::Moment>,
    /// A cron line
    #[arg(long, value_name = "LINE", group = "rule")]
    cron: Option<String>,
    /// A recurrence of iCalendar
    #[arg(long, value_name = "TEXT", group = "rule")]
    rrule: Option<String>,
    /// The time zone of --cron
    #[arg(long, value_name = "ZONE", default_value = "UTC")]
    zone: String,
}

/// A schedule as it is shown.
#[derive(Debug, Serialize)]
struct Shown<'s> {
    name: &'s RegisterName,
    rule: String,
    #[serde(flatten)]
    schedule: &'s Schedule,
    next: Option<leasehold::Timestamp>,
    runs: &'s [leasehold::schedule::Run],
    edits: &'s [leasehold::schedule::Edit],
}

impl<'s> Shown<'s> {
    fn of(record: &'s ScheduleRecord) -> Self {
        let ScheduleRecord { name, schedule, next, runs, edits, .. } = record;
        Self { name, rule: schedule.rule.to_string(), schedule, next: *next, runs, edits }
    }
}

pub(crate) async fn run(command: Schedules, context: &Context) -> Result<(), Failure> {
    let create = matches!(command, Schedules::Add(_));
    let store = if create { context.new_store().await? } else { context.store().await? };
    match command {
        Schedules::List => list(&store, context).await,
        Schedules::Show { name } => show(&store, context, &name).await,
        Schedules::Add(command) => add(&store, context, command).await,
        Schedules::Remove { name, yes } => {
            if !yes {
                confirm(&format!("the schedule {name} will be removed"))?;
            }
            if store.schedules().delete(name.clone()).await? { Ok(()) } else { Err(missing(&name)) }
        }
        Schedules::Pause { name } => {
            store.schedules().pause(name.clone(), true).await?;
            say(&format!("the schedule {name} rests"));
            Ok(())
        }
        Schedules::Resume { name } => {
            let record = store.schedules().pause(name.clone(), false).await?;
            say(&format!("the schedule {name} goes on: next {}", moment_or(record.next, "never")));
            Ok(())
        }
        Schedules::Run { name } => {
            let job = store.schedules().run_now(name).await?;
            context.output.line(&job, &job.to_string())
        }
        Schedules::Next(command) => next(&store, context, command).await,
    }
}

fn missing(name: &RegisterName) -> Failure {
    Failure::not_found(format!("there is no schedule {name}; `leasehold schedules list` has them"))
}

async fn list(store: &Store, context: &Context) -> Result<(), Failure> {
    let (now, mut records) = (store.now().await?, Vec::new());
    loop {
        let after = records.last().map(|last: &ScheduleRecord| last.name.clone());
        let page = store.schedules().list(after, store.limits().page).await?;
        if page.is_empty() {
            break;
        }
        records.extend(page);
    }
    let shown: Vec<Shown<'_>> = records.iter().map(Shown::of).collect();
    let columns = ["name", "rule", "kind", "queue", "next", "last run"];
    let empty = "there are no schedules; `leasehold schedules add` makes one";
    context.output.list(&shown, &columns, empty, |shown| {
        let last = shown.runs.last().map_or_else(String::new, |run| run.job.to_string());
        let next = match (shown.schedule.paused, shown.next) {
            (true, _) => "paused".to_owned(),
            (_, Some(next)) => relative(next, now),
            (_, None) => "never".to_owned(),
        };
        let (kind, queue) = (shown.schedule.kind.to_string(), shown.schedule.queue.to_string());
        vec![shown.name.to_string(), shown.rule.clone(), kind, queue, next, last]
    })
}

async fn show(store: &Store, context: &Context, name: &RegisterName) -> Result<(), Failure> {
    let now = store.now().await?;
    let record = store.schedules().get(name.clone()).await?.ok_or_else(|| missing(name))?;
    let schedule = &record.schedule;
    let mut lines = vec![
        ("name", name.to_string()),
        ("rule", schedule.rule.to_string()),
        ("kind", schedule.kind.to_string()),
        ("queue", schedule.queue.to_string()),
        ("payload", crate::jobs::text(schedule.payload.as_bytes())),
        ("catch-up", format!("{:?}", schedule.catch_up)),
        ("overlap", format!("{:?}", schedule.overlap)),
    ];
    if schedule.paused {
        lines.push(("paused", "yes".to_owned()));
    }
    for tick in schedule.rule.preview(now, if schedule.paused { 0 } else { 5 }) {
        lines.push(("next", format!("{} ({})", moment(tick), relative(tick, now))));
    }
    for run in record.runs.iter().rev() {
        let tick = moment_or(run.tick, "by hand");
        let refused = run.refused.as_ref().map(|why| format!(": refused, {why}")).unwrap_or_default();
        lines.push(("run", format!("{tick} {}{refused}", run.job)));
    }
    for edit in record.edits.iter().rev() {
        lines.push(("edited", format!("{}, before: {}", moment(edit.at), edit.was.rule)));
    }
    context.output.one(&Shown::of(&record), &lines)
}

async fn add(store: &Store, context: &Context, command: Add) -> Result<(), Failure> {
    let now = store.now().await?;
    let rule = command.rule.rule(&command.zone, now)?;
    let payload = command.payload.map_or(Payload::EMPTY, Payload::from);
    let mut job = NewJob::new(command.kind, payload);
    if let Some(queue) = command.queue {
        job = job.queue(queue);
    }
    let mut schedule = Schedule::new(rule, job)?.overlap(command.overlap).catch_up(match command.catch_up {
        Missed::Skip => CatchUp::Skip,
        Missed::Once => CatchUp::Once,
        Missed::All => CatchUp::All(100),
    });
    schedule.paused = command.paused;
    let record = store.schedules().put(command.name, schedule).await?;
    let text = format!("{}: next {}", record.name, moment_or(record.next, "never"));
    context.output.line(&Shown::of(&record), &text)
}

impl RuleFlags {
    fn rule(&self, zone: &str, now: leasehold::Timestamp) -> Result<Rule, Failure> {
        if let Some(line) = &self.cron {
            return Ok(Rule::cron(line, zone)?);
        }
        if let Some(every) = self.every {
            return Ok(Rule::every(every.into(), now)?);
        }
        if let Some(at) = &self.daily {
            return Ok(Rule::daily(at, zone)?);
        }
        if let Some(text) = &self.weekly {
            let (day, at) = split(text)?;
            let day = Weekday::from_str(day)
                .map_err(|_| Failure::usage(format!("{day:?} is no day; these are mon, tue, ... sun")))?;
            return Ok(Rule::weekly(day, at, zone)?);
        }
        if let Some(text) = &self.monthly {
            let (day, at) = split(text)?;
            let day = day.parse().map_err(|_| Failure::usage(format!("{day:?} is no day of a month")))?;
            return Ok(Rule::monthly(day, at, zone)?);
        }
        let text = self.rrule.as_deref().unwrap_or_default().replace("\\n", "\n");
        Ok(Rule::recurring(&text)?)
    }
}

fn split(text: &str) -> Result<(&str, &str), Failure> {
    text.split_once('/')
        .ok_or_else(|| Failure::usage(format!("{text:?} is no day and time, as mon/08:30 or 1/08:30")))
}

async fn next(store: &Store, context: &Context, command: Next) -> Result<(), Failure> {
    let now = store.now().await?;
    let rule = match (&command.name, &command.cron, &command.rrule) {
        (Some(name), ..) => {
            store.schedules().get(name.clone()).await?.ok_or_else(|| missing(name))?.schedule.rule
        }
        (None, Some(line), _) => Rule::cron(line, &command.zone)?,
        (None, None, text) => Rule::recurring(&text.as_deref().unwrap_or_default().replace("\\n", "\n"))?,
    };
    let after = command.after.map_or(now, |after| after.after(now));
    let ticks = rule.preview(after, command.number);
    context.output.list(&ticks, &["tick (UTC)", "when"], "it never fires again", |tick| {
        vec![moment(*tick), relative(*tick, now)]
    })
}
