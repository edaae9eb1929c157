# SPDX-License-Identifier: Apache-2.0
"""Evaluate refined policies and the one they come from on the same start poses; what is measured is kept on disk."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lrm_ros.checkpoint import policy_contract
from lrm_ros.commit import source_commit
from lrm_ros.config_files import from_dict, to_dict
from lrm_ros.config_refine import RefineConfig
from lrm_ros.files import read_json, read_lines, write_json
from lrm_ros.reward.models import MODES
from lrm_ros.sim.vector.worlds import EpisodeRules, VectorWorlds
from lrm_ros.training.ppo.play import play_seeds
from lrm_ros.training.ppo.refine import CONFIG, HISTORY, POLICY
from lrm_ros.training.ppo.weights import weights_of
from lrm_ros.types import VIDEO_HEADS

WAYS = ("deterministic", "sampled")
SFT = "sft"


@dataclass(frozen=True)
class RefinedRun:
    """A finished refinement.

    Attributes:
        folder: of the run.
        config: what ``lrm ppo`` was told, as plain data.
        commit: of the code that ran it last.
        history: a line an iteration.
    """

    folder: Path
    config: dict[str, Any]
    commit: str
    history: list[dict[str, Any]]

    @property
    def reward(self) -> str:
        """Name of its reward in tables: with the reward model that pays it if that is not the shipped one.

        The simulator's reward and the baselines ask ``model`` only how episodes ended.
        """
        reward = self.config["reward"]
        payer = self.config["baseline"] if reward in VIDEO_HEADS else self.config["model"] if reward in MODES else ""
        return reward if payer in ("", RefineConfig.model) else f"{reward} ({Path(payer).name})"


def read_runs(folders: Sequence[Path]) -> list[RefinedRun]:
    """Read finished refinements that may be compared.

    Raises:
        FileNotFoundError: no run there, or its policy is gone.
        ValueError: one is unfinished, two are the same training, or they differ in more than what pays the reward and
            the seed.
    """
    runs = []
    for folder in folders:
        if not (folder / CONFIG).is_file():
            raise FileNotFoundError(f"'{folder}' has no {CONFIG}; give run folders of 'lrm ppo'")
        about = read_json(folder / CONFIG, "run 'lrm ppo' again, without this file")
        history = read_lines(folder / HISTORY)
        wanted = about["config"]["iterations"]
        if len(history) != wanted or not (folder / POLICY).is_dir():
            raise ValueError(f"'{folder}' has {len(history)} of {wanted} iterations; run 'lrm ppo' again to finish it")
        config = to_dict(from_dict(RefineConfig, about["config"], str(folder / CONFIG)))
        runs.append(RefinedRun(folder, config, about["commit"], history))
    if not runs:
        raise ValueError("give at least one run folder of 'lrm ppo'")
    seen: dict[tuple[str, int], Path] = {}
    for run in runs:
        key = (run.reward, run.config["seed"])
        if key in seen:
            raise ValueError(
                f"'{seen[key]}' and '{run.folder}' are both reward '{key[0]}' with seed {key[1]}; give one"
            )
        seen[key] = run.folder
    for run in runs:
        weights_of(run.folder / POLICY)
    free = {"run", "reward", "model", "baseline", "seed", "processes", "ray", "device", "tensorboard", "checkpoint"}
    first = runs[0]
    for run in runs[1:]:
        differing = [k for k in first.config if k not in free and run.config.get(k) != first.config[k]]
        if differing:
            raise ValueError(
                f"'{run.folder}' differs from '{first.folder}' in {', '.join(differing)}; compare like runs"
            )
        if weights_of(Path(run.config["checkpoint"])) != weights_of(Path(first.config["checkpoint"])):
            raise ValueError(f"'{run.folder}' does not start from the policy that '{first.folder}' starts from")
    return runs


def evaluate_all(
    runs: Sequence[RefinedRun],
    seeds: Sequence[int],
    out: Path,
    worlds: int = 16,
    max_steps: int = 60,
    say: Callable[[str], Any] = print,
) -> dict[str, dict[str, dict[int, NDArray[np.bool_]]]]:
    """Measure the policy before and after each refinement, deterministic and sampled, unless that is on disk.

    Args:
        runs: finished refinements from one policy.
        seeds: of the start poses.
        out: folder of the results; one file a policy and way, named by the run's folder and the policy's weights.
        worlds: simulated at once.
        max_steps: control steps of an episode.
        say: called with a line after each measurement.

    Returns:
        way -> ``sft`` or reward -> training seed -> (P,) success; the policy before has training seed 0.
    """
    first = runs[0].config
    policies = [(SFT, 0, Path(first["checkpoint"]), SFT)]
    policies += [(run.reward, run.config["seed"], run.folder / POLICY, run.folder.name) for run in runs]
    found: dict[str, dict[str, dict[int, NDArray[np.bool_]]]] = {way: {} for way in WAYS}
    with contextlib.ExitStack() as stack:
        vector: VectorWorlds | None = None
        for (reward, seed, policy, name), way in itertools.product(policies, WAYS):
            about = {
                "policy": name,
                "weights": weights_of(policy),
                "max_steps": max_steps,
                "worlds": worlds,
                "noise_std": first["noise_std"] if way == "sampled" else 0.0,
                "execute_steps": first["execute_steps"],
                "seeds": list(map(int, seeds)),
            }
            path = out / f"{name}-{about['weights'][:8]}.{way}.json"
            success = _kept(path, about) or _kept(out / f"{name}.{way}.json", about)  # the name it had before
            if success is None:
                vector = vector or stack.enter_context(
                    VectorWorlds(
                        min(worlds, len(seeds)),
                        EpisodeRules(max_steps),
                        first["execute_steps"],
                        contract=policy_contract(first["checkpoint"]),
                    )
                )
                outcome = play_seeds(vector, policy, seeds, about["noise_std"])
                success = [outcome[s] for s in seeds]
                write_json(path, about | {"success": success, "commit": source_commit()}, indent=None)
            say(f"{name}, {way}: {sum(success)} of {len(success)}")
            found[way].setdefault(reward, {})[seed] = np.array(success)
    return found


def _kept(path: Path, about: dict[str, Any]) -> list[bool] | None:
    """Return what was measured before under the same conditions."""
    if not path.is_file():
        return None
    before = read_json(path, "delete it to measure again")
    return before["success"] if all(before.get(name) == value for name, value in about.items()) else None
