# SPDX-License-Identifier: Apache-2.0
"""Check the machine for everything the stack needs, and say for each finding how to fix it: ``lrm doctor``.

Whatever can crash or hang (rclpy, DDS, Vulkan, torch) is tried in a process of its own. Exit code 1 only on FAIL: WARN
marks what some uses need and others do not, such as a camera.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import shutil
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from glob import glob
from pathlib import Path

from lrm_ros import environment
from lrm_ros.environment_variables import PROFILES, REACH, TRANSPORTS
from lrm_ros.graph import doctor_memory
from lrm_ros.graph.doctor_media import check_images, check_video
from lrm_ros.graph.finding import FAIL, OK, WARN, Finding
from lrm_ros.graph.finding import run as _run

LIBRARIES = ("torch", "transformers", "peft", "lerobot", "mani_skill", "mcap-ros2-support", "numpy")
OPENCVS = ("opencv-python", "opencv-python-headless", "opencv-contrib-python", "opencv-contrib-python-headless")
ADAPTERS = "USC-PSI-Lab/LRM-models"
BASE = "Qwen/Qwen3-VL-8B-Instruct"
_DDS_SAYS = "dds_check:"  # before what lrm_ros.ros.dds_check has found
ICD_FOLDERS = ("/etc/vulkan/icd.d", "/usr/share/vulkan/icd.d", "/usr/local/share/vulkan/icd.d")


def check_python() -> Finding:
    """Check the interpreter and the libraries that pip installed."""
    version = sys.version.split()[0]
    missing, found = [], []
    for name in LIBRARIES:
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding(
            "python", FAIL, f"{version}; missing {', '.join(missing)}", "run 'make setup' or 'pip install .' again"
        )
    return Finding("python", OK, f"{version}; {', '.join(found)}")


def check_opencv() -> Finding:
    """Check that OpenCV encodes a picture and that one distribution only brought it."""
    found = []
    for name in OPENCVS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    script = "import cv2, numpy; cv2.imencode('.png', numpy.zeros((8, 8, 3), 'uint8')); print(cv2.__version__)"
    code, version, error = _run([sys.executable, "-c", script], 60)
    others = [name for name in OPENCVS if name != "opencv-python-headless"]
    cure = (
        f"keep one: 'pip uninstall -y {' '.join(others)}', then 'pip install --force-reinstall --no-deps "
        '"opencv-python-headless>=4.9,<4.14"\''
    )
    if code != 0:
        return Finding("opencv", FAIL, f"{', '.join(found) or 'not installed'}: {error}", cure)
    if len(found) > 1:
        both = f"{' and '.join(found)} wrote into one folder cv2 (version {version} is loaded)"
        return Finding("opencv", WARN, f"{both}; which files are whose is chance", cure)
    return Finding("opencv", OK, f"cv2 {version} from {found[0] if found else 'the system'}")


def check_ros() -> Finding:
    """Check that rclpy imports, and whether it comes from wheels or from an installation."""
    if wrong := environment.deep_fault():
        return Finding("ros", FAIL, wrong.what, wrong.cure)
    distribution = os.environ.get("ROS_DISTRO", "")
    spec = importlib.util.find_spec("rclpy")
    assert spec is not None and spec.origin is not None, "deep_fault has imported it"
    try:
        wheels = importlib.metadata.version("ros-rclpy")
    except importlib.metadata.PackageNotFoundError:
        wheels = ""
    origin = Path(spec.origin).parent
    if wheels and distribution:
        return Finding(
            "ros",
            WARN,
            f"rclpy from {origin}; both the wheels {wheels} and ROS 2 {distribution} are on the paths",
            "use one: open a shell without the sourced ROS 2, or 'pip uninstall ros-rclpy' in this environment",
        )
    tools = "with ros2 command line" if shutil.which("ros2") else "no ros2 command line: use 'lrm up'"
    return Finding("ros", OK, f"rclpy {wheels} from wheels, {tools}" if wheels else f"ROS 2 {distribution}, {tools}")


def check_dds() -> Finding:
    """Send images from one process to another over the transport that the nodes use."""
    if wrong := environment.deep_fault():
        return Finding("dds", FAIL, wrong.what, wrong.cure)
    chosen = [f"{name}={os.environ[name]}" for name in (*PROFILES, TRANSPORTS) if os.environ.get(name)]
    profile = chosen[0] if chosen else "own profile with 64 MiB of shared memory"
    middleware = os.environ.get("RMW_IMPLEMENTATION", "rmw_fastrtps_cpp")
    code, output, error = _run([sys.executable, "-m", "lrm_ros.ros.dds_check"], 60)
    # Fast DDS writes to the standard output, too.
    numbers = next((line.partition(_DDS_SAYS)[2].strip() for line in output.splitlines() if _DDS_SAYS in line), "")
    if code != 0 or not numbers:
        what = f"{numbers.replace(' ', ' images sent, ')} received" if numbers else error
        cure = (
            "nodes on this machine must reach each other: unset ROS_LOCALHOST_ONLY, set ROS_AUTOMATIC_DISCOVERY_RANGE "
            "to LOCALHOST or SUBNET (not OFF)"
        )
        if others := [name for name in (*REACH, *PROFILES) if os.environ.get(name)]:
            cure += f", and unset or correct {', '.join(others)}"
        return Finding("dds", FAIL, f"{middleware}, {profile}: {what}", cure)
    free = shutil.disk_usage("/dev/shm").free / 2**20 if Path("/dev/shm").is_dir() else 0.0
    detail = f"{middleware}, {profile}; {numbers.split()[1]} of {numbers.split()[0]} images between two processes"
    if free < 512 and "rtps" in middleware:
        return Finding(
            "dds", WARN, f"{detail}; only {free:.0f} MiB free in /dev/shm", "start the container with --shm-size=2g"
        )
    if warning := environment.warning():
        what, _, cure = warning.partition("; ")
        return Finding("dds", WARN, f"{detail}; {what}", cure)
    return Finding("dds", OK, detail)


def check_vulkan() -> Finding:
    """Render a picture with SAPIEN, which the twin needs."""
    drivers = sorted(Path(path).stem for folder in ICD_FOLDERS for path in glob(f"{folder}/*.json"))
    code, output, error = _run([sys.executable, "-m", "lrm_ros.sim.twin.render_check"], 180)
    if code == 0:
        return Finding("vulkan", OK, f"SAPIEN renders on {output}")
    found = f"drivers found: {', '.join(drivers) or 'none'}; SAPIEN: {error}"
    if Path("/dev/nvidiactl").exists():
        cure = "the NVIDIA driver lacks its Vulkan part: install libnvidia-gl of the driver's version and libvulkan1"
    else:
        cure = (
            "run 'make setup', or install mesa-vulkan-drivers libvulkan1 libgl1 libegl1 with Mesa 23.2 or later "
            "(Debian 12: from bookworm-backports, its own 22.3 does not render)"
        )
    return Finding("vulkan", FAIL, found, cure)


def check_gpu() -> Finding:
    """Look for an NVIDIA GPU and whether torch can use it."""
    none = "none: the tiny model and the twin run on the CPU; check 'memory' says what else fits"
    if not shutil.which("nvidia-smi"):
        return Finding("gpu", OK, none)
    code, output, error = _run(
        ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"], 30
    )
    if code != 0:
        return Finding("gpu", WARN, f"nvidia-smi: {error}", "install or reload the NVIDIA driver")
    detail = "; ".join(output.splitlines())
    script = "import torch; torch.zeros(1, device='cuda'); print(torch.version.cuda)"
    code, cuda, error = _run([sys.executable, "-c", script], 120)
    if code != 0:
        return Finding("gpu", WARN, f"{detail}; torch cannot use it: {error}", "update the NVIDIA driver")
    return Finding("gpu", OK, f"{detail}; torch with CUDA {cuda}")


def check_disk() -> Finding:
    """Check free space where runs are written."""
    free = shutil.disk_usage(Path.cwd()).free / 1e9
    detail = f"{free:.1f} GB free in {Path.cwd()}"
    if free < 1:
        return Finding("disk", FAIL, detail, "free some space: a demo run needs 1 GB")
    if free < 10:
        return Finding(
            "disk", WARN, detail, "recordings of two cameras take about 0.5 GB an hour, full-size models 20 GB"
        )
    return Finding("disk", OK, detail)


def _devices(name: str, patterns: tuple[str, ...], group: str, purpose: str) -> Finding:
    """Check that device files exist and may be read and written."""
    devices = sorted(path for pattern in patterns for path in glob(pattern))
    if not devices:
        return Finding(name, WARN, f"no {' or '.join(patterns)}", f"plug in {purpose}; the twin needs none")
    closed = [path for path in devices if not os.access(path, os.R_OK | os.W_OK)]
    if closed:
        return Finding(
            name,
            WARN,
            f"no permission for {', '.join(closed)}",
            f"run 'sudo usermod -aG {group} $USER', then log out and in again",
        )
    return Finding(name, OK, ", ".join(devices))


def check_cameras() -> Finding:
    """Look for cameras and the permission to use them."""
    return _devices("cameras", ("/dev/video*",), "video", "a USB camera")


def check_serial() -> Finding:
    """Look for the serial ports of a robot arm and the permission to use them."""
    found = _devices("serial", ("/dev/ttyACM*", "/dev/ttyUSB*"), "dialout", "the arm's USB cable")
    names = sorted(glob("/dev/serial/by-id/*"))
    if found.status == OK and names:
        return dataclasses.replace(found, detail=f"{found.detail}; names that stay: {', '.join(names)}")
    return found


def check_arm() -> Finding:
    """Look for the driver of Feetech's servos and for calibrated arms; LeRobot itself is not imported."""
    try:
        driver = f"feetech-servo-sdk {importlib.metadata.version('feetech-servo-sdk')}"
    except importlib.metadata.PackageNotFoundError:
        return Finding("arm", WARN, "no driver of Feetech's servos", "for an SO-101: pip install 'lrm_ros[arm]'")
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    home = Path(os.environ.get("HF_LEROBOT_HOME", home / "lerobot"))
    folder = Path(os.environ.get("HF_LEROBOT_CALIBRATION", home / "calibration")).expanduser() / "robots"
    arms = [f"{path.parent.name}/{path.stem}" for path in sorted(folder.glob("*/*.json"))]
    if not arms:
        cure = "calibrate it: 'lerobot-calibrate --robot.type=so101_follower --robot.port=PORT --robot.id=NAME'"
        return Finding("arm", WARN, f"{driver}; no calibrated arm in {folder}", cure)
    return Finding("arm", OK, f"{driver}; calibrated: {', '.join(arms)}")


