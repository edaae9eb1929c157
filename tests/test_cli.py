# SPDX-License-Identifier: Apache-2.0
"""The command ``lrm`` finds its programs and helps with typing errors."""

from __future__ import annotations

import importlib.util

import pytest

from lrm_ros import __version__, cli


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_its_program(name):
    assert importlib.util.find_spec(cli.COMMANDS[name][0]), cli.COMMANDS[name][0]


def test_without_a_command_it_lists_them(capsys):
    assert cli.main([]) == 2
    assert "lrm bench topics" in capsys.readouterr().out


def test_a_misspelt_command_names_the_nearest(capsys):
    assert cli.main(["evaluat"]) == 2
    assert "did you mean 'lrm evaluate'" in capsys.readouterr().err


def test_the_longest_command_is_taken(capsys):
    with pytest.raises(SystemExit) as stop:
        cli.main(["bench", "topics", "--help"])
    assert stop.value.code == 0 and "lrm bench topics" in capsys.readouterr().out


def test_ctrl_c_ends_a_command_without_a_traceback(monkeypatch, capsys):
    def interrupted(words):
        raise KeyboardInterrupt

    monkeypatch.setattr("lrm_ros.training.policy.finetune.main", interrupted)
    assert cli.main(["finetune"]) == 130
    assert capsys.readouterr().err == "\nlrm finetune: interrupted\n"


def test_it_tells_its_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == f"lrm_ros {__version__}\n"


@pytest.mark.parametrize("group", ["reward", "bench"])
def test_a_group_of_commands_lists_them(group, capsys):
    assert cli.main([group, "--help"]) == 0
    listed = capsys.readouterr().out
    own = [name for name in cli.COMMANDS if name.startswith(f"{group} ")]
    assert len(own) > 3 and all(f"lrm {name} " in listed for name in own)
    assert "lrm doctor" not in listed and cli.main([group]) == 2
