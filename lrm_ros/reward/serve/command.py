# SPDX-License-Identifier: Apache-2.0
"""Serve a reward model over HTTP: ``lrm serve``.

POST /v1/score takes batches; the upstream server's routes are there, too, so that its client works unchanged. GET
/health, /ready, /metrics, /docs. Ends with 0 when it is asked to stop; what has been asked is answered before.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from lrm_ros.config_files import add_options, from_options
from lrm_ros.config_serve import ServeConfig
from lrm_ros.errors import one_line
from lrm_ros.programs import exit_code
from lrm_ros.reward.models import MODES, find_model, split_load
from lrm_ros.reward.serve.ray_cluster import AUTO, LOCAL, NO_RAY

TOKEN = "LRM_SERVE_TOKEN"


def _token(path: Path | None) -> str:
    """Return the token of a file, else of the environment; empty if there is none.

    Raises:
        ValueError: it is blank.
        OSError: the file cannot be read.
    """
    text = os.environ.get(TOKEN, "") if path is None else path.read_text(encoding="utf-8")
    if path is not None and not text.strip():
        raise ValueError(f"'{path}' holds no token; write one into it")
    return text.strip()


def _check_replicas(config: ServeConfig) -> None:
    """Raise ValueError for what cannot be served by replicas."""
    if importlib.util.find_spec("ray") is None:
        raise ValueError(NO_RAY)
    if config.ray not in (LOCAL, AUTO):
        raise ValueError(f"ray '{config.ray}' is neither '{LOCAL}' (a Ray of its own) nor '{AUTO}' (this cluster)")
    if config.replica_gpus > 1 and config.replica_gpus % 1:
        raise ValueError(f"replica_gpus {config.replica_gpus:g}: more than one must be a whole number")
    if ":" in config.device:
        raise ValueError(f"device '{config.device}': Ray gives each replica its GPU; give --device cuda, cpu or auto")


def main(argv: list[str] | None = None) -> int:
    """Run the server; returns 0 when it was asked to stop, 2 for what the user gave."""
    parser = argparse.ArgumentParser(prog="lrm serve", description=__doc__)
    add_options(parser, ServeConfig)
    parser.add_argument("--token-file", type=Path, help=f"file of the token that requests must carry; else {TOKEN}")
    args = parser.parse_args(argv)
    try:
        config = from_options(ServeConfig, args)
        if config.mode not in MODES:
            raise ValueError(f"reward mode '{config.mode}' is unknown; choose one of {', '.join(MODES)}")
        if config.model != "fake":
            find_model(split_load(config.model)[0])  # at once, not after the server has begun to answer
        if config.replica_range[0]:
            _check_replicas(config)
        token = _token(args.token_file)
        if not config.is_local and not token:
            raise ValueError(
                f"host '{config.host}' lets other machines in: set a token in {TOKEN} or --token-file, or serve "
                "127.0.0.1"
            )
        from lrm_ros.reward.serve.server import RewardServer

        server = RewardServer(config, token)
    except (OSError, ValueError) as error:
        print(f"error: {one_line(error)}", file=sys.stderr)
        return exit_code(error)
    print(f"serving '{config.model}' on {server.url}", flush=True)
    server.run()
    if server.failure is None:
        return 0
    print(f"error: {one_line(server.failure)}", file=sys.stderr)
    return exit_code(server.failure)


if __name__ == "__main__":
    raise SystemExit(main())
