//! `bench send`: POST /send, beside the same handler without Kafka and a bare rdkafka loop that
//! appends the same records. A send is both, so their costs are added.

use crate::{
    Result,
    figures::{Sample, Spread, costs, rates, spread},
    http::{HttpConnection, put_user_request},
    kafka::{BenchTopic, PARTITIONS},
    load::{LoadProfile, run_on_thread, send_load},
    print_status,
    process::ServerProcess,
    records::Recipients,
    report::{Aim, Section},
    testbed::Testbed,
    turns::{half_of_the_slowest, show_sample, take_turns},
};

const PARTIES: [&str; 5] = [
    "producer",
    "producer without a cache of names",
    "the same handler without Kafka",
    "bare rdkafka loop",
    "axum that parses the form",
];
const PRODUCER: usize = 0;
const COLD: usize = 1;
const NO_KAFKA: usize = 2;
const BARE: usize = 3;
const PARSE: usize = 4;
/// A crowd, whose names a cache still holds.
pub(crate) const MANY: u64 = 50_000;
/// Connections and recipients of each comparison.
const CASES: [(usize, u64); 4] = [(64, 4), (400, 4), (64, 64), (400, MANY)];

struct Bed<'a> {
    testbed: &'a Testbed,
    topic: BenchTopic,
    producer: ServerProcess,
    cold: ServerProcess,
    no_kafka: ServerProcess,
    parse: ServerProcess,
    header: String,
}

pub(crate) async fn measure(testbed: &mut Testbed) -> Result<Section> {
    let topic = testbed.create_topic("send", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let cold = testbed.start_producer(&topic, &["--directory-cache", "0"]).await?;
    let url = testbed.database_url()?;
    let no_kafka = testbed.start_limit(&["send"], &[("DATABASE_URL", &url)]).await?;
    let parse = testbed.start_limit(&["parse"], &[]).await?;
    let header = sender_header(testbed)?;
    create_users(testbed, &producer, MANY).await?;
    let bed = Bed { testbed, topic, producer, cold, no_kafka, parse, header };
    let mut section = Section::new("send", "POST /send, acks=all");
    let quick = bed.testbed.options.quick;
    for (connections, recipients) in CASES {
        if quick && recipients == 64 {
            continue;
        }
        bed.compare(&mut section, connections, recipients).await?;
    }
    section.note(
        "A request of the fixed rate is due at its time, however long the ones before it take, and its latency runs \
         from then: what waited because all connections were busy counts.",
    );
    section.note(
        "Rates that are added are those of doing one after the other: 1 ÷ (1 ÷ a + 1 ÷ b). The bare loop needs no \
         load generator, which leaves it and the broker more of the processors.",
    );
    Ok(section)
}

impl Bed<'_> {
    async fn run(
        &self,
        party: usize,
        requests: &[Vec<u8>],
        recipients: u64,
        profile: LoadProfile,
    ) -> Result<Sample> {
        let broker = self.testbed.broker;
        match party {
            PRODUCER => send_load(&self.producer, broker, requests, profile).await,
            COLD => send_load(&self.cold, broker, requests, profile).await,
            NO_KAFKA => send_load(&self.no_kafka, None, requests, profile).await,
            PARSE => send_load(&self.parse, None, requests, profile).await,
            _ => append_load(self.testbed, &self.topic, recipients, profile).await,
        }
    }

    async fn compare(
        &self,
        section: &mut Section,
        connections: usize,
        recipients: u64,
    ) -> Result<()> {
        let options = &self.testbed.options;
        let name = format!("{connections} connections, {recipients} recipients");
        let requests = Recipients(recipients).send_requests(&self.header)?;
        let profile = LoadProfile::closed(connections, options.round());
        // Cold names cost the same at any number of connections; the limits do not know them.
        let parties: Vec<usize> = match recipients {
            MANY => vec![PRODUCER, COLD, NO_KAFKA, BARE],
            _ => vec![PRODUCER, NO_KAFKA, BARE, PARSE],
        };
        let names: Vec<_> = parties.iter().map(|party| PARTIES[*party]).collect();
        let title = format!("As much as can be, {name}");
        let closed = take_turns(&title, options.few_rounds(), &names, show_sample, async |index| {
            self.run(parties[index], &requests, recipients, profile).await
        });
        let closed = closed.await?;
        section.add_samples(&title, &names, &closed);
        let rate = options.rate.map_or_else(|| half_of_the_slowest(&closed), Ok)?;
        let profile = LoadProfile { rate: Some(rate), ..profile };
        let title = format!("{rate} a second, {name}");
        let open = take_turns(&title, options.rounds(), &names, show_sample, async |index| {
            self.run(parties[index], &requests, recipients, profile).await
        });
        let open = open.await?;
        section.add_samples(&title, &names, &open);
        if section.charts.is_empty() {
            section.add_latencies(&format!("POST /send: latency, {title}"), &names, &open);
        }
        let at = |party| parties.iter().position(|one| *one == party);
        let of = |samples: &[Vec<Sample>], party, figure: fn(&[Sample]) -> Option<Spread>| {
            figure(&samples[at(party)?])
        };
        let work = format!("POST /send, {name}");
        let added = of(&open, NO_KAFKA, costs).and_then(|one| one.plus(&of(&open, BARE, costs)?));
        let cost = of(&open, PRODUCER, costs).and_then(|one| one.divided_by(&added?));
        section.judge(
            &format!("{work}: producer's processor time"),
            "that handler without Kafka + bare rdkafka loop",
            cost,
            "×",
            Aim::AtMost(1.15),
        );
        let in_turn = |one: f64, other: f64| 1.0 / (1.0 / one + 1.0 / other);
        let added = of(&closed, NO_KAFKA, rates)
            .and_then(|one| one.zip(&of(&closed, BARE, rates)?, in_turn));
        let share = of(&closed, PRODUCER, rates).and_then(|one| one.divided_by(&added?));
        section.judge(
            &format!("{work}: sends/s"),
            "the same two added",
            share,
            "×",
            Aim::AtLeast(0.85),
        );
        let p99 = |samples: &[Sample]| spread(samples, Sample::p99_ms);
        let late = of(&open, PRODUCER, p99).and_then(|one| one.divided_by(&of(&open, BARE, p99)?));
        section.judge(
            &format!("{work}: p99 at half of that"),
            "bare rdkafka loop",
            late,
            "×",
            Aim::AtMost(2.0),
        );
        let handler =
            of(&open, NO_KAFKA, costs).and_then(|one| one.divided_by(&of(&open, PARSE, costs)?));
        section.judge(
            &format!("{work}, without Kafka: processor time"),
            "axum that parses the form",
            handler,
            "×",
            Aim::AtMost(1.4),
        );
        Ok(())
    }
}

