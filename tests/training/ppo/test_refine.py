# SPDX-License-Identifier: Apache-2.0
"""Refinement by PPO: the noise's density, what a step is worth, a killed run that ends as if nothing had happened."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from lrm_ros.config import PpoConfig, RefineConfig, RewardConfig, RobotContract
from lrm_ros.policy import PolicyRunner
from lrm_ros.reward.engine import RewardEngine
from lrm_ros.reward.fake import FakeModel
from lrm_ros.sim.vector.rewards import WorldRewards
from lrm_ros.sim.vector.worlds import ChunkResult
from lrm_ros.training.ppo.actors.act import ActActor, ChunkNoise
from lrm_ros.training.ppo.command import main, outcome, run_bar
from lrm_ros.training.ppo.events import Events
from lrm_ros.training.ppo.ppo import RolloutBuffer, update
from lrm_ros.training.ppo.refine import Refinement, refine
from lrm_ros.training.ppo.watch import warnings_of
from lrm_ros.types import Frame, Observation, Unscored

TASK = "put the red toy pig in the bowl"


def observation(light: int = 100, stamp: int = 0, pan: float = 0.0) -> Observation:
    frame = Frame(stamp, "front", np.full((96, 96, 3), light, np.uint8))
    return Observation(stamp, {"front": frame}, np.array([pan, -1.2, 1.1, 1.2, 0, 0.2], np.float32), TASK)


def chunk_result(
    judged: dict[int, int],
    steps: int = 8,
    ended: bool = False,
    progress: Any = None,
    success: Any = None,
    next_light: int = 0,
) -> ChunkResult:
    """Steps of which some are judged: place -> brightness."""
    frames = tuple((place, observation(light, place).frames["front"]) for place, light in judged.items())
    final = observation(next(reversed(judged.values()), 0), steps) if ended else None
    return ChunkResult(
        np.zeros((steps, 6), np.float32),
        np.zeros(steps + 1, np.float32) if progress is None else np.array(progress, np.float32),
        np.zeros(steps, bool) if success is None else np.array(success),
        frames,
        ended,
        ended,
        final,
        observation(next_light, 1000),
        0,
    )


# ---- the density ---------------------------------------------------------------------------------------------------


def test_the_density_of_the_noise_is_that_of_torchs_distributions():
    std = torch.tensor([0.1, 0.5, 2.0])
    mean, other = torch.randn(2, 4, 6, 3, generator=torch.Generator().manual_seed(0))
    for rank in (1, 3, 6):
        noise = ChunkNoise(6, rank, std, learn=False)
        torch.testing.assert_close(noise.dual @ noise.basis, torch.eye(rank), atol=1e-6, rtol=0)

        def around(chunk, noise=noise, rank=rank):
            return torch.distributions.Independent(
                torch.distributions.Normal(noise.dual @ chunk, std.expand(rank, 3)), 2
            )

        drawn = noise.perturb(mean, noise.sample(4, torch.Generator().manual_seed(1)))
        torch.testing.assert_close(noise.log_prob(drawn, mean), around(mean).log_prob(noise.dual @ drawn))
        torch.testing.assert_close(noise.entropy().expand(4), around(mean).entropy())
        reference = around(other)
        expected = torch.distributions.kl_divergence(around(mean), reference)
        torch.testing.assert_close(noise.divergence(mean, other), expected)
        assert torch.equal(noise.divergence(mean, other), 0.5 * noise._standardised(mean - other).square().sum((1, 2)))
        # Deviations that have moved: the reference keeps those of the start, and to grow is not free.
        moved = ChunkNoise(6, rank, std, learn=True)
        moved.log_std.data += torch.tensor([0.7, -0.4, 0.1])
        grown = torch.distributions.Independent(
            torch.distributions.Normal(moved.dual @ mean, moved.log_std.exp().expand(rank, 3)), 2
        )
        expected = torch.distributions.kl_divergence(grown, reference)
        torch.testing.assert_close(moved.divergence(mean, other), expected)
        moved.divergence(mean, mean).sum().backward()
        assert moved.log_std.grad is not None and (moved.log_std.grad.sign() == torch.tensor([1, -1, 1])).all()
        assert set(moved.state_dict()) == {"basis", "dual", "log_std"}  # the states of runs stay readable


def test_noise_of_full_rank_is_white_noise_on_the_chunk():
    std = torch.tensor([0.1, 0.5])
    noise = ChunkNoise(6, 6, std, learn=False)
    mean, chunk = torch.randn(2, 4, 6, 2, generator=torch.Generator().manual_seed(0))
    truth = torch.distributions.Normal(mean, std)
    # The coefficients are a rotation of the chunk, scaled alike: the densities differ by a constant.
    constant = noise.log_prob(chunk, mean) - truth.log_prob(chunk).sum((1, 2))
    torch.testing.assert_close(constant, constant[:1].expand(4), atol=1e-3, rtol=1e-5)
    reference = torch.distributions.kl_divergence(truth, torch.distributions.Normal(chunk, std)).sum((1, 2))
    torch.testing.assert_close(noise.divergence(mean, chunk), reference, rtol=1e-4, atol=1e-4)


def test_the_noise_lasts_over_the_chunk_and_has_the_deviation_asked_for():
    for rank, alike in ((1, 1.0), (2, 0.9), (8, 0.0)):
        noise = ChunkNoise(8, rank, torch.tensor([0.5]), learn=False)
        free = noise.sample(20000, torch.Generator().manual_seed(0))
        drawn = noise.perturb(torch.zeros(20000, 8, 1), free)[..., 0].numpy()
        assert np.sqrt((drawn**2).mean()) == pytest.approx(0.5, rel=0.02)
        assert np.corrcoef(drawn[:, 3], drawn[:, 4])[0, 1] == pytest.approx(alike, abs=0.1)
    with pytest.raises(ValueError, match="1 to 8 cosines"):
        ChunkNoise(8, 9, torch.tensor([0.5]), False)


def test_an_actors_mean_is_the_policys_action_and_its_log_prob_that_of_evaluate_actions(small_policy):
    contract = RobotContract()
    actor = ActActor(small_policy, contract, noise_std=0.05)
    seen = [observation(100), observation(30, pan=0.4)]
    mean = actor.act(seen, None)
    runner = PolicyRunner(small_policy, contract, 8)
    for row, one in zip(mean.targets, seen, strict=True):
        np.testing.assert_allclose(row, runner.act(one).actions, atol=1e-5)
    drawn = actor.act(seen, actor.noise.sample(2, torch.Generator().manual_seed(0)))
    spread = drawn.targets - mean.targets
    assert 0.01 < spread.std() < 0.1
    evaluation = actor.evaluate_actions(drawn.inputs, drawn.actions, actor.reference().means(drawn.inputs))
    torch.testing.assert_close(evaluation.log_prob, drawn.log_prob, atol=1e-3, rtol=1e-4)
    torch.testing.assert_close(evaluation.value, drawn.value, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(evaluation.divergence, torch.zeros(2), atol=1e-5, rtol=0)


def test_the_reference_stays_when_the_actor_moves(small_policy):
    actor = ActActor(small_policy, RobotContract())
    reference = actor.reference()
    inputs = actor.preprocess([observation()])
    before = reference.means(inputs)
    with torch.no_grad():
        actor.policy.model.action_head.bias += 1.0
    assert torch.equal(reference.means(inputs), before)
    assert (actor.means(inputs) - before).abs().min() > 0.9
    assert actor.evaluate_actions(inputs, before, before).divergence.item() > 1.0


# ---- what a step is worth ------------------------------------------------------------------------------------------


def rewards_of(mode: str, **settings: Any) -> WorldRewards:
    return WorldRewards(RefineConfig(reward=mode, **settings), FakeModel())


def test_progress_is_held_until_the_next_judged_frame_and_belongs_to_its_own_world():
    rewards = rewards_of("progress")
    rewards.begin([observation(51), observation(102)])
    first, second = rewards.score([chunk_result({}), chunk_result({2: 153})])
    np.testing.assert_allclose(first, [0.2] * 8, rtol=1e-6)
    np.testing.assert_allclose(second, [0.4] + [0.6] * 7, rtol=1e-6)
    first, second = rewards.score([chunk_result({2: 255}, next_light=0), chunk_result({})])
    np.testing.assert_allclose(first, [0.2] + [1.0] * 7, rtol=1e-6)
    np.testing.assert_allclose(second, [0.6] * 8, rtol=1e-6)


def test_an_episodes_last_frame_counts_and_the_next_episode_begins_with_its_own():
    rewards = rewards_of("progress", scale=10.0)
    rewards.begin([observation(51)])
    np.testing.assert_allclose(
        rewards.score([chunk_result({2: 102, 4: 255}, 4, ended=True, next_light=153)])[0], [2, 4, 4, 10], rtol=1e-6
    )
    np.testing.assert_allclose(rewards.score([chunk_result({})])[0], [6.0] * 8, rtol=1e-6)
    assert rewards.stats.episodes == 1 and rewards.stats.p_done == [1.0]


def test_shaped_progress_is_paid_when_it_changes():
    rewards = rewards_of("progress", shaped=True)
    rewards.begin([observation(51)])
    np.testing.assert_allclose(
        rewards.score([chunk_result({2: 153, 6: 102})])[0], [0, 0.4, 0, 0, 0, -0.2, 0, 0], atol=1e-6
    )
    with pytest.raises(ValueError, match="no meaning for reward 'tri'"):
        rewards_of("tri", shaped=True)


def test_contrastive_has_nothing_to_say_before_its_second_frame_and_tri_waits_for_it():
    rewards = rewards_of("contrastive")
    rewards.begin([observation(51)])
    np.testing.assert_allclose(rewards.score([chunk_result({4: 102})])[0], [0, 0, 0, 1, 1, 1, 1, 1])
    tri = rewards_of("tri")
    tri.begin([observation(51)])
    expected = (1 + 0.8 + 1) / 3
    np.testing.assert_allclose(tri.score([chunk_result({4: 204})])[0], [0] * 3 + [expected] * 5, rtol=1e-6)
    assert tri.stats.queries == 6


def test_rewards_are_those_of_the_engine_on_the_same_frames():
    rewards, engine = rewards_of("tri"), RewardEngine(RewardConfig(mode="tri", interval=1), FakeModel())
    lights = [51, 90, 200, 120]
    rewards.begin([observation(lights[0])])
    engine.step({"a": observation(lights[0]).frames["front"]}, TASK)
    for light in lights[1:]:
        held = engine.step({"a": observation(light).frames["front"]}, TASK)["a"]
        assert rewards.score([chunk_result({1: light})])[0][0] == pytest.approx(held.signal)


def test_the_simulators_reward_is_its_progress_and_one_for_the_task():
    rewards = rewards_of("env")
    assert rewards.rules.judge_every == 0
    rewards.begin([observation()])
    done = chunk_result({}, 3, progress=[0.2, 0.3, 0.3, 1.0], success=[False, False, True])
    np.testing.assert_allclose(rewards.score([done])[0], [0.1, 0.0, 1.7], atol=1e-6)
    again = chunk_result({}, 2, progress=[1, 1, 1], success=[True, True])
    np.testing.assert_allclose(rewards.score([again])[0], [0, 0], atol=1e-6)


@pytest.mark.parametrize("mode", ["env", "completion"])
def test_no_episode_ends_because_the_simulator_says_that_the_task_is_done(mode):
    assert not rewards_of(mode).rules.stop_at_success


class Broken(FakeModel):
    """Gives no answer."""

    def score(self, queries, readout="forward"):
        return [Unscored(query.stamp_ns, query.head, "the line is cut") for query in queries]


@pytest.mark.parametrize("mode", ["progress", "completion", "contrastive", "tri"])
def test_a_query_that_fails_ends_the_run_and_says_why(mode):
    rewards = WorldRewards(RefineConfig(reward=mode), Broken())
    with pytest.raises(RuntimeError, match=r"world 0: the reward model gave no answer: the line is cut"):
        rewards.begin([observation()])
        rewards.score([chunk_result({2: 100})])


def test_an_unknown_reward_is_named():
    with pytest.raises(ValueError, match="reward 'happiness' is unknown; choose one of env, contrastive"):
        rewards_of("happiness")


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
        (["--run", str(tmp_path / "x")], "no policy to refine"),
    ):
        with pytest.raises(SystemExit):
            main(words)
        assert message in capsys.readouterr().err


def test_the_actor_learns_where_to_go(small_policy):
    """A bandit: the chunk's mean shoulder pan is paid for being near a target that depends on the state."""
    actor = ActActor(small_policy, RobotContract(), noise_std=0.1)
    ppo = PpoConfig(lr=3e-4, value_lr=3e-3, epochs=4, batch_size=64, micro_batch=64, clip_low=0.2, clip_high=0.2)
    ppo = replace(ppo, kl_beta=0.0, value_clip=10.0, max_gradient=1.0)
    optimiser = torch.optim.Adam(actor.parameter_groups(ppo.lr, ppo.value_lr), betas=(0.9, 0.95), eps=1e-5)
    generator = torch.Generator().manual_seed(0)
    seen = [observation(40, pan=-0.3), observation(200, pan=0.3)]
    before = actor.act(seen, None).targets[:, :, 0].mean(axis=1)
    target = before + np.array([0.25, -0.25])
    for _ in range(30):
        done = actor.act(seen * 64, actor.noise.sample(128, generator))
        miss = done.targets[:, :, 0].mean(axis=1) - np.tile(target, 64)
        reward = torch.tensor(-(miss**2) / 0.01, dtype=torch.float32)
        advantage = reward - done.value
        update(
            actor,
            optimiser,
            RolloutBuffer(done.inputs, done.actions, done.log_prob, done.value, advantage, reward),
            ppo,
            generator,
        )
    after = actor.act(seen, None).targets[:, :, 0].mean(axis=1)
    np.testing.assert_allclose(after, target, atol=0.08)
    assert np.abs(before - target).min() > 0.2
