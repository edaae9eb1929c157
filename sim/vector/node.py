# SPDX-License-Identifier: Apache-2.0
"""The worlds node: many twins in lock-step with a learner that commands all of them at once.

A message on ``~/seeds`` (worlds x seeds) starts new episodes. From then on nothing moves until every world has got
a ``world_NN/joint_command`` for what it showed last; then all execute their chunks and the node publishes, for each:

- ``world_NN/joint_command_sent``: what was executed, after limits;
- ``world_NN/joint_states`` and ``world_NN/<camera>/image_raw``: what the policy sees next, and before that the end of
  an episode if there was one;
- ``world_NN/judged/image_raw``: first, every K-th and last frame of an episode, for the reward node;

and ``worlds``, one message about all: task, stamps, seed, truth. Stamps are each world's own simulated time.
"""

from __future__ import annotations

import time
from functools import partial
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_msgs.msg import Header, Int64MultiArray
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import WorldsConfig
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.program import run
from lrm_ros.sim.vector.worlds import ChunkResult, EpisodeRules, VectorWorlds
from lrm_ros.types import ActionChunk, Frame, Observation

JUDGED = "judged"  # camera name of the frames that the reward node judges


class WorldsNode(LrmNode[WorldsConfig]):
    """Steps ``worlds`` twins; the refiner node sets its parameters, resets it and commands it."""

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("worlds", WorldsConfig, overrides)
        self._worlds: VectorWorlds | None = None
        self._stamps: list[int] = []  # of what each world showed last
        self._chunks: dict[int, ActionChunk] = {}

    def configure(self) -> None:
        """Build the worlds and their topics."""
        config = self.config
        self._rules = EpisodeRules(config.max_steps, config.stop_at_success, config.judge_every)
        self._worlds = VectorWorlds(
            config.worlds,
            self._rules,
            config.execute_steps,
            config.processes or None,
            self.contract,
            config.task,
            config.ray,
        )
        camera = self.contract.cameras[0].name
        names = [messages.stream_name(world) for world in range(config.worlds)]
        self._states = [topics.JOINT_STATES.under(name).publisher(self) for name in names]
        self._sent = [topics.JOINT_COMMAND_SENT.under(name).publisher(self) for name in names]
        self._images = [topics.IMAGE_RAW.of(camera).under(name).publisher(self) for name in names]
        self._judged = [topics.IMAGE_RAW.of(JUDGED).under(name).publisher(self) for name in names]
        self._about = topics.WORLDS.publisher(self)
        self._stamps, self._chunks = [], {}
        topics.WORLDS_SEEDS.owned().subscribe(self, self._on_seeds)
        for world, name in enumerate(names):
            topics.JOINT_COMMAND.under(name).subscribe(self, partial(self._on_command, world))

    def cleanup(self) -> None:
        """Stop the worlds' processes."""
        worlds, self._worlds = self._worlds, None
        if worlds is not None:
            worlds.close()

    def _on_seeds(self, message: Int64MultiArray) -> None:
        """Start new episodes in all worlds."""
        if not self.active:
            self.diagnostics.count("ignored")
            return
        assert self._worlds is not None
        count, each = self.config.worlds, len(message.data) // self.config.worlds
        if not each or each * count != len(message.data):
            self.diagnostics.fault(
                "seeds", f"{len(message.data)} seeds cannot be shared by {count} worlds; send the same number for each"
            )
            return
        self.diagnostics.recovered("seeds", "seeds are good again")
        seeds = [list(message.data[world * each : (world + 1) * each]) for world in range(count)]
        observations = self._worlds.reset(seeds, rebuild=True)
        self._chunks = {}
        statuses = []
        for world, observation in enumerate(observations):
            self._publish_observation(world, observation, first=True)
            statuses.append(self._status(world, observation, seeds[world][0], {}))
        self._publish_status("reset", observations, statuses)
        self.diagnostics.count("resets")

    def _on_command(self, world: int, message: JointTrajectory) -> None:
        """Keep a world's command; execute when all are there."""
        if not self.active or not self._stamps:
            self.diagnostics.count("ignored")
            return
        try:
            chunk = messages.to_chunk(message, self.contract.joints, self.contract.dt_s)
            if len(chunk.actions) > self.config.execute_steps:
                raise ValueError(
                    f"it has {len(chunk.actions)} points, execute_steps is {self.config.execute_steps}; send fewer"
                )
        except ValueError as error:
            self.diagnostics.count("rejected")
            self.diagnostics.fault("joint_command", f"{messages.stream_name(world)}: not executed: {error}")
            return
        self.diagnostics.recovered("joint_command", "commands are good again")
        if chunk.stamp_ns != self._stamps[world]:  # answers what this world no longer shows
            self.diagnostics.count("ignored")
            return
        self._chunks[world] = chunk
        if len(self._chunks) == self.config.worlds:
            self._step()

    def _step(self) -> None:
        """Execute the chunks of all worlds and publish the results."""
        assert self._worlds is not None
        started = time.perf_counter()
        before = self._stamps
        results = self._worlds.step([self._chunks[world].actions for world in range(self.config.worlds)])
        self.diagnostics.latency("step", time.perf_counter() - started)
        self._chunks = {}
        statuses = []
        for world, result in enumerate(results):
            self._publish_result(world, before[world], result)
            statuses.append(self._status(world, result.observation, result.seed, _truth(result)))
            self.diagnostics.count("steps", len(result.sent))
        self._publish_status("step", [result.observation for result in results], statuses)

    def _publish_result(self, world: int, stamp_ns: int, result: ChunkResult) -> None:
        sent = ActionChunk(stamp_ns, result.sent, self.contract.dt_s)
        self._sent[world].publish(messages.from_chunk(sent, self.contract.joints))
        for _, frame in result.judged:
            self._judged[world].publish(messages.from_frame(frame))
        if result.final_observation is not None:
            if not result.judged:
                self._judged[world].publish(messages.from_frame(_frame_of(result.final_observation)))
            self._publish_observation(world, result.final_observation)
        self._publish_observation(world, result.observation, first=result.done)

    def _publish_observation(self, world: int, observation: Observation, first: bool = False) -> None:
        """Publish what the policy sees, and for the reward node the first frame of an episode."""
        state = messages.from_state(observation.stamp_ns, self.contract.joints, observation.state)
        self._states[world].publish(state)
        image = messages.from_frame(_frame_of(observation))
        self._images[world].publish(image)
        if first:
            self._judged[world].publish(image)
        self.diagnostics.count("frames")

    def _status(self, world: int, observation: Observation, seed: int, more: dict[str, Any]) -> DiagnosticStatus:
        values = {"stamp_ns": observation.stamp_ns, "seed": seed} | more
        return messages.status(DiagnosticStatus.OK, messages.stream_name(world), observation.task, values)

    def _publish_status(self, what: str, observations: list[Observation], statuses: list[DiagnosticStatus]) -> None:
        self._stamps = [observation.stamp_ns for observation in observations]
        newest = messages.to_time(max(self._stamps))
        self._about.publish(DiagnosticArray(header=Header(stamp=newest, frame_id=what), status=statuses))


def _truth(result: ChunkResult) -> dict[str, Any]:
    """Return the values of a result that are not in other messages, as plain texts."""
    about: dict[str, Any] = {
        "progress": " ".join(repr(float(value)) for value in result.progress),
        "success": " ".join(str(int(value)) for value in result.success),
        "judged": " ".join(f"{step}:{frame.stamp_ns}" for step, frame in result.judged),
    }
    if result.final_observation is not None:
        about |= {
            "final_ns": result.final_observation.stamp_ns,
            "final_task": result.final_observation.task,
            "cut_off": str(result.truncated).lower(),
        }
    return about


def _frame_of(observation: Observation) -> Frame:
    return next(iter(observation.frames.values()))


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(WorldsNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
