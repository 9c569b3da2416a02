//! The result of a run as Markdown.

use std::{collections::BTreeMap, fmt::Write as _, time::Duration};

use super::{
    history::Violation,
    scenarios::{Plan, ScenarioOutcome},
};

/// The columns that must be zero, in order.
const VIOLATIONS: [(Violation, &str); 16] = [
    (Violation::Lost, "lost"),
    (Violation::Twice, "shown twice"),
    (Violation::Disorder, "out of order"),
    (Violation::Back, "went back in time"),
    (Violation::Empty, "wrong empty answers"),
    (Violation::Stale, "older than 15 s"),
    (Violation::AtLeast, "`at_least` violated"),
    (Violation::Receipt, "receipts without effect"),
    (Violation::StreamLost, "streams: lost"),
    (Violation::StreamTwice, "streams: twice"),
    (Violation::StreamGap, "streams: wrong gaps"),
    (Violation::Foreign, "never sent"),
    (Violation::Differs, "instances differ"),
    (Violation::Stuck, "no right answer"),
    (Violation::Status, "wrong status"),
    (Violation::Died, "died"),
];

/// Returns true if there is no violation and every scenario was completed.
#[must_use]
pub fn is_all_well(outcomes: &[ScenarioOutcome]) -> bool {
    outcomes
        .iter()
        .all(|outcome| outcome.failure.is_none() && outcome.history.lock().findings().is_empty())
}

/// One scenario's result in a line.
#[must_use]
pub fn summary_line(outcome: &ScenarioOutcome) -> String {
    let history = outcome.history.lock();
    let acknowledged = history.totals().acknowledged;
    let wrong = VIOLATIONS.iter().filter(|(wrong, _)| history.violation_count(*wrong) > 0);
    let wrong: Vec<_> =
        wrong.map(|(wrong, name)| format!("{} {name}", history.violation_count(*wrong))).collect();
    let wrong = if wrong.is_empty() { "no violation".to_owned() } else { wrong.join(", ") };
    format!("{}: {acknowledged} acknowledged, {wrong}", outcome.scenario.name())
}

/// The whole report.
#[must_use]
pub fn to_markdown(plan: Plan, outcomes: &[ScenarioOutcome]) -> String {
    let mut text = format!(
        "# Faults\n\nSeed {}, {} rounds of each scenario, {} sends a second, {} open streams, three consumers, \
         one broker or three with replication 3. The bold columns must be zero.\n\n",
        plan.seed, plan.rounds, plan.rate, plan.streams,
    );
    write_correctness(&mut text, outcomes);
    write_availability(&mut text, outcomes);
    write_counterexamples(&mut text, outcomes);
    text
}

fn write_correctness(text: &mut String, outcomes: &[ScenarioOutcome]) {
    let mut header: Vec<String> = [
        "scenario",
        "brokers",
        "faults",
        "sent",
        "acknowledged (written again)",
        "indeterminate (shown)",
        "receipts",
        "told by streams",
    ]
    .map(str::to_owned)
    .into();
    header.extend(VIOLATIONS.map(|(_, name)| format!("**{name}**")));
    write_row(text, &header);
    write_row(text, &header.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
    for outcome in outcomes {
        let history = outcome.history.lock();
        let totals = history.totals();
        let mut cells = vec![
            outcome.scenario.name().to_owned(),
            outcome.scenario.topology().brokers.to_string(),
            outcome.faults.to_string(),
            totals.sends.to_string(),
            format!("{} ({})", totals.acknowledged, totals.written_again),
            format!("{} ({})", totals.indeterminate, totals.indeterminate_shown),
            totals.receipts.to_string(),
            totals.streamed.to_string(),
        ];
        cells.extend(VIOLATIONS.map(|(wrong, _)| history.violation_count(wrong).to_string()));
        write_row(text, &cells);
    }
    text.push('\n');
}

fn write_availability(text: &mut String, outcomes: &[ScenarioOutcome]) {
    let header = [
        "scenario",
        "took",
        "inboxes shown",
        "of these with `at_least`",
        "not shown, by reason",
        "not acknowledged, by reason",
        "streams opened",
        "gaps",
        "longest unanswered",
        "answers older than 1 s",
        "oldest answer",
        "first right answer: p50",
        "max",
        "broker back: max",
    ];
    write_row(text, &header.map(str::to_owned));
    write_row(text, &header.map(|_| "---".to_owned()));
    for outcome in outcomes {
        let history = outcome.history.lock();
        let totals = history.totals();
        let mut recovery = outcome.recovery.clone();
        recovery.sort_unstable();
        let median = recovery.get(recovery.len() / 2);
        write_row(
            text,
            &[
                outcome.scenario.name().to_owned(),
                format!("{:.0} s", outcome.took.as_secs_f64()),
                totals.reads.to_string(),
                totals.at_least_reads.to_string(),
                join_counts(&totals.unavailable),
                join_counts(&totals.refused),
                totals.streams_opened.to_string(),
                totals.gaps.to_string(),
                format_seconds(Some(&totals.longest_unanswered)),
                totals.stale.to_string(),
                format_seconds(Some(&totals.longest_unseen)),
                format_seconds(median),
                format_seconds(recovery.last()),
                format_seconds(outcome.broker.iter().max()),
            ],
        );
    }
    text.push_str(
        "\nThe first right answer is timed for each affected user from the fault on: an inbox that shows \
         everything acknowledged before the fault, or, if sends fail meanwhile, a notification sent after \
         it. Longest unanswered: how long a user got no inbox from any consumer that was asked. The age \
         of an answer is the time since the acknowledgement of the oldest notification that it lacks.\n",
    );
}

fn write_counterexamples(text: &mut String, outcomes: &[ScenarioOutcome]) {
    for outcome in outcomes {
        let history = outcome.history.lock();
        if outcome.failure.is_none() && history.findings().is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {}\n", outcome.scenario.name());
        if let Some(failure) = &outcome.failure {
            let _ = writeln!(text, "- not completed: {failure}");
        }
        for (wrong, finding) in history.findings() {
            let name =
                VIOLATIONS.iter().find(|(kind, _)| kind == wrong).map_or("?", |(_, name)| name);
            let _ = writeln!(text, "- {name}: {}. The first:", finding.count);
            for example in &finding.examples {
                let _ = writeln!(text, "  - {example}");
            }
        }
    }
}

fn write_row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn join_counts(counts: &BTreeMap<String, u64>) -> String {
    let counts = counts.iter().map(|(why, count)| format!("{count} {why}"));
    counts.collect::<Vec<_>>().join(", ")
}

fn format_seconds(time: Option<&Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}
