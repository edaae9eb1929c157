# SPDX-License-Identifier: Apache-2.0
"""The package installs whole: pip and ros2 find its programs, launch files, configuration and model."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email import message_from_bytes
from email.message import Message
from pathlib import Path
from xml.etree import ElementTree

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import lrm_ros

TOP = Path(__file__).resolve().parents[2]
NODES = (
    *("answer", "arm", "camera", "evaluator", "improver", "policy", "recorder", "refiner", "replay", "reward"),
    *("robot_improver", "ros2_control", "teleop", "trial", "twin", "worlds"),
)
# A node says so and ends at once: a program that was found and ran.
MISSPELT = ("--ros-args", "-p", "rate_hzz:=5.0")
LAUNCH_FILES = sorted(path.name for path in (TOP / "launch").glob("*.launch.py"))


def run(*command: str | Path, code: int = 0, cwd: Path = Path("/"), env: dict[str, str] | None = None) -> str:
    """Run a command outside the source tree, expect an exit code and return its output."""
    done = subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        timeout=240,
        cwd=cwd,
        env={**os.environ, **(env or {})},
        check=False,
    )
    assert done.returncode == code, f"{' '.join(map(str, command))}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the source: setuptools leaves build folders where it builds."""
    copy = tmp_path_factory.mktemp("source") / "lrm_ros"
    out = shutil.ignore_patterns(".*", "build", "install", "log", "runs", "*.egg-info", "__pycache__")
    shutil.copytree(TOP, copy, ignore=out)
    return copy


