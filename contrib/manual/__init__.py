"""What contrib/man makes: manual pages and shell completions, from the sources that --help and the spec have."""
