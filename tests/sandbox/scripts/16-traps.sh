trap 'echo "exit $?"' EXIT
trap 'echo usr1' USR1
trap 'echo "err at $LINENO"' ERR
kill -USR1 $$
false
trap -p
(trap - EXIT; exit 3); echo $?
trap '' TERM; kill -TERM $$; echo alive
exit 5
