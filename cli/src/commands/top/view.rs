use leasehold::State;
use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::Line;
use ratatui::widgets::{Block, Paragraph, Row, Table, TableState};

use super::model::{Model, Pane};
use crate::commands::stats::sparkline;
use crate::commands::workers::status;
use crate::jobs;
use crate::words::{moment, printable, relative, thousands};

pub(super) fn draw(frame: &mut Frame<'_>, model: &Model) {
    let parts = Layout::vertical([
        Constraint::Length(1),
        Constraint::Percentage(30),
        Constraint::Fill(1),
        Constraint::Percentage(25),
        Constraint::Length(1),
        Constraint::Length(1),
    ]);
    let [head, queues, jobs, workers, said, keys] = parts.areas(frame.area());
    let total = |state| model.seen.counts.iter().map(|counts| counts.of(state)).sum::<u64>();
    let sums = State::ALL.map(|state| format!("{} {state}", thousands(total(state)))).join("  ");
    frame.render_widget(Line::from(format!("leasehold  {}  {sums}", moment(model.seen.now))), head);
    draw_queues(frame, queues, model);
    draw_jobs(frame, jobs, model);
    draw_workers(frame, workers, model);
    frame.render_widget(Paragraph::new(printable(&model.said)), said);
    let help = match model.pane {
        Pane::Queues => "tab pane  ↑↓ row  p pause/resume  f filter jobs  q quit",
        Pane::Jobs => "tab pane  ↑↓ row  c cancel  r requeue  w why  f filter jobs  q quit",
        Pane::Workers => "tab pane  ↑↓ row  s stop  q quit",
    };
    frame.render_widget(Line::from(help).style(Style::new().add_modifier(Modifier::DIM)), keys);
}

/// A table in a frame, with its row marked if it is the pane that keys act on.
fn table<const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    (title, is_active, row): (String, bool, usize),
    (head, widths): ([&str; N], [Constraint; N]),
    rows: impl Iterator<Item = [String; N]>,
) {
    let rows = rows.map(|cells| Row::new(cells.map(|cell| printable(&cell))));
    let frame_style = if is_active { Style::new().add_modifier(Modifier::BOLD) } else { Style::new() };
    let head = Row::new(head).style(Style::new().add_modifier(Modifier::DIM));
    let table = Table::new(rows, widths)
        .header(head)
        .block(Block::bordered().title(title).border_style(frame_style))
        .row_highlight_style(Style::new().add_modifier(Modifier::REVERSED));
    let mut state = TableState::new().with_selected(is_active.then_some(row));
    frame.render_stateful_widget(table, area, &mut state);
}

fn draw_queues(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let widths = [
        Constraint::Fill(2),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(12),
        Constraint::Length(7),
        Constraint::Fill(1),
    ];
    let rows = model.seen.counts.iter().map(|counts| {
        let rates = model.rates.get(&counts.queue).map_or(&[][..], Vec::as_slice);
        [
            counts.queue.to_string(),
            thousands(counts.of(State::Queued)),
            thousands(counts.of(State::Running)),
            thousands(counts.of(State::Failed)),
            counts.oldest_due.map_or_else(String::new, |at| relative(at, model.seen.now)),
            if model.is_paused(&counts.queue) { "paused".to_owned() } else { String::new() },
            format!("{:.1}/s {}", rates.last().copied().unwrap_or(0.0), sparkline(rates)),
        ]
    });
    let head = ["queue", "queued", "running", "failed", "oldest", "", "done"];
    table(frame, area, ("queues".to_owned(), model.pane == Pane::Queues, model.row()), (head, widths), rows);
}

fn draw_jobs(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let widths = [
        Constraint::Length(36),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Fill(1),
        Constraint::Length(7),
        Constraint::Length(12),
        Constraint::Fill(2),
    ];
    let rows = model.seen.jobs.iter().map(|job| {
        let cells = jobs::row(job, model.seen.now);
        <[String; 7]>::try_from(cells).unwrap_or_default()
    });
    let title =
        model.state.map_or_else(|| "newest jobs".to_owned(), |state| format!("newest jobs that are {state}"));
    table(frame, area, (title, model.pane == Pane::Jobs, model.row()), (jobs::COLUMNS, widths), rows);
}

