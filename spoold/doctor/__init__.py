"""What a host lacks, and how to mend it: the checks behind `spoolctl doctor`. Nothing here changes anything."""
