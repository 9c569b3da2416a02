//! What came of a run, as Markdown.

use std::{fmt::Write as _, time::Duration};

use super::{
    history::Wrong,
    scenarios::{Outcome, Plan},
};

/// The columns that must be zero, in their order.
const WRONGS: [(Wrong, &str); 9] = [
    (Wrong::Lost, "lost"),
    (Wrong::Twice, "shown twice"),
    (Wrong::Disorder, "out of order"),
    (Wrong::Empty, "wrong empty answers"),
    (Wrong::AtLeast, "`at_least` violated"),
    (Wrong::Foreign, "never sent"),
    (Wrong::Differs, "instances differ"),
    (Wrong::Stuck, "no right answer"),
    (Wrong::Died, "died"),
];

/// Whether everything that must be zero is, and everything was carried through.
#[must_use]
pub fn all_well(outcomes: &[Outcome]) -> bool {
    outcomes
        .iter()
        .all(|outcome| outcome.failure.is_none() && outcome.history.lock().findings().is_empty())
}

/// What came of one scenario, in a line, for whoever watches.
#[must_use]
pub fn line(outcome: &Outcome) -> String {
    let history = outcome.history.lock();
    let acknowledged = history.totals().acknowledged;
    let wrong = WRONGS.iter().filter(|(wrong, _)| history.count(*wrong) > 0);
    let wrong: Vec<_> =
        wrong.map(|(wrong, name)| format!("{} {name}", history.count(*wrong))).collect();
    let wrong = if wrong.is_empty() { "nothing wrong".to_owned() } else { wrong.join(", ") };
    format!("{}: {acknowledged} acknowledged, {wrong}", outcome.scenario.name())
}

/// The whole report.
#[must_use]
pub fn markdown(plan: Plan, outcomes: &[Outcome]) -> String {
    let mut text = format!(
        "# Faults\n\nSeed {}, {} rounds of each scenario, {} sends a second, three consumers, one broker. \
         The bold columns must be zero.\n\n",
        plan.seed, plan.rounds, plan.rate,
    );
    correctness(&mut text, outcomes);
    availability(&mut text, outcomes);
    counterexamples(&mut text, outcomes);
    text
}

fn correctness(text: &mut String, outcomes: &[Outcome]) {
    let mut header: Vec<String> =
        ["scenario", "faults", "sent", "acknowledged (written again)", "indeterminate (shown)"]
            .map(str::to_owned)
            .into();
    header.extend(WRONGS.map(|(_, name)| format!("**{name}**")));
    row(text, &header);
    row(text, &header.iter().map(|_| "---".to_owned()).collect::<Vec<_>>());
    for outcome in outcomes {
        let history = outcome.history.lock();
        let totals = history.totals();
        let mut cells = vec![
            outcome.scenario.name().to_owned(),
            outcome.faults.to_string(),
            totals.sends.to_string(),
            format!("{} ({})", totals.acknowledged, totals.written_again),
            format!("{} ({})", totals.indeterminate, totals.indeterminate_shown),
        ];
        cells.extend(WRONGS.map(|(wrong, _)| history.count(wrong).to_string()));
        row(text, &cells);
    }
    text.push('\n');
}

fn availability(text: &mut String, outcomes: &[Outcome]) {
    let header = [
        "scenario",
        "took",
        "inboxes shown",
        "of these with `at_least`",
        "not shown, by reason",
        "longest unanswered",
        "longest unseen",
        "first right answer: p50",
        "max",
        "broker back: max",
    ];
    row(text, &header.map(str::to_owned));
    row(text, &header.map(|_| "---".to_owned()));
    for outcome in outcomes {
        let history = outcome.history.lock();
        let totals = history.totals();
        let reasons = totals.unavailable.iter().map(|(why, count)| format!("{count} {why}"));
        let mut recovery = outcome.recovery.clone();
        recovery.sort_unstable();
        let median = recovery.get(recovery.len() / 2);
        row(
            text,
            &[
                outcome.scenario.name().to_owned(),
                format!("{:.0} s", outcome.took.as_secs_f64()),
                totals.reads.to_string(),
                totals.at_least_reads.to_string(),
                reasons.collect::<Vec<_>>().join(", "),
                seconds(Some(&totals.longest_unanswered)),
                seconds(Some(&totals.longest_unseen)),
                seconds(median),
                seconds(recovery.last()),
                seconds(outcome.broker.iter().max()),
            ],
        );
    }
    text.push_str(
        "\nThe first right answer is timed for each affected user from the fault on: an inbox that shows \
         everything acknowledged before it, or, where nobody can send meanwhile, one that shows what was \
         sent after it. Longest unanswered: how long somebody got no inbox from any of the consumers that \
         were asked. Longest unseen: how long an answer lacked something that was acknowledged.\n",
    );
}

fn counterexamples(text: &mut String, outcomes: &[Outcome]) {
    for outcome in outcomes {
        let history = outcome.history.lock();
        if outcome.failure.is_none() && history.findings().is_empty() {
            continue;
        }
        let _ = writeln!(text, "\n## {}\n", outcome.scenario.name());
        if let Some(failure) = &outcome.failure {
            let _ = writeln!(text, "- not carried through: {failure}");
        }
        for (wrong, finding) in history.findings() {
            let name = WRONGS.iter().find(|(kind, _)| kind == wrong).map_or("?", |(_, name)| name);
            let _ = writeln!(text, "- {name}: {}. The first:", finding.count);
            for example in &finding.examples {
                let _ = writeln!(text, "  - {example}");
            }
        }
    }
}

fn row(text: &mut String, cells: &[String]) {
    let _ = writeln!(text, "| {} |", cells.join(" | "));
}

fn seconds(time: Option<&Duration>) -> String {
    time.map_or_else(|| "–".to_owned(), |time| format!("{:.2} s", time.as_secs_f64()))
}
