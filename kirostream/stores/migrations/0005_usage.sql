-- A row a turn, and what they add up to in an hour and a day, so that a sum reads single rows of an hour or two at most.
CREATE TABLE usage (
    id INTEGER PRIMARY KEY,         -- grows with time
    at REAL NOT NULL,               -- when it was over, unix seconds
    day INTEGER NOT NULL,           -- the date on the gateway's wall then, as days since 0001-01-01, which is day 1
    turn TEXT NOT NULL,
    key TEXT NOT NULL,              -- the name of the client's key
    dialect TEXT NOT NULL,
    model_asked TEXT NOT NULL,      -- as the client wrote it
    model TEXT NOT NULL,            -- who answered
    account TEXT NOT NULL,          -- its id, '' where none was asked
    input_tokens INTEGER NOT NULL,  -- the whole prompt, cached parts too
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    credits REAL,                   -- NULL where the upstream did not say
    first_token REAL,               -- seconds until it, NULL where none came
    seconds REAL NOT NULL,
    attempts INTEGER NOT NULL,
    outcome TEXT NOT NULL,          -- a stop reason, 'failed' or 'left'
    error TEXT NOT NULL             -- its kind, '' without one
);
CREATE INDEX usage_by_time ON usage (at);
CREATE TABLE usage_accounts (
    account TEXT PRIMARY KEY,
    label TEXT NOT NULL             -- masked, as it was called last
) WITHOUT ROWID;
CREATE TABLE usage_hours (
    day INTEGER NOT NULL,
    hour INTEGER NOT NULL,          -- unix seconds / 3600
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    account TEXT NOT NULL,
    turns INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    abandoned INTEGER NOT NULL,     -- their clients left
    attempts INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    credits REAL NOT NULL,
    seconds REAL NOT NULL,
    begun INTEGER NOT NULL,         -- turns that a first token came of
    first_token REAL NOT NULL,      -- their seconds until it
    streamed REAL NOT NULL,         -- their seconds from it on
    PRIMARY KEY (day, hour, key, model, account)
) WITHOUT ROWID;
CREATE TABLE usage_days (
    day INTEGER NOT NULL,
    key TEXT NOT NULL,
    model TEXT NOT NULL,
    account TEXT NOT NULL,
    turns INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    abandoned INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    credits REAL NOT NULL,
    seconds REAL NOT NULL,
    begun INTEGER NOT NULL,
    first_token REAL NOT NULL,
    streamed REAL NOT NULL,
    PRIMARY KEY (day, key, model, account)
) WITHOUT ROWID;
CREATE TABLE usage_days_by (          -- the same by one of the three alone: far fewer rows, for questions about all turns
    dimension TEXT NOT NULL,        -- 'key', 'model' or 'account'
    name TEXT NOT NULL,
    day INTEGER NOT NULL,
    turns INTEGER NOT NULL,
    failed INTEGER NOT NULL,
    abandoned INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    input_tokens INTEGER NOT NULL,
    output_tokens INTEGER NOT NULL,
    cache_read_tokens INTEGER NOT NULL,
    cache_write_tokens INTEGER NOT NULL,
    credits REAL NOT NULL,
    seconds REAL NOT NULL,
    begun INTEGER NOT NULL,
    first_token REAL NOT NULL,
    streamed REAL NOT NULL,
    PRIMARY KEY (dimension, name, day)
) WITHOUT ROWID;
