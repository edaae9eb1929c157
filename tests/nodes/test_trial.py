# SPDX-License-Identifier: Apache-2.0
"""The blind comparison on an emulated arm, the person a script; and the keys by which a person answers."""

from __future__ import annotations

import json
import os

import numpy as np
import pytest
from arm_cell import BRIGHT, DARK, contract_file, running  # type: ignore[import-not-found]
from diagnostic_msgs.msg import DiagnosticStatus
from rclpy.lifecycle import TransitionCallbackReturn
from sensor_msgs.msg import Image
from std_msgs.msg import Bool
from std_srvs.srv import SetBool, Trigger

from lrm_ros import image_files, messages, topics
from lrm_ros.nodes.answer import AnswerNode
from lrm_ros.nodes.trial import TrialNode
from lrm_ros.record.journal import read_info
from lrm_ros.record.trials import Trials
from lrm_ros.ros.control import EpisodeError


@pytest.fixture
def policies(tmp_path):
    """Two folders that are taken for policies."""
    found = [tmp_path / "policies" / name for name in ("sft", "final")]
    for folder in found:
        folder.mkdir(parents=True)
        (folder / "model.safetensors").write_bytes(b"weights")
    return tuple(map(str, found))


def test_a_comparison_is_stopped_and_goes_on_and_nothing_tells_which_policy_acts(
    spin, probe, tmp_path, monkeypatch, policies, capfd
):
    folder = tmp_path / "trial"
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        given = {"policies": policies, "run": str(folder), "starts": 2, "seconds": 1.0, "model": "fake"}
        given["task"] = "close the drawer"
        given |= {"contract": cell.contract, "start_speed": 0.0}
        codes: list[int] = []
        stopped: list[str] = []
        shown_scenes = spin.collect(probe, Image, "scene/image_raw", topics.LATCHED)

        def answer(what: str, text: str) -> None:
            if what == "scene":
                cell.light = DARK
                if text.startswith("trial 3") and not stopped:
                    stopped.append(text)  # the person goes home
                    return
                if "as in the picture" in text:
                    shown_before = len(shown_scenes)
                    cell.when(lambda: len(shown_scenes) > shown_before, cell.ready)
                else:
                    cell.ready()
            elif "has ended" in text:
                cell.outcome(False)
            elif not text.startswith("trial 2"):  # the others end early, with a success
                cell.light = BRIGHT
                cell.after(8, lambda: cell.outcome(True))

        cell.answer = answer
        node = TrialNode(**given)
        node.on_exit = codes.append
        spin.start(node)
        spin.until(lambda: stopped, 60, "the third trial")
        assert json.loads((folder / "plan.json").read_text())[2]["number"] == 3
        assert sorted(Trials(folder).answers) == [1, 2]
        node.trigger_deactivate()
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        spin.until(lambda: codes, 60, "the end")
        assert codes == [0]
        trials = Trials(folder)
        assert [trials.answers[n]["success"] for n in (1, 2, 3, 4)] == [True, False, True, True]
        assert not trials.voids and trials.due is None
        assert trials.verdicts[2]["keep"] is False and trials.verdicts[2]["score"] == 0
        assert sorted(trials.verdicts) == [1, 2, 3, 4]
        assert read_info(trials.journal(trials.plan[0])).outcome is True
        assert read_info(trials.journal(trials.plan[0])).task == "close the drawer"
        assert read_info(trials.journal(trials.plan[1])).outcome is None, "said after the recording had ended"
        scenes = [text for what, text in cell.asked if what == "scene"]
        assert "as you like" in scenes[0] and "as in the picture" in scenes[1] and "as you like" in scenes[2]
        both = image_files.decode((folder / "scene.png").read_bytes(), "png")
        assert both.shape == (96, 196, 3), "the start beside the live picture"
        said = " ".join(text for _, text in cell.asked) + capfd.readouterr().out
        shown = [value.value for value in cell.policy.diagnostics.status().values]
        for name in policies:
            assert name not in said and name not in shown
        assert str(folder / "policy") in shown
        assert cell.policy.state_label == "inactive", "the arm holds"


