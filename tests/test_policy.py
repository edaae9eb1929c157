# SPDX-License-Identifier: Apache-2.0
"""Checkpoints that do not fit; chunks that continue the one before; LeRobot's policies do as in LeRobot's own loop."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from denoisers import diffusion_folder, observation, pi_folder, sees_and_says, smolvla_folder  # type: ignore[import-not-found]

from lrm_ros.config import RobotContract
from lrm_ros.policy import PolicyRunner, policy_input
from lrm_ros.types import Observation
from lrm_ros.versions import at_least

CONTRACT = RobotContract()


def changed(folder: Path, name: str, change) -> None:
    path = folder / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def features(change):
    def damage(folder: Path) -> None:
        changed(folder, "config.json", lambda values: change(values["input_features"]))

    return damage


def weights(change):
    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        tensors = load_file(folder / "model.safetensors")
        change(tensors)
        save_file(tensors, folder / "model.safetensors")

    return damage


def cut(name: str):
    def damage(folder: Path) -> None:
        path = folder / name
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    return damage


def statistics_gone(folder: Path) -> None:
    found = list(folder.glob("policy_preprocessor_step_*.safetensors"))
    assert found
    for path in found:
        path.unlink()


def other_statistics(folder: Path) -> None:
    from safetensors.torch import load_file, save_file

    for path in folder.glob("policy_*processor_step_*.safetensors"):
        save_file({name: tensor[..., :1].contiguous().repeat(9) if "state" in name or "action" in name else tensor
                   for name, tensor in load_file(path).items()}, path)  # fmt: skip


def first(tensors: dict) -> str:
    return max(tensors, key=lambda name: tensors[name].numel())


def renamed(found: dict) -> None:
    found["observation.images.top"] = found.pop(FRONT)


def one_more(found: dict) -> None:
    found["observation.images.wrist"] = found[FRONT]


def surroundings(found: dict) -> None:
    found["observation.environment_state"] = {"type": "ENV", "shape": [3]}


def sized(name: str, *shape: int):
    return features(lambda found: found[name].update(shape=shape))


def option(**values):
    return lambda folder: changed(folder, "config.json", lambda found: found.update(values))


def unknown_step(folder: Path) -> None:
    changed(folder, "policy_preprocessor.json", lambda found: found["steps"].append({"registry_name": "nobody_knows"}))


def statistics(word: str, change):
    """Change the statistics of what has this word in its name, in both processors."""

    def damage(folder: Path) -> None:
        from safetensors.torch import load_file, save_file

        for path in folder.glob("policy_*processor_step_*.safetensors"):
            found = {name: change(tensor) if word in name else tensor for name, tensor in load_file(path).items()}
            save_file({name: tensor for name, tensor in found.items() if tensor is not None}, path)

    return damage


def no_unnormalizer(folder: Path) -> None:
    changed(folder, "policy_postprocessor.json", lambda found: found["steps"].pop(0))


FRONT = "observation.images.front"
DAMAGES = {
    "another camera": (features(renamed), "'observation.images.top'"),
    "one camera more": (features(one_more), "'observation.images.wrist'"),
    "another image size": (sized(FRONT, 3, 480, 640), r"\(3, 480, 640\) instead of \(3, 96, 96\)"),
    "another state": (sized("observation.state", 7), r"\(7,\) instead of \(6,\)"),
    "an environment's state": (features(surroundings), "environment_state"),
    "an option of another LeRobot": (option(quantum=True), "quantum"),
    "an option of another type": (option(dim_model=[1]), "dim_model"),
    "other sizes": (option(dim_model=32), "size mismatch"),
    "weights cut": (cut("model.safetensors"), "does not load"),
    "config cut": (cut("config.json"), "not JSON"),
    "processor cut": (cut("policy_preprocessor.json"), "does not load"),
    "no weights at all": (lambda folder: (folder / "model.safetensors").write_bytes(b""), "does not load"),
    "a weight less": (weights(lambda found: found.pop(first(found))), "does not load.*[Mm]issing"),
    "a weight more": (weights(lambda found: found.update(stray=found[first(found)].clone())), "load.*[Uu]nexpected"),
    "weights that are no numbers": (weights(lambda found: found[first(found)].fill_(float("nan"))), "non-finite"),
    "no statistics": (statistics_gone, "does not load"),
    "statistics of another arm": (other_statistics, "have .9. values, there are 6"),
    "an unknown step": (unknown_step, "nobody_knows"),
    "nothing that scales its actions": (no_unnormalizer, "no statistics that scale 'action'"),
    "no statistics of the actions": (statistics("action", lambda _: None), "no statistics that scale 'action'"),
    "no statistics of the state": (statistics("state", lambda _: None), "no statistics that scale 'observation.state'"),
    "no statistics of a camera": (statistics("front", lambda _: None), "no statistics that scale .*front"),
    "statistics of one joint": (statistics("action", lambda found: found[:1].clone()), "'action' have .1. values"),
}


@pytest.mark.parametrize("what", DAMAGES)
def test_a_checkpoint_that_does_not_fit_is_refused_in_one_line_with_its_name(what, small_policy, tmp_path):
    damage, reason = DAMAGES[what]
    folder = tmp_path / "policy"
    shutil.copytree(small_policy, folder)
    damage(folder)
    with pytest.raises(ValueError, match=reason) as refused:
        PolicyRunner(folder, CONTRACT)
    assert str(folder) in str(refused.value) and "\n" not in str(refused.value)


def test_a_library_that_ends_the_program_ends_the_loading_only(small_policy, monkeypatch):
    def ends(*_, **__):
        raise SystemExit(2)

    monkeypatch.setattr("lerobot.policies.factory.make_pre_post_processors", ends)
    with pytest.raises(ValueError, match="does not load: SystemExit: 2"):
        PolicyRunner(small_policy, CONTRACT)


def test_trying_a_policy_leaves_its_memory_and_the_random_numbers_as_they_were(smolvla):
    import torch

    runner = PolicyRunner(smolvla, CONTRACT)
    torch.manual_seed(3)
    wanted = torch.rand(3)
    torch.manual_seed(3)
    runner._try()
    assert torch.equal(torch.rand(3), wanted) and runner._raw is None


def test_predict_gives_all_that_is_predicted_and_act_the_part_to_be_executed(small_policy):
    runner = PolicyRunner(small_policy, CONTRACT, 4)
    seen = observation()
    whole, part = runner.predict(seen), runner.act(seen)
    assert len(whole.actions) == 10 and whole.stamp_ns == seen.stamp_ns
    np.testing.assert_array_equal(part.actions, whole.actions[:4])


# ---- real-time chunking --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def smolvla(tmp_path_factory) -> Path:
    return smolvla_folder(tmp_path_factory.mktemp("smolvla"))


def later(seen: Observation, steps: int) -> Observation:
    return Observation(seen.stamp_ns + steps * 100_000_000, seen.frames, seen.state + np.float32(0.5), seen.task)


@pytest.mark.parametrize(("delay", "waited"), [(1, 0), (3, 0), (3, 6)])
def test_smolvla_continues_the_chunk_before_where_it_is_executed_meanwhile(smolvla, delay, waited):
    import torch

    runner = PolicyRunner(smolvla, CONTRACT)
    torch.manual_seed(0)
    before = runner.predict(observation()).actions
    begun = 4
    seen = later(observation(), begun + waited)
    raw = runner._raw
    torch.manual_seed(1)
    continued = runner.predict(seen, delay, (0, waited * 100_000_000)).actions
    runner._raw = raw
    torch.manual_seed(1)
    fresh = runner.predict(seen, delay, None).actions  # the arm was told to hold meanwhile
    left = before[begun:]
    gap = np.abs(continued[: len(left)] - left).max(1)
    apart = np.abs(fresh[: len(left)] - left).max(1)
    assert (gap[:delay] < 0.2 * apart[:delay]).all(), (gap, apart)


def test_a_chunk_that_is_over_is_not_continued_and_other_policies_continue_none(smolvla, small_policy):
    import torch

    runner = PolicyRunner(smolvla, CONTRACT)
    runner.predict(observation())
    seen = later(observation(), 50)
    torch.manual_seed(1)
    late = runner.predict(seen, 2, (0, 0)).actions
    runner.reset()
    torch.manual_seed(1)
    np.testing.assert_array_equal(late, runner.predict(seen, 2, None).actions)
    small = PolicyRunner(small_policy, CONTRACT)
    one = small.predict(observation()).actions
    np.testing.assert_array_equal(small.predict(observation(), 3).actions, one)


def test_in_lock_step_smolvla_acts_as_without_real_time_chunking(smolvla):
    import torch

    runner = PolicyRunner(smolvla, CONTRACT)
    torch.manual_seed(1)
    wanted = runner.act(observation()).actions
    runner.predict(observation())
    torch.manual_seed(1)
    np.testing.assert_allclose(runner.act(observation()).actions, wanted, atol=1e-6)


@pytest.mark.parametrize("text", ["null", "[]", '{"type": []}', '{"type": null}', "[" * 20_000])
def test_a_configuration_that_is_none_is_one_line(tmp_path, text):
    from lrm_ros.versions import load_policy_config

    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json'.*again$") as refused:
        load_policy_config(tmp_path)
    assert "\n" not in str(refused.value)


# ---- as in LeRobot's own loop --------------------------------------------------------------------------------------


def seen_in_turn(steps: int) -> list[Observation]:
    """What is seen in the control steps of an episode."""
    found = [observation(20 + 9 * k, 0.05 * k) for k in range(steps)]
    return [dataclasses.replace(one, stamp_ns=(k + 1) * 100_000_000) for k, one in enumerate(found)]


def in_lerobots_loop(runner: PolicyRunner, seen: list[Observation], seed: int) -> np.ndarray:
    """The actions (S, D) of LeRobot's loop: it asks the policy in every control step."""
    import torch
    from lerobot.policies.factory import get_policy_class

    config = runner.policy.config
    policy = get_policy_class(config.type).from_pretrained(runner._checkpoint, config=config)
    policy.eval()
    policy.reset()
    torch.manual_seed(seed)
    with torch.inference_mode():
        steps = [policy.select_action(runner.preprocess(policy_input(one, CONTRACT))) for one in seen]
    return np.concatenate([runner.postprocess(step).numpy() for step in steps])


