-- The epoch of each topic: a random number that tells this log from another one with the same topics,
-- such as that of a folder that was deleted and made anew.

ALTER TABLE topics ADD COLUMN epoch INTEGER NOT NULL DEFAULT 0;

UPDATE topics SET epoch = random() & 0xffffffff;

PRAGMA user_version = 2;
