# SPDX-License-Identifier: Apache-2.0
"""Train a LeRobot policy on episodes with LeRobot's own training code: ``lrm finetune``.

Model, loss, optimiser, schedule, processors and checkpoint format are LeRobot's (lerobot.scripts.lerobot_train); the
loss of ``act`` and ``smolvla`` is that of the installed LeRobot (0.4 also counts the steps past an episode's end). Own
are the batches (drawn by a seed that depends on the step only; frames decoded once into RAM if they fit there) and the
resuming: a run that was killed goes on from its last checkpoint and ends with the same weights.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from lrm_ros.config import FinetuneConfig, RobotContract
from lrm_ros.config_files import add_options, from_options, to_dict
from lrm_ros.contract import save_contract
from lrm_ros.options import number, whole
from lrm_ros.programs import exit_code
from lrm_ros.progress import progress_bar
from lrm_ros.training.policy.batches import TrainingData, add_state_noise, jitter_hues
from lrm_ros.training.policy.create import has_time_axis, load_or_create, lr_schedule
from lrm_ros.training.policy.datasets import MEMORY_SHARE, UNITS, WORKERS, training_data
from lrm_ros.types import Episode
from lrm_ros.versions import training_states

METRICS_FILE = "finetune.json"


def finetune(
    datasets: Sequence[str | Path | Sequence[Episode]],
    out: str | Path,
    config: FinetuneConfig,
    contract: RobotContract | None = None,
    progress: Callable[[int, int, float], None] | None = None,
    **reading: Any,
) -> dict[str, Any]:
    """Train a policy and save it as a LeRobot ``pretrained_model`` folder.

    A finished ``out`` made by the same call is returned as it is; an interrupted one is resumed.

    Args:
        datasets: LeRobotDataset folders of this package or of LeRobot, names on its hub, or lists of episodes.
        out: folder of the new checkpoint; its unfinished state lives beside it in ``<out>.part``.
        config: how it is trained.
        contract: robot contract of in-memory episodes; data set folders carry their own.
        progress: called with (step, steps, loss) after each step.
        reading: how data sets are read: ``contract_file``, ``units``, ``memory_share``, ``workers``, ``say`` of
            :func:`training_data`.

    Returns:
        Figures: steps, seconds, ms_per_step, loss_first, loss_last, losses, inputs, episodes, parameters, settings.

    Raises:
        ValueError: data, checkpoint and contract do not fit together, or ``out`` belongs to another run.
        FloatingPointError: the loss became infinite or NaN.
    """
    import lerobot_policy_act_small  # noqa: F401  registers the policy type with LeRobot

    out = Path(out)
    data = training_data(
        datasets, config.label, contract, config.init, out=out, corrections=config.corrections, **reading
    )
    settings = settings_of(config, data)
    part = out.with_name(out.name + ".part")
    if (out / METRICS_FILE).is_file():
        figures = json.loads((out / METRICS_FILE).read_text(encoding="utf-8"))
        _check_settings(figures["settings"], settings, out)
        shutil.rmtree(part, ignore_errors=True)  # a data set of v2.1 that was converted to look at it
        return figures
    if out.exists():
        raise ValueError(f"'{out}' exists and is no finished training; remove it or choose another --out")
    run = _Training(data, data.contract, config, part)
    started, first = time.perf_counter(), run.step
    while run.step < config.steps:
        loss = run.train_step()
        if progress:
            progress(run.step, config.steps, loss)
        if config.checkpoint_every and run.step % config.checkpoint_every == 0 and run.step < config.steps:
            run.save()
    seconds = time.perf_counter() - started
    figures = {
        "steps": config.steps,
        "resumed_at": first,
        "seconds": seconds,
        "ms_per_step": 1e3 * seconds / max(1, config.steps - first),
        "loss_first": float(np.mean(run.losses[:20])),
        "loss_last": float(np.mean(run.losses[-100:])),
        "inputs": len(data.inputs),
        "episodes": data.episodes,
        "parameters": run.parameters,
        "settings": settings,
        "losses": run.losses,
    }
    run.finish(out, figures)
    return figures


def settings_of(config: FinetuneConfig, data: TrainingData) -> dict[str, Any]:
    """Return the settings that determine a training's result: fields of ``config``, a checksum of the data."""
    settings = to_dict(config)
    del settings["checkpoint_every"]  # does not change the result
    return {**settings, "data": data.fingerprint()}


