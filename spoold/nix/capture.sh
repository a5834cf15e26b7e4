# Record the environment that nix-shell --pure would have set up. This runs as a builder, in Nix's build sandbox, on the
# attributes of a client's shell. A client can break everything here, so nothing outside trusts the output.
#
# The output is a directory:
#   enter.sh   for bash inside the job's sandbox to source: variables, functions, then the shell hook
#   environ    without a hook: the environment that enter.sh makes, each variable with a NUL after it
#   raw        the attributes as they came, so that the output refers to every input
#   file.NAME  the contents of the attributes that passAsFile names
#
# Only a hook reads functions, and variables that are not exported. So without a hook enter.sh holds only exported ones.
# A program can then be started without a shell, since environ holds the variables that a shell would pass on. PWD,
# SHLVL and _ are not in environ, since they are about the shell itself.
#
# An environment may have names that bash passes on but cannot set, such as a-b. The script that sources enter.sh and
# then becomes a program by env(1) can pass them on too. For that its array __spoold_enter holds the capture's path and
# then env's words. enter.sh puts these variables before env's words.

# Structured attributes. In some versions of Nix NIX_ATTRS_SH_FILE is the path that the file has outside of the sandbox.
__spoold_attributes=
for __spoold_path in "$PWD/.attrs" "${NIX_ATTRS_SH_FILE%.sh}"; do
    if [ -e "$__spoold_path.sh" ]; then __spoold_attributes=$__spoold_path; break; fi
done

if [ -n "$__spoold_attributes" ]; then
    . "$__spoold_attributes.sh"
    __spoold_out=${outputs[out]}
else
    __spoold_out=$out
fi
__spoold_bin=$__spoold_coreutils/bin

"$__spoold_bin/mkdir" "$__spoold_out" || exit
if [ -n "$__spoold_attributes" ]; then
    "$__spoold_bin/cp" "$__spoold_attributes.json" "$__spoold_out/raw" || exit
else
    "$__spoold_bin/env" -0 > "$__spoold_out/raw" || exit
fi

for __spoold_name in ${passAsFile:-}; do
    __spoold_path=${__spoold_name}Path
    [ -f "${!__spoold_path:-}" ] || continue
    "$__spoold_bin/cp" "${!__spoold_path}" "$__spoold_out/file.$__spoold_name" || exit
    export "$__spoold_path=$__spoold_out/file.$__spoold_name"
done

# Set the variables that nix-shell has set when it sources setup.
if [ -z "$__spoold_attributes" ]; then
    builder=$__spoold_builder
    if [ -n "$__spoold_outputs" ]; then outputs=$__spoold_outputs; else unset outputs; fi
    for __spoold_name in $__spoold_out_paths; do export "$__spoold_name"; done
fi
export IN_NIX_SHELL=pure
BASH=$__spoold_bash/bin/bash
dontAddDisableDepTrack=1
unset PATH
__spoold_modes=$(shopt -p; set +o)

[ -e "${stdenv:-}/setup" ] && . "$stdenv/setup"

trap - EXIT
__spoold_modes_now=$(shopt -p; set +o)
set +eufx
set +o pipefail
shopt -u nullglob failglob
unset IFS
# The setup of an old nixpkgs expects PATH to be exported already, and does not export it. If it stayed so, no program
# would find another.
if [ -n "${PATH+set}" ]; then export PATH; fi
PATH=$__spoold_bash/bin:${PATH-}
SHELL=$__spoold_bash/bin/bash

# The names that a process started now would find in its environment.
declare -A __spoold_exported=()
while IFS= read -r -d '' __spoold_line; do
    __spoold_exported["${__spoold_line%%=*}"]=1
done < <("$__spoold_bin/env" -0)

