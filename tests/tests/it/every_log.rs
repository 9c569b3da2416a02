//! Tests that run on every kind of log.

mod seed;
mod problems;
mod restart;
mod snapshots;
mod foreign;
mod reading;
mod receipts;
mod live;
mod epochs;
mod publishing;
mod metrics;

/// Declares the tests for each kind of log.
macro_rules! on_every_log {
    ($($test:path as $name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { $test(e2e::World::embedded().await).await; })*
        }
        mod mock {
            $(#[tokio::test(flavor = "multi_thread")] async fn $name() { $test(e2e::World::mock().await).await; })*
        }
        mod real {
            $(#[tokio::test(flavor = "multi_thread")] #[ignore = "needs Kafka and PostgreSQL: task test:real"]
              async fn $name() { $test(e2e::World::real().await).await; })*
        }
    };
}

on_every_log! {
    super::seed::three_sends_and_two_reads as the_three_sends_and_two_reads_of_the_tutorial,
    super::seed::several_recipients as one_send_reaches_several_recipients,
    super::seed::nothing_yet as a_user_with_nothing_is_told_so,
    super::problems::every_row as every_wrong_request_is_told_what_is_wrong,
    super::restart::consumer as a_restarted_consumer_still_has_every_notification,
    super::snapshots::restart as a_restart_with_snapshots_shows_the_same_and_reads_only_what_came_since,
    super::snapshots::damaged as a_snapshot_that_is_damaged_or_of_other_limits_is_not_used,
    super::snapshots::another_log as a_snapshot_of_another_log_shows_nothing_of_it,
    super::snapshots::now_and_then as a_snapshot_of_a_live_partition_is_continued_by_the_next_process,
    super::restart::producer as a_restarted_producer_goes_on,
    super::foreign::tutorial_record as a_record_as_the_tutorial_writes_it_is_shown,
    super::foreign::poison as a_poison_record_stops_nothing,
    super::foreign::misplaced as a_record_in_the_wrong_partition_is_still_shown_to_its_recipient,
    super::reading::since_and_filters as an_inbox_is_read_in_parts,
    super::reading::at_least as what_was_sent_is_what_is_seen,
    super::reading::etag as an_unchanged_inbox_is_not_sent_again,
    super::reading::long_poll as a_waiting_reader_is_answered_when_something_comes,
    super::epochs::another_log as a_cursor_of_another_log_is_a_gap_and_marks_and_proves_nothing,
    super::epochs::restart as a_restart_changes_no_cursor_and_no_etag,
    super::receipts::read_and_dismissed as what_a_recipient_does_lasts,
    super::live::missed_then_new as a_stream_tells_what_was_missed_and_then_what_comes,
    super::live::devices_agree as several_devices_agree_on_what_is_read,
    super::live::gaps_are_said as what_is_missing_from_a_stream_is_said,
    super::live::no_seam as readers_who_come_and_go_see_everything_once_and_in_order,
    super::live::restart as a_stream_ends_in_good_order_and_goes_on_after_a_restart,
    super::live::slow_reader as a_slow_reader_gets_a_gap_and_slows_nobody,
    super::live::bounds as live_streams_are_bounded_and_kept_alive,
    super::live::refusals as a_wrong_stream_request_is_told_what_is_wrong,
    super::publishing::retry as a_retry_with_the_same_key_is_the_same_notification_and_shown_once,
    super::publishing::reused_key as a_key_that_was_used_for_something_else_is_refused,
    super::publishing::content as a_category_a_link_and_data_reach_the_recipient,
    super::publishing::bulk as a_bulk_is_answered_line_by_line_in_order,
    super::publishing::large_bulk as a_bulk_larger_than_every_limit_arrives_in_order,
    super::publishing::many as a_send_to_thousands_reaches_each_of_them,
    super::publishing::users as users_are_listed_shown_written_and_removed,
    super::publishing::cors as only_pages_of_named_origins_may_send,
    super::metrics::counted as metrics_say_what_happened,
    super::metrics::rebuilt as metrics_say_that_a_partition_was_rebuilt,
    super::metrics::described as metrics_are_in_the_description,
    super::publishing::rate_limit as a_sender_who_sends_too_much_is_told_when_to_come_again,
    super::foreign::order as one_sender_s_notifications_stay_in_order,
}
