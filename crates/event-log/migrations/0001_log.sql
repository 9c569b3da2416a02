-- The embedded log: which topics there are, and every record of theirs.

CREATE TABLE topics (
    id   INTEGER PRIMARY KEY,
    name TEXT    NOT NULL UNIQUE
) STRICT;

CREATE TABLE partitions (
    id           INTEGER PRIMARY KEY,
    topic_id     INTEGER NOT NULL REFERENCES topics (id),
    number       INTEGER NOT NULL,
    -- The first offset that may still be there; every one below was deleted. The next offset to
    -- be given is one beyond the last record, and never below this: so offsets go on even when no
    -- record is left, and an append does not touch this table.
    start_offset INTEGER NOT NULL DEFAULT 0,
    UNIQUE (topic_id, number)
) STRICT;

-- The place is partitions.id * 2^40 + offset. One integer, because SQLite keeps a table in the
-- order of its integer key and rows in its leaves only: a topic's records lie next to each other,
-- and a look-up passes few pages, however large the records are.
CREATE TABLE records (
    place     INTEGER PRIMARY KEY,
    -- Milliseconds since 1970. Before the large columns, so that retention does not read those.
    timestamp INTEGER NOT NULL,
    key       BLOB,
    -- Length, name, length, value, and so on; see src/embedded/headers.rs.
    headers   BLOB    NOT NULL,
    value     BLOB
) STRICT;

-- How far each group is in each partition: every record below was folded, or copied to the
-- dead-letter topic.
CREATE TABLE progress (
    group_name   TEXT    NOT NULL,
    partition_id INTEGER NOT NULL REFERENCES partitions (id),
    next_offset  INTEGER NOT NULL,
    PRIMARY KEY (group_name, partition_id)
) STRICT, WITHOUT ROWID;

-- For people with a SQLite shell.
CREATE VIEW log AS
SELECT topics.name AS topic,
       partitions.number AS partition,
       records.place & 0xffffffffff AS "offset",
       strftime('%Y-%m-%dT%H:%M:%fZ', records.timestamp / 1000.0, 'unixepoch') AS time,
       CAST(records.key AS TEXT) AS key,
       CAST(records.value AS TEXT) AS value
FROM records
JOIN partitions ON partitions.id = records.place >> 40
JOIN topics ON topics.id = partitions.topic_id;

-- "nlog", and the version that this file makes.
PRAGMA application_id = 0x6e6c6f67;
PRAGMA user_version = 1;
