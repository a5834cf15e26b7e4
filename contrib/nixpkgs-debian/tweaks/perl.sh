# Debian's @INC, which is compiled in, with the places where it is here.
include=
for place in $("$out/bin/perl" -e 'print join " ", grep m{^/usr/(lib|share)/}, @INC'); do
  place=$out/$(mapped "$place")
  if [ -d "$place" ]; then include=$include${include:+:}$place; fi
done
[ -n "$include" ] || die "nothing of perl's @INC is here"
wrap perl "export PERL5LIB=\${PERL5LIB:+\$PERL5LIB:}$include"
for name in "$out"/bin/perl5.*; do
  if [ -e "$name" ]; then ln -sf perl "$name"; fi
done