/// A round of the bare loop, in a process of its own.
pub(crate) async fn append_load(
    testbed: &Testbed,
    topic: &BenchTopic,
    recipients: u64,
    profile: LoadProfile,
) -> Result<Sample> {
    let (connections, round) =
        (profile.connections.try_into()?, profile.round.as_millis().try_into()?);
    let mut flags =
        vec![("--connections", connections), ("--recipients", recipients), ("--round-ms", round)];
    flags.extend(profile.rate.map(|rate| ("--rate", rate.into())));
    testbed.run_limit("append", topic, &flags).await
}

/// The header of user 2, who sends; empty without authentication.
pub(crate) fn sender_header(testbed: &Testbed) -> Result<String> {
    if testbed.options.auth {
        testbed.token_header(2, &["send", "admin"])
    } else {
        Ok(String::new())
    }
}

/// Creates a crowd in the directory, through the producer.
pub(crate) async fn create_users(
    testbed: &Testbed,
    producer: &ServerProcess,
    count: u64,
) -> Result<()> {
    print_status(format_args!("creating {count} users"));
    let header = match testbed.options.auth {
        true => testbed.token_header(2, &["admin"])?,
        false => String::new(),
    };
    let address = producer.address;
    run_on_thread(async move || {
        let create = async |first: u64| -> Result<()> {
            let mut connection = HttpConnection::connect(address).await?;
            for index in (first..count).step_by(64) {
                let user = Recipients(count).user(index)?;
                let request = put_user_request(user.id.get(), &user.name, &header);
                let (status, _) = connection.send_request(&request).await?;
                if !(200..300).contains(&status) {
                    return Err(format!("a user was not created: {status}").into());
                }
            }
            Ok(())
        };
        futures_util::future::try_join_all((0..64).map(create)).await?;
        Ok(())
    })
    .await
}
