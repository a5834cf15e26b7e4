exec target/release/roll "$@"