fn draw_workers(frame: &mut Frame<'_>, area: Rect, model: &Model) {
    let widths = [
        Constraint::Length(36),
        Constraint::Fill(1),
        Constraint::Length(9),
        Constraint::Length(9),
        Constraint::Length(12),
        Constraint::Length(9),
    ];
    let rows = model.seen.workers.iter().map(|worker| {
        let info = &worker.info;
        [
            worker.worker.to_string(),
            format!("{} on {}", info.name, info.host),
            format!("{}/{}", info.running, info.concurrency),
            thousands(info.processed),
            relative(worker.seen_at, model.seen.now),
            status(worker).to_owned(),
        ]
    });
    let head = ["worker", "name", "running", "processed", "seen", "status"];
    table(
        frame,
        area,
        ("workers".to_owned(), model.pane == Pane::Workers, model.row()),
        (head, widths),
        rows,
    );
}

#[cfg(test)]
mod tests {
    use crossterm::event::KeyCode;
    use leasehold::backend::{QueueCounts, QueueRecord, QueueSettings};
    use leasehold::{JobId, JobOptions, JobRecord, Kind, Payload, QueueName, Timestamp};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    use super::super::model::{Act, Seen};
    use super::*;

    fn seen(millis: i64, queued: u64, paused: bool) -> Seen {
        let now = Timestamp::from_millis(millis);
        let queue = QueueName::new("mail").unwrap();
        let mut counts = QueueCounts::empty(queue.clone());
        counts.states.insert(State::Queued, queued);
        counts.enqueued = 100;
        let pause = leasehold::backend::Pause { by: "ann".into(), reason: String::new() };
        let settings = QueueSettings { pause: paused.then_some(pause), ..QueueSettings::default() };
        let evil = Payload::from("\u{1b}[2Jhello".to_owned());
        let job = JobRecord::new(
            JobId::generate(),
            queue.clone(),
            Kind::new("send").unwrap(),
            evil,
            JobOptions::default(),
            now,
            now,
        );
        Seen {
            now,
            counts: vec![counts],
            queues: vec![QueueRecord::new(queue, settings, None)],
            jobs: vec![job],
            workers: Vec::new(),
        }
    }

    fn screen(model: &Model, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, model)).unwrap();
        let buffer = terminal.backend().buffer();
        let line = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect::<String>();
        (0..height).map(line).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn shows_queues_with_their_rates_and_jobs_as_text() {
        let mut model = Model::default();
        model.see(seen(1_000, 50, false));
        model.see(seen(2_000, 40, true));
        let screen = screen(&model, 120, 30);
        assert!(
            screen.contains("mail") && screen.contains("paused") && screen.contains("10.0/s"),
            "{screen}"
        );
        assert!(screen.contains("\\u{1b}[2Jhello") && !screen.contains('\u{1b}'), "{screen}");
    }

    #[test]
    fn fits_any_terminal() {
        let mut model = Model::default();
        model.see(seen(1_000, 50, false));
        for (width, height) in [(1, 1), (20, 5), (40, 12), (300, 100)] {
            screen(&model, width, height);
        }
    }

    #[test]
    fn keys_act_on_the_row_of_the_pane() {
        let mut model = Model::default();
        model.see(seen(1_000, 50, false));
        let queue = QueueName::new("mail").unwrap();
        assert_eq!(model.key(KeyCode::Char('p')), Act::Pause(queue.clone()));
        model.see(seen(2_000, 50, true));
        assert_eq!(model.key(KeyCode::Char('p')), Act::Resume(queue));
        assert_eq!(model.key(KeyCode::Char('c')), Act::Nothing);
        model.key(KeyCode::Tab);
        let job = model.seen.jobs[0].id;
        for _ in 0..3 {
            model.key(KeyCode::Down);
        }
        assert_eq!(model.key(KeyCode::Char('c')), Act::Cancel(job));
        assert_eq!(model.key(KeyCode::Char('w')), Act::Why(job));
        assert_eq!((model.key(KeyCode::Char('f')), model.state), (Act::Look, Some(State::Scheduled)));
        assert_eq!(model.key(KeyCode::Char('q')), Act::Quit);
    }
}