def in_ours(runner: PolicyRunner, seen: list[Observation], seed: int) -> np.ndarray:
    """The same of ours: the policy is asked once a chunk and shown the steps before."""
    runner.reset(seed)
    found, back = [], runner.observed_steps - 1
    for k in range(0, len(seen), runner.execute_steps):
        before = tuple(seen[max(k - back, 0) : k])
        found.append(runner.act(dataclasses.replace(seen[k], before=before)).actions)
    return np.concatenate(found)[: len(seen)]


@pytest.mark.parametrize("observed", [1, 2, 3])
def test_a_diffusion_policy_acts_as_in_lerobots_loop_at_its_beginning_and_later(tmp_path, observed):
    folder = diffusion_folder(tmp_path / "diffusion", steps=0, n_obs_steps=observed)
    runner, seen = PolicyRunner(folder, CONTRACT), seen_in_turn(20)
    assert runner.observed_steps == observed
    wanted = in_lerobots_loop(runner, seen, 5)
    np.testing.assert_allclose(in_ours(runner, seen, 5), wanted, atol=1e-6)
    np.testing.assert_array_equal(in_ours(runner, seen, 5), in_ours(runner, seen, 5))  # nothing is left of before
    assert np.abs(in_ours(runner, seen, 6) - wanted).max() > 1e-3
    if observed > 1:
        forgetful = [dataclasses.replace(one, before=()) for one in seen[:17]]
        runner.reset(5)
        for one in forgetful[::8]:
            blind = runner.act(one).actions
        assert np.abs(blind[: len(seen) - 16] - wanted[16:]).max() > 1e-4, "what was before does not count"


