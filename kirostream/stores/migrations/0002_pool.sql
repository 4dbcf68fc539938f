-- How accounts are, and who uses them now. Times are unix seconds.
CREATE TABLE pool_accounts (
    account TEXT PRIMARY KEY,
    version INTEGER NOT NULL UNIQUE, -- grows with every change of any account
    state TEXT NOT NULL,
    until REAL NOT NULL,             -- when a pause ends, 0 without one
    failures INTEGER NOT NULL,
    pauses INTEGER NOT NULL,
    why TEXT NOT NULL,
    since REAL NOT NULL,
    resets_at REAL NOT NULL,         -- of the quota, 0 where it is not known
    blocked TEXT NOT NULL            -- JSON: [[model, until], ...]
);
CREATE TABLE pool_leases (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    account TEXT NOT NULL,
    until REAL NOT NULL              -- when it lapses, if nobody renews it
);
CREATE INDEX pool_leases_by_account ON pool_leases (account, until);
CREATE TABLE pool_pace (
    account TEXT PRIMARY KEY,
    next_at REAL NOT NULL            -- no lease begins before
);
