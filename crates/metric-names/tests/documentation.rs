//! What is written for people names the metrics that there are.

use metric_names::ALL;

const README: &str = include_str!("../../../README.md");
const README_RU: &str = include_str!("../../../README.ru.md");

#[test]
fn both_readmes_name_every_metric_and_no_other() {
    for text in [README, README_RU] {
        // The names, as they stand between backticks.
        let words: Vec<_> = text.split('`').collect();
        for metric in ALL {
            assert!(words.contains(&metric.name), "{} is not described", metric.name);
        }
        for word in words {
            let like_a_name = word.bytes().all(|b| b.is_ascii_lowercase() || b == b'_');
            if like_a_name && (word.starts_with("notifications_") || word.starts_with("process_")) {
                assert!(ALL.iter().any(|metric| metric.name == word), "there is no {word}");
            }
        }
    }
}
