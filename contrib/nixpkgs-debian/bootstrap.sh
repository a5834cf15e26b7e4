# Builder of the one package that the others are built with: patchelf, started through its own dynamic
# linker, since nothing has set its interpreter yet.  Run by busybox sh.
set -eu
mkdir -p "$TMPDIR/tools" "$TMPDIR/root" "$out/lib" "$out/bin"
"$busybox" --install -s "$TMPDIR/tools"
export PATH=$TMPDIR/tools
for source in $sources; do
  case $source in
    *.deb) dpkg-deb -x "$source" "$TMPDIR/root" ;;
    *) tar -xof "$source" -C "$TMPDIR/root" ;;
  esac
done
find "$TMPDIR/root" -name '*.so.*' ! -type d | while read -r file; do
  # A link that leads nowhere is absolute (/lib64/ld-linux...), and leads to one of the others.
  if [ -e "$file" ]; then cat "$file" > "$out/lib/${file##*/}"; fi
done
chmod +x "$out"/lib/*
cp "$TMPDIR/root/usr/bin/patchelf" "$out/bin/patchelf"
loader=$(ls "$out"/lib/ld-linux*.so.* | head -n 1)
"$loader" --library-path "$out/lib" "$out/bin/patchelf" --version
ln -s "$loader" "$out/loader"
