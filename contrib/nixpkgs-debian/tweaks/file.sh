magic=$(find "$out" -name magic.mgc -type f | head -n 1)
[ -n "$magic" ] || die "there is no magic.mgc"
wrap file "export MAGIC=\${MAGIC:-$magic}"
