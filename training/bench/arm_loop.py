# SPDX-License-Identifier: Apache-2.0
"""``lrm bench arm-loop``: the whole loop on an arm, through LeRobot's driver and the emulated servo bus, measured.

A scripted person leads the follower by a leader arm on a second emulated bus and records demonstrations with a camera
in front and one on the wrist; ``lrm up self_improve sim:=false`` learns from them, the person puts the scenes back and
says how rollouts ended; then the SFT policy, the control (as many more steps on the demonstrations alone) and the
result meet the same held-out scenes through driver and bus. Everything is a process of its own in real time, as on a
desk, so that a busy machine shows in the figures. Each part that is finished is kept in the folder, and the same
command goes on after it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from lifecycle_msgs.msg import State

from lrm_ros import seeds
from lrm_ros.config import RobotContract
from lrm_ros.config_arm import SECTIONS
from lrm_ros.config_files import load_yaml, read_yaml
from lrm_ros.config_person import RobotImproverConfig
from lrm_ros.errors import one_line
from lrm_ros.files import append_line, claim_folder, read_lines, write_json
from lrm_ros.graph.graphs import nodes_of
from lrm_ros.graph.runner import Graph
from lrm_ros.options import number, whole
from lrm_ros.private_domain import use_private_domain
from lrm_ros.ros.collector import read_verdicts
from lrm_ros.ros.control import EpisodeError
from lrm_ros.ros.robot_demonstrations import usable
from lrm_ros.training.bench.arm_person import Hand, Operator
from lrm_ros.training.bench.bus import Emulator, Person, contract_of, spinning, succeeds
from lrm_ros.training.report.stats import paired, proportion

if TYPE_CHECKING:
    from lrm_ros.sim.twin.world import World

DEMONSTRATIONS, LOOP, SAID, TRIALS = "demonstrations", "loop", "operator.jsonl", "trials.jsonl"
SFT, CONTROL, RESULT = "sft", "control", "result"
_BLOCK = 10  # scenes that one policy meets before the next one has them: a busy minute hits all alike
_TRIES = 3  # so many demonstrations are tried for one that is wanted
_CAMERAS = ("front", "wrist")


def desk_of(folder: Path, source: Path) -> Path:
    """Write the contract of the twin's arm behind the bus, with a camera on its wrist; returns its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = contract_of(source, folder)
    values = read_yaml(path)
    values["cameras"] = [{"name": name, "width": 96, "height": 96} for name in _CAMERAS]
    path.write_text(yaml.safe_dump(values))
    return path


def _sources(desk: Path) -> dict[str, str]:
    return {f"{name}_camera.source": str(desk / "cameras" / name) for name in _CAMERAS}


class Terminal:
    """A command in a terminal of its own, as a person starts it; what it shows is kept in a file."""

    def __init__(self, words: Sequence[str], log: Path) -> None:
        """Start it; ``log`` is continued."""
        self._log = log
        master, slave = os.openpty()
        code = (
            "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"
        )
        self._process = subprocess.Popen(
            [sys.executable, "-c", code, *words], stdin=slave, stdout=slave, stderr=slave, start_new_session=True
        )
        os.close(slave)
        self._reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reader.start()

    def _read(self, master: int) -> None:
        with self._log.open("ab") as file, contextlib.suppress(OSError):  # the last one at the other end has gone
            while said := os.read(master, 65536):
                file.write(said)
                file.flush()
        os.close(master)

    def check(self) -> bool:
        """Return whether it still runs.

        Raises:
            RuntimeError: it has ended with an error; says where its output is.
        """
        if code := self._process.poll():
            raise RuntimeError(f"'{self._log.stem}' ended with code {code}; its output is in '{self._log}'")
        return code is None

    def __enter__(self) -> Terminal:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Ask it to end, and wait."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
        self._process.wait()
        self._reader.join()