def check_tiny(folder: Path = Path(__file__).parents[1] / "models" / "tiny") -> Finding:
    """Check that the shipped reward model is whole and of the expected architecture."""
    cure = "restore it from the repository ('git checkout lrm_ros/models') or train it: 'lrm reward train --help'"
    config = folder / "config.json"
    if not config.is_file():
        return Finding("tiny model", FAIL, f"{config} is missing", cure)
    from transformers import AutoConfig

    try:
        kind = AutoConfig.from_pretrained(folder).model_type
    except (OSError, ValueError) as error:
        return Finding("tiny model", FAIL, f"{config}: {error}", cure)
    weights = sum(path.stat().st_size for path in folder.glob("*.safetensors")) / 1e6
    if kind != "qwen3_vl" or weights == 0:
        return Finding("tiny model", FAIL, f"{folder}: model type {kind}, {weights:.1f} MB of weights", cure)
    return Finding("tiny model", OK, f"{kind}, {weights:.1f} MB")


def check_full_size() -> Finding:
    """Look for the full-size reward model in the Hugging Face cache."""
    from huggingface_hub import try_to_load_from_cache

    missing = [] if isinstance(try_to_load_from_cache(BASE, "config.json"), str) else [BASE]
    heads = [
        head
        for head in ("contrastive", "progress", "completion")
        if not isinstance(try_to_load_from_cache(ADAPTERS, f"{head}/adapter_config.json"), str)
    ]
    if heads:
        missing.append(f"{ADAPTERS} ({', '.join(heads)})")
    if missing:
        return Finding(
            "full-size model",
            WARN,
            f"not downloaded: {'; '.join(missing)}",
            f"for a GPU: 'hf download {BASE}' (18 GB) and 'hf download {ADAPTERS}'; the tiny model needs neither",
        )
    return Finding("full-size model", OK, f"{BASE} and {ADAPTERS} are in the cache")


