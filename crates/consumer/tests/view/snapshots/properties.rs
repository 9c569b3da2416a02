//! Generated logs: every snapshot of them restores the same view, every damaged one is rejected.

use super::*;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_snapshot_in_steps_and_the_records_after_it_give_the_same_view_as_the_whole_log(
        contents in vec((content(), 0..3_i64), 0..80),
        first in 0..60_usize,
        steps in vec((1..3_usize, 0..8_usize), 0..5),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = build_log(&contents, Timestamp::now());
        let last = end_offsets(&log)[0];
        runtime().block_on(async {
            let manager = manager(&folder, LIMITS);
            let bytes = write_in_steps(&mut new_bench(&manager), &log, first.min(log.len()), &steps);
            fs::write(manager.store.file_path(0), bytes).expect("a file");
            manager.load_all().await;

            let mut whole = Bench::new(LIMITS);
            let outcomes = replay_all(&log, &mut whole);
            let mut restored = new_bench(&manager);
            let resumed = resume(&log, &mut restored);
            prop_assert_eq!(read_everything(&restored, last).await, read_everything(&whole, last).await);
            for (index, outcome) in resumed {
                prop_assert_eq!(&outcome, &outcomes[index], "record {}", index);
            }
            // A snapshot of the restored view restores the same again.
            restored.notifications.on_revoked(0);
            manager.finish_writes(DEADLINE).await;
            manager.load_all().await;
            let mut again = new_bench(&manager);
            prop_assert!(resume(&log, &mut again).is_empty());
            prop_assert_eq!(read_everything(&again, last).await, read_everything(&whole, last).await);
            Ok(())
        })?;
    }

    #[test]
    fn a_changed_cut_or_continued_file_is_rejected(
        contents in vec((content(), 0..3_i64), 0..40),
        at in any::<prop::sample::Index>(),
        bit in 0..8_u8,
        more in vec(any::<u8>(), 1..20),
    ) {
        let folder = tempfile::tempdir().expect("a folder");
        let log = build_log(&contents, Timestamp::now());
        let _guard = runtime();
        let _in_it = _guard.enter();
        let manager = manager(&folder, LIMITS);
        let whole = write_in_steps(&mut new_bench(&manager), &log, log.len() / 2, &[(1, 3), (1, 3)]);
        let key = snapshot_key(1, LIMITS);
        prop_assert!(read_snapshot(&*whole, &key, 0).is_ok());

        let index = at.index(whole.len());
        let mut changed = whole.clone();
        changed[index] ^= 1 << bit;
        prop_assert!(read_snapshot(&*changed, &key, 0).is_err(), "byte {}", index);
        prop_assert!(read_snapshot(&whole[..index], &key, 0).is_err(), "cut at {}", index);
        let continued = [&*whole, &*more].concat();
        prop_assert!(read_snapshot(&*continued, &key, 0).is_err());
    }
}