def _up(graph: str, arguments: dict[str, Any]) -> list[str]:
    words = [f"{name}:={value}" for name, value in arguments.items()]
    return [sys.executable, "-m", "lrm_ros.cli", "up", graph, *words]


def scenes_of(world: World, of: Iterable[int], count: int, instruction: str = "") -> list[int]:
    """Return the first ``count`` of these seeds whose scene has one and the same toy: a desk has one task.

    Args:
        world: a twin of this process's own.
        of: seeds.
        count: how many.
        instruction: the task; empty: that of the first seed.

    Raises:
        ValueError: there are fewer.
    """
    found: list[int] = []
    for seed in of:
        world.reset(seed)
        instruction = instruction or world.instruction
        if world.instruction == instruction:
            found.append(seed)
        if len(found) == count:
            return found
    raise ValueError(f"only {len(found)} of these scenes are '{instruction}', {count} are needed: ask for fewer")


def demonstrate(out: Path, contract: Path, count: int, run_seed: int, world: World) -> None:
    """Record demonstrations with the leader, until there are ``count`` successes.

    Raises:
        EpisodeError, RuntimeError: a node refuses or has died; says which.
    """
    desk, folder = contract.parent, out / DEMONSTRATIONS
    folder.mkdir(parents=True, exist_ok=True)
    if (had := len(usable(folder))) >= count:
        return
    given = {"sim": "false", "contract": contract, "folder": folder, "input": "so101_leader", "input_id": "leader"}
    given |= {"input_port": desk / "leader", "input_calibration_dir": desk / "calibration", "image_format": "png"}
    log = out / "demonstrations.log"
    scenes = scenes_of(world, seeds.demonstrations(run_seed), _TRIES * count)
    world.reset(scenes[0])
    given["recorder.task_text"] = world.instruction
    with Emulator(desk, leader=True) as emulator, spinning("person") as node:
        hand = Hand(node, emulator, load_yaml(contract, RobotContract, SECTIONS), world)
        with Terminal(_up("teleop", given | _sources(desk)), log) as terminal:
            hand.begin()
            for seed in scenes[len(list(folder.glob("*.mcap"))) :]:
                done = hand.demonstrate(seed)
                had += done
                how = "success" if done else "failure"
                print(f"demonstration of scene {seed}: {how}, {had} of {count}", flush=True)
                terminal.check()
                if had == count:
                    return
    raise RuntimeError(
        f"only {had} of {len(scenes)} demonstrations were successes, {count} are needed; is this host busy?"
    )


def improve(out: Path, contract: Path, options: argparse.Namespace, scenes: Iterator[int]) -> None:
    """Run ``lrm up self_improve sim:=false``, answered by the scripted person with these scenes.

    Raises:
        RuntimeError: it ended with an error; its output says why.
    """
    desk, run = contract.parent, out / LOOP
    given = {"sim": "false", "contract": contract, "dataset": out / DEMONSTRATIONS, "run": run, "ask_outcome": "true"}
    given |= {"iterations": options.iterations, "episodes": options.rollouts, "tries": options.tries}
    given |= {"rollout_s": float(options.seconds), "sft_steps": options.sft_steps, "seed": options.seed}
    given |= {"finetune_steps": options.finetune_steps, "explore_std": options.explore_std, **_sources(desk)}
    words = _up("self_improve", given)
    before = read_lines(out / SAID)
    for _ in range(sum("seed" in line for line in before)):
        next(scenes)  # those of a run that goes on
    with Emulator(desk, leader=True) as emulator, spinning("person") as node:
        errors = (options.wrong, options.forgets, f"{options.seed} {len(before)}")
        operator = Operator(node, emulator, scenes, *errors, keep=lambda line: append_line(out / SAID, line))
        with Terminal(words, out / "loop.log") as terminal:
            while terminal.check():
                operator.look()


