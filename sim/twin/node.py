# SPDX-License-Identifier: Apache-2.0
"""The twin node: one simulated world that speaks the robot's topics, at the control rate or in lock-step.

Stamps are simulated time, which never goes back; one control step lasts one control period. The step from stamp t to
t + dt publishes ``joint_command_sent`` (t), ``/clock`` (t + dt) and ``joint_states`` (t + dt), then the image of t + dt
if it is due. The simulator's truth goes to its own topic, which only evaluation and reports read.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from rosgraph_msgs.msg import Clock as ClockMessage
from std_msgs.msg import String
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config import TwinConfig
from lrm_ros.robot.arm import ArmServer
from lrm_ros.ros.arm_topics import ArmTopics
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.estop import EStop
from lrm_ros.ros.program import run
from lrm_ros.types import ActionChunk

if TYPE_CHECKING:
    from lrm_ros.sim.twin.arm import TwinArm
    from lrm_ros.sim.twin.world import World


class TwinNode(LrmNode[TwinConfig]):
    """Takes ``joint_command``; service ``~/reset`` starts an episode with the seed in parameter ``seed``.

    Lock-step (``realtime`` false): a command with K points makes K control steps at once; nothing moves in between.
    Real time: a timer steps at the control rate. The point that belongs to a step is found by time: point k of a
    command stamped t0 is for the step at t0 + k dt; after its last point the arm is held there.

    A command that is not usable (joint names, numbers that are not finite, spacing, a stamp of another clock) is an
    error and moves nothing. One stamped before the last reset answers a world that is gone: ignored; stamp 0 means
    now.

    Stopped (``lrm_ros.ros.estop``), it refuses commands, resets and demonstrations; in real time it holds.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("twin", TwinConfig, overrides)
        self._world: World | None = None
        self._arm: TwinArm | None = None
        self._server: ArmServer | None = None
        self._seed = 0
        self._estop = EStop(self, self._hold, self._resume)

    def configure(self) -> None:
        """Build the world and start the first episode."""
        import torch

        from lrm_ros.sim.twin.arm import TwinArm
        from lrm_ros.sim.twin.world import World

        torch.set_num_threads(1)  # tensors of six numbers: more threads only wait for each other
        if len(self.contract.cameras) != 1:
            raise ValueError(f"the twin has one camera, the robot contract {len(self.contract.cameras)}; give it one")
        self._camera = self.contract.cameras[0]
        world = self._world = World(self.config.task, self.contract)
        env = world.task_env
        joints = len(env.agent.robot.active_joints)
        if joints != len(self.contract.joints) or env.control_freq != self.contract.control_hz:
            raise ValueError(
                f"task '{self.config.task}' has {joints} joints at {env.control_freq} Hz, the robot contract "
                f"'{self.contract.name}' {len(self.contract.joints)} at {self.contract.control_hz:g} Hz; "
                "set parameter 'contract' to the file of the simulated arm"
            )
        self._arm = TwinArm(world)
        self._server = ArmServer(self._arm, self.contract)
        self._arm_topics = ArmTopics(self, self._server, lambda: world.stamp_ns, self._take, self._estop.refusal)
        self._fov_rad = float(env._sensors[self._camera.name].config.fov)  # vertical
        self._time = topics.CLOCK.publisher(self)
        self._images = topics.IMAGE_RAW.of(self._camera.name).publisher(self)
        self._infos = topics.CAMERA_INFO.of(self._camera.name).publisher(self)
        self._task = topics.TASK.publisher(self)
        self._truth = topics.TRUTH.publisher(self)
        self._reset()
        self._arm_topics.listen(self.config.realtime)
        self._command = topics.JOINT_COMMAND.publisher(self)
        self.create_service(Trigger, "~/reset", self._on_reset)
        self.create_service(Trigger, "~/demonstrate", self._on_demonstrate)
        # Not the node's clock: with use_sim_time that is the clock which this very timer moves.
        self.create_timer(self.contract.dt_s, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def deactivate(self) -> None:
        """Hold (real time): what was being executed does not go on at the next activation."""
        self._hold()

    def _hold(self) -> None:
        """Forget what was being executed and hold (real time); in lock-step nothing is."""
        world, server = self._world, self._server
        if world is not None and server is not None and self.config.realtime:
            stamp_ns = world.stamp_ns
            self._publish_step(stamp_ns, server.hold())

    def _resume(self) -> None:
        """Take commands again, of now."""
        if self._server is not None:
            self._server.start()

    def cleanup(self) -> None:
        """Free the simulator."""
        world, self._world = self._world, None
        self._server = None
        if world is not None:
            world.close()

    # -- episodes ----------------------------------------------------------------------------------------------------

    def _on_reset(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        if reason := self._estop.refusal() or self._inactive():
            response.success, response.message = False, reason
            return response
        self._reset()
        assert self._world is not None
        response.success, response.message = True, f"seed {self._seed}: {self._world.instruction}"
        return response

    def _inactive(self) -> str:
        return "" if self.active else "the twin is not active; activate it first"

    def _reset(self) -> None:
        """Start an episode and publish its first observation."""
        world, arm, server = self._world, self._arm, self._server
        assert world is not None and arm is not None and server is not None
        self._seed = self.config.seed
        arm.reset(self._seed)
        server.start()
        self._task.publish(String(data=world.instruction))
        self._publish_state()
        self._publish_image()
        self._publish_truth()
        self.diagnostics.count("resets")

    def _on_demonstrate(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Command the scripted expert's targets from the present state; replies with the number of steps."""
        from lrm_ros.robot.so100.kinematics import Unreachable
        from lrm_ros.sim.twin.expert import expert_targets

        world = self._world
        if (reason := self._estop.refusal() or self._inactive()) or world is None:
            response.success, response.message = False, reason
            return response
        try:
            targets = expert_targets(world)
        except Unreachable as error:
            response.success, response.message = False, f"seed {self._seed}: {error}"
            return response
        chunk = ActionChunk(world.stamp_ns, targets, self.contract.dt_s)
        self._command.publish(messages.from_chunk(chunk, self.contract.joints))
        response.success, response.message = True, str(len(targets))
        return response

    # -- commands ----------------------------------------------------------------------------------------------------

    def _take(self, chunk: ActionChunk) -> None:
        """Execute a command (lock-step) or make it the one to follow (real time)."""
        assert self._server is not None
        if self.config.realtime:
            self._server.follow(chunk)
        else:
            self._execute(chunk)

    def _execute(self, chunk: ActionChunk) -> None:
        """Make one control step for each action, as far as ``max_steps`` allows (lock-step)."""
        world, server, config = self._world, self._server, self.config
        assert world is not None and server is not None and self._arm is not None
        self._arm.disturbance_std = config.disturbance_std
        started = time.perf_counter()
        left = config.max_steps - world.steps if config.max_steps > 0 else len(chunk.actions)
        actions = chunk.actions[: max(0, left)]
        for k, action in enumerate(actions, start=1):
            stamp_ns = world.stamp_ns
            self._publish_step(stamp_ns, server.send(action))
            if k == len(actions) or (config.frame_every > 0 and world.steps % config.frame_every == 0):
                self._publish_image()
        if len(actions):
            self._publish_truth()
            self.diagnostics.latency("command", time.perf_counter() - started)

    def _tick(self) -> None:
        """Make the control step that is due (real time)."""
        if not self.active or not self.config.realtime:
            return
        world, server = self._world, self._server
        assert world is not None and server is not None and self._arm is not None
        self._arm.disturbance_std = self.config.disturbance_std
        stamp_ns = world.stamp_ns
        sent = server.hold() if self._estop.latched else server.step(stamp_ns)[0]
        self._publish_step(stamp_ns, sent)
        if world.steps % max(1, self.config.frame_every) == 0:
            self._publish_image()
        self._publish_truth()

    # -- what is published -------------------------------------------------------------------------------------------

    def _publish_step(self, stamp_ns: int, sent: NDArray[np.float32]) -> None:
        """Publish the target sent at a stamp and the state after it."""
        self._arm_topics.publish_sent(stamp_ns, sent)
        self._publish_state()
        self.diagnostics.count("steps")

    def _publish_state(self) -> None:
        world = self._world
        assert world is not None
        self._time.publish(ClockMessage(clock=messages.to_time(world.stamp_ns)))
        self._arm_topics.publish_state(world.stamp_ns, world.state)

    def _publish_image(self) -> None:
        """Render and publish."""
        world, camera = self._world, self._camera
        assert world is not None
        frame = world.frame()
        height, width, _ = frame.image.shape
        self._infos.publish(messages.camera_info(camera.name, frame.stamp_ns, width, height, self._fov_rad))
        self._images.publish(messages.from_frame(frame))
        self.diagnostics.count("frames")

    def _publish_truth(self) -> None:
        world = self._world
        assert world is not None
        values = {
            "success": str(world.succeeded).lower(),
            "progress": f"{world.task_env.progress:.4f}",
            "seed": self._seed,
            "steps": world.steps,
        }
        self._truth.publish(messages.status(DiagnosticStatus.OK, "truth", world.instruction, values))


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(TwinNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