def check_memory(gpus_mib: list[int] | None = None, ram_kib: int | None = None) -> Finding:
    """Say which sizes of reward models fit the memory of each GPU, or that of the machine without one.

    Args:
        gpus_mib: memory of each GPU, asked of nvidia-smi if not given [MiB].
        ram_kib: memory of the machine, of /proc/meminfo if not given [KiB].
    """
    gpus = doctor_memory.gpus() if gpus_mib is None else gpus_mib
    return doctor_memory.finding(gpus, doctor_memory.ram() if ram_kib is None else ram_kib)


CHECKS: dict[str, Callable[[], Finding]] = {
    "python": check_python,
    "opencv": check_opencv,
    "images": check_images,
    "video": check_video,
    "ros": check_ros,
    "dds": check_dds,
    "vulkan": check_vulkan,
    "gpu": check_gpu,
    "memory": check_memory,
    "disk": check_disk,
    "cameras": check_cameras,
    "serial": check_serial,
    "arm": check_arm,
    "tiny": check_tiny,
    "full-size": check_full_size,
}


def main(argv: list[str] | None = None) -> int:
    """Run the checks, print one line each, and return 1 if any failed."""
    parser = argparse.ArgumentParser(
        prog="lrm doctor", description="Check this machine and say how to fix what is missing."
    )
    parser.add_argument("--only", nargs="+", choices=list(CHECKS), metavar="CHECK", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the findings there")
    arguments = parser.parse_args(argv)
    names = arguments.only or list(CHECKS)
    findings: list[Finding] = []
    with ThreadPoolExecutor() as pool:
        for started in [pool.submit(CHECKS[name]) for name in names]:
            finding = started.result()
            if finding.status == FAIL and (finding.detail, finding.cure) in [(f.detail, f.cure) for f in findings]:
                continue  # one fault that stops several checks is told once
            findings.append(finding)
            print(f"{finding.status:4}  {finding.name:15}  {finding.detail}", flush=True)
            if finding.cure:
                print(f"{'':6}{'':15}  -> {finding.cure}", flush=True)
    failed = [finding.name for finding in findings if finding.status == FAIL]
    print(f"\n{len(failed)} failed: {', '.join(failed)}" if failed else "\nnothing failed")
    if arguments.json:
        arguments.json.parent.mkdir(parents=True, exist_ok=True)
        report = {"ok": not failed, "findings": [dataclasses.asdict(finding) for finding in findings]}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
