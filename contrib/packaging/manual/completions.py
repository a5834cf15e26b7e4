"""Completions for shells. A shell asks the command itself what may come next, so they stay current.

That of bash is ours, because bash splits words at ``:`` and ``=``. So click's would see ``--spool ssh://host/path`` as
four words. Those of zsh and fish are click's own, changed in a few lines. Otherwise a shell that completes
``--option=value`` would replace all of it by a value, or find nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from click.shell_completion import get_completion_class

from spoold.cli import ctl, roles

COMMANDS = {"spoolctl": ctl.command, "spoold": roles.command}
# Pieces that stand together on the line become one word again. bash replaces only the last piece of a word, and click
# completes only the value of --option=value. So both fit.
BASH = """\
%(complete_func)s() {
    local IFS=$'\\n' words=() word rest=$COMP_LINE at current=0 response type value
    for at in "${!COMP_WORDS[@]}"; do
        word=${COMP_WORDS[at]}
        if [[ $rest == [[:space:]]* || at -eq 0 ]]; then
            rest=${rest#"${rest%%%%[![:space:]]*}"}
            words+=("$word")
        else
            words[-1]+=$word
        fi
        rest=${rest#"$word"}
        if [[ at -eq COMP_CWORD ]]; then current=$((${#words[@]} - 1)); fi
    done
    COMPREPLY=()
    response=$(env COMP_WORDS="${words[*]}" COMP_CWORD=$current %(complete_var)s=bash_complete "$1")
    while IFS=, read -r type value; do
        case $type in
        dir) compopt -o dirnames ;;
        file) compopt -o default ;;
        plain) COMPREPLY+=("$value") ;;
        esac
    done <<<"$response"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""
OPTION = "    set -l option (string match -r -- '^--[^=]+=' (commandline -t));\n"
BELOW = ' | string replace -r -- "^" "$option";'
CHANGES = {
    "zsh": {
        "    for type key": "    local option=${(M)words[CURRENT]#--*=}\n    for type key",
        'completions+=("$key")': 'completions+=("$option$key")',
        '+=("$key":': '+=("$option$key":',
        "            _path_files": "            [[ -n $option ]] && compset -P 1 '*='\n            _path_files",
    },
    "fish": {
        "    set -l response": f"{OPTION}    set -l response",
        "directories $metadata[2];": f"directories $metadata[2]{BELOW}",
        "path $metadata[2];": f"path $metadata[2]{BELOW}",
        "echo $metadata[2];": 'echo "$option"$metadata[2];',
    },
}


def of_shell(shell: str) -> Iterator[tuple[str, str]]:
    """Yield the name of each command and its completion for ``shell``."""
    kind = get_completion_class(shell)
    if kind is None:
        raise ValueError(f"click has no completion for {shell}")
    template = BASH if shell == "bash" else kind.source_template
    for old, new in CHANGES.get(shell, {}).items():
        template = template.replace(old, new)
    for name, command in COMMANDS.items():
        complete = kind(command, {}, name, f"_{name.upper()}_COMPLETE")
        # Not source(): bash's method runs the bash of this machine to see how old it is.
        yield name, template % complete.source_vars()
