"""The embedded engine: one SQLite file, one thread that writes."""
