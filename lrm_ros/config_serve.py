# SPDX-License-Identifier: Apache-2.0
"""The settings of the reward server: ``lrm serve``."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass

from lrm_ros.config import COUNT, MIN_MASS, MIN_MASS_HELP, READOUT, READOUTS, SECONDS
from lrm_ros.config_files import option as _opt

MOST_REPLICAS = 1000


@dataclass(frozen=True)
class ServeConfig:
    """What is served, to whom, and how much of it at once."""

    model: str = _opt("tiny", "'tiny', a folder, a Hugging Face name, or 'fake'")
    mode: str = _opt(
        "tri", "tri (the heads of an LRM), or one head, or roboreward, robometer, topreward (their own model)"
    )
    readout: str = _opt("forward", f"{READOUT}; a request may ask otherwise", choices=READOUTS)
    min_mass: float = _opt(MIN_MASS, MIN_MASS_HELP, 0.0, 1.0)
    device: str = _opt("auto", "torch device; 'auto' takes the GPU when there is one")
    host: str = _opt("127.0.0.1", "address to listen on; any but this machine's own loopback needs a token")
    port: int = _opt(5001, "port to listen on; 0: any that is free", 0, 65535)
    max_batch: int = _opt(32, "most queries of one call of the model", *COUNT)
    max_waiting: int = _opt(1024, "most queries that wait; more are answered with 429", *COUNT)
    timeout_s: float = _opt(30.0, "queries that have waited so long are not judged [s]", *SECONDS)
    max_queries: int = _opt(256, "most queries of one request", *COUNT)
    max_images: int = _opt(256, "most images of one request", *COUNT)
    max_pixels: int = _opt(8_300_000, "most pixels of an image (4K has 8,294,400)", 1, 1_000_000_000)
    max_text: int = _opt(4000, "most characters of a task", *COUNT)
    max_body_mb: float = _opt(256.0, "largest body of a request [MB]", 0.001, 1e6)
    max_bodies_mb: float = _opt(1024.0, "largest sum of all bodies that are being read or judged [MB]", 0.001, 1e6)
    body_s: float = _opt(30.0, "a request whose body takes longer to arrive is given up [s]", *SECONDS)
    replicas: str = _opt(
        "", "the model so many times, each in a Ray process of its own: N, or MIN:MAX by what waits; empty: without Ray"
    )
    ray: str = _opt("local", "Ray of the replicas: 'local' starts it here, 'auto' is the cluster of this machine")
    replica_gpus: float = _opt(
        -1.0, "GPUs of a replica, 0.5: two share one; -1: one where the cluster has any", -1.0, 64.0
    )
    replica_waiting: float = _opt(
        8.0, "MIN:MAX: another replica is started when more requests than this are at each of them", 0.1, 1e4
    )

    @property
    def replica_range(self) -> tuple[int, int]:
        """Fewest and most replicas, (0, 0) without Ray.

        Raises:
            ValueError: ``replicas`` is neither N nor MIN:MAX with 1 <= MIN <= MAX.
        """
        if not self.replicas:
            return 0, 0
        words = self.replicas.split(":")
        if len(words) <= 2 and all(word.isascii() and word.isdigit() for word in words):
            low, high = int(words[0]), int(words[-1])
            if 1 <= low <= high <= MOST_REPLICAS:
                return low, high
        raise ValueError(
            f"replicas '{self.replicas}' is neither N nor MIN:MAX with 1 <= MIN <= MAX <= {MOST_REPLICAS}, such as 2 "
            "or 1:4"
        )

    @property
    def is_local(self) -> bool:
        """Whether only programs of this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost"
