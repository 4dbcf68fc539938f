-- Answers of the Responses API that clients may come back to. Blobs are zlib over JSON.
CREATE TABLE responses (
    id TEXT PRIMARY KEY,            -- resp_ and the turn
    caller TEXT NOT NULL,           -- who asked; nobody else sees it
    created INTEGER NOT NULL,       -- unix seconds
    previous TEXT NOT NULL,         -- the response before it, '' where it begins a conversation
    size INTEGER NOT NULL,          -- bytes of the three blobs
    response BLOB NOT NULL,         -- the response object, as its client got it
    input BLOB NOT NULL,            -- a list: the items this request brought
    output BLOB NOT NULL            -- a list: the items of the answer, thoughts sealed
);
CREATE INDEX responses_by_age ON responses (created, id, size);
