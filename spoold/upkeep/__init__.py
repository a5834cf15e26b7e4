"""Keeps a spool in order: what is removed, what is asked for, who is present. The daemons and `spoolctl` use it."""
