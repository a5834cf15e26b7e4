cargo build --release --offline --quiet
