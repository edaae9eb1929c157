# SPDX-License-Identifier: Apache-2.0
"""Refinement by PPO: a killed run that ends as if nothing had happened, what is refused, what people are told."""

import json
import pickle
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from observations import observation  # type: ignore[import-not-found]

from lrm_ros.config import PpoConfig, RobotContract
from lrm_ros.config_refine import RefineConfig
from lrm_ros.policy import PolicyRunner
from lrm_ros.training.ppo.command import main, outcome, run_bar
from lrm_ros.training.ppo.events import Events
from lrm_ros.training.ppo.refine import Refinement, refine
from lrm_ros.training.ppo.watch import warnings_of

# ---- the watch -----------------------------------------------------------------------------------------------------


def test_a_reward_that_rises_against_the_judge_or_with_effort_is_reported():
    rng = np.random.default_rng(0)

    def line(reward: float, judged: float, effort: float, success: float = 0.5) -> dict[str, Any]:
        reward, judged = reward + 0.01 * rng.normal(), judged + 0.01 * rng.normal()
        success += 0.01 * rng.normal()
        return {"reward_per_step": reward, "judged": judged, "effort": effort, "success": success}

    good = [line(0.1 + 0.05 * i, 0.2 + 0.05 * i, 0.02) for i in range(10)]
    assert warnings_of(good) == [] and warnings_of(good[:9]) == []
    hacked = [line(0.1 + 0.05 * i, 0.6 - 0.05 * i, 0.02) for i in range(10)]
    assert "p(done) at the end of episodes fell from 0.5" in warnings_of(hacked)[0]
    wild = [line(0.1 + 0.05 * i, 0.2, 0.02 if i < 5 else 0.05) for i in range(10)]
    assert "the arm moves 2.5 times as much" in warnings_of(wild)[0]
    falling = [line(0.6 - 0.05 * i, 0.6 - 0.05 * i, 0.02) for i in range(10)]
    assert warnings_of(falling) == []
    blind = [line(0.2, 0.2, 0.02, 0.4 - 0.02 * i) for i in range(10)]
    assert warnings_of(blind) == [
        "since the first 5 iterations success in the simulator fell from 36% to 26% and the reward did not fall: "
        "it does not measure this task"
    ]
    honest = [line(0.6 - 0.05 * i, 0.2, 0.02, 0.4 - 0.02 * i) for i in range(10)]
    assert warnings_of(honest) == []
    unknown = [line(0.2, 0.2, 0.02) | {"success": None} for _ in range(10)]
    assert warnings_of(unknown) == []


# ---- a run ---------------------------------------------------------------------------------------------------------


def config(checkpoint: Path, run: Path, **settings: Any) -> RefineConfig:
    values: dict[str, Any] = {
        "checkpoint": str(checkpoint),
        "run": str(run),
        "reward": "progress",
        "model": "fake",
        "iterations": 3,
        "worlds": 2,
        "steps": 16,
        "max_steps": 12,
        "processes": 1,
        "save_every": 2,
        "ppo": PpoConfig(lr=1e-4),
    }
    return RefineConfig(**(values | settings))


def without_time(history: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in line.items() if name != "seconds"} for line in history]


