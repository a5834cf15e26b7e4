# The compiler's own database of packages, with the places where they are here; Debian has it below /var.
for file in $(find "$out" -name '*.conf' -path '*package.conf.d*' -type f); do
  sed -i "s|/usr/lib/|$out/lib/|g; s|/usr/share/|$out/share/|g; s|/usr/include|$out/include|g; s|/var/lib/|$out/var/lib/|g; s|$out/lib/$triplet|$out/lib|g" "$file"
done
for file in $(find "$out/bin" "$out/lib" -name settings -o -type f -path "$out/bin/*"); do
  if [ "$(head -c 4 "$file" | tr -d '\0')" != "$magic_elf" ]; then sed -i "s|\"/usr/lib|\"$out/lib|g; s|=/usr/lib|=$out/lib|g; s|=\"/usr|=\"$out|g; s|/var/lib/ghc|$out/var/lib/ghc|g" "$file"; fi
done
"$out/bin/ghc-pkg" recache
# It calls gcc by Debian's name for it.
for tool in gcc ld ar ranlib; do ln -s "${brings%% *}/bin/$tool" "$out/bin/$triplet-$tool"; done
