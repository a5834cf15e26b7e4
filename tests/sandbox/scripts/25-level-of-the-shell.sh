echo "$SHLVL"
bash -c 'echo $SHLVL'
(echo "$SHLVL $BASH_SUBSHELL")
env | grep ^SHLVL
