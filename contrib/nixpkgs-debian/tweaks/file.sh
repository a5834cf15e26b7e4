magic=$(find "$out" $needs -name magic.mgc -type f | head -n 1)
[ -n "$magic" ] || die "no magic.mgc in libmagic-mgc"
wrap file "export MAGIC=\${MAGIC:-$magic}"
