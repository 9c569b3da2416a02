//! Watermarks, asked for off the polling thread: the question blocks, and the poll must not.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::Duration,
};

use rdkafka::admin::AdminClient;

use super::context::ClientLog;
use crate::Extent;

const DEADLINE: Duration = Duration::from_secs(5);

/// An assignment of a partition; a later one of the same partition has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Assignment {
    pub(super) partition: i32,
    pub(super) number: u64,
}

/// Asks for the extents of partitions, on a thread of its own that ends with this.
pub(super) struct Extents {
    questions: Sender<Assignment>,
    answers: Receiver<(Assignment, Extent)>,
}

impl Extents {
    pub(super) fn start(admin: Arc<AdminClient<ClientLog>>, topic: String) -> std::io::Result<Self> {
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        std::thread::Builder::new()
            .name("kafka-extents".into())
            .spawn(move || serve(&admin, &topic, &asked, &answer))?;
        Ok(Self { questions, answers })
    }

    pub(super) fn ask(&self, assignment: Assignment) {
        // The thread ends after we do, so somebody listens.
        let _ = self.questions.send(assignment);
    }

    pub(super) fn answer(&self) -> Option<(Assignment, Extent)> {
        self.answers.try_recv().ok()
    }
}

fn serve(
    admin: &AdminClient<ClientLog>,
    topic: &str,
    asked: &Receiver<Assignment>,
    answer: &Sender<(Assignment, Extent)>,
) {
    let mut open = VecDeque::new();
    while let Ok(first) = asked.recv() {
        open.push_back(first);
        while let Some(assignment) = open.pop_front() {
            match admin.inner().fetch_watermarks(topic, assignment.partition, DEADLINE) {
                Ok((low, high)) => {
                    if answer.send((assignment, Extent { low, high })).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(
                        kafka.topic = topic, kafka.partition = assignment.partition, %error,
                        "no watermarks yet",
                    );
                    open.push_back(assignment);
                    std::thread::sleep(Duration::from_millis(200));
                }
            }
            // A newer assignment of a partition replaces what was open of it.
            loop {
                match asked.try_recv() {
                    Ok(newer) => {
                        open.retain(|older: &Assignment| older.partition != newer.partition);
                        open.push_back(newer);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}
