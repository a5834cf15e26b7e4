# What most programs can do without, and is more than half of the size: link time optimisation
# (-flto) and the static sanitizers.
find "$out" -type f \( -name 'lto*' -o -name 'lib*san*.a' -o -name '*-lto-dump*' \) -exec rm -f {} +
find "$out/bin" -name '*lto-dump*' -exec rm -f {} +