class _Training:
    """One training: LeRobot's objects and the step counter; saves and restores them."""

    def __init__(self, data: TrainingData, contract: RobotContract, settings: FinetuneConfig, part: Path) -> None:
        from accelerate import Accelerator
        from lerobot.configs.default import DatasetConfig
        from lerobot.configs.train import TrainPipelineConfig
        from lerobot.optim.factory import make_optimizer_and_scheduler
        from lerobot.utils.logging_utils import AverageMeter, MetricsTracker
        from lerobot.utils.random_utils import set_seed

        self.data, self.contract, self.settings, self.part = data, contract, settings, part
        self.step, self.losses = 0, []
        set_seed(settings.seed)
        resume = self._last_checkpoint()
        source = resume / "pretrained_model" if resume else settings.init
        self.policy, self.preprocessor, self.postprocessor = load_or_create(data, settings, source)
        config = self.policy.config
        # Steps relative to an input, for a policy whose observations have a time axis.
        self.observed = list(config.observation_delta_indices) if has_time_axis(config) else None
        if self.observed is not None:
            data.look_back(self.observed)
        self.parameters = sum(p.numel() for p in self.policy.parameters() if p.requires_grad)
        optimizer = config.get_optimizer_preset()
        self.config = TrainPipelineConfig(
            dataset=DatasetConfig(repo_id="local/episodes", video_backend="pyav"),  # unused; default: torchcodec
            policy=config,
            optimizer=optimizer,
            scheduler=lr_schedule(settings, optimizer.lr),
            steps=settings.steps,
            batch_size=settings.batch_size,
            seed=settings.seed,
        )
        self.optimizer, self.scheduler = make_optimizer_and_scheduler(self.config, self.policy)
        if resume:
            self.step, self.optimizer, self.scheduler = training_states().load_training_state(
                resume, self.optimizer, self.scheduler
            )
            self.losses = json.loads((resume / "losses.json").read_text(encoding="utf-8"))
        self.accelerator = Accelerator(cpu=config.device == "cpu")
        # The last one only LeRobot 0.6 writes, and only where there is a GPU.
        names = ("loss", "grad_norm", "lr", "update_s", "gpu_mem_gb")
        meters = {name: AverageMeter(name, ":.3g") for name in names}
        self.metrics = MetricsTracker(settings.batch_size, len(data.inputs), data.episodes, meters, self.step)
        self.policy.train()
        self.batches = data.batches(
            settings.seed, range(self.step, settings.steps), settings.batch_size, settings.weights,
            config.action_delta_indices, self.observed,
        )  # fmt: skip

    def train_step(self) -> float:
        """Do one optimizer step with LeRobot's ``update_policy`` and return the loss."""
        from lerobot.scripts.lerobot_train import update_policy

        settings = self.settings
        batch = next(self.batches)
        if settings.colour > 0:
            for camera in self.contract.cameras:
                key = f"observation.images.{camera.name}"
                batch[key] = jitter_hues(batch[key], settings.seed, self.step, settings.colour)
        if settings.state_noise > 0:
            states = batch["observation.state"]
            batch["observation.state"] = add_state_noise(states, settings.seed, self.step, settings.state_noise)
        batch = self.preprocessor(batch)
        clip = self.config.optimizer.grad_clip_norm
        update_policy(
            self.metrics, self.policy, batch, self.optimizer, clip, self.accelerator, lr_scheduler=self.scheduler
        )
        loss = self.metrics.loss.val
        if not np.isfinite(loss):
            raise FloatingPointError(
                f"the loss is {loss} at step {self.step} (lr {self.metrics.lr.val:g}); lower --lr or look for damaged"
                f" episodes; the last good state is in '{self.part}'"
            )
        self.step += 1
        self.losses.append(round(loss, 6))
        return loss

    def save(self) -> None:
        """Write a checkpoint; it appears under its name only when complete, older ones go afterwards."""
        target = self.part / f"{self.step:08d}"
        temporary = self.part / "writing"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        training_states().save_checkpoint(
            temporary, self.step, self.config, self.policy, self.optimizer, self.scheduler,
            self.preprocessor, self.postprocessor,
        )  # fmt: skip
        (temporary / "losses.json").write_text(json.dumps(self.losses))
        (temporary / "settings.json").write_text(json.dumps(settings_of(self.settings, self.data)))
        os.rename(temporary, target)
        for old in self.part.glob("[0-9]*"):
            if old != target:
                shutil.rmtree(old)

    def finish(self, out: Path, figures: dict[str, Any]) -> None:
        """Move the finished checkpoint to its place and remove the checkpoints."""
        self.batches.close()  # ends its processes
        temporary = self.part / "finished"
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        self.policy.save_pretrained(temporary)
        self.config.save_pretrained(temporary)
        self.preprocessor.save_pretrained(temporary)
        self.postprocessor.save_pretrained(temporary)
        save_contract(self.contract, temporary)
        (temporary / METRICS_FILE).write_text(json.dumps(figures))
        os.rename(temporary, out)
        shutil.rmtree(self.part)

    def _last_checkpoint(self) -> Path | None:
        """Return the newest complete checkpoint, checked against the settings."""
        points = sorted(self.part.glob("[0-9]*"))
        if not points:
            return None
        found = json.loads((points[-1] / "settings.json").read_text(encoding="utf-8"))
        _check_settings(found, settings_of(self.settings, self.data), self.part)
        return points[-1]


