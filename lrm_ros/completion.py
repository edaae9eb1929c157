# SPDX-License-Identifier: Apache-2.0
"""``lrm completion bash|zsh``: a script that completes commands, their options, graphs and file names in a shell."""

from __future__ import annotations

import sys
from collections.abc import Collection

# Options are read from a command's own help when they are asked for, so they are those of the installed version.
_SCRIPT = """\
# lrm, completed: eval "$(lrm completion {shell})", in this shell's start file for every shell.
{start}
_lrm() {{
    local word="${{COMP_WORDS[COMP_CWORD]}}" one="${{COMP_WORDS[1]}}" two="${{COMP_WORDS[2]}}"
    local commands="{firsts}" command="$one"
    COMPREPLY=()
    if [ "$COMP_CWORD" -eq 1 ]; then
        COMPREPLY=( $(compgen -W "$commands" -- "$word") )
        return
    fi
    case "$one" in
{groups}
    esac
    if [[ "$word" == -* ]]; then
        local options="$(lrm $command --help 2>/dev/null | grep -oE -- '--[a-z][a-z0-9-]*' | sort -u)"
        COMPREPLY=( $(compgen -W "$options" -- "$word") )
    elif [ "$one" = up ] && [ "$COMP_CWORD" -eq 2 ]; then
        COMPREPLY=( $(compgen -W "{graphs}" -- "$word") )
    else
        compopt -o default 2>/dev/null
    fi
}}
complete -F _lrm lrm
"""
_GROUP = """\
        {first})
            if [ "$COMP_CWORD" -eq 2 ]; then
                COMPREPLY=( $(compgen -W "{seconds}" -- "$word") ){alone}
            fi
            case "$two" in {pattern}) command="$one $two" ;; esac
            ;;"""


def completion(words: Collection[str], commands: Collection[str]) -> int:
    """Print the script for a shell; returns the exit code.

    Args:
        words: name of the shell.
        commands: of ``lrm``, of one or two words each.
    """
    from lrm_ros.graph.graphs import GRAPHS

    shell = " ".join(words)
    if shell not in ("bash", "zsh"):
        print(f"error: lrm completion '{shell}': give bash or zsh", file=sys.stderr)
        return 2
    firsts = sorted({command.split()[0] for command in commands} | {"completion", "--version", "--help"})
    groups = []
    for first in firsts:
        seconds = sorted(command.split()[1] for command in commands if command.startswith(f"{first} "))
        if seconds:
            # A command of its own beside the group (ppo, ppo report) has options and files, too.
            alone = "" if first in commands else "; return"
            groups.append(_GROUP.format(first=first, seconds=" ".join(seconds), pattern="|".join(seconds), alone=alone))
    start = "autoload -U +X bashcompinit && bashcompinit" if shell == "zsh" else ""
    print(
        _SCRIPT.format(
            shell=shell, start=start, firsts=" ".join(firsts), groups="\n".join(groups), graphs=" ".join(GRAPHS)
        )
    )
    return 0
