pwd; pwd -P; echo "$PWD ${OLDPWD-unset} $HOME ~"
cd /tmp && pwd && cd - && cd && pwd
ls -A
readlink /proc/self/cwd
[[ -w . && -w /tmp ]] && echo writable
mktemp -u | sed 's/\..*//'
ls -ld . run.sh lib.sh | cut -c1-10
