"""What a host lacks, and what mends it: the looks behind `spoolctl doctor`. Nothing here changes anything."""
