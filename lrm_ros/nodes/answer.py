# SPDX-License-Identifier: Apache-2.0
"""The answer node: the keys by which a person answers the question of another node (topic ``question``)."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.clock import Clock
from rclpy.clock_type import ClockType
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages, topics
from lrm_ros.config_person import AnswerConfig
from lrm_ros.robot.devices.terminal import Terminal
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.person import NOTHING, OUTCOME, SCENE
from lrm_ros.ros.program import run

_HELP = """\
ENTER or r  the scene is in place        g  success        f  failure
u           turn the last answer round   SPACE  stops the arm (e-stop); lrm estop --release releases it
h           this help                    Ctrl+C stops; started again with the same folder it goes on"""


class AnswerNode(LrmNode[AnswerConfig]):
    """Shows the question and calls the services of the node that asks. Without a terminal it only says so."""

    def __init__(self, terminal_fd: int | None = None, **overrides: Any) -> None:
        """Declare the parameters.

        Args:
            terminal_fd: file descriptor of the terminal; default: the one this process was started from.
            overrides: parameter values.
        """
        super().__init__("answer", AnswerConfig, overrides)
        self._terminal_fd = terminal_fd
        self._terminal: Terminal | None = None
        self._asked, self._text, self._who = NOTHING, "", ""
        self._callers: dict[str, Any] = {}

    def configure(self) -> None:
        """Listen to the question."""
        self._callers = {}
        self._estop = topics.ESTOP.publisher(self)
        topics.QUESTION.subscribe(self, self._on_question)
        self.create_timer(1 / self.config.rate_hz, self._on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))

    def activate(self) -> None:
        """Take the terminal, if there is one."""
        try:
            self._terminal = Terminal(self._terminal_fd)
        except ValueError as error:
            self.get_logger().warning(f"questions are answered by services only (topic 'question'): {error}")
            return
        self._terminal.open()
        self._terminal.say(_HELP)

    def deactivate(self) -> None:
        """Give the terminal back."""
        self.cleanup()

    def cleanup(self) -> None:
        """Give the terminal back."""
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            terminal.close()

    def _on_question(self, message: DiagnosticStatus) -> None:
        values = messages.status_values(message)
        new = (message.name, message.message) != (self._asked, self._text)
        self._asked, self._text, self._who = message.name, message.message, values.get("node", "")
        if new and self._asked != NOTHING:
            picture = f"\nas it was, beside as it is now: {values['picture']}" if values.get("picture") else ""
            self._say(f"{self._text}{picture}\a")

    def _say(self, text: str) -> None:
        if self._terminal is not None:
            self._terminal.say(text)
        else:
            print(text, file=sys.stderr, flush=True)

    def _on_timer(self) -> None:
        terminal = self._terminal
        if terminal is None:
            return
        try:
            keys = terminal.read()
        except EOFError as error:
            self.get_logger().error(f"{error}; questions are answered by services only")
            self.cleanup()
            return
        for key in keys:
            self._on_key(key)
        keys_of = {SCENE: "ENTER: it is in place", OUTCOME: "g success, f failure", NOTHING: "nothing is asked"}
        terminal.status(f"[{keys_of.get(self._asked, self._asked)}] {self._text} | h help")

    def _on_key(self, key: str) -> None:
        if key == " ":
            self._estop.publish(Bool(data=True))
            self._say("E-STOP")
        elif key in ("\r", "\n", "r"):
            self._call(Trigger, "ready", Trigger.Request())
        elif key in ("g", "f"):
            self._call(SetBool, "outcome", SetBool.Request(data=key == "g"))
        elif key == "u":
            self._call(Trigger, "correct", Trigger.Request())
        elif key in ("h", "?"):
            self._say(_HELP)

    def _call(self, kind: type, name: str, request: Any) -> None:
        """Call a service of the node that asks; its answer is shown when it comes."""
        if not self._who:
            self._say("no node has asked anything yet")
            return
        service = f"{self._who}/{name}"
        client = self._callers.get(service) or self.create_client(kind, service)
        self._callers[service] = client
        if not client.service_is_ready():
            self._say(f"service '{service}' is not there (yet): press the key again")
            return
        client.call_async(request).add_done_callback(self._shower())

    def _shower(self) -> Callable[[Any], None]:
        return lambda future: self._say(future.result().message)


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(AnswerNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
