# Of debianutils, only this.
mv "$out/bin/which.debianutils" "$TMPDIR/which"
rm -r "$out/bin"
mkdir "$out/bin"
mv "$TMPDIR/which" "$out/bin/which"
