# SPDX-License-Identifier: Apache-2.0
"""The command ``lrm``: dispatches to the program modules by name, so that this package imports none of them."""

from __future__ import annotations

import difflib
import importlib
import sys

from lrm_ros import __version__
from lrm_ros.completion import completion
from lrm_ros.programs import interrupted

# command -> (module with main(argv), what it does)
COMMANDS = {
    "doctor": ("lrm_ros.graph.doctor", "check this machine and say how to fix what is missing"),
    "up": ("lrm_ros.graph.runner", "start the nodes of a graph: self_improve, sim_refine, teleop, rollout, trial"),
    "estop": ("lrm_ros.ros.estop_command", "stop every arm now, or release one (--release)"),
    "ports": ("lrm_ros.robot.ports", "say which arm is at which serial port, leader or follower"),
    "collect": (
        "lrm_ros.training.policy.collect",
        "record demonstrations of a person, or of the twin's expert",
    ),
    "replay": ("lrm_ros.graph.replay", "move the arm or the twin as a recorded episode did"),
    "judge": ("lrm_ros.training.policy.judge", "judge recorded episodes by the completion head"),
    "dataset": ("lrm_ros.training.policy.dataset", "turn recorded episodes into a LeRobotDataset"),
    "finetune": ("lrm_ros.training.policy.finetune", "train a policy on a data set"),
    "ppo": (
        "lrm_ros.training.ppo.command",
        "refine a policy in simulated worlds by PPO with any reward model",
    ),
    "ppo report": ("lrm_ros.training.ppo.report", "compare refined policies on held-out start poses"),
    "reward data": (
        "lrm_ros.training.reward.data.command",
        "collect keyframes for reward models from data sets and simulators",
    ),
    "reward train": (
        "lrm_ros.training.reward.train.command",
        "train reward models: LoRA heads of a Qwen3-VL, or the tiny one",
    ),
    "reward eval": (
        "lrm_ros.training.reward.eval.command",
        "evaluate a reward model beside an untrained model and trivial baselines",
    ),
    "reward openloop": (
        "lrm_ros.training.reward.eval.openloop",
        "evaluate a reward model open-loop on rollouts, against the simulator",
    ),
    "serve": ("lrm_ros.reward.serve.command", "serve a reward model over HTTP, in batches, with upstream's routes"),
    "evaluate": ("lrm_ros.training.policy.evaluate", "evaluate a policy's success rate in the twin on held-out seeds"),
    "trial": ("lrm_ros.training.trial.command", "compare policies blindly before a person, on the arm or in the twin"),
    "report": ("lrm_ros.training.report.command", "write the report of a run"),
    "bench topics": ("lrm_ros.training.bench.topics", "measure loss and latency from cameras to the recorder"),
    "bench hop": ("lrm_ros.training.bench.hop", "measure the time from a frame to its reward through the reward node"),
    "bench reward": ("lrm_ros.training.bench.reward", "measure the reward model's speed"),
    "bench keyframes": ("lrm_ros.training.bench.keyframes", "measure the throughput of keyframes from video"),
    "bench twin": ("lrm_ros.training.bench.twin", "measure the twin's speed, in process and through the nodes"),
    "bench ppo": (
        "lrm_ros.training.bench.ppo",
        "measure an iteration of refinement, stage by stage",
    ),
    "bench envelope": (
        "lrm_ros.training.bench.envelope",
        "send adversarial wishes through a real arm's envelope and its emulated servos",
    ),
    "bench arm": (
        "lrm_ros.training.bench.arm",
        "measure the arm node before an emulated arm: command to the bus, joint states",
    ),
    "bench arm-loop": (
        "lrm_ros.training.bench.arm_loop",
        "measure the loop on an arm: a scripted leader and person, LeRobot's driver, emulated servos",
    ),
    "bench arm-faults": (
        "lrm_ros.training.bench.arm_faults",
        "measure what an arm in motion does at each fault of bus, servos, node and policy",
    ),
    "bench bus": (
        "lrm_ros.training.bench.bus",
        "move the twin's arm by a policy through driver and servo bus",
    ),
    "bench faults": ("lrm_ros.training.bench.faults", "measure how soon an arm in motion holds after each fault"),
    "bench kills": (
        "lrm_ros.training.bench.kills",
        "kill nodes of a recording session at random moments, count what is lost",
    ),
    "bench realtime": (
        "lrm_ros.training.bench.realtime",
        "move the twin in real time by a policy that takes its time",
    ),
    "bench record": (
        "lrm_ros.training.bench.record",
        "record for an hour and count what is lost; kill sessions, LeRobot's, too",
    ),
    "bench signals": ("lrm_ros.training.bench.signals", "stop nodes and graphs at random moments, count bad ends"),
    "bench serve": (
        "lrm_ros.training.bench.serve",
        "measure the reward server: a hop over loopback, many clients at once",
    ),
    "bench train": (
        "lrm_ros.training.bench.train",
        "measure a step of reward training: tokens/s, MFU, memory",
    ),
}


def usage() -> str:
    """Return the list of commands."""
    width = max(map(len, COMMANDS))
    rows = "\n".join(f"  lrm {name:<{width}}  {text}" for name, (_, text) in COMMANDS.items())
    more = "lrm --version; lrm completion bash|zsh: completes commands and options in that shell"
    return f"usage: lrm COMMAND [OPTIONS]; lrm COMMAND --help says more\n\n{rows}\n\n{more}"


def _group(name: str) -> str:
    """Return the list of commands of which ``name`` is the first word, empty if there are none."""
    return "\n".join(
        f"  lrm {command}  {text}" for command, (_, text) in COMMANDS.items() if command.startswith(f"{name} ")
    )


def main(argv: list[str] | None = None) -> int:
    """Run one command; returns its exit code, 130 after Ctrl+C."""
    words = sys.argv[1:] if argv is None else argv
    if not words or words[0] in ("-h", "--help", "help"):
        print(usage())
        return 0 if words else 2
    if words[0] == "--version":
        print(f"lrm_ros {__version__}")
        return 0
    if words[0] == "completion":
        return completion(words[1:], COMMANDS)
    for length in (2, 1):
        name = " ".join(words[:length])
        if name in COMMANDS and len(words) >= length:
            try:
                return int(importlib.import_module(COMMANDS[name][0]).main(words[length:]) or 0)
            except KeyboardInterrupt:
                return interrupted(f"lrm {name}")
    if (group := _group(words[0])) and words[1:] in ([], ["-h"], ["--help"]):
        print(f"usage: lrm {words[0]} COMMAND [OPTIONS]; lrm {words[0]} COMMAND --help says more\n\n{group}")
        return 0 if words[1:] else 2
    near = difflib.get_close_matches(" ".join(words[:2]), COMMANDS, 1) or difflib.get_close_matches(
        words[0], [*COMMANDS, *(name.split()[0] for name in COMMANDS)], 1
    )
    hint = f"; did you mean 'lrm {near[0]}'?" if near else ""
    print(f"error: unknown command '{' '.join(words[:2])}'{hint}\n\n{usage()}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    raise SystemExit(main())
