"""The four actors. Strangers to each other: an entry moves between them on disk only."""