def test_a_killed_run_goes_on_to_the_same_curve_and_the_same_policy(small_policy, tmp_path):
    class Killed(Exception):
        pass

    def kill(line):
        if line["iteration"] == 0:
            raise Killed

    whole = refine(config(small_policy, tmp_path / "whole"))
    with pytest.raises(Killed):
        refine(config(small_policy, tmp_path / "cut"), show=kill)
    rest = refine(config(small_policy, tmp_path / "cut"))
    assert len(rest) == 3 and without_time(rest) == without_time(whole)
    one, other = (tmp_path / name / "policy" / "model.safetensors" for name in ("whole", "cut"))
    assert one.read_bytes() == other.read_bytes()
    assert one.read_bytes() != (small_policy / "model.safetensors").read_bytes()
    PolicyRunner(tmp_path / "whole" / "policy", RobotContract(), 8).act(observation())
    assert (tmp_path / "whole" / "iter_002" / "film.jpg").stat().st_size > 1000
    lines = [json.loads(line) for line in (tmp_path / "whole" / "history.jsonl").read_text().splitlines()]
    assert without_time(lines) == without_time(whole)
    assert whole[0]["steps"] == 24 and whole[0]["episodes"] == 2 and whole[0]["queries"] > 0
    more = refine(config(small_policy, tmp_path / "cut", iterations=4))
    assert len(more) == 4 and other.read_bytes() != one.read_bytes()  # the result is that of all four
    assert sorted(path.name for path in (tmp_path / "cut").iterdir()) == [
        "config.json", "history.jsonl", "iter_002", "iter_003", "iter_004", "policy", "state.pt",
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"belongs to another configuration: worlds 2 there, 3 now"):
        Refinement(replace(config(small_policy, tmp_path / "cut"), worlds=3))
    state, mark = tmp_path / "cut" / "state.pt", tmp_path / "ran"
    whole_state = state.read_bytes()
    state.write_bytes(pickle.dumps(Runs(mark)))
    with pytest.raises(ValueError, match=r"state\.pt' is damaged, or holds other things .*choose another --run"):
        Refinement(config(small_policy, tmp_path / "cut"))
    assert not mark.exists()
    state.write_bytes(whole_state[: len(whole_state) // 2])
    with pytest.raises(ValueError, match=r"state\.pt' is damaged"):
        Refinement(config(small_policy, tmp_path / "cut"))


class Runs:
    """What a pickle can do: run a program when it is read."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return (Path.touch, (self.mark,))


def test_a_kill_between_the_state_and_the_words_is_mended_and_other_weights_are_refused(small_policy, tmp_path):
    start, run = tmp_path / "start", tmp_path / "run"
    shutil.copytree(small_policy, start)
    whole = refine(config(start, run, iterations=1))
    (run / "history.jsonl").write_text("")
    (run / "config.json").unlink()
    refine(config(start, run, iterations=1))
    assert [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] == whole
    assert json.loads((run / "config.json").read_text())["config"]["checkpoint"] == str(start)
    (run / "history.jsonl").write_text((run / "history.jsonl").read_text()[:-9])
    refine(config(start, run, iterations=1))
    assert [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()] == whole
    shutil.copy(run / "policy" / "model.safetensors", start / "model.safetensors")
    with pytest.raises(ValueError, match=r"run' began from weights that '.*start' no longer has"):
        refine(config(start, run, iterations=2))


@pytest.mark.parametrize("hold", [True, False])
def test_a_draw_of_the_noise_lasts_as_long_as_asked(small_policy, tmp_path, hold):
    run = Refinement(config(small_policy, tmp_path, steps=32, max_steps=16, hold_noise=hold))
    try:
        rollout = run._collect_rollout(None)
    finally:
        run.close()
    noise = run.actor.noise
    draws = [
        (noise.dual @ ((d.actions - run.actor.means(d.inputs)) / noise.log_std.exp())).detach() for d in rollout.outputs
    ]
    assert rollout.dones.tolist() == [[False] * 2, [True] * 2, [False] * 2, [True] * 2]
    same = [torch.allclose(draws[a], draws[b], atol=1e-3) for a, b in ((0, 1), (1, 2), (2, 3))]
    assert same == ([True, False, True] if hold else [False] * 3)
    assert not torch.allclose(draws[0][0], draws[0][1], atol=1e-2)


def test_worlds_of_a_group_start_from_the_same_poses(small_policy, tmp_path):
    run = Refinement(config(small_policy, tmp_path, worlds=4, group=2))
    run.close()
    first, second, third, fourth = run._start_seeds()
    assert first == second and third == fourth and first != third
    assert all(3_000_000 <= seed < 3_100_000 for seed in first + third)
    run.iteration = 1
    assert run._start_seeds()[0] != first


def test_settings_that_cannot_be_are_refused(small_policy, tmp_path):
    with pytest.raises(ValueError, match="run seed 100 has no seeds for refinement; set a seed from 0 to 99"):
        Refinement(config(small_policy, tmp_path, seed=100))
    with pytest.raises(ValueError, match=r"steps \(20\) must be a multiple of execute_steps \(8\)"):
        Refinement(config(small_policy, tmp_path, steps=20))
    with pytest.raises(ValueError, match=r"worlds \(2\) must be a multiple of group \(4\)"):
        Refinement(config(small_policy, tmp_path, group=4))
    with pytest.raises(ValueError, match="worlds must be at least 1, got 0"):
        Refinement(config(small_policy, tmp_path, worlds=0))
    for name, value in (("epochs", 0), ("batch_size", 0), ("gamma", float("nan")), ("gamma", 5.0), ("lr", -1.0)):
        with pytest.raises(ValueError, match=rf"ppo\.{name} is {value}; give"):
            PpoConfig(**{name: value})


def test_a_run_without_its_tensorboard_says_so_before_anything_is_loaded(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    with pytest.raises(RuntimeError, match=r"tensorboard is true, but .* pip install 'lrm_ros\[train\]'"):
        refine(config(tmp_path / "no_policy", tmp_path / "run", tensorboard=True))
    assert not (tmp_path / "run").exists()


def test_tensorboard_gets_the_numbers_of_every_iteration(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = Events(str(tmp_path))
    assert not list(tmp_path.iterdir())
    for iteration in range(2):
        events.add({"iteration": iteration, "success": 0.25 * iteration, "judged": None, "warnings": []})
    events.close()
    found = EventAccumulator(str(tmp_path)).Reload()
    assert [(event.step, event.value) for event in found.Scalars("success")] == [(0, 0.0), (1, 0.25)]


@pytest.mark.parametrize(
    "error", [FloatingPointError("the loss is nan; lower the learning rate (1)"), RuntimeError("world 0: no answer")]
)
def test_an_iteration_that_fails_says_how_to_go_on(small_policy, tmp_path, monkeypatch, error):
    class Nowhere:
        def close(self):
            pass

    def fail(*_):
        raise error

    monkeypatch.setattr(Refinement, "run_iteration", fail)
    settings = config(small_policy, tmp_path / "run")
    with pytest.raises(RuntimeError, match=rf"{re.escape(str(error))}.* another --run; .* {small_policy}$"):
        refine(settings, worlds=Nowhere())
    for iteration in (999, 1000):
        (tmp_path / "run" / f"iter_{iteration}" / "policy").mkdir(parents=True)
    with pytest.raises(RuntimeError, match=rf"--checkpoint {tmp_path}/run/iter_1000/policy$"):
        refine(settings, worlds=Nowhere())


def test_a_resumed_runs_bar_begins_where_it_stopped_and_its_last_line_tells_of_fewer_steps(tmp_path):
    settings = config(tmp_path, tmp_path, execute_steps=4)
    (tmp_path / "history.jsonl").write_text('{}\n{}\n{"iterat')  # the third was cut off by a kill
    with run_bar(settings) as bar:
        assert (bar.n, bar.total) == (64, 96)
    assert outcome(settings).endswith("evaluate with --execute-steps 4")
    assert outcome(replace(settings, execute_steps=8)).endswith("3 iterations with reward 'progress'")


def test_the_command_refines_and_explains_what_it_refuses(small_policy, tmp_path, capsys):
    common = [
        "--checkpoint",
        str(small_policy),
        "--run",
        str(tmp_path / "run"),
        "--set",
        "worlds=1",
        "--set",
        "steps=8",
    ]
    done = ["--reward", "env", "--set", "iterations=1", "--set", "ppo.epochs=1", "--json", str(tmp_path / "f.json")]
    assert main([*common, *done]) == 0
    found = json.loads((tmp_path / "f.json").read_text())
    assert found["config"]["ppo"]["epochs"] == 1 and len(found["history"]) == 1
    assert "1 iterations with reward 'env'" in capsys.readouterr().out
    for words, message in (
        ([*common, "--set", "wrlds=3"], "unknown key 'wrlds'; did you mean 'worlds'?"),
        ([*common, "--set", "worlds"], "give NAME=VALUE"),
        ([*common, "--set", "worlds=010"], "setting 'worlds=010': 010 is the number 8 to YAML (base 8); write 8 or 10"),
        (["--run", str(tmp_path / "x")], "no policy to refine"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err
