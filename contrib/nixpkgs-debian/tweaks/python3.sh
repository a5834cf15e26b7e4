rm -rf "$out"/lib/python3.*/test "$out/share/python3" "$out/etc/python3"
[ -e "$out/bin/python" ] || ln -s python3 "$out/bin/python"
# Imports of the standard library take three times as long without; "unchecked", since the store never
# changes, and the times of its files say nothing.  -B, or what compileall itself imports would be
# compiled on the way, with the times of this build in it.
for library in "$out"/lib/python3.*/; do
  PYTHONHASHSEED=0 "$out/bin/python3" -B -m compileall -f -q -j "$NIX_BUILD_CORES" --invalidation-mode unchecked-hash \
    "$library" || say "not everything in ${library#"$out/"} compiles"
done