def test_a_trial_that_the_e_stop_ends_does_not_count_and_is_repeated(spin, probe, tmp_path, monkeypatch, policies):
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        estop = topics.ESTOP.publisher(probe)
        codes: list[int] = []
        left = tmp_path / "trial/episodes/trial_001.mcap"

        def answer(what: str, text: str) -> None:
            if what == "scene" and "does not count" not in text and "did not count" not in text:
                if not cell.replies[1:]:  # as a kill after the end of the recording leaves it
                    left.parent.mkdir(exist_ok=True)
                    left.write_bytes(b"of a trial without an answer")
                cell.ready()
            elif what == "scene":
                estop.publish(Bool(data=False))
                client = probe.create_client(Trigger, "arm/release")
                client.call_async(Trigger.Request()).add_done_callback(lambda _: cell.ready())
            elif not cell.replies[1:]:
                estop.publish(Bool(data=True))
            else:
                cell.after(3, lambda: cell.outcome(True))

        cell.answer = answer
        given = {"policies": policies, "run": str(tmp_path / "trial"), "starts": 1, "seconds": 30.0, "model": "fake"}
        node = TrialNode(**given, contract=cell.contract, start_speed=0.0)
        node.on_exit = codes.append
        spin.start(node)
        spin.until(lambda: codes, 60, "the end")
        trials = Trials(tmp_path / "trial")
        assert codes == [0] and [row["trial"] for row in trials.voids] == [1]
        assert "the arm is stopped" in trials.voids[0]["void"]
        assert left.with_name("trial_001.mcap.not_counted").read_bytes() == b"of a trial without an answer"
        assert all(row["success"] for row in trials.answers.values()) and len(trials.answers) == 2


def test_an_answered_trial_counts_whatever_comes_after_and_the_arm_moves_by_itself_only_when_asked(
    spin, probe, tmp_path, monkeypatch, policies
):
    with running(spin, probe, tmp_path, monkeypatch) as cell:
        cell.start()
        codes: list[int] = []
        left: list[str] = []
        failed: list[int] = []

        def answer(what: str, text: str) -> None:
            if what != "scene":
                cell.after(3, lambda: cell.outcome(True))
            elif text.startswith("trial 2") and not left:
                left.append(text)  # the person goes home
            else:
                cell.ready()

        cell.answer = answer
        given = {"policies": policies, "run": str(tmp_path / "trial"), "starts": 1, "seconds": 30.0, "model": "fake"}
        node = TrialNode(**given, contract=cell.contract, start_speed=1.0)
        node.on_exit = codes.append
        spin.start(node)
        act = node._runs.act

        def ends_badly(*given) -> int:
            steps = act(*given)
            if not failed:
                failed.append(steps)
                raise EpisodeError("the recorder is gone")
            return steps

        monkeypatch.setattr(node._runs, "act", ends_badly)
        spin.until(lambda: left, 60, "the second trial")
        assert left[0].startswith("trial 2 of 2: the last one counts, but did not end well (the recorder is gone). ")
        node.trigger_deactivate()
        before = len(cell.asked)
        assert node.trigger_activate() == TransitionCallbackReturn.SUCCESS
        spin.until(lambda: codes, 60, "the end")
        asked = [text for what, text in cell.asked[before:] if what == "scene"]
        assert "say ready: the arm goes to its start" in asked[0] and "put the scene" in asked[1]
        trials = Trials(tmp_path / "trial")
        assert codes == [0] and failed and not trials.voids and sorted(trials.answers) == [1, 2]


def test_a_record_of_before_the_judge_had_a_camera_goes_on_with_the_first_and_with_no_other(spin, tmp_path, policies):
    given = {"policies": policies, "run": str(tmp_path / "trial"), "model": "fake"}
    first = spin.add(TrialNode(**given))
    assert first.trigger_configure() == TransitionCallbackReturn.SUCCESS
    first.trigger_cleanup()
    path = tmp_path / "trial/settings.json"
    settings = json.loads(path.read_text())
    assert settings.pop("judge_camera") == "front"
    path.write_text(json.dumps(settings))
    assert first.trigger_configure() == TransitionCallbackReturn.SUCCESS
    path.write_text(json.dumps({**settings, "judge_camera": "wrist"}))
    first.trigger_cleanup()
    assert first.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "judge_camera 'wrist' there, 'front' now" in first.diagnostics.faults["configure"]


