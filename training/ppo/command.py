# SPDX-License-Identifier: Apache-2.0
"""Refine a policy by PPO in simulated worlds, with the simulator's reward or a reward model's: ``lrm ppo``.

Each iteration plays ``worlds`` x ``steps`` control steps from new start poses and learns from them. A run that was
killed at any moment goes on when the same command is given again, and ends with the same policy.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from lrm_ros.config import PolicyConfig
from lrm_ros.config_files import OddNumber, from_dict, load_yaml, to_dict, yaml_value
from lrm_ros.config_refine import RefineConfig
from lrm_ros.files import read_lines
from lrm_ros.options import whole
from lrm_ros.programs import exit_code
from lrm_ros.progress import progress_bar
from lrm_ros.sim.vector.rewards import REWARDS
from lrm_ros.training.ppo.refine import HISTORY, POLICY, refine


def read_settings(path: str | Path | None, items: Sequence[str], given: Mapping[str, str]) -> RefineConfig:
    """Return the settings of a run.

    Args:
        path: YAML file of settings; none: the defaults.
        items: settings on top of it, ``NAME=VALUE``, with ``ppo.`` before those of the update.
        given: settings on top of these by name; empty ones do not count.

    Raises:
        ValueError: an unknown setting, a value of the wrong type, or no checkpoint.
        FileNotFoundError: no such file.
    """
    values = to_dict(load_yaml(path, RefineConfig) if path else RefineConfig())
    for item in items:
        name, equals, text = item.partition("=")
        if not equals:
            raise ValueError(f"setting '{item}': give NAME=VALUE")
        section = values["ppo"] if name.startswith("ppo.") else values
        try:
            section[name.removeprefix("ppo.")] = yaml_value(text)
        except OddNumber as error:
            raise ValueError(f"setting '{item}': {error}") from error
        except ValueError as error:
            raise ValueError(f"setting '{item}': '{text}' is no YAML value") from error
    config = from_dict(RefineConfig, values | {k: v for k, v in given.items() if v}, str(path or "settings"))
    if not config.checkpoint:
        raise ValueError("no policy to refine; give a checkpoint (one of 'lrm finetune', or runs/demo/iter_000/policy)")
    return config


def row(line: dict[str, Any]) -> str:
    """Return one iteration as a line for a terminal."""
    seconds = line["seconds"]

    def share(name: str) -> str:
        return f"{name} {seconds[name]:.1f}"

    rate = "-" if line["success"] is None else f"{100 * line['success']:.0f} %"
    judged = "-" if line["judged"] is None else f"{line['judged']:.2f}"
    away = "" if line["divergence"] is None else f"from start {line['divergence']:.3f}  "
    return (
        f"{line['iteration'] + 1:4d}  reward/step {line['reward_per_step']:+.4f}  success {rate:>5s}  judge {judged}  "
        f"kl {line['step_kl']:.4f}  {away}explained {line['explained']:+.2f}  "
        f"{line['steps'] / seconds['all']:.0f} steps/s ({share('worlds')}, {share('reward')}, {share('update')} s)"
    )


def run_bar(config: RefineConfig) -> tqdm:
    """Return the progress bar of a run, in control steps; it begins where the run folder stopped."""
    each = config.worlds * config.steps
    before = len(read_lines(Path(config.run) / HISTORY))
    total = config.iterations * each
    return progress_bar(total, f"ppo {config.reward}", "step", min(total, before * each))


def outcome(config: RefineConfig) -> str:
    """Return what a finished run has made, in a line."""
    words = f"{Path(config.run) / POLICY}: {config.iterations} iterations with reward '{config.reward}'"
    if config.execute_steps == PolicyConfig.execute_steps:
        return words
    return f"{words}; it acts {config.execute_steps} steps a look: evaluate with --execute-steps {config.execute_steps}"


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm ppo``."""
    parser = argparse.ArgumentParser(
        prog="lrm ppo", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--checkpoint", help="folder of the policy to refine")
    parser.add_argument("--run", help="run folder; an interrupted run goes on")
    parser.add_argument("--reward", choices=REWARDS)
    parser.add_argument("--config", type=Path, help="YAML file of all settings, e.g. config/ppo_twin.yaml")
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", help="a setting, e.g. worlds=24 or ppo.lr=1e-5"
    )
    parser.add_argument("--threads", type=whole(1), help="torch threads (default: torch's)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the history here")
    args = parser.parse_args(argv)
    try:
        given = {k: v for k in ("checkpoint", "run", "reward") if (v := getattr(args, k)) is not None}
        config = read_settings(args.config, args.set, given)
        if args.threads:
            torch.set_num_threads(args.threads)
        with run_bar(config) as bar:
            history = refine(config, lambda line: bar.write(row(line)), bar.update)
    except (ValueError, FileNotFoundError, FloatingPointError, RuntimeError) as error:
        parser.exit(exit_code(error), f"lrm ppo: {error}\n")
    if args.json:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({"config": to_dict(config), "history": history}, indent=1) + "\n")
    for text in dict.fromkeys(text for line in history for text in line["warnings"]):
        print(f"watch: {text}")
    print(outcome(config))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
