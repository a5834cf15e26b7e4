# Where the library has what, which Debian writes down when it installs.
"$out/bin/swipl" -q -g "make_library_index(swi(library))" -t halt < /dev/null
[ -e "$out/lib/swi-prolog/library/INDEX.pl" ] || die "the library has no index"