@pytest.fixture(scope="module")
def wheel(source: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What ``pip install .`` builds."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder, source)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def prefix(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel installed into a prefix of its own."""
    folder = tmp_path_factory.mktemp("prefix")
    # Without --ignore-installed pip would uninstall the package from the environment that runs the tests.
    options = ("--no-deps", "--no-index", "--ignore-installed", "--prefix", folder)
    run(sys.executable, "-m", "pip", "install", "-q", *options, wheel)
    return folder


def paths_of(prefix: Path) -> dict[str, str]:
    """The environment in which Python and ament find an installation."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    return {
        "PYTHONPATH": str(prefix / "lib" / version / "site-packages"),
        "AMENT_PREFIX_PATH": os.pathsep.join([str(prefix), sys.prefix, os.environ.get("AMENT_PREFIX_PATH", "")]),
        "PATH": os.pathsep.join([str(prefix / "bin"), os.environ["PATH"]]),
    }


def test_the_wheel_holds_every_module_data_file_and_model(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    modules = {installed_name(name) for name in tracked() if name.endswith(".py")}
    modules = {name for name in modules if name.startswith(("lrm_ros/", "lerobot_policy_act_small/"))}
    assert len(modules) > 150
    assert not modules - names, f"setup.py leaves out {sorted(modules - names)}"
    tiny = {path.relative_to(TOP).as_posix() for path in TOP.glob("lrm_ros/models/tiny/*")}
    assert tiny and not tiny - names
    data = "lrm_ros-0.1.0.data/data"
    shipped = [
        f"share/lrm_ros/{path.relative_to(TOP)}" for path in (*TOP.glob("config/*.*"), *TOP.glob("launch/*.launch.py"))
    ]
    shipped += ["share/lrm_ros/package.xml", "share/ament_index/resource_index/packages/lrm_ros"]
    assert not {f"{data}/{path}" for path in shipped} - names
    assert not [
        name for name in names if name.startswith(("tests/", "launch/", "config/", "tools/", "sim/", "training/"))
    ]


def test_the_name_by_which_lerobot_finds_act_small_is_a_distribution_without_files_of_its_own(
    source: Path, wheel: Path, tmp_path: Path
) -> None:
    options = ("--no-deps", "--no-index", "--no-build-isolation", "-w", tmp_path)
    run(sys.executable, "-m", "pip", "wheel", "-q", *options, source / "lerobot_policy_act_small")
    (plugin,) = tmp_path.glob("*.whl")
    names = zipfile.ZipFile(plugin).namelist()
    assert names and all(".dist-info/" in name for name in names), "two distributions would own the same files"
    assert metadata_of(plugin)["Name"] == "lerobot_policy_act_small", "LeRobot imports what is called so"
    (ours,) = map(Requirement, metadata_of(plugin).get_all("Requires-Dist"))
    assert ours.name == "lrm_ros" and ours.specifier.contains(metadata_of(wheel)["Version"])


def test_every_program_has_a_main() -> None:
    programs = re.findall(r'"(?:\w+|lrm)(?:": "| = )([\w.]+?)(?::main)?"', (TOP / "setup.py").read_text())
    modules = [name for name in programs if name.startswith("lrm_ros.")]
    assert len(modules) == len(NODES) + 1
    for module in modules:
        path = TOP / (module.replace(".", "/") + ".py")
        functions = [node.name for node in ast.parse(path.read_text()).body if isinstance(node, ast.FunctionDef)]
        assert "main" in functions, f"{path} has no main()"


def test_a_pip_installation_has_what_ros2_run_and_launch_look_for(prefix: Path) -> None:
    for name in NODES:
        program = prefix / "lib/lrm_ros" / name
        assert os.access(program, os.X_OK), f"'ros2 run lrm_ros {name}' would not find {program}"
        assert os.access(prefix / "bin" / f"lrm-{name}", os.X_OK)
    script = "import ament_index_python as a; print(a.get_package_share_directory('lrm_ros'))"
    share = run(sys.executable, "-c", script, env=paths_of(prefix)).strip()
    assert share == str(prefix / "share/lrm_ros")
    assert sorted(path.name for path in Path(share).glob("launch/*.launch.py")) == LAUNCH_FILES


def test_an_installed_program_starts_and_finds_its_shipped_files(prefix: Path) -> None:
    assert "usage" in run(prefix / "bin/lrm", "--help", env=paths_of(prefix)).lower()
    assert "did you mean 'rate_hz'?" in run(prefix / "lib/lrm_ros/camera", *MISSPELT, code=2, env=paths_of(prefix))
    script = "import lrm_ros.ros.base as b; print(b.share_file('config/fastdds.xml'))"
    found = run(sys.executable, "-c", script, env=paths_of(prefix)).strip()
    assert found == str(prefix / "share/lrm_ros/config/fastdds.xml")


def test_versions_agree() -> None:
    manifest = ElementTree.parse(TOP / "package.xml").getroot()
    assert manifest.findtext("version") == lrm_ros.__version__
    assert f'version="{lrm_ros.__version__}"' in (TOP / "setup.py").read_text()
    plugin = (TOP / "lerobot_policy_act_small/pyproject.toml").read_text()
    assert f'version = "{lrm_ros.__version__}"' in plugin and f'"lrm_ros=={lrm_ros.__version__}"' in plugin
    assert f"## {lrm_ros.__version__}" in (TOP / "CHANGELOG.md").read_text()


def test_the_manifest_names_every_ros_package_that_the_code_imports() -> None:
    manifest = ElementTree.parse(TOP / "package.xml").getroot()
    declared = {element.text for element in manifest.iter("exec_depend")}
    pattern = re.compile(
        r"^\s*(?:from|import) ((?:\w+_msgs|std_srvs|rclpy|launch|launch_ros|ament_index_python)|builtin_interfaces)\b",
        re.M,
    )
    sources = [path for room in ("lrm_ros", "sim", "training", "launch") for path in TOP.glob(f"{room}/**/*.py")]
    used = {name for path in sources for name in pattern.findall(path.read_text())}
    assert not used - declared, f"add exec_depend for {sorted(used - declared)} to package.xml"


LOCKS = {"requirements.lock": ("3.12", "3.13"), "requirements-3.11.lock": ("3.11",)}


@pytest.mark.parametrize("lock, python", [(lock, python) for lock, pythons in LOCKS.items() for python in pythons])
def test_the_locks_are_plain_and_satisfy_what_setup_asks_for(wheel: Path, lock: str, python: str) -> None:
    lines = [line for line in (TOP / lock).read_text().splitlines() if not line.startswith("#")]
    bad = [line for line in lines if not re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.+!-]+", line)]
    assert not bad, f"only name==version lines: {bad}"
    locked = dict(line.split("==") for line in lines)
    canonical = {canonicalize_name(name): version for name, version in locked.items()}
    assert sum(name.startswith("opencv") for name in canonical) == 1, "OpenCV's distributions overwrite each other"
    wanted = [Requirement(text) for text in metadata_of(wheel).get_all("Requires-Dist")]
    assert wanted
    for requirement in wanted:
        extras = [{"extra": extra, "python_version": python} for extra in ("", "ros", "ray", "train", "test")]
        if requirement.marker and not any(requirement.marker.evaluate(extra) for extra in extras):
            continue  # for another Python, or large and for one source of data only
        version = canonical.get(canonicalize_name(requirement.name))
        assert version and requirement.specifier.contains(version), f"{lock} has {version} for '{requirement}'"


def test_an_index_page_can_show_the_readme(wheel: Path) -> None:
    metadata = metadata_of(wheel)
    assert metadata["Description-Content-Type"] == "text/markdown"
    text = str(metadata.get_payload())
    links = re.findall(r"\[[^]]*\]\(([^)]+)\)", text)
    assert len(links) == len(re.findall(r"\[[^]]*\]\(([^)]+)\)", (TOP / "README.md").read_text())) > 5
    assert not [link for link in links if not link.startswith(("https://", "#"))]
    (picture,) = re.findall(r"!\[[^]]*\]\(([^)]+)\)", text)
    assert (TOP / picture.rpartition("/raw/main/")[2]).is_file()
    assert any(url.startswith("Changelog, https://") for url in metadata.get_all("Project-URL"))
    assert "Programming Language :: Python :: 3.12" in metadata.get_all("Classifier")


def test_the_tests_of_an_sdist_run(source: Path, tmp_path: Path) -> None:
    build = "from setuptools.build_meta import build_sdist; import sys; build_sdist(sys.argv[1])"
    run(sys.executable, "-c", build, tmp_path, cwd=source)
    with tarfile.open(next(tmp_path.glob("*.tar.gz"))) as archive:
        archive.extractall(tmp_path, filter="data")
    unpacked = tmp_path / "lrm_ros-0.1.0"
    missing = [
        name for name in tracked() if not name.startswith(".") and not (unpacked / installed_name(name)).exists()
    ]
    assert not missing, f"MANIFEST.in leaves out {missing}"
    chosen = (
        "tests/product/test_architecture.py",
        "tests/product/test_topics_and_truth.py",
        "tests/test_config.py",
        "tests/robot/test_limits.py",
        "tests/reward/test_heads.py",
    )
    done = run(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *chosen, cwd=unpacked)
    assert " passed" in done and " failed" not in done


def metadata_of(wheel: Path) -> Message:
    archive = zipfile.ZipFile(wheel)
    return message_from_bytes(archive.read(next(name for name in archive.namelist() if name.endswith("METADATA"))))


def tracked() -> list[str]:
    """The files that a checkout or an unpacked sdist consists of."""
    if (TOP / ".git").exists():
        ours = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=TOP).split("\0")
        return [name for name in ours if name and (TOP / name).exists() and not (TOP / name).is_symlink()]
    return [
        path.relative_to(TOP).as_posix() for path in TOP.rglob("*") if path.is_file() and ".egg-info" not in str(path)
    ]


def installed_name(path: str) -> str:
    """sim/twin/world.py -> lrm_ros/sim/twin/world.py, as in a wheel."""
    return f"lrm_ros/{path}" if path.startswith(("sim/", "training/")) else path


def test_no_registry_address_is_in_the_repository() -> None:
    address = re.compile(r"https?://\S+/simple\b|(?:index-url|find-links)[ =]+[\"']?(?:https?|file)://")
    texts = [
        TOP / name
        for name in tracked()
        if name.endswith((".lock", ".txt", ".toml", ".cfg", ".sh", ".py", ".md", "Makefile"))
    ]
    found = [path.name for path in texts if path.is_file() and address.search(path.read_text())]
    assert not found, f"addresses of package registries in {found}"


# --- with ROS 2's own tools, where they are installed ---------------------------------------------------------------

needs_ros2 = pytest.mark.skipif(
    importlib.util.find_spec("launch_ros") is None or shutil.which("ros2") is None,
    reason="needs launch_ros and the ros2 command (they are not on PyPI; see docs/ros2.md)",
)


@needs_ros2
@pytest.mark.launch
def test_ros2_finds_the_executables_of_a_pip_installation(prefix: Path) -> None:
    listed = run("ros2", "pkg", "executables", "lrm_ros", env=paths_of(prefix)).split("\n")
    assert {f"lrm_ros {name}" for name in NODES} <= set(listed)
    assert "did you mean 'rate_hz'?" in run("ros2", "run", "lrm_ros", "camera", *MISSPELT, code=2, env=paths_of(prefix))


@needs_ros2
@pytest.mark.launch
@pytest.mark.parametrize("name", LAUNCH_FILES)
def test_ros2_launch_reads_every_launch_file(prefix: Path, name: str) -> None:
    assert "Arguments" in run("ros2", "launch", "lrm_ros", name, "--show-args", env=paths_of(prefix))


needs_colcon = pytest.mark.skipif(shutil.which("colcon") is None, reason="needs colcon (make test-colcon brings it)")


@needs_colcon
@pytest.mark.launch
@pytest.mark.parametrize("option", ["--merge-install", "--symlink-install"])
def test_colcon_builds_every_program_and_module(source: Path, tmp_path: Path, option: str) -> None:
    (tmp_path / "src").mkdir()
    (tmp_path / "src/lrm_ros").symlink_to(source)
    run("colcon", "build", option, "--packages-select", "lrm_ros", cwd=tmp_path)
    installed = tmp_path / "install" / ("" if option == "--merge-install" else "lrm_ros")
    site = next(installed.glob("lib/python*/site-packages"))
    # What sourcing the workspace sets; --symlink-install points at the build folder.
    env = {"PYTHONPATH": str(tmp_path / "build/lrm_ros" if option == "--symlink-install" else site)}
    script = "import lrm_ros, lrm_ros.sim.twin.world as w, lrm_ros.training.report.stats as s, importlib.util as u; "
    script += "print(lrm_ros.__file__, w.__file__, s.__file__, u.find_spec('lerobot_policy_act_small').origin)"
    for place in run(sys.executable, "-c", script, env=env).split():
        assert Path(place).is_relative_to(tmp_path), f"'{place}' is not of this build"
    for name in NODES:
        assert os.access(installed / "lib/lrm_ros" / name, os.X_OK)
    program = installed / "lib/lrm_ros/camera"
    assert "did you mean 'rate_hz'?" in run(sys.executable, program, *MISSPELT, code=2, env=env)
    for file in ("launch/self_improve.launch.py", "config/fastdds.xml", "package.xml"):
        assert (installed / "share/lrm_ros" / file).is_file()
    if importlib.util.find_spec("launch_ros") is None or shutil.which("ros2") is None:
        return
    listed = run("ros2", "pkg", "executables", "lrm_ros", env=paths_of(installed)).split("\n")
    assert {f"lrm_ros {name}" for name in NODES} <= set(listed)
    for name in LAUNCH_FILES:
        assert "Arguments" in run("ros2", "launch", "lrm_ros", name, "--show-args", env=paths_of(installed))
