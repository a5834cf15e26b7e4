exec ./roll "$@"
