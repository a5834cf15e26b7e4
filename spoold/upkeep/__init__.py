"""What keeps a spool in order: what goes, what is asked for, who is present. The daemons and `spoolctl` use it."""
