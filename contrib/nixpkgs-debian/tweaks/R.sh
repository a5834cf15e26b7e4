# R is a script that says where it is, and calls tools by Debian's places for them.
for file in "$out/bin/R" "$out/lib/R/bin/R"; do
  if [ -f "$file" ]; then
    sed -i "s|/usr/lib/R|$out/lib/R|g; s|/usr/share/R|$out/share/R|g; s|/usr/include/R|$out/include/R|g; s|/bin/sed|sed|" \
      "$file"
  fi
done
[ -e "$out/etc/R/Renviron" ] || cp "$out/lib/R/etc/Renviron.ucf" "$out/etc/R/Renviron"
ln -sf "$out/etc/R/Renviron" "$out/lib/R/etc/Renviron"
sed -i "s|'/usr/bin/|'|; s|'/bin/|'|; s|/usr/lib/R|$out/lib/R|g" "$out/etc/R/Renviron"
sed -i "s|/usr/|$out/|g" "$out/etc/R/ldpaths"
# It has the place of "which" compiled in, and asks a shell for it, which redirect.c does not reach.
profile=$out/lib/R/library/base/R/Rprofile
{
  echo 'local({'
  echo '    found <- eval(parse(text = sub("/usr/bin/which", "command -v", deparse(Sys.which), fixed = TRUE)), baseenv())'
  echo '    unlockBinding("Sys.which", baseenv())'
  echo '    assign("Sys.which", found, envir = baseenv())'
  echo '    lockBinding("Sys.which", baseenv())'
  echo '})'
  cat "$profile"
} > "$TMPDIR/profile"
cp "$TMPDIR/profile" "$profile"
