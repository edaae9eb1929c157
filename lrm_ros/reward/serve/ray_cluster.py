# SPDX-License-Identifier: Apache-2.0
"""Ray under the replicas: started on this machine, or the cluster that it belongs to; quiet, closed to others, ended.

A Ray of our own listens on the loopback alone and asks for a token that nobody else has: whoever may talk to Ray may
run programs. It has no dashboard, sends no usage statistics, and writes into a folder that is removed with it. The
thread that starts Ray must live as long as Ray: the kernel ends its processes with that thread.
"""

from __future__ import annotations

import contextlib
import logging
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lrm_ros.config_serve import ServeConfig

LOCAL, AUTO = "local", "auto"
DEPLOYMENT = "reward"
NO_RAY = "replicas need Ray Serve: pip install 'lrm_ros[ray]', or serve without --replicas"
_STORE = 2_000_000_000  # most of the shared memory that requests pass through [bytes]
_TRIES = 3
_END_S = 10.0  # processes of Ray may take so long to end before they are killed [s]


class Cluster:
    """Ray, with the replicas of one server on it; used by one thread, which lives until :meth:`close` has returned."""

    def __init__(self, config: ServeConfig) -> None:
        """Start or join Ray.

        Raises:
            ValueError: Ray Serve is not installed, or more GPUs are asked for than the cluster has.
            ConnectionError: no Ray can be started, or this machine belongs to no cluster.
        """
        self._config = config
        self._own = config.ray == LOCAL
        self._folder = ""
        self.ray, self.serve = _import(self._own)
        self.name = f"lrm_serve_{os.getpid()}_{secrets.token_hex(3)}"
        try:
            self._begin()
            self._gpus = self._gpus_of_a_replica()
        except BaseException:
            self.close()
            raise

    def deploy(self, replica: type, *arguments: Any) -> Any:
        """Start the replicas; returns the handle of their deployment at once. ``state`` says how far they are.

        Args:
            replica: the class of one.
            arguments: of its constructor.
        """
        low, high = self._config.replica_range
        fixed: dict[str, Any] = {"num_replicas": low}
        if low != high:
            fixed = {
                "autoscaling_config": {
                    "min_replicas": low,
                    "max_replicas": high,
                    "initial_replicas": low,
                    "target_ongoing_requests": self._config.replica_waiting,
                    "upscale_delay_s": 3.0,
                    "downscale_delay_s": 60.0,
                    "metrics_interval_s": 1.0,
                    "look_back_period_s": 3.0,
                }
            }
        deployment = self.serve.deployment(
            replica,
            name=DEPLOYMENT,
            max_ongoing_requests=self._config.max_waiting,
            ray_actor_options={"num_cpus": self._cpus(high), "num_gpus": self._gpus},
            health_check_period_s=2.0,
            graceful_shutdown_wait_loop_s=0.1,
            max_constructor_retry_count=1,
            **fixed,
        )
        self.serve.start(proxy_location="Disabled")
        application = self.serve.RunTarget(target=deployment.bind(*arguments), name=self.name, route_prefix=None)
        return self.serve.run_many([application], wait_for_applications_running=False)[0]

    def state(self) -> tuple[str, str, int]:
        """Return the state of the replicas in Ray Serve's words, what it says of it, and how many run."""
        found = self.serve.status().applications[self.name]
        deployment = found.deployments.get(DEPLOYMENT)
        said = f"{found.message} {deployment.message if deployment else ''}"
        return str(found.status.value), said, (deployment.replica_states.get("RUNNING", 0) if deployment else 0)

    def close(self) -> None:
        """End the replicas, and Ray if it was started here; returns when none of its processes is left."""
        processes = _children() if self._own else []
        if self.ray.is_initialized():
            if not self._own:
                with contextlib.suppress(Exception):  # the cluster is going, too
                    self.serve.delete(self.name)
            self.ray.shutdown()
        _end(processes)
        if self._folder:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _begin(self) -> None:
        options: dict[str, Any] = {"log_to_driver": False, "logging_level": "critical"}
        if self._own:
            self._folder = tempfile.mkdtemp(prefix="lrm-ray-", dir=_short(tempfile.gettempdir()))
            free = shutil.disk_usage("/dev/shm").free if Path("/dev/shm").is_dir() else _STORE
            options |= {
                "include_dashboard": False,
                "_temp_dir": self._folder,
                "num_cpus": self._cpus(self._config.replica_range[1]) * self._config.replica_range[1],
                "object_store_memory": max(80_000_000, min(_STORE, int(0.5 * free))),
            }
        try:
            for left in reversed(range(_TRIES if self._own else 1)):
                try:
                    self.ray.init(address=self._config.ray, **options)
                    break
                except Exception:  # Ray gives its processes 30 s to start, which a busy machine takes
                    if not left:
                        raise
                    processes = _children()
                    self.ray.shutdown()
                    _end(processes)
        except Exception as error:  # Ray raises any
            cure = "'ray start --head' starts one, or serve with --ray local"
            if self._own:
                cure = "the machine is too busy for it, or short of memory or disk; or serve without --replicas"
            raise ConnectionError(f"no Ray ({self._config.ray}): {type(error).__name__}: {error}; {cure}") from error

    def _cpus(self, replicas: int) -> int:
        """Return the CPUs that a replica counts as; Ray gives its libraries as many threads."""
        return max(1, (os.cpu_count() or 1) // replicas) if self._own else 1

    def _gpus_of_a_replica(self) -> float:
        has = float(self.ray.cluster_resources().get("GPU", 0.0))
        wanted = self._config.replica_gpus
        if wanted < 0:
            wanted = 1.0 if has and self._config.device != "cpu" else 0.0
        _low, high = self._config.replica_range
        fit = int(has / wanted) if wanted else high
        if fit < high:
            raise ValueError(
                f"{high} replicas with {wanted:g} GPU each, but Ray has {has:g}: give --replicas {max(1, fit)}, a "
                f"smaller --replica-gpus, or --device cpu"
            )
        return wanted


def _import(own: bool) -> tuple[Any, Any]:
    """Return ray and ray.serve; what Ray reads from the environment is set before."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_SERVE_LOG_TO_STDERR", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own 15 would let other programs starve the model
    if own:
        # Ray's own switch for machines that shall not ask for a firewall's permission: it listens on the loopback.
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        from ray import serve
        from ray._private import worker
    except ImportError as error:
        raise ValueError(NO_RAY) from error
    if ray.is_initialized():
        raise ValueError("this process uses Ray already; serve replicas from a process of their own")
    # Ray prints whatever its log level is, also what its processes say of each other; what matters is logged here.
    worker.print_to_stdstream = lambda data, ignore_prefix: None
    for name in ("ray", "ray.serve"):
        logging.getLogger(name).disabled = True
    return ray, serve


def _short(folder: str) -> str:
    """Return a folder in which Ray's sockets have names that the system takes (107 characters)."""
    return folder if len(folder) <= 30 else "/tmp"


def _children() -> list[Any]:
    """Return the processes below this one that are Ray's."""
    import psutil  # type: ignore[import-untyped]

    return [child for child in psutil.Process().children(recursive=True) if _is_rays(child)]


def _is_rays(process: Any) -> bool:
    import psutil  # type: ignore[import-untyped]

    try:
        words = process.cmdline()
    except psutil.Error:
        return False
    return any("ray::" in word or "/ray/" in word for word in words)


def _end(processes: list[Any]) -> None:
    """Wait until processes have ended; those that do not are killed."""
    if not processes:
        return
    import psutil  # type: ignore[import-untyped]

    _gone, left = psutil.wait_procs(processes, timeout=_END_S)
    for process in left:
        with contextlib.suppress(psutil.Error):
            process.kill()
    psutil.wait_procs(left, timeout=_END_S)
