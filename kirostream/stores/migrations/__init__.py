"""Changes of the database's tables, in order: ``0001_<what>.sql`` and on. A released file is never edited."""
