# What Debian's phpenmod does: every extension that is here is used, in the order of the priorities in the files.
program=$(ls "$out"/bin/php[0-9].[0-9] | head -n 1)
version=${program##*/php}
configuration=$out/etc/php/$version/cli
mkdir -p "$configuration/conf.d"
for file in "$out"/share/php"$version"-*/*/*.ini; do
  priority=$(sed -n 's/^; *priority=//p' "$file" | head -n 1)
  ln -s "$file" "$configuration/conf.d/${priority:-20}-${file##*/}"
done
[ -e "$configuration/php.ini" ] || cp "$out/lib/php/$version/php.ini-production.cli" "$configuration/php.ini"