def policies_of(out: Path, iterations: int) -> dict[str, Path]:
    """Return the folders of the three policies of a run."""
    run = out / LOOP
    last = run / f"iter_{iterations:03d}"
    return {SFT: run / "iter_000" / "policy", CONTROL: last / "control", RESULT: last / "policy"}


def compare(out: Path, contract: Path, policies: dict[str, Path], scenes: Sequence[int], seconds: float) -> None:
    """Let all policies meet the same scenes through driver and bus, in turns; each trial is kept at once.

    Raises:
        EpisodeError, RuntimeError: a node refuses or has died; says which.
    """
    done = {(row["policy"], row["seed"]) for row in read_lines(out / TRIALS)}
    desk, log = contract.parent, out / "compare.log"
    given = {"sim": "false", "contract": str(contract), "checkpoint": str(policies[SFT]), "policy.timeout_s": 2.0}
    nodes = [one for one in nodes_of("trial", given | _sources(desk)) if one.kind in ("arm", "camera", "policy")]
    with Emulator(desk, leader=True) as emulator, spinning("person") as node, Graph(nodes, log=log, show=()) as graph:
        person = Person(node, emulator)
        person.control.wait_ready(["arm/reset", "arm/torque_off", "policy/reload"], check=graph.check)
        person.control.wait_state("policy", State.PRIMARY_STATE_ACTIVE)
        for first in range(0, len(scenes), _BLOCK):
            for name, checkpoint in policies.items():
                todo = [seed for seed in scenes[first : first + _BLOCK] if (name, seed) not in done]
                if todo:
                    person.use(checkpoint)
                for seed in todo:
                    person.begin(seed)
                    won = succeeds(emulator, seconds)
                    append_line(out / TRIALS, {"policy": name, "seed": seed, "success": won})
                    graph.check()
                rows = [row["success"] for row in read_lines(out / TRIALS) if row["policy"] == name]
                print(f"{name}: {sum(rows)} of {len(rows)}", flush=True)


def figures_of(out: Path, iterations: int) -> dict[str, Any]:
    """Return what a run has shown."""
    won: dict[str, dict[int, bool]] = {SFT: {}, CONTROL: {}, RESULT: {}}
    for row in read_lines(out / TRIALS):
        won[row["policy"]][row["seed"]] = row["success"]
    found: dict[str, Any] = {name: proportion(sum(rows.values()), len(rows)) for name, rows in won.items() if rows}
    for name in (SFT, CONTROL):
        found[f"{RESULT} against {name}"] = paired(won[RESULT], won[name])
    said = [line for line in read_lines(out / SAID) if "was" in line]
    scenes = [line for line in read_lines(out / SAID) if "seed" in line]
    found["operator"] = {
        "answers": len(said),
        "wrong": sum(line["was"] != line["said"] for line in said),
        "scenes": len(scenes),
        "forgotten": sum(not line["put_back"] for line in scenes),
    }
    found["rollouts"] = [
        {"iteration": number, "rollouts": len(rows), "kept": sum(row["keep"] for row in rows.values())}
        for number in range(1, iterations + 1)
        if (rows := read_verdicts(out / LOOP / f"iter_{number:03d}"))
    ]
    found["stages"] = read_lines(out / LOOP / "stages.jsonl")
    return found


