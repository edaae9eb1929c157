# SPDX-License-Identifier: Apache-2.0
"""The teleoperation node: a person moves the arm and records demonstrations, also over SSH.

By the keyboard of a terminal, and beside it by one of LeRobot's teleoperators: a leader arm, a gamepad, a phone.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import JointState
from std_msgs.msg import Bool
from trajectory_msgs.msg import JointTrajectory

from lrm_ros import messages, topics
from lrm_ros.config import TeleopConfig
from lrm_ros.config_arm import find_arm
from lrm_ros.config_teleop import KEYBOARD
from lrm_ros.robot.devices.hand import Hand
from lrm_ros.robot.devices.input_thread import InputThread
from lrm_ros.robot.devices.keys import ARROWS, CARTESIAN_KEYS, HELP, JOINT_KEYS
from lrm_ros.robot.devices.lerobot_input import AGAIN, FAILURE, SUCCESS, LeRobotInput
from lrm_ros.robot.devices.terminal import Terminal
from lrm_ros.robot.joint_states import JointStates
from lrm_ros.robot.place import place_of
from lrm_ros.robot.so100.jog import Jog
from lrm_ros.robot.so100.kinematics import Unreachable
from lrm_ros.ros.arm_client import DELIVER_S, ArmClient
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.estop import RELEASE, RELEASED_S, StopWatch
from lrm_ros.ros.leading import Leading
from lrm_ros.ros.program import run
from lrm_ros.ros.streams import Streams
from lrm_ros.ros.teleop_episodes import DISCARD, NEXT, START, TeleopEpisodes
from lrm_ros.seeds import held_out_warning
from lrm_ros.types import ActionChunk

_EPISODE_KEYS = {"s": START, "g": SUCCESS, "f": FAILURE, "a": AGAIN, "d": DISCARD}
_EPISODE_KEYS |= dict.fromkeys(("n", "\n", "\r"), NEXT)  # ENTER, for a pedal that types it


class TeleopNode(LrmNode[TeleopConfig]):
    """Publishes ``joint_command`` (one point, through the limiter) at ``rate_hz`` once a key has moved something.

    Starting an episode resets the twin, where there is one, to a seed of its own; a real scene is put back by hand.
    """

    def __init__(self, terminal_fd: int | None = None, **overrides: Any) -> None:
        """Declare the parameters.

        Args:
            terminal_fd: file descriptor of the terminal; default: the one this process was started from.
            overrides: parameter values.
        """
        super().__init__("teleop", TeleopConfig, overrides)
        self._terminal_fd = terminal_fd
        self._terminal: Terminal | None = None
        self._state: tuple[int, NDArray[np.float32]] | None = None
        self._arrived_s = 0.0
        self.episodes: TeleopEpisodes | None = None
        self._leading: Leading | None = None
        self._held: bool | None = None  # the take-over button of the input device
        self._hand: Hand | None = None
        self._thread: InputThread | None = None
        self._hand_said = ""
        self._quit_asked = self._stop_asked = False  # the latter of an arm that has not said yet that it is stopped

    def configure(self) -> None:
        """Connect to the arm and the recorder."""
        if warning := held_out_warning(self.config.seed, 1):
            self.get_logger().warning(warning)
        # A leader has the units of section 'arm', whose URDF says where the gripper is.
        section = find_arm(str(self.get_parameter("contract").value), self.contract)
        self._jog = Jog(self.contract, place_of(section, self.contract))
        keys = zip(JOINT_KEYS, range(len(self.contract.joints) - 1), strict=False)
        self._joint_keys = {key: (index, sign) for pair, index in keys for key, sign in zip(pair, (1, -1), strict=True)}
        self._arm = ArmClient(self)
        topics.JOINT_COMMAND_SENT.hear(self, self._on_sent)
        self._stop, self._estop = StopWatch(self, self._on_stopped, RELEASED_S), topics.ESTOP.publisher(self)
        self._joint_states = JointStates(self.contract)
        # Only as it is offered: commands are stamped as the joint state is, whatever its clock.
        Streams(self, realtime=True).listen(topics.JOINT_STATES, self._on_state, stamped=False)
        if self.config.rollout:
            self.episodes = TeleopEpisodes(self, self._say, self._let_go, "policy", ("policy",))
            now = self._newest_ns, lambda: self._stop.stopped
            self._leading = Leading(self, self.episodes, self._arm, self._let_go, *now, self._say)
        else:
            self.episodes = TeleopEpisodes(self, self._say, self._let_go)
        rate_hz = self.config.rate_hz
        if self.config.input != KEYBOARD:
            rate_hz = max(rate_hz, self.contract.control_hz)
            self._thread = InputThread(
                LeRobotInput(self.config, self.contract, section.joints if section else ()), rate_hz
            )
            self._hand = Hand(self._thread, self._jog, self.contract)
            self._thread.start()
        # Keys and commands keep wall time: a simulation clock that stops must not stop the keyboard.
        self.create_timer(1 / rate_hz, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        """Take the terminal."""
        assert self.episodes is not None
        self.episodes.control.resume()
        self._terminal = Terminal(self._terminal_fd)
        self._terminal.open()
        self._say(self._help())

    def deactivate(self) -> None:
        """Let the arm hold and give the terminal back."""
        self._stop_moving(DELIVER_S)
        if self.episodes is not None:
            self.episodes.stop()
        self._give_back()

    def cleanup(self) -> None:
        """Give the terminal and the device back."""
        self._state, self.episodes, self._hand, self._leading = None, None, None, None
        thread, self._thread = self._thread, None
        if thread is not None and not thread.stop():
            self.get_logger().warning(f"input '{self.config.input}' still blocks; its thread ends by itself")
        self._give_back()

    def _give_back(self) -> None:
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    # -- inputs ------------------------------------------------------------------------------------------------------

    def _on_state(self, message: JointState) -> None:
        try:
            stamp_ns = messages.to_ns(message.header.stamp)
            state = self._joint_states.add(stamp_ns, message.name, message.position, time.monotonic())
        except ValueError as error:
            self._lose(f"the arm is not moved: {error}")
            return
        if state is None:
            return
        self._state = (stamp_ns, state)
        self._arrived_s = time.monotonic()
        self.diagnostics.recovered("joint_states", "joint_states are good again", tell=self._say)

    def _on_sent(self, message: JointTrajectory) -> None:
        try:
            self._arm.on_sent(message)
        except ValueError as error:
            self.diagnostics.fault("joint_command_sent", f"cannot follow the arm: {error}")
            return
        self.diagnostics.recovered("joint_command_sent", "joint_command_sent is good again")

    def _stop_moving(self, deliver_s: float = 0.0) -> None:
        """Let the arm hold, if it was moved by this node."""
        self._let_go()
        if self._arm.asked is not None:
            self._arm.hold(deliver_s)

    def _let_go(self) -> None:
        """Have no target: the next motion begins where the arm is."""
        self._jog.stop()
        if self._hand is not None:
            self._hand.let_go()

    def _lose(self, reason: str) -> None:
        """Hold: where the arm is is not known any more."""
        self._state = None
        self._stop_moving()
        self.diagnostics.fault("joint_states", reason, tell=self._say)

    def _ask_to_stop(self) -> None:
        """Stop the arm, from the keyboard or a pedal that types the key."""
        self._estop.publish(Bool(data=True))
        self._stop_asked = not self._stop.stopped
        self._say("E-STOP")

    def _on_stopped(self, stopped: bool) -> None:
        """Forget the motion; after a release an arm's node that starts later is not stopped by this one."""
        self._stop_asked = False
        if stopped:
            self._let_go()
            self._arm.drop()
            if self._leading is not None:
                self._leading.stopped()
            self.diagnostics.fault("estop", f"the arm is stopped; {RELEASE}", tell=self._say)
        else:
            self._estop.publish(Bool(data=False))
            self.diagnostics.recovered("estop", "the arm is released", tell=self._say)

    def _on_timer(self) -> None:
        """Handle the keys pressed since the last time, command the arm, show where everything stands."""
        terminal = self._terminal
        if not self.active or terminal is None:
            return
        timeout_s, holds = self.config.timeout_s, self._arm.holds  # a hold of a hand-over from now on comes last
        if self._state is not None and time.monotonic() - self._arrived_s > timeout_s:
            self._lose(f"joint_states stopped more than {timeout_s:g} s ago: the arm is not moved; check its node")
        try:
            refused = False
            for key in terminal.read():
                refused = self._on_key(ARROWS.get(key, key), refused) or refused
        except EOFError as error:
            self.get_logger().error(f"{error}; the arm holds")
            self._give_back()
            self.exit(1)
            return
        if self._hand is not None:
            self._follow(self._hand)
        target, led = self._jog.command(), None if self._leading is None else self._leading.led
        if target is not None and self._state is not None and self._may_lead:
            chunk = ActionChunk(self._state[0], target[None], self.contract.dt_s)
            if self._arm.ask(chunk, holds, led):
                self.diagnostics.count("commands")
        terminal.status(self._status())
        assert self.episodes is not None
        self.episodes.tick()
        if self.episodes.finished and not self.episodes.busy:
            self._say(f"{self.config.episodes} episodes are recorded")
            self._give_back()
            self.exit(0)

    def _follow(self, hand: Hand) -> None:
        """Let the input device move the target, and do what its buttons say."""
        may = self._state is not None and not self._stop.stopped and self._may_lead
        moving = self._jog.target is not None
        events, refused = hand.follow(self._pose() if may else None, self.config)
        if hand.fault:
            if moving and self._jog.target is None:
                self._stop_moving()
            self.diagnostics.fault("input", f"input '{self.config.input}': {hand.fault}", tell=self._say)
        else:
            self.diagnostics.recovered("input", f"input '{self.config.input}' is there", tell=self._say)
        if refused and refused != self._hand_said:  # again and again while a stick is held
            self._say(refused)
        self._hand_said = refused
        before, self._held = self._held, hand.held
        turned = None not in (before, hand.held) and hand.held != before  # the button was pressed, or let go
        if self._leading is not None and turned and hand.held != self._leading.taken:
            self._leading.turn()
        assert self.episodes is not None
        for event in events:
            self.episodes.do(NEXT if event == SUCCESS else event)

    @property
    def _may_lead(self) -> bool:
        """Whether the person may move the arm: not in a rollout before she has taken over."""
        return self._leading is None or self._leading.taken

    def _newest_ns(self) -> int:
        return 0 if self._state is None else self._state[0]

    def _pose(self) -> NDArray[np.float32]:
        """Return where the arm was sent last, (D,) [rad], else where it is: jaws that hold something press on."""
        assert self._state is not None
        return self._state[1] if self._arm.sent is None else self._arm.sent[1]

    def _on_key(self, key: str, refused: bool) -> bool:
        """Do what a key says; returns whether it was a move that was refused (``refused``: one was, so no more)."""
        quit_asked, self._quit_asked = self._quit_asked, False
        if key in self._joint_keys or key in CARTESIAN_KEYS or key in ("o", "c"):
            return refused or not self._move(key)
        if key == " ":
            self._ask_to_stop()
        elif key == "x":
            if self.episodes is not None and self.episodes.name and not quit_asked:
                self._quit_asked = True
                self._say("an episode is being recorded: g, f or d ends it; x again quits and leaves it unfinished")
            else:
                self.exit(0)
        elif key in ("h", "?"):
            self._say(self._help())
        elif key == "p" and self._leading is not None:
            self._leading.turn()
        elif key in _EPISODE_KEYS and self.episodes is not None:
            self.episodes.do(_EPISODE_KEYS[key])
        return False

    # -- moving ------------------------------------------------------------------------------------------------------

    def _move(self, key: str) -> bool:
        """Move the target; says why not and returns False if it cannot."""
        jog, config = self._jog, self.config
        if self.episodes is None or self.episodes.busy:
            return False
        if self._stop.stopped:
            self._say(f"the arm is stopped; {RELEASE}")
            return False
        if not self._may_lead:
            self._say("the arm is not yours: p takes over")
            return False
        if self._hand is not None and self._hand.leads:
            self._say("the leader arm leads; keys move nothing meanwhile")
            return False
        if jog.target is None and self._state is not None:
            jog.start(self._state[1] if self._leading is None else self._pose())
        try:
            if key in self._joint_keys:
                index, sign = self._joint_keys[key]
                jog.joint(index, sign * config.joint_step)
            elif key in CARTESIAN_KEYS:
                axis, sign = CARTESIAN_KEYS[key]
                jog.move(sign * config.cartesian_step * np.eye(3)[axis])
            else:
                jog.gripper(config.gripper_step if key == "o" else -config.gripper_step)
        except (Unreachable, ValueError) as error:
            self._say(str(error))
            return False
        return True

    # -- display -----------------------------------------------------------------------------------------------------

    def _say(self, text: str) -> None:
        terminal = self._terminal
        if terminal is not None:
            terminal.say(text)

    def _help(self) -> str:
        names = dict.fromkeys(index for index, _ in self._joint_keys.values())
        pairs = (f"{JOINT_KEYS[i][0]}/{JOINT_KEYS[i][1]} {self.contract.joints[i]}" for i in names)
        return HELP.format(joints="  ".join(pairs))

    def _status(self) -> str:
        """Return the status line."""
        if self._stop.stopped or self._stop_asked:
            said = "STOPPED" if self._stop.stopped else "E-STOP sent, no arm has said that it is stopped"
            return f"[{said}] lrm estop --release | h help"
        assert self.episodes is not None
        more = [part.status() for part in (self._leading, self._hand) if part is not None]
        shown = self.episodes.status(*more)
        if self._state is None:
            return f"{shown} | no joint_states"
        joints = " ".join(
            f"{value:+.2f}" + ("!" if not low < value < high else "")
            for value, low, high in zip(self._state[1], self.contract.lower, self.contract.upper, strict=True)
        )
        return f"{shown} | {joints} rad | h help"


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(TeleopNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
