"""What contrib/packaging/man makes: manual pages and completions, from the sources that --help and the spec have."""
