CREATE TABLE users (
    id   bigint PRIMARY KEY CHECK (id > 0),
    name text   NOT NULL CHECK (name <> '')
);

INSERT INTO users (id, name) VALUES (1, 'Emma'), (2, 'Bruno'), (3, 'Rick'), (4, 'Lena');
