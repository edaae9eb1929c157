# SPDX-License-Identifier: Apache-2.0
"""The improver node: the self-improvement loop (paper IV-C), from demonstrations to the final evaluation.

Demonstrations -> SFT -> iterations of (roll out -> the completion head judges -> keep successes -> data set ->
fine-tune, and beside it a control: the same number of training steps on the demonstrations alone -> swap the
checkpoint) -> evaluation of baseline, control and result on held-out seeds. Every stage leaves its result on the disk
under its final name only when complete, so that a run killed at any point goes on where it was.

The loop sees images and the judge's verdicts. The simulator's truth goes to the evaluator only.
"""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from lifecycle_msgs.msg import State

from lrm_ros import messages, topics
from lrm_ros.commit import source_commit
from lrm_ros.config import FinetuneConfig, ImproverConfig, RobotContract
from lrm_ros.config_files import to_dict
from lrm_ros.files import append_line, read_json, write_json
from lrm_ros.progress import progress_bar
from lrm_ros.record.dataset import Omissions, is_complete, write_dataset
from lrm_ros.reward.views import judge_cameras
from lrm_ros.robot.so100.kinematics import require_so100
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.collector import Collector, kept_any
from lrm_ros.ros.control import Control, EpisodeError, SentSteps, Stopped, TwinEpisodes
from lrm_ros.ros.judge import Judge
from lrm_ros.ros.program import run
from lrm_ros.ros.training import Training
from lrm_ros.types import Frame


