# SPDX-License-Identifier: Apache-2.0
"""The robot_improver node: the self-improvement loop on an arm, where a person puts the scene back."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

from std_msgs.msg import String

from lrm_ros import topics
from lrm_ros.config_arm import SECTION, load_arm
from lrm_ros.config_files import read_yaml
from lrm_ros.config_person import RobotImproverConfig
from lrm_ros.nodes.improver import ImproverNode
from lrm_ros.ros.collector import Collector
from lrm_ros.ros.control import Control, RecordedEpisodes, SentSteps
from lrm_ros.ros.person import Person
from lrm_ros.ros.policy_runs import PARTS, ArmMover, PolicyRuns
from lrm_ros.ros.program import run
from lrm_ros.ros.robot_collector import RobotCollector
from lrm_ros.ros.robot_demonstrations import prepare, starts_of


class RobotImproverNode(ImproverNode):
    """Demonstrations -> SFT -> iterations of (roll out with a time cap, the scene put back by a person or a policy ->
    judge -> fine-tune beside a control). ``lrm trial`` then compares the policies: no simulator tells success here.

    Services and topics for the person are those of ``lrm_ros.ros.person``. Deactivated, or stopped and started again
    with the same folder on another day, it goes on where it was. A rollout that fails is asked for again.
    """  # noqa: D205

    CONFIG: ClassVar[type[RobotImproverConfig]] = RobotImproverConfig
    PACKAGES: ClassVar[tuple[str, ...]] = ("lerobot", "torch", "transformers", "peft", "numpy")
    SERVICES: ClassVar[tuple[str, ...]] = ("reward/reset", *PARTS, "recorder/start_episode")
    MORE: ClassVar[tuple[str, ...]] = ("iterations",)
    config: RobotImproverConfig

    def _connect(self) -> Control:
        triggers = (*RecordedEpisodes.TRIGGERS, *PARTS, "reward/reset")
        nodes = (*RecordedEpisodes.NODES, "policy", "reward")
        lifecycles = ("policy", "reward")
        return Control(self, triggers, nodes, lifecycles, RecordedEpisodes.SET_BOOLS)

    def _make_collector(self, control: Control, sent: SentSteps) -> Collector:
        camera, file = self.contract.cameras[0].name, str(self.get_parameter("contract").value)
        self._person = Person(self, control, camera, self._run / "scene.png", others=self._cameras)
        self._runs, self._mover = PolicyRuns(self, control, sent), ArmMover(self, control)
        self._task = topics.TASK.publisher(self)
        self._contract_file = file if file and SECTION in read_yaml(file) else ""
        hands = (self._person, self._runs, self._mover, self.contract.control_hz)
        episodes = RecordedEpisodes(control)
        self._robot = RobotCollector(control, episodes, sent, self._judge, self._cameras, self.config, *hands)
        return self._robot

    def _demonstrations(self, folder: Path) -> Path:
        """Return the data set of the demonstrations, and see how they begin."""
        self._runs.begin()
        dataset = prepare(folder, self.config, self._contract_file, self._record)
        units = None
        if self._contract_file:
            units = [joint.affine for joint in load_arm(self._contract_file, self.contract).joints]
        self._robot.starts = starts_of(dataset, self.contract, units, folder)
        self._task.publish(String(data=self._robot.starts.task))
        return dataset

    def _record(self, folder: Path, missing: int) -> None:
        """Ask the person to record demonstrations with another program, into a folder."""
        assert self._control is not None
        folder.mkdir(parents=True, exist_ok=True)
        self._control.set("recorder", {"folder": str(folder), "episode_id": "", "source": "teleop"})
        self._person.scene(
            f"record {missing} more demonstrations, by teleoperation in another terminal (ros2 run lrm_ros teleop), "
            "each ended as a success; then say ready"
        )

    def _use(self, checkpoint: Path) -> None:
        """Roll out this policy from now on."""
        self._robot.use(checkpoint)

    def _measure(self, policies: Mapping[str, Path]) -> None:
        """Say how the policies are compared: by a person, blindly."""
        names = " ".join(str(folder) for folder in dict.fromkeys(policies.values()))
        file, task = str(self.get_parameter("contract").value), self._robot.starts.task
        print(
            f"the policies are trained. Compare them on the arm: lrm up trial sim:=false contract:={file}, and in "
            f"another terminal: lrm trial {names} --contract {file} --task '{task}' --out {self._run / 'trial'}",
            flush=True,
        )


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(RobotImproverNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
