# SPDX-License-Identifier: Apache-2.0
"""The episodes of a person who teleoperates: start, success, failure, again, discard, next, and the time to reset."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.config_teleop import TeleopConfig
from lrm_ros.robot.devices.lerobot_input import AGAIN, FAILURE, SUCCESS
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeControl, EpisodeError, RecordedEpisodes, Stopped, TwinEpisodes

START, DISCARD, NEXT = "start", "discard", "next"  # beside an input device's SUCCESS, FAILURE, AGAIN
_LIVE_S = 3.0  # what the recorder said is shown for so long [s]


class TeleopEpisodes:
    """Asks recorder and twin in a thread, one thing after the other.

    Attributes:
        name: of the episode that is being recorded; empty: none is.
        busy: what is being asked for; empty: nothing.
        counts: how many episodes became what.
        control: client of the other nodes.
    """

    def __init__(
        self,
        node: LrmNode[TeleopConfig],
        say: Callable[[str], None],
        let_go: Callable[[], None],
        source: str = "teleop",
        lifecycles: tuple[str, ...] = (),
    ) -> None:
        """Create the clients and the services.

        Args:
            node: whose episodes these are.
            say: tells the person a line; from any thread.
            let_go: called in the thread before a scene is put in place, for the twin's arm jumps then.
            source: who acts, for the recorder.
            lifecycles: further nodes that the control can start and stop.
        """
        self._node, self._say, self._let_go, self._source = node, say, let_go, source
        self.name, self.busy = "", ""
        self.counts = {SUCCESS: 0, FAILURE: 0, "discarded": 0}
        self._worker: threading.Thread | None = None
        self._started_s = 0.0
        self._unrecorded = False  # the recording has failed: nobody is to act any more
        self._due_s: float | None = None  # when the next episode begins by itself
        self._live, self._live_s = "", 0.0
        self.control = control = Control(
            node, TwinEpisodes.TRIGGERS, TwinEpisodes.NODES, lifecycles, TwinEpisodes.SET_BOOLS, find_s=1.0
        )
        self._twin, self._real = TwinEpisodes(control), RecordedEpisodes(control)
        self.begun: Callable[[], None] = lambda: None  # called in the thread when an episode is being recorded
        self.ending: Callable[[], None] = lambda: None  # and before it ends
        topics.EPISODE.subscribe(node, self._on_episode)
        topics.DIAGNOSTICS.subscribe(node, self._on_diagnostics)
        node.create_service(Trigger, "~/start", partial(self._on_service, START))
        node.create_service(Trigger, "~/success", partial(self._on_service, SUCCESS))
        node.create_service(Trigger, "~/failure", partial(self._on_service, FAILURE))
        node.create_service(Trigger, "~/again", partial(self._on_service, AGAIN))
        node.create_service(Trigger, "~/discard", partial(self._on_service, DISCARD))
        node.create_service(Trigger, "~/next", partial(self._on_service, NEXT))

    def stop(self) -> None:
        """End what is being asked for."""
        self.control.stop()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    # -- what a person wants -----------------------------------------------------------------------------------------

    def do(self, event: str) -> str:
        """Do one of the six; returns why not, empty if it is begun.

        ``next`` is for one button or pedal: it ends a recording with success, else it starts one.
        """
        if event == NEXT:
            event = SUCCESS if self.name else START
        if event == DISCARD and not self.name and self._due_s is not None:
            self._due_s = None
            self._say("the countdown is over: s starts the next episode")
            return ""
        works: dict[str, tuple[str, Callable[[], None]]] = {
            START: ("starting", self._start),
            SUCCESS: ("ending", partial(self._end, True)),
            FAILURE: ("ending", partial(self._end, False)),
            DISCARD: ("discarding", self._discard),
            AGAIN: ("starting again", self._again),
        }
        return self.begin(*works[event])

    def begin(self, what: str, work: Callable[[], None]) -> str:
        """Ask other nodes in a thread of its own; until that is done no other piece of work begins.

        Returns:
            Why it does not begin; empty: it does.
        """
        if self.busy:
            refused = f"one thing after the other: still {self.busy}"
            self._say(refused)
            return refused
        self.busy = what
        self._worker = threading.Thread(target=self._work, args=(work,), name="episodes")
        self._worker.start()
        return ""

    def _work(self, work: Callable[[], None]) -> None:
        try:
            work()
        except EpisodeError as error:
            self._say(str(error))
        except Stopped:
            pass
        finally:
            self.busy = ""

    def _on_service(self, event: str, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        refused = self.do(event) if self._node.active else "the node is not active; activate it first"
        response.success, response.message = not refused, refused or f"{event}: topic 'episode' says what became of it"
        return response

    # -- episodes ----------------------------------------------------------------------------------------------------

    @property
    def _episodes(self) -> EpisodeControl:
        return self._twin if self.control.ready("twin/reset") else self._real

    def _start(self) -> None:
        """Put the scene of the next episode in place and record."""
        if self.name:
            raise EpisodeError("an episode is being recorded: g, f or d ends it, a starts it anew")
        self._due_s = None
        self._let_go()
        episodes = self._episodes
        self._say(episodes.reset(self._node.config.seed + self.counts[SUCCESS] + self.counts[FAILURE]))
        path = episodes.start(source=self._source)
        self.name, self._started_s = path.name.removesuffix(".mcap"), time.monotonic()
        self._say(f"recording {self.name}")
        self.begun()

    def _end(self, success: bool) -> None:
        self.ending()
        self.name = ""  # also if the recorder refuses: then it records none
        path = self._episodes.stop(success)
        self.counts[SUCCESS if success else FAILURE] += 1
        self._say(f"{SUCCESS if success else FAILURE}: {path}")
        self._count_down()

    def _discard(self) -> None:
        self.ending()
        self.name = ""
        message = self._episodes.discard()
        self.counts["discarded"] += 1
        self._say(message)

    def _again(self) -> None:
        if self.name:
            self._discard()
            if self._count_down():
                return
        self._start()

    def _count_down(self) -> bool:
        """Let the next episode begin after the time to put the scene back; returns whether there is one."""
        reset_s = self._node.config.reset_s
        if not reset_s or self.finished:
            return False
        self._due_s = time.monotonic() + reset_s
        self._say(
            f"put the scene back: the next episode begins in {reset_s:g} s; s begins it now, d stops the countdown"
        )
        return True

    @property
    def finished(self) -> bool:
        """Whether there are as many episodes as are wanted."""
        wanted = self._node.config.episodes
        return 0 < wanted <= self.counts[SUCCESS] + self.counts[FAILURE]

    def tick(self) -> None:
        """Begin the next episode when its time has come, and end one whose recording has failed."""
        if self._unrecorded and not self.busy:
            self._unrecorded = False
            self.begin("ending", self.ending)
        if self._due_s is not None and time.monotonic() >= self._due_s and not self.busy:
            self._due_s = None
            self.do(START)

    # -- display -----------------------------------------------------------------------------------------------------

    def _on_episode(self, message: DiagnosticStatus) -> None:
        """Notice an episode that the recorder could not finish."""
        if message.message == "failed" and self.name and message.name == self.name:
            self.name, self._unrecorded = "", True
            self._say(f"the recording failed: {messages.status_values(message).get('reason', '')}")

    def _on_diagnostics(self, message: DiagnosticArray) -> None:
        """Note how the recorder is."""
        name = f"{self._node.get_namespace().rstrip('/')}/recorder"
        for status in message.status:
            if status.name == name:
                self._live, self._live_s = live_line(messages.status_values(status)), time.monotonic()

    def status(self, *said: str) -> str:
        """Return where the episodes stand, for the status line; ``said``: what is more urgent than their counts."""
        if self.busy:
            episode = f"{self.busy} ..."
        elif self.name:
            episode = f"RECORDING {time.monotonic() - self._started_s:.0f} s"
        elif (due_s := self._due_s) is not None:
            episode = f"next in {max(0.0, due_s - time.monotonic()):.0f} s"
        else:
            episode = "idle, s starts"
        counts = " ".join(f"{name} {count}" for name, count in self.counts.items())
        live = self._live if time.monotonic() - self._live_s < _LIVE_S else ""
        return f"[{episode}] " + " | ".join(filter(None, (*said, counts, live)))


def live_line(values: dict[str, str]) -> str:
    """Return rates, losses and free disk of a recorder's diagnostics: ``front 30 joints 100/s lost 0 free 9 GB``."""
    rates = []
    for key, value in values.items():
        if key.endswith("_per_s") and key.startswith(("frames_", "states")):
            name = key.removesuffix("_per_s").removeprefix("frames_").replace("states", "joints")
            rates.append(f"{name} {float(value):.0f}")
    lost = f"lost {values.get('dropped', '0')}"
    space = values.get("free_mb", "")
    free = f"free {float(space) / 1000:.1f} GB" if space.isdecimal() else ""
    return " ".join(filter(None, [" ".join(rates) + "/s" if rates else "", lost, free]))
