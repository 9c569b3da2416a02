//! Looks for damage in a write-ahead log before SQLite opens it. SQLite takes the first frame with
//! a wrong checksum for the end, as it must after a crash, and says nothing of what follows
//! (<https://www.sqlite.org/fileformat2.html#the_write_ahead_log>).

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
};

const HEADER_BYTES: usize = 32;
const FRAME_HEADER_BYTES: usize = 24;
/// Its last bit says in which byte order checksums are computed.
const MAGIC: u32 = 0x377f_0682;
const MAX_PAGE_BYTES: u32 = 1 << 16;

/// Transactions behind a frame with a wrong checksum.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct WalDamage {
    /// Number of the frame, from 1; 0 is the log's header.
    frame: u64,
    /// Transactions that were complete, and that SQLite does not read. At least 2.
    lost: u64,
}

/// Says so and keeps a copy if the write-ahead log of this file is damaged: SQLite is about to
/// overwrite it.
pub(super) fn report_damage(path: &Path) {
    let wal = beside(path, "-wal");
    let damage = match find_damage(&wal) {
        Ok(Some(damage)) => damage,
        Ok(None) => return,
        Err(error) => {
            tracing::debug!(file = %wal.display(), %error, "cannot check the write-ahead log");
            return;
        }
    };
    let copy = beside(path, "-wal.damaged");
    let copied = fs::copy(&wal, &copy).is_ok();
    tracing::error!(
        file = %wal.display(), wal.frame = damage.frame, transactions = damage.lost,
        copy = copied.then(|| tracing::field::display(copy.display())),
        "the write-ahead log is damaged: the disk has changed a part that was written whole. The \
         transactions after it are lost, with acknowledged notifications in them. To have them \
         back, stop and restore the folder from a copy; check the disk",
    );
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(ending);
    name.into()
}

/// Finds a frame that was damaged after it was written. A crash may tear the last transaction, and
/// only that: each is flushed before the next is written. So there is damage if at least two whole
/// transactions follow the first wrong frame.
fn find_damage(wal: &Path) -> io::Result<Option<WalDamage>> {
    let file = match File::open(wal) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file?,
    };
    let mut file = BufReader::with_capacity(1 << 16, file);
    let mut header = [0; HEADER_BYTES];
    if !read_whole(&mut file, &mut header)? {
        return Ok(None);
    }
    let (magic, page_bytes) = (number_at(&header, 0), number_at(&header, 8));
    if magic & !1 != MAGIC || page_bytes == 0 || page_bytes > MAX_PAGE_BYTES {
        return Ok(None);
    }
    let is_big_endian = magic & 1 == 1;
    let add = |sum, bytes: &[u8]| add_checksum(sum, bytes, is_big_endian);
    let mut sum = add([0, 0], &header[..24]);
    let mut first_wrong = (sum != checksum_at(&header, 24)).then_some(0);
    sum = checksum_at(&header, 24);

    let mut frame = vec![0; FRAME_HEADER_BYTES + page_bytes as usize];
    let (mut number, mut lost) = (0, 0);
    while read_whole(&mut file, &mut frame)? {
        number += 1;
        // Frames with other salts are left over from before the log was begun again.
        if frame[8..16] != header[16..24] {
            break;
        }
        let computed = add(add(sum, &frame[..8]), &frame[FRAME_HEADER_BYTES..]);
        sum = checksum_at(&frame, 16);
        let is_commit = number_at(&frame, 4) != 0;
        match (first_wrong, computed == sum) {
            (None, true) => {}
            (None, false) => first_wrong = Some(number),
            // Written after the wrong one, and whole.
            (Some(_), true) => lost += u64::from(is_commit),
            (Some(_), false) => {}
        }
    }
    Ok(first_wrong.filter(|_| lost >= 2).map(|frame| WalDamage { frame, lost }))
}

/// Returns false at the end of the file.
fn read_whole(file: &mut impl Read, bytes: &mut [u8]) -> io::Result<bool> {
    match file.read_exact(bytes) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        read => read.map(|()| true),
    }
}

fn number_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |four| u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

