echo "$0 ${BASH_SOURCE[0]} ${BASH_SOURCE[*]} ${#BASH_SOURCE[@]} ${FUNCNAME-none} $LINENO"
f() { echo "${FUNCNAME[*]} ${BASH_SOURCE[*]} ${BASH_LINENO[*]}"; caller 0; }; f
echo "${BASH_EXECUTION_STRING-unset} ${BASH_ARGV0} $BASH_SUBSHELL"
[[ -e $BASH && -x $BASH ]] && echo "${BASH##*/}"
