"""The tables of the hub's metadata."""

SCHEMA = """
CREATE TABLE IF NOT EXISTS settings (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE COLLATE NOCASE,
    kind TEXT NOT NULL CHECK (kind IN ('user', 'org')),
    owner INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS members (
    org INTEGER NOT NULL REFERENCES people,
    user INTEGER NOT NULL REFERENCES people,
    role TEXT NOT NULL CHECK (role IN ('read', 'write', 'admin')),
    PRIMARY KEY (org, user)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS tokens (
    id INTEGER PRIMARY KEY,
    user INTEGER NOT NULL REFERENCES people,
    label TEXT NOT NULL,
    role TEXT NOT NULL CHECK (role IN ('read', 'write')),
    digest TEXT NOT NULL UNIQUE,
    created TEXT NOT NULL,
    expires TEXT
);

CREATE TABLE IF NOT EXISTS repos (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL CHECK (kind IN ('model', 'dataset', 'space')),
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL DEFAULT 0,
    gated TEXT CHECK (gated IN ('auto', 'manual')),
    sdk TEXT,
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (kind, namespace, name)
);
CREATE TABLE IF NOT EXISTS moves (
    kind TEXT NOT NULL,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    PRIMARY KEY (kind, namespace, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS refs (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    name TEXT NOT NULL,
    target TEXT NOT NULL,
    PRIMARY KEY (repo, name)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS commits (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    id TEXT NOT NULL,
    parent TEXT,
    tree TEXT NOT NULL,
    title TEXT NOT NULL,
    message TEXT NOT NULL,
    author TEXT NOT NULL,
    date TEXT NOT NULL,
    PRIMARY KEY (repo, id)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS trees (oid TEXT PRIMARY KEY, entries BLOB NOT NULL);

CREATE TABLE IF NOT EXISTS blobs (
    sha256 TEXT PRIMARY KEY,
    size INTEGER NOT NULL,
    pieces TEXT NOT NULL,
    touched REAL NOT NULL
) WITHOUT ROWID;
-- Which user has sent which content: what one may name in a commit without having read it in a repository.
CREATE TABLE IF NOT EXISTS sent (
    user INTEGER NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (user, sha256)
) WITHOUT ROWID;
-- Which repository has ever held which content.
CREATE TABLE IF NOT EXISTS holdings (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    sha256 TEXT NOT NULL,
    PRIMARY KEY (repo, sha256)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS holdings_by_content ON holdings (sha256);

-- Acknowledged xorbs are kept for ever: clients remember them and send later files as references to them.
CREATE TABLE IF NOT EXISTS xorbs (
    user INTEGER NOT NULL, hash TEXT NOT NULL, ends BLOB NOT NULL, PRIMARY KEY (user, hash)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS xet_files (
    user INTEGER NOT NULL, hash TEXT NOT NULL, sha256 TEXT NOT NULL, PRIMARY KEY (user, hash)
) WITHOUT ROWID;

CREATE TABLE IF NOT EXISTS access_requests (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    user INTEGER NOT NULL REFERENCES people,
    status TEXT NOT NULL CHECK (status IN ('pending', 'accepted', 'rejected')),
    date TEXT NOT NULL,
    PRIMARY KEY (repo, user)
) WITHOUT ROWID;

-- A secret has a name and a time but no value: this hub runs no Space, so the value is never needed again.
CREATE TABLE IF NOT EXISTS space_settings (
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    kind TEXT NOT NULL CHECK (kind IN ('variable', 'secret')),
    key TEXT NOT NULL,
    value TEXT CHECK (kind = 'variable' OR value IS NULL),
    description TEXT,
    updated TEXT NOT NULL,
    PRIMARY KEY (repo, kind, key)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS space_machines (
    repo INTEGER PRIMARY KEY REFERENCES repos ON DELETE CASCADE,
    hardware TEXT NOT NULL,
    sleep_seconds INTEGER
);

CREATE TABLE IF NOT EXISTS collections (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL COLLATE NOCASE,
    title TEXT NOT NULL,
    description TEXT,
    private INTEGER NOT NULL DEFAULT 0,
    theme TEXT NOT NULL DEFAULT 'blue',
    created TEXT NOT NULL,
    modified TEXT NOT NULL,
    UNIQUE (namespace, title)
);
CREATE TABLE IF NOT EXISTS collection_items (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    collection INTEGER NOT NULL REFERENCES collections ON DELETE CASCADE,
    repo INTEGER NOT NULL REFERENCES repos ON DELETE CASCADE,
    position INTEGER NOT NULL,
    note TEXT,
    UNIQUE (collection, repo)
);

CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY,
    namespace TEXT NOT NULL COLLATE NOCASE,
    spec TEXT NOT NULL,
    labels TEXT NOT NULL,
    stage TEXT NOT NULL,
    message TEXT,
    created TEXT NOT NULL,
    started TEXT,
    finished TEXT
);
CREATE TABLE IF NOT EXISTS buckets (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    namespace TEXT NOT NULL COLLATE NOCASE,
    name TEXT NOT NULL COLLATE NOCASE,
    private INTEGER NOT NULL DEFAULT 0,
    created TEXT NOT NULL,
    UNIQUE (namespace, name)
);
CREATE TABLE IF NOT EXISTS bucket_files (
    bucket INTEGER NOT NULL REFERENCES buckets ON DELETE CASCADE,
    path TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    xet_hash TEXT NOT NULL,
    mtime INTEGER NOT NULL,
    PRIMARY KEY (bucket, path)
) WITHOUT ROWID;
"""
"""SQL of all tables. Content is beside the database in blobs/ and xorbs/; a row is written only after its file."""
