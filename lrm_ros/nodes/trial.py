# SPDX-License-Identifier: Apache-2.0
"""The trial node: policies in blind, shuffled order before a person, who calls each trial a success or a failure."""

from __future__ import annotations

import os
import threading
import traceback
from pathlib import Path
from typing import Any

import numpy as np
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lrm_ros import topics
from lrm_ros.config import ImproverConfig
from lrm_ros.config_files import real_path, to_dict
from lrm_ros.config_person import TrialConfig
from lrm_ros.files import SETTINGS, numbered, read_json, rename_free, write_bytes, write_json
from lrm_ros.image_files import decode, encode
from lrm_ros.record.journal import read_journal
from lrm_ros.record.trials import NOT_COUNTED, Trial, Trials
from lrm_ros.reward.engine import scene_frames
from lrm_ros.reward.views import judge_cameras
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import (
    Control,
    EpisodeControl,
    EpisodeError,
    RecordedEpisodes,
    SentSteps,
    Stopped,
    TwinEpisodes,
)
from lrm_ros.ros.judge import Judge
from lrm_ros.ros.person import SAFE, Person
from lrm_ros.ros.policy_runs import PARTS, ArmMover, PolicyRuns, start_recording
from lrm_ros.ros.program import run
from lrm_ros.types import Frame

_TIMES = 3  # a trial that does not count so often in a row ends the comparison
_TWIN_S = 2.0  # a twin among the other nodes is found within this [s]
_SERVICES = (*PARTS, "reward/reset", "recorder/start_episode")
_TRIGGERS = (*TwinEpisodes.TRIGGERS, *PARTS, "reward/reset")


