home=$(find "$out/lib/jvm" -path '*/bin/javac' -type f | head -n 1)
[ -n "$home" ] || die "there is no javac"
home=${home%/bin/javac}
mkdir -p "$out/bin" "$out/nix-support"
for program in "$home"/bin/*; do ln -sf "$program" "$out/bin/${program##*/}"; done
echo "export JAVA_HOME=$home" > "$out/nix-support/setup-hook"
# The archive of classes that Debian makes when it installs: half of the time of a start.
"$home/bin/java" -Xshare:dump > "$TMPDIR/dump" 2>&1 || die "java does not work: $(tail -n 5 "$TMPDIR/dump")"
