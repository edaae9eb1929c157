# SPDX-License-Identifier: Apache-2.0
"""Package lrm_ros for ``pip install .`` and for ``colcon build``, so that ``ros2 run`` and ``ros2 launch`` find it.

colcon puts the node programs into lib/lrm_ros as setup.cfg says. A wheel has no such place for scripts, so there the
programs are ``bin/lrm-NODE`` and lib/lrm_ros/NODE are small wrappers of them.
"""

import re
import sys
import tempfile
from glob import glob
from pathlib import Path

from setuptools import setup

PACKAGE = "lrm_ros"
NODES = {
    "answer": "lrm_ros.nodes.answer",
    "arm": "lrm_ros.nodes.arm",
    "camera": "lrm_ros.nodes.camera",
    "reward": "lrm_ros.nodes.reward",
    "policy": "lrm_ros.nodes.policy",
    "recorder": "lrm_ros.nodes.recorder",
    "evaluator": "lrm_ros.nodes.evaluator",
    "improver": "lrm_ros.nodes.improver",
    "replay": "lrm_ros.nodes.replay",
    "refiner": "lrm_ros.training.ppo.node",
    "robot_improver": "lrm_ros.nodes.robot_improver",
    "ros2_control": "lrm_ros.nodes.ros2_control",
    "teleop": "lrm_ros.nodes.teleop",
    "trial": "lrm_ros.nodes.trial",
    "twin": "lrm_ros.sim.twin.node",
    "worlds": "lrm_ros.sim.vector.node",
}
ROS = [
    "ros-rclpy[fastrtps]>=9.1,<10",
    "ros-ament-index-python",
    "ros-builtin-interfaces",
    "ros-diagnostic-msgs",
    "ros-lifecycle-msgs",
    "ros-rcl-interfaces",
    "ros-rosgraph-msgs",
    "ros-sensor-msgs",
    "ros-std-msgs",
    "ros-std-srvs",
    "ros-trajectory-msgs",
]

REPOSITORY = "https://github.com/lrm-ros/lrm_ros"

wheel = {"bdist_wheel", "dist_info", "editable_wheel"} & set(sys.argv)


def wrappers(folder: Path) -> list[str]:
    """Write one executable wrapper a node into ``folder`` and return their paths."""
    for name in NODES:
        script = folder / name
        script.write_text(f'#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/../../bin/lrm-{name}" "$@"\n')
        script.chmod(0o755)
    return [str(folder / name) for name in NODES]


def readme() -> str:
    """Return README.md with whole addresses: an index page shows no file of the repository."""
    # Beside this file itself: colcon build --symlink-install runs a link to it from another folder.
    text = (Path(__file__).resolve().parent / "README.md").read_text()
    pictures = re.sub(r"(!\[[^]]*\]\()(?!https?:)", rf"\1{REPOSITORY}/raw/main/", text)
    return re.sub(r"((?<!!)\[[^]]*\]\()(?!https?:|#)", rf"\1{REPOSITORY}/blob/main/", pictures)


