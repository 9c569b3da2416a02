//! `bench send`: POST /send in a closed and an open loop, beside the same handler without Kafka and
//! beside a bare rdkafka loop that writes the same records to the same topic.

use crate::{
    Result,
    figures::{Aim, Party, Ratio},
    http::send_request,
    kafka::PARTITIONS,
    load::send_load,
    loops::{Comparison, OPEN_LOOP_NOTE},
    options::LoopArgs,
    records::{self, MESSAGE, USERS},
    report::Section,
    testbed::Testbed,
};

const PRODUCER: &str = "producer";

pub(crate) async fn measure(testbed: &mut Testbed, args: &LoopArgs) -> Result<Section> {
    let topic = testbed.create_topic("send", PARTITIONS).await?;
    let producer = testbed.start_producer(&topic, &[]).await?;
    let url = testbed.database_url()?;
    let no_kafka = testbed.start_limit(&["send"], &[("DATABASE_URL", &url)]).await?;
    let requests = USERS.map(|(id, _)| send_request(id, MESSAGE));
    let records = records::encode_for_migrated_users()?;
    let comparison = Comparison {
        name: "send",
        request: "POST /send",
        unit: "sends/s",
        parties: &[PRODUCER, "the same handler without Kafka", "bare rdkafka loop"],
    };
    let measuring =
        comparison.measure(&testbed.options, args, async |party, profile| match party {
            0 => send_load(&producer, &requests, profile).await,
            1 => send_load(&no_kafka, &requests, profile).await,
            _ => testbed.kafka.run_append_loop(&topic, &records, profile).await,
        });
    let section = measuring.await?;

    let [subject, no_kafka, bare] = section.parties.as_slice() else {
        return Err("three parties were measured".into());
    };
    // The slower limit has the aim: no service can be faster. The other is shown for comparison.
    let no_kafka_is_slower = no_kafka.value.median <= bare.value.median;
    let ratio = |limit: &Party, is_slower: bool| {
        let suffix = if is_slower { " (the slower limit)" } else { "" };
        let name = format!("{PRODUCER} / {}{suffix}", limit.name);
        Ratio::new(&name, subject, limit, is_slower.then_some(Aim::AtLeast(0.70)))
    };
    let ratios = vec![ratio(no_kafka, no_kafka_is_slower)?, ratio(bare, !no_kafka_is_slower)?];
    Ok(Section {
        title: format!("POST /send, acks=all, {} connections, closed loop", args.load.connections),
        ratios,
        notes: vec![
            "Both servers are processes of their own; the load generator is a thread of another. The bare loop \
             needs neither server nor load generator, which leaves it and the broker more of the processors."
                .into(),
            OPEN_LOOP_NOTE.into(),
            "Four recipients, so four of twelve partitions at most, for all parties alike.".into(),
        ],
        ..section
    })
}
