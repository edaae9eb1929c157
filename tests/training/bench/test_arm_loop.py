# SPDX-License-Identifier: Apache-2.0
"""What the bench of the loop on an arm stands on: its person, its scenes, its figures."""

from __future__ import annotations

import json
import sys

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import SetBool, Trigger

from lrm_ros import messages, seeds, topics
from lrm_ros.sim.twin.world import World
from lrm_ros.training.bench.arm_loop import CONTROL, RESULT, SFT, Terminal, figures_of, main, scenes_of, table
from lrm_ros.training.bench.arm_person import Operator
from lrm_ros.training.bench.bus import spinning


class Bus:
    """In the place of the emulator: a toy that is in the bowl or not."""

    def __init__(self) -> None:
        self.done, self.scenes = False, []

    def ask(self, line: str) -> str:
        if line.startswith("toy "):
            self.scenes.append(int(line.split()[1]))
            self.done = False
            return "put the toy in the bowl"
        return "success" if self.done else "failure"


class Loop:
    """In the place of the improver: asks, and keeps what is answered."""

    def __init__(self, node) -> None:
        self.said: list[bool] = []
        self.ready = self.rollouts = 0
        self._question = topics.QUESTION.publisher(node)
        node.create_service(Trigger, "improver/ready", self._on_ready)
        node.create_service(SetBool, "improver/outcome", self._on_outcome)

    def ask(self, what: str, text: str, who: str = "/improver") -> None:
        self._question.publish(messages.status(DiagnosticStatus.OK, what, text, {"node": who, "picture": ""}))

    def _on_ready(self, _, response):
        self.ready += 1
        response.success = True
        return response

    def _on_outcome(self, request, response):
        response.success = len(self.said) < self.rollouts
        if response.success:
            self.said.append(request.data)
        return response


def until(operator: Operator, condition) -> None:
    for _ in range(600):
        if condition():
            return
        operator.look()
    raise AssertionError("the operator did not answer")


def test_the_operator_puts_scenes_back_says_what_is_so_and_errs_as_often_as_asked():
    kept: list[dict] = []
    with spinning("person") as node:
        bus, loop = Bus(), Loop(node)
        operator = Operator(node, bus, range(100, 200), 0.3, 0.3, "1", kept.append)
        for number in range(20):
            name = f"rollout {number}_0 of iteration 1"
            loop.ask("scene", f"{name}: When it is safe, say ready: the arm goes to its start")
            until(operator, lambda: loop.ready == 2 * number + 1)  # noqa: B023
            loop.ask("scene", f"{name}: put the scene as in the picture, step back, then say ready")
            until(operator, lambda: loop.ready == 2 * number + 2)  # noqa: B023
            loop.rollouts += 1
            loop.ask("outcome", f"{name} runs: success or failure ends it, else it ends by itself")
            for _ in range(5):
                operator.look()
            assert len(loop.said) == number + bus.done, "a success is said at once"
            if len(loop.said) == number:
                bus.done = number % 2 == 0
                loop.ask("outcome", f"{name} has ended: was it a success or a failure?")
            until(operator, lambda: len(loop.said) == number + 1)  # noqa: B023
    said = [line for line in kept if "was" in line]
    scenes = [line for line in kept if "seed" in line]
    assert [line["said"] for line in said] == loop.said and len(said) == len(scenes) == 20
    wrong = [line["said"] != line["was"] for line in said]
    assert 2 <= sum(wrong) <= 12
    assert bus.scenes == [line["seed"] for line in scenes if line["put_back"]] and 8 <= len(bus.scenes) < 20
    assert [line["seed"] for line in scenes] == list(range(100, 120))


def test_scenes_have_one_toy_and_too_few_are_refused():
    world = World()
    found = scenes_of(world, seeds.demonstrations(0), 5)
    tasks = set()
    for seed in found:
        world.reset(seed)
        tasks.add(world.instruction)
    assert len(tasks) == 1 and len(set(found)) == 5
    assert scenes_of(world, iter(found), 5, *tasks) == found
    with pytest.raises(ValueError, match=r"only 5 of these scenes are 'put the .* toy .*', 6 are needed"):
        scenes_of(world, found, 6)
    world.close()


def test_a_command_in_a_terminal_is_heard_and_its_error_is_one(tmp_path):
    log = tmp_path / "loop.log"
    code = "import os; os.open('/dev/tty', os.O_RDWR); print('there'); raise SystemExit(3)"
    says = r"'loop' ended with code 3; its output is in '.*loop.log'"
    with pytest.raises(RuntimeError, match=says), Terminal([sys.executable, "-c", code], log) as terminal:
        while terminal.check():
            pass
    assert "there" in log.read_text()


def test_the_figures_are_those_of_the_files(tmp_path):
    won = {SFT: [1, 0, 0, 0], CONTROL: [1, 1, 0, 0], RESULT: [1, 1, 1, 0]}
    rows = [{"policy": name, "seed": k, "success": bool(v)} for name, all_ in won.items() for k, v in enumerate(all_)]
    (tmp_path / "trials.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    said = [{"question": "", "was": True, "said": True}, {"question": "", "was": True, "said": False}]
    said += [{"question": "", "seed": 7, "put_back": False}]
    (tmp_path / "operator.jsonl").write_text("".join(json.dumps(row) + "\n" for row in said))
    found = figures_of(tmp_path, 1)
    assert [found[name]["rate"] for name in (SFT, CONTROL, RESULT)] == [0.25, 0.5, 0.75]
    pair = found[f"{RESULT} against {SFT}"]
    assert (pair["difference"], pair["only_first"], pair["only_second"], pair["p"]) == (0.5, 2, 0, 0.5)
    assert found["operator"] == {"answers": 2, "wrong": 1, "scenes": 1, "forgotten": 1}
    text = table(found)
    assert "| sft | 25.0 % of 4 |" in text and "+50.0 points" in text and "1 of 2 answers wrong, 1 of 1 scenes" in text


def test_a_folder_of_other_settings_is_refused(tmp_path, capsys):
    (tmp_path / "settings.json").write_text('{"rollouts": 7}')
    assert main(["--out", str(tmp_path), "--rollouts", "3"]) == 2
    assert "rollouts 7 there, 3 now" in capsys.readouterr().err