def _check_settings(found: dict[str, Any], wanted: dict[str, Any], folder: Path) -> None:
    """Raise if a folder belongs to a training with other settings or data; one it does not name had its default."""
    found = {**to_dict(FinetuneConfig(steps=1)), "steps": None, **found}
    wanted = json.loads(json.dumps(wanted))
    changed = [key for key in wanted if found.get(key) != wanted[key]]
    differences = [f"{key} {found.get(key)!r} instead of {wanted[key]!r}" for key in changed]
    if differences:
        raise ValueError(
            f"'{folder}' belongs to another training ({'; '.join(differences)}); remove it or choose another --out"
        )


def main(argv: list[str] | None = None) -> int:
    """Run ``lrm finetune``."""
    import argparse

    parser = argparse.ArgumentParser(prog="lrm finetune", description=__doc__.splitlines()[0])
    parser.add_argument(
        "--dataset",
        action="append",
        required=True,
        metavar="FOLDER|USER/NAME",
        help="LeRobotDataset v2.0 to v3.0, of this package or of LeRobot, or its name on the hub; may be repeated",
    )
    parser.add_argument(
        "--contract", metavar="FILE", help="robot contract with limits, for data sets that LeRobot or its tools wrote"
    )
    parser.add_argument(
        "--units", choices=UNITS, help="of what LeRobot recorded: 'arm' (as in section arm of --contract) or 'rad'"
    )
    parser.add_argument("--out", required=True, help="folder of the new checkpoint; an interrupted run is resumed")
    add_options(parser, FinetuneConfig)
    parser.add_argument(
        "--memory-share",
        type=number(),
        default=MEMORY_SHARE,
        help=f"share of the free memory for images; more are read while it trains (default: {MEMORY_SHARE})",
    )
    parser.add_argument(
        "--workers", type=whole(0), default=WORKERS, help=f"processes that then read images (default: {WORKERS})"
    )
    parser.add_argument("--threads", type=whole(1), help="torch threads (default: torch's)")
    parser.add_argument("--json", metavar="FILE", help="write the metrics to this file")
    arguments = parser.parse_args(argv)

    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    try:
        config = from_options(FinetuneConfig, arguments)
        with progress_bar(config.steps, "train " + "/".join(Path(arguments.out).parts[-2:]), "step") as bar:

            def show(step: int, steps: int, loss: float) -> None:
                bar.update(step - bar.n)
                bar.set_postfix(loss=f"{loss:.4f}", refresh=False)

            figures = finetune(
                arguments.dataset,
                arguments.out,
                config,
                progress=show,
                contract_file=arguments.contract,
                units=arguments.units,
                memory_share=arguments.memory_share,
                workers=arguments.workers,
                say=lambda line: bar.write(line, file=sys.stderr),
            )
    except (ValueError, FileNotFoundError, FloatingPointError) as error:
        parser.exit(exit_code(error), f"lrm finetune: {error}\n")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(figures, indent=1))
    print(
        f"{arguments.out}: {figures['steps']} steps on {figures['episodes']} episodes, "
        f"loss {figures['loss_first']:.4f} -> {figures['loss_last']:.4f}, {figures['ms_per_step']:.0f} ms a step"
    )
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
