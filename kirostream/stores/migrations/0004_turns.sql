-- Turns that can be replayed after a restart.
CREATE TABLE turns (
    id TEXT PRIMARY KEY,            -- 32 hex digits
    caller TEXT NOT NULL,           -- who asked; nobody else sees it
    created INTEGER NOT NULL,       -- unix seconds
    process INTEGER NOT NULL,       -- who writes it, while it runs
    over INTEGER NOT NULL,          -- 1 once it is whole or has failed
    size INTEGER NOT NULL,          -- bytes of its events, packed
    about TEXT NOT NULL             -- JSON: what writers need of the question
);
CREATE INDEX turns_by_age ON turns (created, id, size);
CREATE TABLE turn_events (
    turn TEXT NOT NULL,
    number INTEGER NOT NULL,        -- of the first event in the blob
    lines BLOB NOT NULL,            -- zlib over canonical JSON, a line an event
    PRIMARY KEY (turn, number)
) WITHOUT ROWID;
