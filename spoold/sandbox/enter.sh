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
# Where there are no variables, what is neither a binary nor begins with "#!" is started as env would start it, by sh,
# and the job is spared env. (What begins with "#!" would be told another name of itself by this shell.)
__spoold_program=${__spoold_enter[1]}
case $__spoold_program in
./run.sh | ./compile.sh)
    if [[ -f $__spoold_program && -x $__spoold_program ]] &&
        IFS= builtin read -r -N 4 __spoold_first <"$__spoold_program"; then
        case $__spoold_first in
        '#!'* | $'\x7fELF') ;;
        *) builtin exec -- /bin/sh "${__spoold_enter[@]:1}" ;;
        esac
    fi
    ;;
esac
builtin exec /usr/bin/env -- "${__spoold_enter[@]:1}"