@pytest.mark.parametrize("kind", ["smolvla", "pi0", "pi05"])
def test_a_language_policy_runs_from_the_folder_as_lerobot_leaves_it(kind, smolvla, tmp_path, monkeypatch):
    if kind != "smolvla" and not at_least("lerobot", 0, 6):  # 0.4 wants its own build of transformers, and says so
        with pytest.raises(ValueError, match="incorrect transformer version"):
            pi_folder(kind, tmp_path, monkeypatch)
        return
    folder = tmp_path / "policy"
    shutil.copytree(smolvla if kind == "smolvla" else pi_folder(kind, tmp_path / "made", monkeypatch), folder)
    (folder / "contract.json").unlink()
    words = json.loads((folder / "policy_preprocessor.json").read_text())["steps"]
    assert "tokenizer_processor" in [step["registry_name"] for step in words]
    runner, seen = PolicyRunner(folder, CONTRACT, units="rad"), seen_in_turn(12)
    assert runner.policy.config.type == kind and runner.execute_steps == 10
    np.testing.assert_allclose(in_ours(runner, seen, 5), in_lerobots_loop(runner, seen, 5), atol=1e-5)
    runner.reset(5)
    told = runner.act(seen[0]).actions
    runner.reset(5)
    assert np.abs(runner.act(dataclasses.replace(seen[0], task="push it away")).actions - told).max() > 1e-6


def test_a_policy_that_looks_back_and_is_no_diffusion_policy_is_refused(small_policy, tmp_path):
    from lerobot.policies.vqbet.configuration_vqbet import VQBeTConfig

    folder = tmp_path / "policy"
    shutil.copytree(small_policy, folder)
    sees_and_says(VQBeTConfig(device="cpu")).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"is a vqbet that looks at the last 5 control steps; .* n_obs_steps = 1"):
        PolicyRunner(folder, CONTRACT)


def test_in_many_worlds_a_policy_that_looks_back_is_refused_with_a_way(tmp_path):
    from lrm_ros.training.ppo.actors.load import load_eval_actor

    folder = diffusion_folder(tmp_path / "diffusion", steps=0, n_obs_steps=2)
    with pytest.raises(ValueError, match=r"looks at 2 control steps; .*\(without --worlds\)"):
        load_eval_actor(folder, CONTRACT, 8, 0.0)