def test_what_is_no_policy_is_refused_before_anything_is_made(spin, tmp_path):
    node = spin.add(TrialNode(policies=(str(tmp_path), "x"), run=str(tmp_path / "run")))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "is no policy (no model.safetensors)" in node.diagnostics.faults["configure"]
    assert not (tmp_path / "run").exists()


def test_a_comparison_goes_on_only_with_the_robot_and_the_settings_that_it_began_with(spin, tmp_path, policies):
    given = {"policies": policies, "run": str(tmp_path / "trial"), "starts": 1, "model": "fake"}
    assert spin.add(TrialNode(**given)).trigger_configure() == TransitionCallbackReturn.SUCCESS
    assert spin.add(TrialNode(**given)).trigger_configure() == TransitionCallbackReturn.SUCCESS
    node = spin.add(TrialNode(**given, contract=str(contract_file(tmp_path))))
    assert node.trigger_configure() == TransitionCallbackReturn.FAILURE
    assert "of other settings (contract." in node.diagnostics.faults["configure"]


class Asker:
    """A node that asks, played by a test."""

    def __init__(self, spin, probe) -> None:
        self.got: list[object] = []
        self._question = topics.QUESTION.publisher(probe)
        probe.create_service(Trigger, "probe/ready", lambda asked, reply: self._take("ready", reply))
        probe.create_service(Trigger, "probe/correct", lambda asked, reply: self._take("correct", reply))
        probe.create_service(SetBool, "probe/outcome", lambda asked, reply: self._take(asked.data, reply))

    def _take(self, what, reply):
        self.got.append(what)
        reply.success, reply.message = True, f"took {what}"
        return reply

    def ask(self, what: str, text: str) -> None:
        self._question.publish(messages.status(DiagnosticStatus.OK, what, text, {"node": "/probe", "picture": "a.png"}))


def test_keys_answer_the_question_that_is_asked(spin, probe):
    master, slave = os.openpty()
    asker = Asker(spin, probe)
    stops = spin.collect(probe, Bool, "estop", topics.LATCHED)
    node = spin.start(AnswerNode(terminal_fd=slave, rate_hz=100.0))
    seen = ""

    def sees(text: str) -> bool:
        nonlocal seen
        os.set_blocking(master, False)
        try:
            seen += os.read(master, 65536).decode()
        except BlockingIOError:
            return text in seen
        return text in seen

    os.write(master, b"g")
    spin.until(lambda: sees("no node has asked anything yet"))
    asker.ask("scene", "trial 1 of 4: put the scene in place")
    spin.until(lambda: sees("put the scene in place") and sees("a.png"))
    for key, got in ((b"\n", "ready"), (b"g", True), (b"f", False), (b"u", "correct")):
        before = len(asker.got)
        while len(asker.got) == before:  # a service that is not discovered yet is said, not called
            os.write(master, key)
            spin.until(lambda got=got: sees(f"took {got}") or sees("press the key again"))
            seen = ""
        assert asker.got[-1] == got
    os.write(master, b" ")
    spin.until(lambda: stops and stops[-1].data)
    node.trigger_deactivate()
    os.close(master)
    os.close(slave)


def test_without_a_terminal_questions_are_said_and_answered_by_services(spin, probe, monkeypatch, capfd):
    from lrm_ros.nodes import answer

    def none(fd):
        raise ValueError("there is no terminal to read keys from")

    monkeypatch.setattr(answer, "Terminal", none)
    asker = Asker(spin, probe)
    spin.start(AnswerNode())
    asker.ask("outcome", "trial 1 has ended")
    spin.until(lambda: "trial 1 has ended" in capfd.readouterr().err)


def test_two_pictures_of_other_sizes_stand_side_by_side():
    from lrm_ros.ros.person import side_by_side

    both = side_by_side(np.full((10, 20, 3), 9, np.uint8), np.full((20, 40, 3), 5, np.uint8))
    assert both.shape == (20, 84, 3)
    assert (both[:, :40] == 9).all() and (both[:, 40:44] == 255).all() and (both[:, 44:] == 5).all()