# These two functions print what is exported when __spoold_which is 1, and the rest when it is 0.
__spoold_variables() {
    local __spoold_letter __spoold_name
    for __spoold_letter in {a..z} {A..Z} _; do
        eval 'set -- "${!'"$__spoold_letter"'@}"'
        for __spoold_name; do
            case $__spoold_name in
            # variables of bash itself
            BASH|BASHOPTS|BASHPID|BASH_*|COMP_*|COLUMNS|COPROC|DIRSTACK|EPOCH*|EUID|FUNCNAME|GROUPS|HISTCMD|HOSTNAME|\
            HOSTTYPE|IFS|LINENO|LINES|MACHTYPE|OPTARG|OPTERR|OPTIND|OSTYPE|PIPESTATUS|PPID|PS[0-4]|RANDOM|SECONDS|\
            SHELLOPTS|SRANDOM|UID|_) continue ;;
            # set by the build, unless the client's shell sets it
            HOME) case $HOME in /homeless-shelter|"$NIX_BUILD_TOP"*) continue ;; esac ;;
            # variables of the build
            OLDPWD|PWD|SHLVL|TERM|NIX_BUILD_TOP|NIX_LOG_FD|NIX_ATTRS_*|TEMP|TEMPDIR|TMP|TMPDIR|__spoold_*) continue ;;
            esac
            if [ "${__spoold_exported[$__spoold_name]-0}" = "$__spoold_which" ]; then
                declare -p "$__spoold_name" 2> /dev/null
            fi
        done
    done
}

__spoold_functions() { # declare -F prints "declare -fx name"
    local __spoold_word __spoold_flags __spoold_name
    while read -r __spoold_word __spoold_flags __spoold_name; do
        case $__spoold_name in __spoold_*) continue ;; esac
        case $__spoold_flags/$__spoold_which in
        *x*/1) declare -f -- "$__spoold_name"; printf 'export -f -- %q\n' "$__spoold_name" ;;
        *x*/0) ;;
        */0) declare -f -- "$__spoold_name" ;;
        esac
    done < <(declare -F)
}

# Print the variables that bash passes on to programs from its own environment and could not set itself.
__spoold_unnamable() {
    local __spoold_name
    while IFS= read -r -d '' __spoold_line; do
        __spoold_name=${__spoold_line%%=*}
        case $__spoold_name in
        ''|BASH_FUNC_*%%) ;;
        *[!A-Za-z0-9_]*|[0-9]*) printf ' %q' "$__spoold_line" ;;
        esac
    done < <("$__spoold_bin/env" -0)
}

__spoold_changed_modes() {
    while IFS= read -r __spoold_line; do
        case $'\n'$__spoold_modes$'\n' in
        *$'\n'"$__spoold_line"$'\n'*) ;;
        *) case $__spoold_line in *errexit|*verbose|*xtrace) ;; *) printf '%s\n' "$__spoold_line" ;; esac ;;
        esac
    done <<< "$__spoold_modes_now"
}

__spoold_hook=
if [ "$(type -t runHook)" = function ]; then
    if [ -n "${shellHook:-}" ] || [ "$(type -t shellHook)" = function ] || [ -n "${shellHooks[*]:-}" ]; then
        __spoold_hook=1
    fi
fi

{
    if [ -n "$__spoold_hook" ]; then
        __spoold_changed_modes
        __spoold_which=0
        __spoold_variables
        __spoold_functions
    fi
    __spoold_which=1
    __spoold_variables
    __spoold_functions
    __spoold_words=$(__spoold_unnamable)
    if [ -n "$__spoold_words" ]; then
        printf '[ -z "${__spoold_enter+x}" ] || '
        printf '__spoold_enter=("${__spoold_enter[0]}"%s "${__spoold_enter[@]:1}")\n' "$__spoold_words"
    fi
    [ -n "$__spoold_hook" ] && echo 'runHook shellHook'
    echo 'unset NIX_ENFORCE_PURITY TZ'
    [ -n "$__spoold_hook" ] && echo 'shopt -u nullglob'
    echo ':'
} > "$__spoold_out/enter.sh"

if [ -z "$__spoold_hook" ]; then
    "$__spoold_bin/env" -i "$__spoold_bash/bin/bash" --norc --noprofile -c '
        __spoold_enter=("$1")
        . "$1/enter.sh"
        unset PWD OLDPWD SHLVL
        exec -- "$0" -u _ -0 -- "${__spoold_enter[@]:1}"
    ' "$__spoold_bin/env" "$__spoold_out" > "$__spoold_out/environ" || "$__spoold_bin/rm" "$__spoold_out/environ"
fi
