# SPDX-License-Identifier: Apache-2.0
"""The doctor finds what is there, names what is missing with its cure, and fails only where nothing would work."""

from __future__ import annotations

import fcntl
import importlib.metadata
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lrm_ros.graph import doctor, doctor_media
from lrm_ros.graph.doctor import FAIL, OK, WARN, Finding
from lrm_ros.images import Bridge
from lrm_ros.private_domain import claim_domain


def fixed(finding: Finding):
    return lambda: finding


def test_python_ros_and_the_shipped_model_are_well_here() -> None:
    for check in (doctor.check_python, doctor.check_ros, doctor.check_tiny):
        finding = check()
        assert finding.status == OK, finding
    assert "lerobot" in doctor.check_python().detail


def test_a_second_opencv_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert doctor.check_opencv().status == OK
    versions = {"opencv-python": "5.0.0.93", "opencv-python-headless": "4.13.0.92"}

    def version(name: str) -> str:
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    finding = doctor.check_opencv()
    assert finding.status == WARN
    assert "opencv-python 5.0.0.93 and opencv-python-headless 4.13.0.92" in finding.detail
    assert "pip uninstall -y opencv-python opencv-contrib-python" in finding.cure


def test_images_cross_from_process_to_process() -> None:
    finding = doctor.check_dds()
    assert finding.status in (OK, WARN) and "20 of 20 images" in finding.detail, f"{finding.detail}; {finding.cure}"


def test_what_else_is_printed_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = "2026-11-27 [RTPS_TRANSPORT_SHM Error] Failed init_port fastrtps_port7005: open_and_lock_file failed\n"
    for said, status, detail in (("20 20", OK, "20 of 20 images"), ("20 7", FAIL, "20 images sent, 7 received")):
        answer = (int(status == FAIL), f"{noise}dds_check: {said}\n{noise}", "exit code 1")
        monkeypatch.setattr(doctor, "_run", lambda *_, answer=answer: answer)
        finding = doctor.check_dds()
        assert finding.status == status and detail in finding.detail
    monkeypatch.setattr(doctor, "_run", lambda *_: (1, noise, "TimeoutError: not discovered"))
    monkeypatch.setenv("ROS_DISCOVERY_SERVER", "127.0.0.1:11811")
    finding = doctor.check_dds()
    assert "TimeoutError: not discovered" in finding.detail and "unset or correct ROS_DISCOVERY_SERVER" in finding.cure


def test_what_fast_dds_prints_itself_is_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    """It prints to the standard output that it cannot make a queue whose lock is held, and goes on with the next."""
    domain = claim_domain()  # that of the tests has participants, which hold locks of their own
    monkeypatch.setenv("ROS_DOMAIN_ID", str(domain))
    first = 7400 + 250 * domain + 11  # the queue of the domain's first participant
    queues = [Path(f"/dev/shm/{name}_port{first + 2 * i}") for name in ("fastdds", "fastrtps") for i in range(4)]
    locks = [Path(f"{queue}_el") for queue in queues]
    for queue in queues:
        queue.unlink(missing_ok=True)
    files = [os.open(lock, os.O_RDWR | os.O_CREAT) for lock in locks]
    try:
        for file in files:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        output = subprocess.run(
            [sys.executable, "-m", "lrm_ros.ros.dds_check"], capture_output=True, text=True, check=True
        ).stdout
        if len(output.splitlines()) == 1:
            pytest.skip("this version of Fast DDS says nothing here; Jazzy's does")
        test_images_cross_from_process_to_process()
    finally:
        for lock, file in zip(locks, files, strict=True):
            os.close(file)
            lock.unlink()


def test_a_transport_that_cannot_work_fails_with_its_cure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RMW_IMPLEMENTATION", "rmw_nowhere")
    finding = doctor.check_dds()
    assert finding.status == FAIL
    assert "rmw_nowhere" in finding.detail and "unset" in finding.cure


@pytest.mark.slow
def test_the_twin_can_render_here() -> None:
    finding = doctor.check_vulkan()
    assert finding.status == OK, finding


def test_no_vulkan_driver_fails_with_the_packages_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    if Path("/dev/nvidiactl").exists():
        pytest.skip("this machine has a GPU driver")
    monkeypatch.setenv("VK_ICD_FILENAMES", str(tmp_path / "none.json"))
    finding = doctor.check_vulkan()
    assert finding.status == FAIL
    assert "mesa-vulkan-drivers" in finding.cure


def test_missing_device_files_are_a_warning(tmp_path: Path) -> None:
    finding = doctor._devices("cameras", (f"{tmp_path}/video*",), "video", "a USB camera")
    assert finding.status == WARN and "video*" in finding.detail
    (tmp_path / "video0").touch()
    finding = doctor._devices("cameras", (f"{tmp_path}/video*",), "video", "a USB camera")
    assert finding.status == OK and finding.detail.endswith("video0")


def test_a_device_without_permission_names_the_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ttyACM0").touch()
    monkeypatch.setattr(doctor.os, "access", lambda path, mode: False)  # root may open everything
    finding = doctor._devices("serial", (f"{tmp_path}/ttyACM*",), "dialout", "the arm's USB cable")
    assert finding.status == WARN
    assert "ttyACM0" in finding.detail and "usermod -aG dialout" in finding.cure