fn checksum_at(bytes: &[u8], at: usize) -> [u32; 2] {
    [number_at(bytes, at), number_at(bytes, at + 4)]
}

/// Section 4.2 of SQLite's file format.
fn add_checksum([mut one, mut two]: [u32; 2], bytes: &[u8], is_big_endian: bool) -> [u32; 2] {
    for at in (0..bytes.len()).step_by(8) {
        let word = |at| {
            let word = number_at(bytes, at);
            if is_big_endian { word } else { word.swap_bytes() }
        };
        one = one.wrapping_add(word(at)).wrapping_add(two);
        two = two.wrapping_add(word(at + 4)).wrapping_add(one);
    }
    [one, two]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{NewRecord, Topic, embedded::Embedded, topic::Cleanup};
    use std::time::Duration;

    const SENT: usize = 40;

    /// A copy of a log in use, with a transaction for each record in its write-ahead log.
    async fn crashed_log(folder: &Path) -> PathBuf {
        let path = folder.join("in-use").join("log.db");
        let log = Embedded::open(&path).await.expect("the log opens");
        let cleanup = Cleanup::After(Duration::from_secs(3600));
        let topic = Topic { name: "t".into(), partitions: 1, replication: 1, cleanup };
        log.ensure_topics(&[topic]).await.expect("a topic");
        for n in 0..SENT {
            let value = n.to_string().into_bytes();
            let record = NewRecord { partition: 0, key: b"1".into(), value, headers: Vec::new() };
            log.writer().append("t", record).expect("queued").await.expect("acknowledged");
        }
        let copy = folder.join("log.db");
        for ending in ["", "-wal"] {
            fs::copy(beside(&path, ending), beside(&copy, ending)).expect("a copy");
        }
        log.close().await;
        copy
    }

    fn change_wal(path: &Path, change: impl FnOnce(&mut Vec<u8>)) {
        let wal = beside(path, "-wal");
        let mut bytes = fs::read(&wal).expect("the log");
        change(&mut bytes);
        fs::write(wal, bytes).expect("written");
    }

    #[tokio::test]
    async fn a_write_ahead_log_that_is_whole_or_torn_at_its_end_is_not_called_damaged() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = crashed_log(folder.path()).await;
        let wal = beside(&path, "-wal");
        assert_eq!(find_damage(&wal).expect("read"), None);
        // A crash while the last frame was written.
        change_wal(&path, |bytes| {
            let end = bytes.len();
            bytes[end - 100..].fill(0);
        });
        assert_eq!(find_damage(&wal).expect("read"), None);
        change_wal(&path, |bytes| bytes.truncate(bytes.len() - 100));
        assert_eq!(find_damage(&wal).expect("read"), None);
        for length in [HEADER_BYTES + 1, HEADER_BYTES, 10, 0] {
            let wal = beside(&path, "-wal");
            let bytes = fs::read(&wal).expect("the log");
            fs::write(&wal, &bytes[..length.min(bytes.len())]).expect("written");
            assert_eq!(find_damage(&wal).expect("read"), None);
        }
        assert_eq!(find_damage(&folder.path().join("missing")).expect("read"), None);
    }

    #[tokio::test]
    async fn damage_in_the_middle_is_found_and_the_damaged_log_is_kept() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = crashed_log(folder.path()).await;
        change_wal(&path, |bytes| {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
        });
        let damage = find_damage(&beside(&path, "-wal")).expect("read").expect("damage");
        assert!(damage.frame > 1 && damage.lost > 2, "{damage:?}");
        Embedded::open(&path).await.expect("the log opens, without its end").close().await;
        assert!(beside(&path, "-wal.damaged").exists());
    }

    #[tokio::test]
    async fn a_damaged_header_loses_the_whole_log_and_is_found() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = crashed_log(folder.path()).await;
        // The checkpoint's number: only the header's own checksum covers it.
        change_wal(&path, |bytes| bytes[15] ^= 1);
        let damage = find_damage(&beside(&path, "-wal")).expect("read").expect("damage");
        assert!(damage.frame == 0 && damage.lost > SENT as u64 / 2, "{damage:?}");
    }
}
