"""Makes manual pages and completions for contrib/packaging/man, from the sources of --help and from the spec."""
