# SPDX-License-Identifier: Apache-2.0
"""The evaluator node: success rates on fixed seeds, and the simulator's truth about recorded episodes.

The only node that listens to ``truth``. Nothing it writes is read by the loop that collects, judges and trains: the
evaluation files and ``truth.jsonl`` are for the report.
"""

from __future__ import annotations

import threading
import time
import traceback
from pathlib import Path
from typing import Any

from diagnostic_msgs.msg import DiagnosticStatus
from std_srvs.srv import Trigger

from lrm_ros import messages, topics
from lrm_ros.checkpoint import observed_steps
from lrm_ros.config import EvaluatorConfig, PolicyConfig
from lrm_ros.files import append_line, read_lines, write_json
from lrm_ros.ros.base import LrmNode
from lrm_ros.ros.control import Control, EpisodeControl, EpisodeError, SentSteps, Stopped, TwinEpisodes
from lrm_ros.ros.program import run


class EvaluatorNode(LrmNode[EvaluatorConfig]):
    """Service ``~/evaluate`` starts an evaluation; topic ``evaluation`` says how far it is and when it ended.

    An evaluation that was interrupted goes on where it stopped: finished seeds are kept in ``<file>.part``.
    """

    def __init__(self, **overrides: Any) -> None:
        """Declare the parameters; ``overrides`` are parameter values."""
        super().__init__("evaluator", EvaluatorConfig, overrides)
        self._worker: threading.Thread | None = None
        self._control: Control | None = None
        self._episodes: EpisodeControl | None = None
        self._truth: dict[str, str] = {}
        self._ended: list[tuple[str, Path, int]] = []  # recorded episodes that wait for their truth

    def configure(self) -> None:
        """Listen to the truth and to the recorder."""
        self._report = topics.EVALUATION.publisher(self)
        self._control = Control(self, ("twin/reset", "policy/reset", "policy/reload"), ("twin", "policy"))
        self._episodes = TwinEpisodes(self._control)
        SentSteps(self, self._control)  # an arm that moves is worth waiting for
        topics.TRUTH.subscribe(self, self._on_truth)
        topics.EPISODE.subscribe(self, self._on_episode)
        self.create_service(Trigger, "~/evaluate", self._on_evaluate)

    def activate(self) -> None:
        """With ``once``: begin at once."""
        assert self._control is not None
        self._control.resume()
        if self.config.once:
            self._begin()

    def deactivate(self) -> None:
        """Stop an evaluation that is running; what is done stays."""
        if self._control is not None:
            self._control.stop()
        if self._worker is not None:
            self._worker.join()
            self._worker = None

    def _on_truth(self, message: DiagnosticStatus) -> None:
        before, self._truth = self._truth, messages.status_values(message)
        if self._ended and int(self._truth["steps"]) < int(before.get("steps", 0)):
            names = ", ".join(name for name, *_ in self._ended)
            self.get_logger().error(f"the simulator said nothing of the end of {names}; truth.jsonl leaves it out")
            self._ended.clear()
        self._settle()
        if self._control is not None:
            self._control.notify()

    def _on_episode(self, message: DiagnosticStatus) -> None:
        """Note that a recorded episode has ended; the simulator's word of its last step may come later."""
        if message.message == "ended" and self._truth:
            values = messages.status_values(message)
            self._ended.append((message.name, Path(values["path"]), int(values.get("joint_command_sent", 0))))
            self._settle()

    def _settle(self) -> None:
        """Write what the simulator says of recorded episodes beside the folders of their journals."""
        truth = self._truth
        while self._ended and int(truth["steps"]) >= self._ended[0][2]:
            name, path, _ = self._ended.pop(0)
            row = {
                "episode_id": name,
                "seed": int(truth["seed"]),
                "success": truth["success"] == "true",
                "steps": int(truth["steps"]),
            }
            append_line(path.parent.parent / "truth.jsonl", row)

    def _on_evaluate(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        """Begin an evaluation with the parameters as they are now."""
        if not self.active:
            response.success, response.message = False, "the evaluator is not active; activate it first"
        elif self._worker is not None and self._worker.is_alive():
            response.success, response.message = False, "an evaluation is running; wait for topic 'evaluation'"
        else:
            try:
                self._begin()
            except ValueError as error:
                response.success, response.message = False, str(error)
            else:
                response.success, response.message = True, f"evaluating '{self.config.checkpoint}'"
        return response

    def _begin(self) -> None:
        """Start the evaluation's thread.

        Raises:
            ValueError: a parameter is missing.
        """
        for name, what in (("checkpoint", "the policy to evaluate"), ("file", "where the result is written")):
            if not getattr(self.config, name):
                raise ValueError(f"set parameter '{name}': {what}")
        self._worker = threading.Thread(target=self._guard, name="evaluation")
        self._worker.start()

    def _guard(self) -> None:
        """Run the evaluation; a failure is published, not lost in the thread."""
        config = self.config
        try:
            self._evaluate(config)
        except Stopped:
            return
        except (EpisodeError, OSError, ValueError) as error:
            self.get_logger().error(f"evaluation failed: {error}\n{traceback.format_exc()}")
            self._publish("failed", config, reason=str(error))
            if config.once:
                self.exit(1)
        else:
            if config.once:
                self.exit(0)

    def _evaluate(self, config: EvaluatorConfig) -> None:
        """Roll the policy out once on every seed; success is the simulator's, at any time in the episode."""
        control = self._control
        assert control is not None
        path = Path(config.file)
        part = path.with_suffix(path.suffix + ".part")
        control.wait_ready(("twin/reset", "policy/reset", "policy/reload"))
        about = {
            "policy": config.checkpoint,
            "max_steps": config.max_steps,
            "execute_steps": control.get("policy", "execute_steps"),
            "changed": _changed_at(config.checkpoint),
        }
        # Rows of before they told how many steps were executed have the default.
        rows = [{"execute_steps": PolicyConfig.execute_steps} | row for row in read_lines(part)]
        done = {row["seed"]: row for row in rows if all(row.get(name) == value for name, value in about.items())}
        control.set("policy", {"checkpoint": config.checkpoint, "explore_std": 0.0})
        control.trigger("policy/reload")
        # A policy that looks back must see every step, for others a frame a chunk is enough.
        frame_every = 0 if observed_steps(config.checkpoint) == 1 else 1
        control.set("twin", {"max_steps": config.max_steps, "frame_every": frame_every})
        seeds = range(config.first_seed, config.first_seed + config.episodes)
        for seed in seeds:
            if seed not in done:
                done[seed] = about | self._episode(seed, config)
                append_line(part, done[seed])
            wins = sum(row["success"] for row in done.values())
            self._publish("running", config, done=len(done), successes=wins)
        result = {
            "policy": config.checkpoint,
            "max_steps": config.max_steps,
            "execute_steps": about["execute_steps"],
            "seeds": list(seeds),
            "success": [int(done[seed]["success"]) for seed in seeds],
            "steps": [done[seed]["steps"] for seed in seeds],
            "seconds": round(sum(done[seed]["seconds"] for seed in seeds), 2),
        }
        write_json(path, result, indent=None)
        part.unlink(missing_ok=True)
        self._publish("done", config, done=len(seeds), successes=sum(result["success"]))

    def _episode(self, seed: int, config: EvaluatorConfig) -> dict[str, Any]:
        """Run one episode until success or its last step."""
        control, episodes = self._control, self._episodes
        assert control is not None and episodes is not None
        started = time.perf_counter()
        self._truth = {}
        control.set("policy", {"seed": seed})  # of what the policy draws
        episodes.reset(seed)
        control.trigger("policy/reset")

        def finished() -> bool:
            truth = self._truth
            ours = truth.get("seed") == str(seed)
            return ours and (truth["success"] == "true" or int(truth["steps"]) >= config.max_steps)

        control.wait_until(finished, f"the end of the episode with seed {seed}")
        truth = dict(self._truth)
        return {
            "seed": seed,
            "success": truth["success"] == "true",
            "steps": int(truth["steps"]),
            "seconds": round(time.perf_counter() - started, 4),
        }

    def _publish(self, event: str, config: EvaluatorConfig, **values: Any) -> None:
        """Publish how far the evaluation is."""
        level = DiagnosticStatus.ERROR if event == "failed" else DiagnosticStatus.OK
        about = {"checkpoint": config.checkpoint, "episodes": config.episodes, "file": config.file}
        self._report.publish(messages.status(level, "evaluation", event, {**about, **values}))


def _changed_at(checkpoint: str) -> int | None:
    """Return when a policy's weights were written [ns], ``None`` if there are none."""
    path = Path(checkpoint) / "model.safetensors"
    return path.stat().st_mtime_ns if path.is_file() else None


def main(argv: list[str] | None = None) -> int:
    """Run the node."""
    return run(EvaluatorNode, argv)


if __name__ == "__main__":
    raise SystemExit(main())
