library=$out/lib/python3/dist-packages
python=
modules=
for need in $needs; do
  if [ -x "$need/bin/python3" ]; then
    python=$need/bin/python3
  elif [ -d "$need/lib/python3/dist-packages" ]; then
    modules="$modules $need"
  fi
done
[ -n "$python" ] || die "it does not depend on python3"
if [ -d "$library" ]; then
  # Debian's pytz reads the system's time zones.
  zones=$(find_mapped share/zoneinfo) || zones=
  if [ -n "$zones" ]; then
    grep -r -l /usr/share/zoneinfo "$library" | while read -r file; do sed -i "s|/usr/share/zoneinfo|$zones|g" "$file"; done
  fi
  PYTHONHASHSEED=0 "$python" -B -m compileall -f -q -j "$NIX_BUILD_CORES" --invalidation-mode unchecked-hash \
    "$library" > /dev/null || say "not everything compiles"
fi
# setup.sh finds the modules of whatever is in a shell, and of what that brings.
if [ -n "$modules" ]; then
  mkdir -p "$out/nix-support"
  echo $modules > "$out/nix-support/propagated-build-inputs"
fi
