//! What notifications cost a consumer at several sizes: to be read at its start, to be kept, and to
//! be asked for.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    Result,
    connection::get,
    effort::Effort,
    figures::{Sample, Spread},
    fill::{Filled, Shape},
    load::Load,
    memory::SETTLE,
    records,
    report::Section,
    rounds::alternate,
    site::Site,
};

use super::costs::{Cost, Costs, Work};

/// Whose inboxes are read.
const READ: u64 = 64;
/// Over so many connections.
const CONNECTIONS: usize = 16;
/// Newest entries that an inbox keeps by default.
const KEPT: u64 = 1000;

/// Sizes to measure at.
#[derive(Debug)]
pub(super) struct Dimension {
    pub(super) name: &'static str,
    pub(super) title: String,
    pub(super) of: &'static str,
    pub(super) work: Work,
    pub(super) steps: Vec<Step>,
}

/// One of them.
#[derive(Debug)]
pub(super) struct Step {
    pub(super) size: u64,
    pub(super) shape: Shape,
}

/// What one start showed.
#[derive(Debug)]
struct Start {
    took: f64,
    memory: f64,
    /// None of an empty topic.
    read: Option<Sample>,
}

/// What all starts at one size showed.
#[derive(Debug)]
struct Stored {
    start: f64,
    rebuild: Option<f64>,
    memory: f64,
    read_p50: Option<f64>,
    read_cpu: Option<f64>,
}

impl Dimension {
    /// Measures at every size.
    pub(super) async fn measure(self, site: &mut Site) -> Result<Section> {
        let (mut sizes, mut all) = (Vec::new(), Vec::new());
        for Step { size, shape } in &self.steps {
            sizes.push(number(*size));
            all.push((*shape, stored(site, &format!("{} {size}", self.name), *shape).await?));
        }
        let cost = |name: &str, figure: &dyn Fn(&Shape, &Stored) -> Option<f64>| Cost {
            name: name.to_owned(),
            each: all.iter().map(|(shape, stored)| figure(shape, stored)).collect(),
        };
        let each =
            |shape: &Shape, stored: &Stored| Some(stored.rebuild? * 1e6 / number(shape.records));
        Ok(Costs {
            name: self.name,
            title: self.title,
            of: self.of,
            work: self.work,
            sizes,
            costs: vec![
                cost("rebuild, µs a record", &each),
                cost("memory, bytes a notification", &|shape, stored| {
                    Some(stored.memory / number(kept(shape)))
                }),
                cost("processor time of a read, µs", &|_, stored| stored.read_cpu),
            ],
            beside: vec![
                cost("rebuild, s", &|_, stored| stored.rebuild),
                cost("records/s", &|shape, stored| Some(number(shape.records) / stored.rebuild?)),
                cost("start on an empty topic, s", &|_, stored| Some(stored.start)),
                cost("a read's p50, ms", &|_, stored| stored.read_p50),
            ],
            notes: vec![format!(
                "Medians. A rebuild is a start less one on an empty topic, and is left out where the starts differ \
                 by more; memory is what the process has beyond one on an empty topic, by notifications that are \
                 kept: {KEPT} for each user. A read asks for the newest entry, over {CONNECTIONS} connections."
            )],
        }
        .section())
    }
}

async fn stored(site: &mut Site, what: &str, shape: Shape) -> Result<Stored> {
    let filled = Filled::of(site, shape).await?;
    let mut requests = Vec::new();
    for index in 0..READ.min(shape.users) {
        let user = records::somebody(index * shape.users / READ.min(shape.users))?;
        requests.push(get(&format!("/notifications/{}?limit=1", user.id)));
    }
    let round = Duration::from_secs(if site.options.quick { 1 } else { 3 });
    let effort = Effort { connections: CONNECTIONS, round, rate: None };
    let show =
        |start: &Start| format!("{:.2} s, {:.1} MiB", start.took, start.memory / 1_048_576.0);
    let parties = ["full topic", "empty topic"];
    let starts = alternate(what, site.options.short_rounds(), &parties, show, async |party| {
        let (topic, records) = [(&filled.full, filled.records), (&filled.empty, 0)][party];
        let mut consumer = site.consumer(topic)?;
        let took = consumer.live(records).await?.took().as_secs_f64();
        sleep(SETTLE).await;
        let memory = number(consumer.memory()?);
        let read =
            if party == 0 { Some(Load::round(&consumer, &requests, &effort).await?) } else { None };
        Ok(Start { took, memory, read })
    });
    let starts = starts.await?;
    site.remove(&filled.full).await?;
    site.remove(&filled.empty).await?;

    let spread = |party: usize, figure: &dyn Fn(&Start) -> f64| {
        Spread::of(starts[party].iter().map(figure)).ok_or("no round was measured")
    };
    let (full, empty) = (spread(0, &|start| start.took)?, spread(1, &|start| start.took)?);
    let rebuild = full.median - empty.median;
    let read = |figure: fn(&Sample) -> Option<f64>| {
        let samples = starts[0].iter().filter_map(|start| start.read.as_ref());
        Spread::of(samples.filter_map(figure)).map(|spread| spread.median)
    };
    Ok(Stored {
        start: empty.median,
        rebuild: (rebuild > empty.max - empty.min).then_some(rebuild),
        memory: spread(0, &|start| start.memory)?.median - spread(1, &|start| start.memory)?.median,
        read_p50: read(|sample| sample.p50_ms),
        read_cpu: read(|sample| sample.cpu_us),
    })
}

fn kept(shape: &Shape) -> u64 {
    shape.records.min(shape.users * KEPT)
}

#[allow(clippy::cast_precision_loss)] // far below 2⁵²
fn number(count: u64) -> f64 {
    count as f64
}