with tempfile.TemporaryDirectory() as scratch:
    data_files = [
        ("share/ament_index/resource_index/packages", [f"resource/{PACKAGE}"]),
        (f"share/{PACKAGE}", ["package.xml"]),
        (f"share/{PACKAGE}/launch", sorted(glob("launch/*.launch.py"))),
        (f"share/{PACKAGE}/config", sorted(glob("config/*.*"))),
    ]
    if "bdist_wheel" in sys.argv:
        data_files.append((f"lib/{PACKAGE}", wrappers(Path(scratch))))
    prefix = "lrm-" if wheel else ""
    setup(
        name=PACKAGE,
        version="0.1.0",
        description="Large Reward Models as a ROS 2 stack: judge, collect, fine-tune and improve robot policies.",
        long_description=readme(),
        long_description_content_type="text/markdown",
        license="Apache-2.0",
        maintainer="lrm_ros maintainers",
        maintainer_email="maintainers@example.org",
        url=REPOSITORY,
        project_urls={
            "Documentation": f"{REPOSITORY}/tree/main/docs",
            "Changelog": f"{REPOSITORY}/blob/main/CHANGELOG.md",
            "Issues": f"{REPOSITORY}/issues",
            "Paper": "https://arxiv.org/abs/2603.16065",
        },
        keywords=["robotics", "ros2", "reward model", "reinforcement learning", "vision-language model", "lerobot"],
        classifiers=[
            "Development Status :: 4 - Beta",
            "Environment :: Console",
            "Intended Audience :: Science/Research",
            "Operating System :: POSIX :: Linux",
            "Programming Language :: Python :: 3",
            "Programming Language :: Python :: 3.11",
            "Programming Language :: Python :: 3.12",
            "Programming Language :: Python :: 3.13",
            "Topic :: Scientific/Engineering :: Artificial Intelligence",
        ],
        python_requires=">=3.11",
        packages=[
            # LeRobot's programs find it where its own small distribution is installed, too.
            "lerobot_policy_act_small",
            "lrm_ros",
            "lrm_ros.graph",
            "lrm_ros.nodes",
            "lrm_ros.record",
            "lrm_ros.reward",
            "lrm_ros.reward.qwen",
            "lrm_ros.reward.serve",
            "lrm_ros.robot",
            "lrm_ros.robot.devices",
            "lrm_ros.robot.so100",
            "lrm_ros.ros",
            "lrm_ros.sim",
            "lrm_ros.sim.maniskill",
            "lrm_ros.sim.metaworld",
            "lrm_ros.sim.render",
            "lrm_ros.sim.servo_bus",
            "lrm_ros.sim.tabletop",
            "lrm_ros.sim.twin",
            "lrm_ros.sim.vector",
            "lrm_ros.training",
            "lrm_ros.training.bench",
            "lrm_ros.training.policy",
            "lrm_ros.training.ppo",
            "lrm_ros.training.ppo.actors",
            "lrm_ros.training.report",
            "lrm_ros.training.reward",
            "lrm_ros.training.reward.data",
            "lrm_ros.training.reward.data.sources",
            "lrm_ros.training.reward.eval",
            "lrm_ros.training.reward.eval.trajectories",
            "lrm_ros.training.reward.train",
            "lrm_ros.training.reward.train.examples",
            "lrm_ros.training.reward.train.tiny",
            "lrm_ros.training.sources",
            "lrm_ros.training.trial",
        ],
        package_data={"lrm_ros": ["models/tiny/*"]},
        data_files=data_files,
        install_requires=[
            # LeRobot 0.5 and later need Python 3.12; on 3.11 its 0.4 serves. lrm_ros/versions.py says how they differ.
            "lerobot[training,diffusion,feetech,transformers-dep,peft-dep]>=0.6.1,<0.7; python_version >= '3.12'",
            "transformers>=5.4,<6; python_version >= '3.12'",
            "lerobot>=0.4.4,<0.5; python_version < '3.12'",
            "transformers>=4.57,<5; python_version < '3.12'",
            # ManiSkill wants mplib (unused here), which has no wheel for Python 3.13; make setup leaves it out.
            "mani_skill>=3.0.1,<3.1; python_version < '3.13'",
            "peft>=0.17,<1",
            "torch>=2.7,<2.12",
            "huggingface-hub>=0.34,<2",
            "numpy>=2,<3",
            "h5py>=3.8,<4",
            "pyarrow>=15",
            "av>=15",  # tells how a frame is turned; LeRobot asks for it, too
            "pillow>=10",
            "opencv-python-headless>=4.9,<4.14",
            "mcap>=1.2,<2",
            "mcap-ros2-support>=0.5,<1",
            "matplotlib>=3.8,<4",
            "pyyaml>=6,<7",
            "requests>=2.31,<3",
            "scikit-learn>=1.4,<2",
            "scipy>=1.15,<2",
            "tqdm>=4.66,<5",
        ],
        # On a machine with a ROS 2 installation rclpy comes from there; the wheels are for the others.
        extras_require={
            "ros": ROS,
            # LeRobot's own extra, which Python 3.11's requirements lack.
            "arm": ["feetech-servo-sdk>=1,<2"],
            "oxe": ["tensorflow-datasets>=4.9.9,<5", "google-crc32c>=1.5,<2"],
            "ray": ["ray[serve]>=2.60,<3", "psutil>=5.9"],
            "quantize": ["bitsandbytes>=0.49,<1"],
            "serve": ["fastapi>=0.115,<1", "uvicorn>=0.30,<1", "prometheus-client>=0.20,<1"],
            "metaworld": ["metaworld>=3.1,<4", "packaging"],
            "train": ["trl>=1.16,<2", "tensorboard>=2.18,<3"],
            "test": [
                "pytest>=8",
                "pytest-xdist>=3.6,<4",
                "hypothesis>=6.100",
                "ruff>=0.9",
                "mypy>=1.14",
                "types-PyYAML",
                "stable-baselines3>=2.7,<3",
                "ray[serve]>=2.60,<3",
                "bitsandbytes>=0.49,<1",
                "pygame>=2.6,<3",
            ],
        },
        entry_points={
            "console_scripts": [
                "lrm = lrm_ros.cli:main",
                *(f"{prefix}{name} = {module}:main" for name, module in NODES.items()),
            ]
        },
        zip_safe=False,
    )
