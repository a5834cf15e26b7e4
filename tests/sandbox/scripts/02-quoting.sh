a='single $HOME `id`'; b="double \"$((1 + 1))\" \\ \$x"; c=$'ansi\ttab\x41\u00e9'
printf '<%s>\n' "$a" "$b" "$c" a\ b "" '' "$@"
echo $a
echo "${a//single/plural}" "${b:0:6}" "${c@Q}" "${#c}"
echo "$#: $0"
for word; do printf '[%s]' "$word"; done; echo
shift; echo "$1" "${*: -1}" "${@:2}"
set -- a b c; echo "$*" "$#"
while getopts ab:c option -a -b value -x; do echo "$option ${OPTARG-}"; done