class ImproverNode(LrmNode[ImproverConfig]):
    """Runs the loop in a thread while it is active, and ends its graph when the loop has ended."""

    CONFIG: ClassVar[type[ImproverConfig]] = ImproverConfig
    PACKAGES: ClassVar[tuple[str, ...]] = ("lerobot", "mani_skill", "torch", "transformers", "peft", "numpy")
    MORE: ClassVar[tuple[str, ...]] = ()  # settings of which a run that is gone on with may have more
    SERVICES: ClassVar[tuple[str, ...]] = (
        *("reward/reset", "twin/reset", "policy/reset", "policy/reload", "recorder/start_episode"),
        *("twin/demonstrate", "evaluator/evaluate"),
    )

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("improver", self.CONFIG, overrides)
        self._thread: threading.Thread | None = None
        self._control: Control | None = None
        self._children: list[subprocess.Popen[bytes]] = []
        self._stopping = False
        self._evaluation: dict[str, str] = {}
        self._contract_file = ""  # by which the trainings read data sets that do not tell limits and units

    def configure(self) -> None:
        """Check the run folder and listen to the evaluator and to the reward node's judgements."""
        os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")  # a bar an episode drowns the loop's own
        if self.config.explore_std > 0:  # not after hours of training, when the first rollout explores
            require_so100(self.contract, "exploration", "set explore_std to 0")
        self._cameras = judge_cameras(self.config.judge_camera, self.contract)
        self._run = Path(self.config.run)
        self._remember_config()
        self._control = self._connect()
        self._judge = Judge(self, self._control, self.config, cameras=self._cameras)
        self._collector = self._make_collector(self._control, SentSteps(self, self._control))

    def _connect(self) -> Control:
        """Return the control with the clients of all other nodes."""
        triggers = (*TwinEpisodes.TRIGGERS, *self.SERVICES)
        nodes = (*TwinEpisodes.NODES, "policy", "evaluator", "reward")
        topics.EVALUATION.subscribe(self, self._on_evaluation)
        return Control(self, triggers, nodes, lifecycles=("reward",), set_bools=TwinEpisodes.SET_BOOLS)

    def _make_collector(self, control: Control, sent: SentSteps) -> Collector:
        """Return who collects episodes."""
        return Collector(control, TwinEpisodes(control), sent, self._judge, self._cameras, self.config)

    def activate(self) -> None:
        """Start or resume the loop."""
        assert self._control is not None
        self._stopping = False
        self._control.resume()
        self._thread = threading.Thread(target=self._guard, name="improver")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop the loop; it goes on at the next start."""
        self._stopping = True
        if self._control is not None:
            self._control.stop()
        for child in self._children:
            if child.poll() is None:
                child.terminate()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    # -- bookkeeping -------------------------------------------------------------------------------------------------

    def _remember_config(self) -> None:
        """Write the run's configuration, or check that a resumed run has the same.

        Raises:
            ValueError: the run was started with other settings; names them.
        """
        path = self._run / "config.json"
        now = {"improver": to_dict(self.config), "contract": to_dict(self.contract)}
        if path.exists():
            before = read_json(path, "use another run folder (run:=...), or delete this one")
            if not isinstance(before, dict) or not all(isinstance(before.get(part, {}), dict) for part in now):
                raise ValueError(f"'{path}' holds no settings; use another run folder (run:=...), or delete this one")
            # A setting that the run did not know yet had its default's meaning.
            unknown = {"improver": to_dict(self.CONFIG()), "contract": to_dict(RobotContract())}
            more: dict[str, Any] = {}
            for part, values in now.items():
                for key, value in values.items():
                    was = (unknown[part] | before.get(part, {}))[key]
                    if key in self.MORE and isinstance(was, int) and value > was:
                        more[key] = value
                    elif was != value:
                        raise ValueError(
                            f"run '{self._run}' was started with {key}={was!r}, now it is {value!r}; "
                            "use another run folder (run:=...), delete this one, or set the old value"
                        )
            if more:
                write_json(path, {**before, "improver": {**before.get("improver", {}), **more}})
            return
        about = {**now, "versions": {name: version(name) for name in self.PACKAGES}, "commit": source_commit()}
        write_json(path, about)

    @contextmanager
    def _stage(self, name: str, iteration: int | None) -> Iterator[dict[str, Any]]:
        """Time a stage and append it to ``stages.jsonl``; the caller may add figures to the yielded row."""
        title = name if iteration is None else f"{name}, iteration {iteration}"
        print(f"== {title}", flush=True)
        row: dict[str, Any] = {"stage": name, "iteration": iteration}
        started = time.perf_counter()
        yield row
        row["seconds"] = round(time.perf_counter() - started, 2)
        append_line(self._run / "stages.jsonl", row)

    def _guard(self) -> None:
        """Run the loop and end the node with its outcome."""
        try:
            self._loop()
        except Stopped:
            return
        except (EpisodeError, OSError, ValueError) as error:
            self.get_logger().error(f"the loop stopped: {error}\n{traceback.format_exc()}")
            print(f"error: {error}\nwhat is finished is kept in '{self._run}'; start again to go on", flush=True)
            self.exit(1)
        else:
            self.exit(0)

    # -- the loop ----------------------------------------------------------------------------------------------------

    def _loop(self) -> None:
        """Do every stage that is not done yet."""
        config, run_folder = self.config, self._run
        assert self._control is not None
        load_s = self._control.load_s  # the reward node loads its model, which may be large, while this one is ready
        self._control.wait_ready(self.SERVICES, load_s)
        self._control.wait_state("reward", State.PRIMARY_STATE_ACTIVE, load_s)
        camera = self.contract.cameras[0]
        self._judge.begin(Frame(0, camera.name, np.zeros((camera.height, camera.width, 3), np.uint8)))
        self._collector.abandon()
        datasets = [self._demonstrations(run_folder / "demonstrations")]
        start = self._training(0, "policy", datasets, config.sft_steps, None)
        self._train("sft", 0, [start])
        sft = policy = control = start.out
        for iteration in range(1, config.iterations + 1):
            folder = run_folder / f"iter_{iteration:03d}"
            if not is_complete(folder / "dataset"):
                with self._stage("rollout", iteration) as row:
                    self._use(policy)
                    row.update(self._collector.roll_out(folder, iteration))
                with self._stage("dataset", iteration) as row:
                    row["steps"] = self._write_dataset(folder) if kept_any(folder) else 0
            if is_complete(folder / "dataset"):
                datasets.append(folder / "dataset")
            else:
                print(
                    f"the judge kept no episode of iteration {iteration}: it trains on what there was before. Train "
                    "the policy longer (sft_steps), collect more (episodes, tries), or look at the rejected episodes",
                    flush=True,
                )
            results = [
                self._training(iteration, "policy", datasets, config.finetune_steps, policy),
                self._training(iteration, "control", datasets[:1], config.finetune_steps, control),
            ]
            self._train("finetune", iteration, results)
            policy, control = (training.out for training in results)
        self._measure({"baseline": sft, "control": control, "final": policy})

    def _demonstrations(self, folder: Path) -> Path:
        """Return the data set of the demonstrations, collecting what is missing into a folder."""
        if not is_complete(folder / "dataset"):
            with self._stage("demonstrations", None) as row:
                row["kept"] = self._collector.demonstrate(folder)
                self._write_dataset(folder)
        return folder / "dataset"

    def _measure(self, policies: Mapping[str, Path]) -> None:
        """Evaluate the policies that the result is about, by name."""
        for name, checkpoint in policies.items():
            if not (self._run / "eval" / f"{name}.json").exists():
                with self._stage("evaluate", None) as row:
                    row["policy"] = name
                    self._evaluate(name, checkpoint)

    def _use(self, checkpoint: Path) -> None:
        """Swap the policy node's checkpoint."""
        assert self._control is not None
        self._control.set("policy", {"checkpoint": str(checkpoint)})
        self._control.trigger("policy/reload")

    def _write_dataset(self, folder: Path) -> int:
        """Write the kept episodes of a folder, each up to where the judge saw it done, as a LeRobotDataset."""
        omissions = Omissions()
        episodes = self._collector.kept_episodes(folder, omissions)
        with progress_bar(len(episodes), "data set", "ep") as bar:
            root = folder / "dataset"
            write_dataset(episodes, root, self.contract, progress=lambda n: bar.update(n - bar.n), omissions=omissions)
        for name, reason in omissions.left_out:
            print(f"left out: '{name}': {reason}", flush=True)
        return int(read_json(root / "meta/info.json")["total_frames"])

    def _training(self, iteration: int, name: str, datasets: Sequence[Path], steps: int, init: Path | None) -> Training:
        """Return the training of a policy of an iteration, to be started by :meth:`_train`."""
        config = self.config
        settings = FinetuneConfig(
            steps=steps,
            init=None if init is None else str(init),
            seed=config.seed,
            lr=config.learning_rate,
            batch_size=config.batch_size,
            colour=config.colour,
            state_noise=config.state_noise,
        )
        return Training(self._run / f"iter_{iteration:03d}" / name, tuple(datasets), settings, self._contract_file)

    def _train(self, stage: str, iteration: int, trainings: Sequence[Training]) -> None:
        """Train side by side, each in a process of its own, which resumes if it was interrupted.

        On half the cores each, two trainings take less time than one after the other on all of them.

        Raises:
            EpisodeError: one ended with an error; the others are stopped and resume when the loop is started again.
        """
        waiting = [training for training in trainings if not training.done]
        if not waiting:
            return
        threads = max(1, (os.cpu_count() or 1) // len(waiting))
        command = [sys.executable, "-m", "lrm_ros.training.policy.finetune", "--threads", str(threads)]
        with self._stage(stage, iteration):
            self._children = [subprocess.Popen([*command, *training.words]) for training in waiting]
            try:
                codes: list[int | None] = [None]
                while None in codes:
                    time.sleep(0.1)
                    codes = [child.poll() for child in self._children]
                    if self._stopping:
                        raise Stopped
                    for training, code in zip(waiting, codes, strict=True):
                        if code:
                            raise EpisodeError(f"training '{training.out}' ended with code {code}; its error is above")
            finally:
                for child in self._children:
                    if child.poll() is None:
                        child.terminate()
                        child.wait()
                self._children = []

    def _evaluate(self, name: str, checkpoint: Path) -> None:
        """Have the evaluator measure a checkpoint on the held-out seeds."""
        config = self.config
        assert self._control is not None
        self._evaluation = {}
        self._control.set(
            "evaluator",
            {
                "checkpoint": str(checkpoint),
                "file": str(self._run / "eval" / f"{name}.json"),
                "first_seed": config.eval_seed,
                "episodes": config.eval_episodes,
                "max_steps": config.max_steps,
            },
        )
        self._control.trigger("evaluator/evaluate")
        with progress_bar(config.eval_episodes, f"evaluate {name}", "ep") as bar:

            def ended() -> bool:
                bar.update(int(self._evaluation.get("done", 0)) - bar.n)
                return self._evaluation.get("event") in ("done", "failed")

            self._control.wait_until(ended, f"the evaluation of '{name}'", self._control.load_s)  # it loads the policy
        if self._evaluation["event"] == "failed":
            raise EpisodeError(f"the evaluation of '{name}' failed: {self._evaluation['reason']}")

    def _on_evaluation(self, message: DiagnosticStatus) -> None:
        values = {**messages.status_values(message), "event": message.message}
        if values["file"] == str(self._run / "eval" / Path(values["file"]).name):
            self._evaluation = values
        assert self._control is not None
        self._control.notify()


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(ImproverNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
