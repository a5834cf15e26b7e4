[[ $EPOCHSECONDS -gt 1700000000 && $(date +%s) -ge $EPOCHSECONDS ]] && echo "a clock"
date -u -d @0 +%FT%TZ; date -d @86400 +%Z
RANDOM=42; a=$RANDOM; RANDOM=42; ((a == RANDOM)) && echo "the same"
TIMEFORMAT=; time true
printf '%(%Y)T\n' 0
alias greet='echo hello'; greet 2>/dev/null || echo "aliases are not expanded"
shopt -s expand_aliases
greet
unalias greet; type -t greet || echo none
history | wc -l; echo "${HISTSIZE-none}"; fc -l 2>/dev/null; echo $?
set -o history; echo !!
