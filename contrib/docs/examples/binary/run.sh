sha256sum all-bytes.dat
