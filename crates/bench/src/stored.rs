//! `bench stored`: what a stored notification costs, as the slope between two sizes: of a consumer's
//! start, its processor time, and its memory; beside rdkafka reading the same topic.

use crate::{
    Result,
    figures::Spread,
    kafka::{PARTITIONS, ReadCurve},
    print_status,
    process::settled_memory_bytes,
    read::{VALUE_BYTES, fill},
    report::{Aim, Chart, Row, Section, Series, Table},
    testbed::Testbed,
    turns::take_turns,
};

/// Notifications of each user.
const PER_USER: u64 = 20;
/// Bytes that a notification may cost beside its value.
const ALLOWANCE_BYTES: f64 = 64.0;

/// A start, and the memory afterwards; none of a limit.
struct Start {
    curve: ReadCurve,
    memory: f64,
}

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let sizes: [u64; 2] =
        if testbed.options.quick { [50_000, 250_000] } else { [100_000, 1_000_000] };
    let mut topics = Vec::new();
    for records in sizes {
        print_status(format_args!("filling a topic with {records} records"));
        let topic = testbed.create_topic("stored", PARTITIONS).await?;
        fill(testbed, &topic, records, records / PER_USER).await?;
        topics.push(topic);
    }
    let names = [
        format!("consumer, {}", sizes[0]),
        format!("consumer, {}", sizes[1]),
        format!("rdkafka reading key, headers and value, {}", sizes[1]),
    ];
    let names = names.each_ref().map(String::as_str);
    let show = |start: &Start| {
        format!("{:.2} s, {:.0} MiB", start.curve.seconds(), start.memory / 1048576.0)
    };
    let rounds = testbed.options.few_rounds();
    let starts = take_turns("stored", rounds, &names, show, async |index| {
        if index == 2 {
            let curve = testbed.run_limit("topic", &topics[1], &[("--records", sizes[1])]).await?;
            return Ok(Start { curve, memory: 0.0 });
        }
        let (consumer, curve) = testbed.start_consumer(&topics[index], sizes[index], &[]).await?;
        let memory = settled_memory_bytes(consumer.pid()).await?;
        Ok(Start { curve, memory })
    });
    Ok(to_section(sizes, names, &starts.await?))
}

fn to_section(sizes: [u64; 2], names: [&str; 3], starts: &[Vec<Start>]) -> Section {
    let of =
        |index: usize, figure: fn(&Start) -> f64| Spread::new(starts[index].iter().map(figure));
    // A slope is the growth for each notification that the larger size has more.
    let more = (sizes[1] - sizes[0]) as f64;
    let slope = |figure: fn(&Start) -> f64| {
        let grown = of(1, figure)?.minus(&of(0, figure)?)?;
        Spread::new(grown.rounds.iter().map(|grown| grown / more))
    };
    let each = |figure: fn(&Start) -> f64| {
        Spread::new(starts[2].iter().map(|start| figure(start) / sizes[1] as f64))
    };
    let seconds: fn(&Start) -> f64 = |start| start.curve.seconds() * 1e6;
    let cpu: fn(&Start) -> f64 = |start| start.curve.cpu_ns as f64 / 1000.0;
    let (start_us, cpu_us) = (slope(seconds), slope(cpu));
    let (limit_us, limit_cpu_us) = (each(seconds), each(cpu));
    let cost = cpu_us.as_ref().and_then(|cost| limit_cpu_us.as_ref()?.divided_by(cost));
    let memory = slope(|start| start.memory);

    let title = format!(
        "{} to {} notifications of {VALUE_BYTES} bytes, {PER_USER} a user",
        sizes[0], sizes[1]
    );
    let mut section = Section::new("stored", title);
    let row = |name: &str, figures: Vec<Option<Spread>>| Row { name: name.into(), figures };
    section.tables.push(Table {
        title: "What one more costs".into(),
        columns: ["", "µs of a start", "CPU µs", "bytes"].map(str::to_owned).into(),
        rows: vec![
            row("consumer, as a slope", vec![start_us.clone(), cpu_us, memory.clone()]),
            row(names[2], vec![limit_us.clone(), limit_cpu_us, None]),
        ],
    });
    section.tables.push(Table {
        title: "Memory of a consumer, MiB, and its start, seconds".into(),
        columns: ["", "MiB", "seconds"].map(str::to_owned).into(),
        rows: (0..2)
            .map(|index| {
                row(
                    names[index],
                    vec![
                        of(index, |start| start.memory / 1048576.0),
                        of(index, |start| start.curve.seconds()),
                    ],
                )
            })
            .collect(),
    });
    let rate = limit_us.and_then(|limit| limit.divided_by(&start_us?));
    section.judge(
        "rebuild",
        "rdkafka reading key, headers and value",
        rate,
        "×",
        Aim::AtLeast(0.5),
    );
    section.note(match cost {
        Some(Spread { median, min, max, .. }) => format!(
            "By processor time the limit is {median:.2} ({min:.2}–{max:.2}) of the consumer: with one reader that is \
             the most that the ratio of times can be on idle processors."
        ),
        None => "The processor time was not measured.".into(),
    });
    let beyond = memory.and_then(|bytes| {
        Spread::new(bytes.rounds.iter().map(|bytes| (bytes - ALLOWANCE_BYTES) / VALUE_BYTES as f64))
    });
    section.judge(
        "memory of a stored notification, less 64 B",
        "its value's bytes",
        beyond,
        "×",
        Aim::AtMost(1.3),
    );
    section.charts.push(Chart {
        name: "stored-over-time".into(),
        title: "Rebuild: records over time".into(),
        x: "seconds from the start of the process, or of reading".into(),
        y: "records".into(),
        logarithmic_x: false,
        logarithmic_y: false,
        series: [1, 2].map(|index| median_start(names[index], &starts[index])).into(),
    });
    section
}

/// The curve of the round that took the median time.
fn median_start(name: &str, rounds: &[Start]) -> Series {
    let mut rounds: Vec<_> = rounds.iter().map(|start| &start.curve).collect();
    rounds.sort_by(|one, other| one.seconds().total_cmp(&other.seconds()));
    let points = rounds.get(rounds.len() / 2).map(|curve| curve.points.clone()).unwrap_or_default();
    Series { name: name.to_owned(), points }
}
