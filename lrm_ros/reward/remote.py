# SPDX-License-Identifier: Apache-2.0
"""A reward model on another machine, over HTTP: ``lrm serve``, or the upstream server.

A failed query is Unscored with the reason, never a number. What may pass (no connection, a full queue, a model that is
still being loaded) is asked again with growing, random pauses until the deadline; a server that failed several times
in a row is left alone for a while, so that a robot does not wait for it at every frame.
"""

from __future__ import annotations

import base64
import math
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import parse_qs, urlsplit, urlunsplit

from lrm_ros.errors import as_line
from lrm_ros.image_files import encode
from lrm_ros.reward.heads import HEADS
from lrm_ros.reward.json_server import JsonServer, Moved, NoAnswer, bearer
from lrm_ros.reward.models import public_name
from lrm_ros.reward.video_heads import VIDEO_HEADS
from lrm_ros.types import Frame, Reward, RewardQuery, Unscored

Answers = list[Reward | Unscored]
TOKEN = "LRM_SERVE_TOKEN"
TIMEOUT_S = 30.0  # a call may take so long in all [s]
_PART = 64  # queries of one request


class RemoteModel:
    """Asks a server for rewards; its ``score`` may be called by many threads."""

    def __init__(self, address: str) -> None:
        """Look which server answers there.

        Args:
            address: ``http://HOST:PORT``, of ``lrm serve`` or the upstream server. With ``?jpeg=90`` the images are
                sent as JPEGs of that quality (less to send, answers not exactly those of the image), else raw; with
                ``?timeout=5`` each call of ``score`` takes so long at most [s], else ``TIMEOUT_S``; ``&`` joins two.

        Raises:
            ValueError: no such address.
            ConnectionError: nothing answers there, or it is at another address.
        """
        import requests

        parts = urlsplit(address)
        options = parse_qs(parts.query, keep_blank_values=True)
        if parts.scheme not in ("http", "https") or not parts.hostname or options.keys() - {"jpeg", "timeout"}:
            raise ValueError(f"model '{address}' is no address; give http://HOST:PORT, perhaps with ?jpeg=90&timeout=5")
        self._jpeg = int(_option(address, options, "jpeg", 0, 1, 100))
        self._timeout_s = timeout_s = _option(address, options, "timeout", TIMEOUT_S, 0.01, 3600)
        url = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self.name = public_name(address)
        self._server = JsonServer(url, timeout_s, bearer(TOKEN))
        try:
            about = self._server.get("/health")[1]
            known = isinstance(about, dict) and "model_loaded" in about
            self._upstream = self._server.get("/ready")[0] == 404
        except Moved as moved:
            raise ConnectionError(f"{self.name}: {moved}") from moved
        except NoAnswer:
            known = False
        except requests.RequestException as error:
            raise ConnectionError(
                f"no reward server answers at {self.name} ({type(error).__name__}); start it there with 'lrm serve "
                "--host 0.0.0.0', or look at address and network"
            ) from error
        if not known:
            raise ConnectionError(f"what answers at {self.name} is no reward server; give the address of 'lrm serve'")

    def score(self, queries: Sequence[RewardQuery], readout: str = "forward") -> Answers:
        """Answer every query, in order; whatever goes wrong is Unscored with the reason.

        Upstream's server has a read-out of its own, and is asked one query at a time.
        """
        end = time.monotonic() + self._timeout_s
        answers: Answers = []
        size = 1 if self._upstream else _PART
        for start in range(0, len(queries), size):
            part = queries[start : start + size]
            try:
                answers += self._ask_upstream(part[0], end) if self._upstream else self._ask(part, readout, end)
            except NoAnswer as failure:
                answers += [Unscored(query.stamp_ns, query.head, f"{self.name}: {failure}") for query in part]
        return answers

    # ---- the two servers ---------------------------------------------------------------------------------------------

    def _ask(self, queries: Sequence[RewardQuery], readout: str, end: float) -> Answers:
        """Ask ``/v1/score``."""
        shown = [[*query.frames, *([query.goal] if query.goal is not None else [])] for query in queries]
        frames = list({id(frame): frame for images in shown for frame in images}.values())
        places = {id(frame): place for place, frame in enumerate(frames)}
        body = {
            "images": [self._image(frame) | {"stamp_ns": frame.stamp_ns} for frame in frames],
            "queries": [
                {
                    "head": query.head,
                    "task": query.task,
                    "images": [places[id(frame)] for frame in query.frames],
                    "goal": None if query.goal is None else places[id(query.goal)],
                }
                for query in queries
            ],
            "readout": readout,
            "timeout_s": max(0.001, end - time.monotonic()),
        }
        started = time.perf_counter()
        reply = self._server.post("/v1/score", body, end)
        seconds = time.perf_counter() - started
        given = reply.get("answers")
        if not isinstance(given, list) or len(given) != len(queries):
            raise NoAnswer(
                f"it gave {len(given) if isinstance(given, list) else 'no'} answers to {len(queries)} queries"
            )
        return [self._answer(query, answer, seconds) for query, answer in zip(queries, given, strict=True)]

    def _ask_upstream(self, query: RewardQuery, end: float) -> Answers:
        """Ask the route of a query's head, as upstream's client does."""
        body: dict[str, Any] = {"task_description": query.task}
        last = query.frames[-1]
        if query.head == "contrastive":
            route, names = "/compute_comparison", {"image_a": query.frames[0], "image_b": last}
        elif query.head == "completion":
            route, names = "/compute_completion", {"image": last}
        elif query.head == "progress":
            route, names = "/compute_reward", {"image": last}
            names |= {"initial_image": query.frames[0]} if len(query.frames) == 2 else {}
            names |= {"goal_image": query.goal} if query.goal is not None else {}
            body["reward_type"] = "progress"
        else:
            route, names = f"/compute_{query.head}", {}
            body["frames"] = [_raw(frame) for frame in query.frames]
            span_s = (last.stamp_ns - query.frames[0].stamp_ns) / 1e9
            body["fps"] = (len(query.frames) - 1) / span_s if span_s > 0 else 1.0
        for name, frame in names.items():
            raw = _raw(frame)
            body |= {name: raw["data"], f"{name}_shape": raw["shape"], f"{name}_dtype": raw["dtype"]}
        started = time.perf_counter()
        reply = self._server.post(route, body, end)
        if reply.get("success") is not True or (query.head == "contrastive" and reply.get("result") is None):
            raise NoAnswer(str(reply.get("error", "it could read no answer")))
        answer = {"head": query.head, "stamp_ns": query.stamp_ns, "value": reply.get("score")}
        return [self._answer(query, answer, time.perf_counter() - started)]

    def _answer(self, query: RewardQuery, answer: Any, seconds: float) -> Reward | Unscored:
        """Return an answer that is one to this query and in its range; anything else is Unscored."""
        head = (HEADS | VIDEO_HEADS)[query.head]
        if isinstance(answer, dict) and (answer.get("head"), answer.get("stamp_ns")) == (query.head, query.stamp_ns):
            value, reason = answer.get("value"), answer.get("unscored")
            mass: Any = answer.get("mass")
            if value is None and isinstance(reason, str):
                return Unscored(query.stamp_ns, query.head, as_line(f"{self.name}: {reason}"))
            if isinstance(value, int | float) and not isinstance(value, bool) and head.low <= value <= head.high:
                known = isinstance(mass, int | float) and not isinstance(mass, bool) and 0 <= mass <= 1.001
                return Reward(
                    query.stamp_ns, query.head, float(value), self.name, seconds, float(mass) if known else None
                )
        return Unscored(query.stamp_ns, query.head, as_line(f"{self.name}: its answer is none: {str(answer)[:200]}"))

    def _image(self, frame: Frame) -> dict[str, Any]:
        if not self._jpeg:
            return _raw(frame)
        return {"data": base64.b64encode(encode(frame.image, "jpeg", self._jpeg)).decode()}


def _option(address: str, options: dict[str, list[str]], name: str, default: float, low: float, high: float) -> float:
    """Return a number behind the question mark of an address."""
    if name not in options:
        return default
    try:
        value = float(options[name][-1])
    except ValueError:
        value = math.nan
    if not low <= value <= high:
        raise ValueError(f"model '{address}': {name} is '{options[name][-1]}'; give {low:g} to {high:g}")
    return value


def _raw(frame: Frame) -> dict[str, Any]:
    """Return an image as upstream's client encodes it."""
    data = base64.b64encode(frame.image.tobytes()).decode()
    return {"data": data, "shape": list(frame.image.shape), "dtype": "uint8"}
