# SPDX-License-Identifier: Apache-2.0
"""Who does what on the emulated desk while a command of the documentation runs: scripts by the command's beginning."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from desk import BRIGHT, DARK, Desk, Session  # type: ignore[import-not-found]
from so101 import place  # type: ignore[import-not-found]
from std_srvs.srv import Trigger

from lrm_ros.record.journal import read_info

Script = Callable[[Desk, str, list[str]], None]


def alone(desk: Desk, command: str, before: list[str]) -> None:
    """It runs to its end by itself."""
    desk.run(command, before)


def wiggle(desk: Desk, command: str, before: list[str]) -> None:
    session = desk.start(command, before)
    desk.until(lambda: "move one arm by hand" in session.said, session, "asked for a wiggle")
    moved = [0.0]

    def named() -> bool:
        moved[0] = 0.5 - moved[0]
        place(desk.server, [moved[0]] * 6)
        desk.wait(0.3)
        return "moved: " in session.said

    desk.until(named, session, "named the arm that was moved")
    assert f"moved: {desk.server.ports['leader'].path}" in desk.end(session)


def first_motion(desk: Desk, command: str, before: list[str]) -> None:
    """The keyboard moves the arm; the program goes on, for the commands that stop and release it."""
    session = desk.start(command, before)
    desk.until(lambda: " rad | h help" in session.said, session, "showed the joints")
    begin = desk.follower()[0]

    def moved() -> bool:
        session.type("1")
        desk.wait(0.2)
        return abs(desk.follower()[0] - begin) > 0.1

    desk.until(moved, session, "moved the arm by a key")


def recorded_motion(desk: Desk, command: str, before: list[str]) -> None:
    """As the first motion, and an episode of it."""
    first_motion(desk, command, before)
    (session,) = desk.running
    episode(desk, session, desk.folder / "runs/recordings/episodes", "success", lambda: desk.wait(1.0))


def release(desk: Desk, command: str, before: list[str]) -> None:
    """The arm is released, and the program that drives it ended."""
    (session,) = desk.running
    assert "STOPPED" in session.said
    desk.run(command, before)
    session.interrupt()
    desk.end(session, (0, 130))


def hold(desk: Desk, command: str, before: list[str]) -> None:
    """A node that says that it holds the arm, until it is interrupted."""
    session = desk.start(command, before)
    desk.until(lambda: "holds the arm at" in session.said, session, "held the arm")
    session.interrupt()
    desk.end(session, (0, 130))


def episode(desk: Desk, session: Session, folder: Path, verb: str, act: Callable[[], None]) -> Path:
    """Record an episode, and again if an input was not good in it, as on a host that is busy; returns its journal."""
    for _ in range(5):
        there, bad = set(folder.glob("*.mcap")), len(list(folder.glob("*.faulty")))
        desk.call(session, Trigger, "teleop/start")
        act()
        desk.call(session, Trigger, f"teleop/{verb}")
        desk.until(
            lambda there=there, bad=bad: (
                set(folder.glob("*.mcap")) - there or len(list(folder.glob("*.faulty"))) > bad or session.ended
            ),
            session,
            f"ended an episode as {verb}",
        )
        if found := set(folder.glob("*.mcap")) - there:
            return found.pop()
    raise AssertionError(f"{session.command}: no episode was good:\n{session.said[-6000:]}")


def demonstrations(desk: Desk, command: str, before: list[str]) -> None:
    """Two successes and a failure by the leader, after which the command ends by itself."""
    session = desk.start(command, before)
    folder = desk.folder / "runs/desk/episodes"
    desk.until(lambda: " rad | h help" in session.said, session, "showed the joints")
    found = []
    for verb in ("success", "success", "failure"):

        def act(verb: str = verb) -> None:
            desk.light = DARK
            for step in range(10):
                desk.lead(0.02)
                desk.wait(0.2)
                if step == 7 and verb == "success":
                    desk.light = BRIGHT

        desk.lead()
        found.append(episode(desk, session, folder, verb, act))
    desk.end(session)
    assert [read_info(path).outcome for path in found] == [True, True, False]
    assert {read_info(path).task for path in found} == {"put the toy in the bowl"}
    assert "leads" in session.said


def rollout(desk: Desk, command: str, before: list[str]) -> None:
    """The policy acts, the person takes over and gives back."""
    session = desk.start(command, before)
    desk.until(lambda: " rad | h help" in session.said, session, "showed the joints")

    def act() -> None:
        desk.wait(1.0)
        desk.call(session, Trigger, "teleop/take_over")
        desk.lead()
        desk.wait(1.0)
        desk.call(session, Trigger, "teleop/give_back")
        desk.wait(0.5)

    journal = episode(desk, session, desk.folder / "runs/desk/rollouts", "failure", act)
    session.interrupt()
    desk.end(session, (0, 130))
    assert read_info(journal).may_intervene and read_info(journal).outcome is False


def serve(desk: Desk, command: str, before: list[str]) -> None:
    """The reward model is served for the rest of the page."""
    session = desk.start(command, before)
    port = command.split("--port ")[1]
    desk.until(lambda: f":{port}" in session.said, session, "served")


def person(desk: Desk, command: str, before: list[str]) -> None:
    """Puts the scene back (dark), and says that each rollout was a success; it becomes bright."""

    def answer(what: str, text: str) -> None:
        if what == "scene":
            desk.light = DARK
            desk.wait_then(1.0, desk.ready)
        elif "has ended" in text:
            desk.outcome(True)
        else:
            desk.wait_then(0.7, lambda: setattr(desk, "light", BRIGHT))

    desk.answer = answer
    said = desk.run(command, before)
    assert desk.asked
    desk.asked.clear()
    print(said[-2000:])


def graph(desk: Desk, command: str, before: list[str]) -> None:
    """Goes on until the command after it has ended."""
    desk.start(command, before)


def trial(desk: Desk, command: str, before: list[str]) -> None:
    beside = desk.running[-1]
    person(desk, command, before)
    beside.interrupt()
    desk.end(beside, (0, 130))
    assert (desk.folder / "runs/desk/trial/report.html").is_file()


# By the beginning of the command, the longest that fits; what has no line of its own runs to its end.
RUN: dict[str, Script] = {
    **dict.fromkeys(
        ("lrm doctor --only", "lrm ports", "lrm up --print", "lrm estop", "lrm replay", "lrm report"), alone
    ),
    **dict.fromkeys(("lrm dataset", "lrm finetune", "lrm reward", "lrm judge", "cp"), alone),
    "lrm ports --wiggle": wiggle,
    "lrm estop --release": release,
    "python -m lrm_ros.nodes.arm": hold,
    "lrm collect": demonstrations,
    "lrm up rollout": rollout,
    "LRM_SERVE_TOKEN=SECRET lrm serve": serve,
    "lrm up self_improve": person,
    "lrm up trial": graph,
    "lrm trial": trial,
}
