"""Remote code execution whose only interface is a directory (see spool-layout.md)."""
