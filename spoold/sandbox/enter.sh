# Enter the captured environment, then become the user's program.
#
#   bash --norc --noprofile enter.sh DESCRIPTOR [entered]
#
# The words are read from DESCRIPTOR, each with a NUL after it: CAPTURE [NAME=VALUE]... ./run.sh [ARGUMENT]... Every
# user of the host can read a command line, so neither these words nor any NAME=VALUE may stand in one.
#
# CAPTURE is a store directory. Its own enter.sh sets up what nix-shell would set up, and runs the shellHook. After
# that, the request's environment goes to env. So it reaches the program literally, whatever the names are, and touches
# neither this shell nor the hook. All of it runs as the job's user: nothing here is a wall.
#
# CAPTURE's enter.sh is sourced at top level, since `declare` in a function would make locals. The words are kept in an
# array, since a hook may well use `set --`. The code after the hook is a function, so that it is parsed before the hook
# makes an alias.

__spoold_leave() {
    # Each NAME=VALUE goes into a variable of its own. env is told to put that variable in place of ${...} and then to
    # unset it. So env gets the words as they are, and its command line has none of them. A long word takes two
    # variables, since with the variable's name it would be too long for the kernel. Many words are split among several
    # envs in turn, since one argument has no room for all of them, and putting it together would take longer and
    # longer.
    local __spoold_number=1 __spoold_piece=0 __spoold_value __spoold_unset= __spoold_words= __spoold_name=__spoold_
    local -a __spoold_envs=() __spoold_by=()
    # No word of the request begins with the names of these variables. Else a word for one env could be a variable that
    # another env uses.
    for __spoold_value in "${__spoold_enter[@]}"; do
        while [[ $__spoold_value == "$__spoold_name"* ]]; do __spoold_name+=_; done
    done
    while [[ ${__spoold_enter[$__spoold_number]-} == *=* ]]; do
        __spoold_value=${__spoold_enter[$__spoold_number]}
        __spoold_words+=" "
        if [[ ${#__spoold_value} -gt 30000 ]]; then
            __spoold_put "${__spoold_value:0:${#__spoold_value} / 2}"
            __spoold_value=${__spoold_value:${#__spoold_value} / 2}
        fi
        __spoold_put "$__spoold_value"
        __spoold_number=$((__spoold_number + 1))
        if [[ ${#__spoold_words} -gt 10000 ]]; then
            __spoold_envs+=(/usr/bin/env -S "$__spoold_unset --$__spoold_words")
            __spoold_unset= __spoold_words=
        fi
    done
    case ${__spoold_enter[$__spoold_number]-} in
    ./run.sh | ./compile.sh) __spoold_look "${__spoold_enter[@]:$__spoold_number}" ;;
    esac
    SHLVL=$((${SHLVL:-0} + 1)) # nix-shell would wait for the program; exec takes one off
    if [[ ${#__spoold_by[@]} -gt 0 && $__spoold_number -eq 1 ]]; then # then the job needs no env
        builtin exec -- "${__spoold_by[@]}" "${__spoold_enter[@]:1}"
    fi
    builtin exec -- "${__spoold_envs[@]}" /usr/bin/env -S "$__spoold_unset --$__spoold_words" \
        "${__spoold_by[@]}" "${__spoold_enter[@]:$__spoold_number}"
}

# See how SCRIPT [ARGUMENT]... starts. bash runs a script that is no binary and names no interpreter (__spoold_by), as
# the shell of nix-shell does: env would start sh for it, which is bash in POSIX mode. env starts all others, since this
# shell's exec would tell a script with "#!" another name of itself. A script that cannot be started is tried here,
# since a shell says more of it than env does.
__spoold_look() {
    local __spoold_first= __spoold_code=0
    if [[ -f $1 && -x $1 && ! -r $1 ]]; then
        return # a binary can be run by a user who cannot read it
    elif [[ -f $1 && -x $1 ]]; then
        LC_ALL=C IFS= builtin read -r -d '' -n 256 __spoold_first <"$1" || __spoold_code=$?
        case $__spoold_first in
        $'\x7fELF'*) return ;;
        '#!'*)
            if [[ ! $__spoold_first =~ ^'#!'[$' \t']*([^$' \t\n']+) ]]; then
                __spoold_by=("$__spoold_bash")
                return
            elif [[ -f ${BASH_REMATCH[1]} && -x ${BASH_REMATCH[1]} ]]; then
                return
            fi
            ;;
        *)
            __spoold_by=("$__spoold_bash")
            return
            ;;
        esac
    fi
    __spoold_code=0
    builtin command -- "$@" || __spoold_code=$?
    if [[ ! -e $1 && ! . -ef /job ]]; then
        builtin printf 'spoold: the shell hook went to the directory %q, where there is no %s\n' "$PWD" "$1" >&2
    fi
    builtin exit "$__spoold_code"
}

__spoold_put() {
    builtin export "$__spoold_name$__spoold_piece=$1"
    __spoold_unset+=" -u$__spoold_name$__spoold_piece"
    __spoold_words+="\${$__spoold_name$__spoold_piece}"
    __spoold_piece=$((__spoold_piece + 1))
}

__spoold_bash=$BASH
builtin mapfile -d '' -t __spoold_enter <&"$1" || builtin exit 126 # too few descriptors; bash has said so
if [[ ${2-} != entered && -d ${__spoold_enter[0]}/store ]]; then
    # A new shell will start nix-shell, in an environment of its own. In there the words are read once more.
    builtin exec {__spoold_again}</proc/self/fd/"$1"
    __spoold_enter=("${__spoold_enter[0]}" "$BASH" --norc --noprofile "$0" "$__spoold_again" entered)
fi
builtin eval "exec $1<&-"
if [[ ${2-} != entered && -e ${__spoold_enter[0]}/enter.sh ]]; then
    set --
    source "${__spoold_enter[0]}/enter.sh"
    { # a hook that traces the shell's steps does not mean these; `builtin`, since they are no keywords
        builtin set +xvk
        builtin trap - DEBUG RETURN ERR
    } >/dev/null 2>&1
fi
__spoold_leave
