# Most of its programs are scripts that start one of the runtime's, with paths in them.
for file in "$out"/bin/* "$out/etc/mono/config"; do
  if ! is_elf "$file"; then sed -i "s|/usr/bin/|$out/bin/|g; s|/usr/lib/|$out/lib/|g" "$file"; fi
done