def test_an_arms_driver_and_its_calibrations_are_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "1.0.0")
    monkeypatch.setenv("HF_LEROBOT_CALIBRATION", str(tmp_path))
    finding = doctor.check_arm()
    assert finding.status == WARN and "no calibrated arm" in finding.detail and "lerobot-calibrate" in finding.cure
    (tmp_path / "robots" / "so_follower").mkdir(parents=True)
    (tmp_path / "robots" / "so_follower" / "mine.json").touch()
    assert doctor.check_arm().status == OK and "so_follower/mine" in doctor.check_arm().detail

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    finding = doctor.check_arm()
    assert finding.status == WARN and "lrm_ros[arm]" in finding.cure


@pytest.mark.parametrize(
    ("found", "status", "says"),
    [
        (Bridge(), OK, "OpenCV converts, no cv_bridge is installed"),
        (Bridge(object(), frozenset({"bgr8"}), "/opt/ros/cv_bridge"), OK, "cv_bridge in /opt/ros/cv_bridge converts"),
        (
            Bridge(origin="/x/cv_bridge", fault="it ended with signal 11"),
            WARN,
            "is used for none: it ended with signal 11",
        ),
        (
            Bridge(object(), frozenset({"bgr8"}), "/x", "not the same of yuv422"),
            WARN,
            "for some: not the same of yuv422",
        ),
    ],
)
def test_who_converts_images_is_said(monkeypatch: pytest.MonkeyPatch, found: Bridge, status: str, says: str) -> None:
    monkeypatch.setattr(doctor_media.images, "bridge", lambda: found)
    finding = doctor.check_images()
    assert finding.status == status and says in finding.detail and bool(finding.cure) == (status == WARN)
    assert doctor.CHECKS["images"] is doctor.check_images


def _codec(monkeypatch: pytest.MonkeyPatch, folder: Path, source: str) -> None:
    """Install a torchcodec of this source, with a version."""
    (folder / "torchcodec").mkdir(parents=True)
    (folder / "torchcodec/__init__.py").write_text("")
    (folder / "torchcodec/decoders.py").write_text(source)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.99")


def test_videos_that_cannot_be_read_name_ffmpeg(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _codec(
        monkeypatch,
        tmp_path,
        "import ctypes.util\nctypes.util.find_library = lambda name: None\nraise RuntimeError('x')",
    )
    finding = doctor.check_video()
    assert finding.status == WARN and "torchcodec 0.99 cannot be loaded (RuntimeError)" in finding.detail
    assert "no FFmpeg libraries are found" in finding.detail and "sudo apt install ffmpeg" in finding.cure


def test_a_reader_of_videos_that_fits_another_torch_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = "import ctypes.util\nctypes.util.find_library = lambda name: 'libavutil.so.57'\nraise OSError('x')"
    _codec(monkeypatch, tmp_path, source)
    finding = doctor.check_video()
    assert finding.status == WARN and "FFmpeg: libavutil.so.57" in finding.detail
    assert "install the torchcodec that its README names for this torch" in finding.cure


def test_a_reader_of_videos_that_loads_or_is_not_installed_is_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _codec(monkeypatch, tmp_path, "")
    assert doctor.check_video() == Finding("video", OK, "torchcodec 0.99, LeRobot's default reader")

    def none(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", none)
    assert doctor.check_video() == Finding("video", OK, "no torchcodec: LeRobot reads videos with PyAV")


def test_a_damaged_tiny_model_fails(tmp_path: Path) -> None:
    assert doctor.check_tiny(tmp_path).status == FAIL
    (tmp_path / "config.json").write_text("{")
    assert "config.json" in doctor.check_tiny(tmp_path).detail
    (tmp_path / "config.json").write_text('{"model_type": "qwen3_vl"}')
    finding = doctor.check_tiny(tmp_path)
    assert finding.status == FAIL and "0.0 MB of weights" in finding.detail


def test_a_nearly_full_disk_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type(doctor.shutil.disk_usage("/"))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: usage(10**12, 10**12 - 10**8, 10**8))
    finding = doctor.check_disk()
    assert finding.status == FAIL and "0.1 GB free" in finding.detail


def test_only_a_failure_gives_a_nonzero_exit_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    warned = Finding("cameras", WARN, "no /dev/video*", "plug one in")
    monkeypatch.setattr(doctor, "CHECKS", {"cameras": fixed(warned)})
    report = tmp_path / "new" / "doctor.json"
    assert doctor.main(["--json", str(report)]) == 0
    assert "-> plug one in" in capsys.readouterr().out
    assert json.loads(report.read_text())["findings"][0]["status"] == WARN
    broken = Finding("disk", FAIL, "0.1 GB free", "free some space")
    monkeypatch.setattr(doctor, "CHECKS", {"cameras": fixed(warned), "disk": fixed(broken)})
    assert doctor.main(["--json", str(report)]) == 1
    assert "1 failed: disk" in capsys.readouterr().out
    assert json.loads(report.read_text())["ok"] is False
    assert doctor.main(["--only", "cameras"]) == 0
