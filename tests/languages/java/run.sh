exec java Main "$@"