def table(found: dict[str, Any]) -> str:
    """Return the figures as Markdown."""
    lines = ["| policy | success | 95 % | result against it, paired |", "| --- | --- | --- | --- |"]
    for name in (SFT, CONTROL, RESULT):
        one = found[name]
        low, high = (100 * value for value in one["ci95"])
        against = ""
        if pair := found.get(f"{RESULT} against {name}"):
            least, most = (100 * value for value in pair["ci95"])
            against = f"{100 * pair['difference']:+.1f} points ({least:+.1f} to {most:+.1f}), p {pair['p']:.3f}"
        lines.append(f"| {name} | {100 * one['rate']:.1f} % of {one['n']} | {low:.1f} to {high:.1f} | {against} |")
    operator = found["operator"]
    lines += ["", "{wrong} of {answers} answers wrong, {forgotten} of {scenes} scenes not put back".format(**operator)]
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        prog="lrm bench arm-loop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    config = RobotImproverConfig()
    add = parser.add_argument
    add(
        "--out", type=Path, default=Path("runs/arm_loop"), metavar="FOLDER", help="of everything (default: %(default)s)"
    )
    add("--contract", type=Path, default=Path("config/so100_bus.yaml"), metavar="FILE", help="of the twin's arm")
    add("--demonstrations", type=whole(1), default=20, help="successes of the scripted leader (default 20)")
    add("--iterations", type=whole(1), default=1, help="of the loop (default 1)")
    add("--rollouts", type=whole(1), default=120, help="starts an iteration, each in a new scene (default 120)")
    add("--tries", type=whole(1), default=1, help="attempts at a start until the judge keeps one (default 1)")
    add("--seconds", type=number(above=True), default=6.0, help="time cap of a rollout or trial (default 6)")
    add("--sft-steps", type=whole(1), default=config.sft_steps, help="of training on the demonstrations")
    add("--finetune-steps", type=whole(1), default=config.finetune_steps, help="of training an iteration")
    add(
        "--explore-std",
        type=number(),
        default=0.02,
        metavar="M",
        help="of the gripper's sideways offset (default 0.02)",
    )
    add("--wrong", type=number(), default=0.0, metavar="SHARE", help="of the person's answers that are the other one")
    add("--forgets", type=number(), default=0.0, metavar="SHARE", help="of scenes that the person leaves as they are")
    add("--scenes", type=whole(1), default=200, help="held-out scenes that every policy meets (default 200)")
    add("--first-scene", type=whole(0), default=10_000, metavar="N", help="number of the first one (default 10000)")
    add("--seed", type=whole(0), default=config.seed, help="of demonstrations, rollouts and trainings")
    add("--json", type=Path, metavar="FILE", help="write the figures to FILE")
    options = parser.parse_args(argv)
    use_private_domain()
    out: Path = options.out.absolute()
    begun = time.monotonic()
    from lrm_ros.sim.twin.world import World

    try:
        decided = {k: v for k, v in vars(options).items() if k not in ("out", "json", "scenes", "contract")}
        claim_folder(out, decided | {"contract": str(options.contract)}, "*.jsonl", "a run")
        contract = desk_of(out / "desk", options.contract)
        world = World()
        world.reset(seeds.demonstrations(options.seed)[0])
        task = world.instruction
        held_out = range(seeds.HELD_OUT.first + options.first_scene, seeds.HELD_OUT.end)
        scenes = scenes_of(world, held_out, options.scenes, task)
        asked = 2 * options.iterations * options.rollouts * options.tries  # some are asked for again
        rollouts = [seed for number in range(1, seeds.ITERATIONS) for seed in seeds.rollouts(options.seed, number)]
        fresh = scenes_of(world, rollouts, asked, task)
        demonstrate(out, contract, options.demonstrations, options.seed, world)
        world.close()
        improve(out, contract, options, iter(fresh))
        compare(out, contract, policies_of(out, options.iterations), scenes, options.seconds)
    except (RuntimeError, EpisodeError, FileNotFoundError, ValueError) as error:
        print(f"error: {one_line(error)}\nwhat is finished is kept in '{out}'", file=sys.stderr)
        return 1 if isinstance(error, RuntimeError) else 2
    found = figures_of(out, options.iterations) | {"minutes": (time.monotonic() - begun) / 60}
    found["settings"] = {key: str(value) for key, value in vars(options).items()}
    print(table(found), flush=True)
    write_json(out / "figures.json", found)
    if options.json:
        options.json.parent.mkdir(parents=True, exist_ok=True)
        options.json.write_text(json.dumps(found, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
