# Enter the captured environment, then become the user's program.
#
#   bash --norc --noprofile enter.sh CAPTURE [NAME=VALUE]... ./run.sh [ARGUMENT]...
#
# CAPTURE is a store directory whose own enter.sh sets up what nix-shell would have, and runs the shellHook. The
# request's environment goes to env, after that: so it reaches the program literally, whatever the names are, and
# touches neither this shell nor the hook. All of it runs as the job's user: nothing here is a wall.
#
# Sourced at top level, since `declare` in a function would make locals; the arguments are kept in an array, since a
# hook may well use `set --`.

declare -a __spoold_enter=("$@")
set --
if [[ -e ${__spoold_enter[0]}/enter.sh ]]; then
    source "${__spoold_enter[0]}/enter.sh"
fi
case ${__spoold_enter[1]} in
./run.sh | ./compile.sh) builtin exec -- "${__spoold_enter[@]:1}" ;; # no variables: spare the job a program's start
*) builtin exec /usr/bin/env -- "${__spoold_enter[@]:1}" ;;
esac