class TrialNode(LrmNode[TrialConfig]):
    """Runs the comparison in a thread while it is active, against the nodes of a running graph, twin or arm.

    Neither its words nor names of files, nor what the policy's node shows tell which policy acts: that node is given
    one link, which is turned to another policy before each trial, and loads it anew every time. The judge's verdict is
    not shown either. A trial that fails (e-stop, a lost camera) before it has an answer does not count and is repeated.

    Services: those of ``lrm_ros.ros.person``, and ``~/correct``, which turns the last answer round.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("trial", TrialConfig, overrides)
        self._thread: threading.Thread | None = None
        self._control: Control | None = None

    def configure(self) -> None:
        """Read or make the record, and look for the other nodes.

        Raises:
            ValueError: policies or folder are not as they must be; says what to do.
        """
        config = self.config
        self._policies = [str(real_path(folder)) for folder in config.policies]
        weights = [_size_and_time(Path(folder)) for folder in self._policies]
        kept = ("task", "starts", "same_starts", "seconds", "first_seed", "model", "judge_frames", "judge_threshold")
        settings = {name: getattr(config, name) for name in kept} | {"policies": self._policies, "weights": weights}
        self._cameras = judge_cameras(config.judge_camera, self.contract)
        begun = Path(config.run) / SETTINGS
        known = (
            "judge_camera" in read_json(begun, "restore it, or begin in another folder") if begun.is_file() else True
        )
        if known or config.judge_camera:  # a record of before there was this setting is judged by the first camera
            settings["judge_camera"] = ",".join(self._cameras)
        settings |= {f"contract.{name}": value for name, value in to_dict(self.contract).items()}
        self._trials = Trials.begin(Path(config.run), settings, self._policies, config.starts)
        control = Control(
            self, _TRIGGERS, (*TwinEpisodes.NODES, "policy", "reward"), ("policy",), RecordedEpisodes.SET_BOOLS
        )
        self._control = control
        judge = {name: getattr(config, name) for name in ("model", "judge_frames", "judge_threshold")}
        self._judge = Judge(self, control, ImproverConfig(**judge), cameras=self._cameras)
        self._sent = SentSteps(self, control)
        self._start_pose = self._trials.folder / "start_pose.json"
        self._stood = True  # the arm has not been moved since this node began
        self._runs, self._mover = PolicyRuns(self, control, self._sent), ArmMover(self, control)
        self._person = Person(self, control, self.contract.cameras[0].name, self._trials.folder / "scene.png")
        self.create_service(Trigger, "~/correct", self._on_correct)
        if config.task:
            self._task = topics.TASK.publisher(self)
            self._task.publish(String(data=config.task))

    def activate(self) -> None:
        """Begin, or go on."""
        assert self._control is not None
        self._control.resume()
        self._thread = threading.Thread(target=self._guard, name="trials")
        self._thread.start()

    def deactivate(self) -> None:
        """Stop; it goes on at the next start."""
        if self._control is not None:
            self._control.stop()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _on_correct(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        try:
            row = self._trials.correct()
        except (OSError, ValueError) as error:
            response.success, response.message = False, str(error)
        else:
            said = "success" if row["success"] else "failure"
            response.success, response.message = True, f"trial {row['trial']} is a {said} now"
        return response

    # -- the comparison ----------------------------------------------------------------------------------------------

    def _guard(self) -> None:
        """Do what is due and end the node with its outcome."""
        try:
            self._compare()
        except Stopped:
            return
        except (EpisodeError, OSError, ValueError) as error:
            self.get_logger().error(f"the comparison stopped: {error}\n{traceback.format_exc()}")
            print(f"error: {error}\nwhat is answered is kept in '{self.config.run}'; start again to go on", flush=True)
            self.exit(1)
        else:
            self.exit(0)

    def _compare(self) -> None:
        control = self._control
        assert control is not None
        control.wait_ready(_SERVICES)
        self._runs.begin()
        in_twin = control.holds(lambda: control.ready("twin/reset"), _TWIN_S)
        episodes: EpisodeControl = TwinEpisodes(control) if in_twin else RecordedEpisodes(control)
        camera = self.contract.cameras[0]
        self._judge.begin(Frame(0, camera.name, np.zeros((camera.height, camera.width, 3), np.uint8)))
        self._abandon(episodes)
        failed, times = "", 0
        self._stood = True
        while (trial := self._trials.due) is not None:
            self._runs.use(self._blind(trial))
            try:
                self._trial(trial, episodes, in_twin, failed)
                failed, times = "", 0
            except EpisodeError as error:
                self._person.nothing()
                self._runs.stand()
                self._abandon(episodes)
                if trial.number in self._trials.answers:  # it counts, whatever came after the answer
                    failed, times = f"the last one counts, but did not end well ({error})", 0
                    print(f"trial {trial.number} has its answer and counts: {error}", flush=True)
                    continue
                failed = f"the last try did not count ({error})"
                print(f"trial {trial.number} does not count: {error}", flush=True)
                self._trials.void(trial, str(error))
                if (times := times + 1) == _TIMES:
                    raise
            self._judge_waiting()
        self._judge_waiting()

    def _abandon(self, episodes: EpisodeControl) -> None:
        """Discard the episode that is being recorded, if there is one."""
        try:
            episodes.discard()
        except EpisodeError:
            return

    def _trial(self, trial: Trial, episodes: EpisodeControl, in_twin: bool, failed: str) -> None:
        """Run one trial until it has its answer."""
        control, config = self._control, self.config
        assert control is not None
        head = f"trial {trial.number} of {len(self._trials.plan)}"
        self._place(trial, episodes, head, in_twin, failed)
        control.trigger("reward/reset")
        journal = self._trials.journal(trial)
        if journal.exists():  # of a try that did not count, or was killed
            rename_free(journal, numbered(journal.with_name(journal.name + NOT_COUNTED), ".mcap" + NOT_COUNTED))
        start_recording(control, episodes, folder=str(journal.parent), episode_id=trial.name, source="policy")

        def keep(success: bool) -> None:
            self._trials.answer(trial, success)

        self._person.begin(f"{head} runs: success or failure ends it, else it ends after {config.seconds:g} s", keep)
        steps = round(config.seconds * self.contract.control_hz)
        number = 1000 * trial.start + trial.number
        self._runs.act(steps, lambda: self._person.outcome is not None, number, 0.0, head)
        try:
            episodes.stop(self._person.outcome)
        except EpisodeError as error:  # the answer counts all the same; there is nothing to judge
            print(f"{head}: {error}", flush=True)
        self._person.wait_outcome(f"{head} has ended: was it a success or a failure?")
        self._person.nothing()

    def _blind(self, trial: Trial) -> Path:
        """Turn the one link that the policy's node is given to the trial's policy."""
        link = self._trials.folder.resolve() / "policy"
        new = link.with_name(".policy.new")
        new.unlink(missing_ok=True)
        new.symlink_to(self._policies[trial.policy])
        os.replace(new, link)
        return link

    def _place(self, trial: Trial, episodes: EpisodeControl, head: str, in_twin: bool, failed: str) -> None:
        """Put the scene of a trial in place, and keep the picture of a new start."""
        picture = self._trials.start_picture(trial)
        if in_twin:
            start = trial.start if self.config.same_starts else trial.number - 1
            episodes.reset(self.config.first_seed + start)
        else:
            if failed:
                self._person.scene(f"{head}: {failed}. {SAFE}")
            elif self._stood and self.config.start_speed > 0 and self._start_pose.is_file():
                self._person.scene(f"{head}: {SAFE}")  # on another day nobody expects that it moves by itself
            self._stood = False
            self._to_start_pose()
            again = self.config.same_starts and picture.is_file()
            what = "put the scene as in the picture" if again else "put the scene in place, as you like"
            image = decode(picture.read_bytes(), "png") if again else None
            self._person.scene(f"{head}: {what}, step back, then say ready", image)
        if not picture.is_file():
            write_bytes(picture, encode(self._person.live()[0].image, "png"))

    def _to_start_pose(self) -> None:
        """Bring the arm to where it stood before the first trial."""
        path = self._start_pose
        if not path.is_file():
            write_json(path, [round(float(angle), 4) for angle in self._mover.pose()])
        elif self.config.start_speed > 0:
            pose = read_json(path, "delete it: the arm's pose at the next start is taken")
            self._mover.go(pose, self.config.start_speed)

    def _judge_waiting(self) -> None:
        """Judge the trials that have an answer and no verdict; the verdicts are kept, not shown."""
        for trial in self._trials.unjudged:
            episode = read_journal(self._trials.journal(trial))
            frames = scene_frames(episode, self._cameras)
            found = self._judge.judge(frames, episode.task, episode.episode_id)
            score = round(found.score, 4) if np.isfinite(found.score) else None
            self._trials.judged(trial, found.keep, score, found.reason)


def _size_and_time(folder: Path) -> list[int]:
    """Return what tells whether a policy's weights are those of the beginning: size [bytes] and time [ns].

    Raises:
        ValueError: no policy there.
    """
    weights = folder / "model.safetensors"
    if not weights.is_file():
        raise ValueError(f"'{folder}' is no policy (no model.safetensors); give a folder of lrm finetune or lrm ppo")
    return [weights.stat().st_size, weights.stat().st_mtime_ns]


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(TrialNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
