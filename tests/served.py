# SPDX-License-Identifier: Apache-2.0
"""A reward server for tests, in a thread of this process, and requests to it as upstream's client sends them."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import requests
from numpy.typing import NDArray

from lrm_ros.config_serve import ServeConfig
from lrm_ros.reward.load import load_model
from lrm_ros.reward.models import RewardModel
from lrm_ros.reward.serve.server import RewardServer

PATIENCE_S = 30.0


@contextlib.contextmanager
def serving(
    load: Callable[[str, str, str], RewardModel] = load_model, token: str = "", **settings: Any
) -> Iterator[str]:
    """Serve ("fake" if not told otherwise) on a free port; gives the address when the model is loaded."""
    server = RewardServer(ServeConfig(**{"model": "fake", "port": 0, **settings}), token, load)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        end = time.monotonic() + PATIENCE_S
        while not ready(server.url) and server.failure is None:
            assert time.monotonic() < end, "never ready"
        yield server.url
    finally:
        server.stop()
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def ready(url: str) -> bool:
    """Whether a server would judge a request now."""
    with contextlib.suppress(requests.ConnectionError):
        return requests.get(f"{url}/ready", timeout=PATIENCE_S).status_code == 200
    return False


def grey(value: int, height: int = 4, width: int = 6) -> NDArray[np.uint8]:
    """An image of one brightness."""
    return np.full((height, width, 3), value, np.uint8)


def base64_of(array: NDArray[Any] | bytes) -> str:
    """Bytes as upstream's client sends them."""
    return base64.b64encode(array if isinstance(array, bytes) else array.tobytes()).decode()


def flat(image: NDArray[Any], name: str = "image") -> dict[str, Any]:
    """An image beside its shape and type, as upstream's client sends it."""
    return {name: base64_of(image), f"{name}_shape": list(image.shape), f"{name}_dtype": str(image.dtype)}


def whole(image: NDArray[Any]) -> dict[str, Any]:
    """An image as a dictionary, as upstream's client sends frames."""
    return {"data": base64_of(image), "shape": list(image.shape), "dtype": str(image.dtype)}
