# SPDX-License-Identifier: Apache-2.0
"""Reads a URDF: joints, origins, axes, limits, and where the links are for given joint positions.

Only the kinematics: shapes, masses and transmissions are left to those who draw or simulate. Lengths in m, angles in
rad, float64 throughout; a pose is of a link's frame in that of the root link.
"""

from __future__ import annotations

import math
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

_TURNING = ("revolute", "continuous")
_KINDS = (*_TURNING, "prismatic", "fixed")


@dataclass(frozen=True)
class UrdfJoint:
    """A joint of a URDF.

    Attributes:
        name: of the joint.
        kind: revolute, continuous, prismatic or fixed.
        parent: name of the link that carries it.
        child: name of the link that it moves.
        xyz: its place in its parent [m].
        rpy: its rotation in its parent, about fixed x, y, z in turn [rad].
        axis: unit vector in its own frame.
        lower: lowest position [rad, m]; minus infinity where there is none.
        upper: highest position [rad, m].
        velocity: highest speed [rad/s, m/s]; infinity where none is given.
        effort: highest torque or force [Nm, N]; infinity where none is given.
    """

    name: str
    kind: str
    parent: str
    child: str
    xyz: tuple[float, ...]
    rpy: tuple[float, ...]
    axis: tuple[float, ...]
    lower: float = -math.inf
    upper: float = math.inf
    velocity: float = math.inf
    effort: float = math.inf

    @property
    def turns(self) -> bool:
        """Whether its position is an angle."""
        return self.kind in _TURNING


def rotation(rpy: Sequence[float]) -> NDArray[np.float64]:
    """Return the (3, 3) rotation of fixed-axis roll, pitch, yaw [rad]."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
            [-sp, cp * sr, cp * cr],
        ]
    )


def turning(rpy: Sequence[float], axis: Sequence[float]) -> tuple[NDArray[np.float64], ...]:
    """Return (3, 3) matrices A, B, C of a joint: its frame in its parent at angle a is A + B sin(a) + C cos(a).

    Rodrigues' formula behind the joint's fixed rotation; worked out once, as it is asked for often.
    """
    x, y, z = axis
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    fixed = rotation(rpy)
    return fixed @ (np.eye(3) + k @ k), fixed @ k, -fixed @ k @ k


class Urdf:
    """The tree of links and joints of one file.

    Attributes:
        name: of the robot.
        text: the file as it is.
        links: names.
        joints: by name, in the order of the file.
        root: name of the link that nothing carries.
    """

    def __init__(self, path: str | Path) -> None:
        """Read a file.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is no URDF, or a joint of it cannot be used; names file, element and cure.
        """
        self.path = Path(path)
        try:
            self.text = self.path.read_text(encoding="utf-8")
        except FileNotFoundError:
            raise FileNotFoundError(f"URDF '{path}' does not exist; give the file of your arm") from None
        try:
            robot = ElementTree.fromstring(self.text)
        except ElementTree.ParseError as error:
            raise ValueError(f"URDF '{path}' is not XML ({error}); expand a xacro file first: xacro F > G") from None
        if robot.tag != "robot":
            raise self._fault(f"<{robot.tag}>", "the outermost element is <robot>; is this another format (SDF, MJCF)?")
        self.name = robot.get("name", "")
        self.links = tuple(self._name(link) for link in robot.findall("link"))
        self._mimics = {self._name(j) for j in robot.findall("joint") if j.find("mimic") is not None}
        read = [self._joint(element) for element in robot.findall("joint")]
        self.joints = {joint.name: joint for joint in read}
        if len(self.joints) < len(read):
            raise self._fault("<joint>", "two joints have the same name; give each its own")
        self._above = {joint.child: joint for joint in read}
        if len(self._above) < len(read):
            raise self._fault("<joint>", "two joints move the same link; a URDF is a tree")
        roots = [link for link in self.links if link not in self._above]
        if len(roots) != 1:
            raise self._fault("<link>", f"one link is carried by no joint, here {roots or 'none'}; connect them")
        self.root = roots[0]
        for link in self.links:
            self.chain(link)

    def _fault(self, element: str, cure: str) -> ValueError:
        return ValueError(f"URDF '{self.path}', {element}: {cure}")

    def _name(self, element: ElementTree.Element) -> str:
        if not (name := element.get("name", "").strip()):
            raise self._fault(f"<{element.tag}>", "it has no name; give it one")
        return name

    def _joint(self, element: ElementTree.Element) -> UrdfJoint:
        name, kind = self._name(element), element.get("type", "")
        what = f'<joint name="{name}">'
        if kind not in _KINDS:
            raise self._fault(what, f"its type is '{kind}', known are {', '.join(_KINDS)}; make it one of these")
        parent, child = (self._end(element, tag, what) for tag in ("parent", "child"))
        origin, axis, limit = (element.find(tag) for tag in ("origin", "axis", "limit"))
        xyz, rpy = (self._vector(origin, key, (0.0, 0.0, 0.0), f"{what} <origin>") for key in ("xyz", "rpy"))
        way = self._vector(axis, "xyz", (1.0, 0.0, 0.0), f"{what} <axis>")
        length = math.hypot(*way)
        if kind != "fixed" and length < 1e-6:
            raise self._fault(f"{what} <axis>", "a moving joint needs an axis that is not zero")
        unit = tuple(value / length for value in way) if length else way
        lower, upper, velocity, effort = (
            self._number(limit, key, default, f"{what} <limit>")
            for key, default in (("lower", 0.0), ("upper", 0.0), ("velocity", math.inf), ("effort", math.inf))
        )
        if kind in ("continuous", "fixed"):
            lower, upper = -math.inf, math.inf
        elif not lower < upper:
            raise self._fault(what, f"a {kind} joint needs <limit lower= upper=> with lower below upper")
        return UrdfJoint(name, kind, parent, child, xyz, rpy, unit, lower, upper, velocity, effort)

    def _end(self, element: ElementTree.Element, tag: str, what: str) -> str:
        found = element.find(tag)
        link = "" if found is None else found.get("link", "")
        if link not in self.links:
            raise self._fault(what, f"its {tag} link is '{link}', which is no <link> of the file; correct the name")
        return link

    def _number(self, element: ElementTree.Element | None, key: str, default: float, what: str) -> float:
        text = None if element is None else element.get(key)
        try:
            value = default if text is None else float(text)
        except ValueError:
            value = math.nan
        if math.isnan(value):
            raise self._fault(what, f"{key}='{text}' is not a number; correct it")
        return value

    def _vector(
        self, element: ElementTree.Element | None, key: str, default: tuple[float, ...], what: str
    ) -> tuple[float, ...]:
        text = None if element is None else element.get(key)
        if text is None:
            return default
        try:
            values = tuple(float(word) for word in text.split())
        except ValueError:
            values = ()
        if len(values) != 3 or not all(map(math.isfinite, values)):
            raise self._fault(what, f"{key}='{text}' must be three finite numbers")
        return values

    # -- kinematics --------------------------------------------------------------------------------------------------

    def chain(self, link: str) -> list[UrdfJoint]:
        """Return the joints from the root to a link.

        Raises:
            ValueError: no such link, or the joints make a circle.
        """
        if link not in self.links:
            raise ValueError(f"URDF '{self.path}' has no link '{link}'; it has {', '.join(self.links)}")
        joints: list[UrdfJoint] = []
        while link != self.root:
            joints.insert(0, self._above[link])
            if len(joints) > len(self.joints):
                raise self._fault(f'<joint name="{joints[0].name}">', "the joints make a circle; a URDF is a tree")
            link = joints[0].parent
        return joints

    def pose(self, link: str, positions: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a link in the root link.

        Args:
            link: its name.
            positions: of the moving joints on the way, by name [rad, m]; others are not looked at.

        Raises:
            ValueError: no such link, or a moving joint on the way has no position or follows another (mimic).
        """
        pose = np.eye(4)
        for joint in self.chain(link):
            pose = pose @ self.step(joint, positions)
        return pose

    def step(self, joint: UrdfJoint, positions: Mapping[str, float]) -> NDArray[np.float64]:
        """Return the (4, 4) pose of a joint's child in its parent; raises as :meth:`pose`."""
        step = np.eye(4)
        step[:3, 3], step[:3, :3] = joint.xyz, rotation(joint.rpy)
        if joint.kind == "fixed":
            return step
        position = positions[self._moving(joint, positions)]
        if joint.turns:
            still, sine, cosine = turning(joint.rpy, joint.axis)
            step[:3, :3] = still + math.sin(position) * sine + math.cos(position) * cosine
        else:
            step[:3, 3] += step[:3, :3] @ (np.array(joint.axis) * position)
        return step

    def _moving(self, joint: UrdfJoint, known: Mapping[str, float] | Sequence[str]) -> str:
        if joint.name in self._mimics:
            raise self._fault(f'<joint name="{joint.name}">', "it follows another (mimic), which is not read here")
        if joint.name not in known:
            raise ValueError(
                f"URDF '{self.path}': joint '{joint.name}' has no position; there are {', '.join(known)}: name the "
                "joints as the URDF does"
            )
        return joint.name


class LinkPoints:
    """Where the origins of some links are, for many joint positions at once.

    Attributes:
        links: names.
        reach: (P, D): link p moves at most so far for each unit of joint d [m/rad, m/m].
    """

    def __init__(self, urdf: Urdf, joints: Sequence[str], links: Sequence[str]) -> None:
        """Prepare.

        Args:
            urdf: the arm's.
            joints: names in the order of the positions that will be given, (D,).
            links: names, (P,).

        Raises:
            ValueError: no such link, or a joint on the way is none of ``joints`` or follows another.
        """
        self.links = tuple(links)
        self.reach = np.zeros((len(self.links), len(joints)))
        self._ways = [self._prepare(urdf, list(joints), row, link) for row, link in enumerate(self.links)]

    def _prepare(
        self, urdf: Urdf, joints: list[str], row: int, link: str
    ) -> list[tuple[NDArray[np.float64], int | None, UrdfJoint, tuple[NDArray[np.float64], ...]]]:
        way, beyond = [], 0.0  # beyond: from this joint's frame to the point at most [m]
        for joint in reversed(urdf.chain(link)):
            index = None if joint.kind == "fixed" else joints.index(urdf._moving(joint, joints))
            if index is not None:
                self.reach[row, index] = beyond if joint.turns else 1.0
                if not joint.turns:
                    beyond += max(abs(joint.lower), abs(joint.upper))
            matrices = turning(joint.rpy, joint.axis) if joint.turns else (rotation(joint.rpy),)
            way.append((np.array(joint.xyz), index, joint, tuple(matrix.T for matrix in matrices)))
            beyond += math.hypot(*joint.xyz)
        return way

    def __call__(self, positions: NDArray) -> NDArray[np.float64]:
        """Return (..., P, 3) [m] in the root link for (..., D) joint positions [rad, m]."""
        q = np.asarray(positions, dtype=np.float64)
        points = []
        for way in self._ways:
            point = np.zeros((*q.shape[:-1], 3))
            for xyz, index, joint, matrices in way:  # from the point to the root
                if joint.turns:
                    angle = q[..., index, None]
                    still, sine, cosine = matrices
                    point = point @ still + np.sin(angle) * (point @ sine) + np.cos(angle) * (point @ cosine)
                else:
                    if index is not None:
                        point = point + q[..., index, None] * np.array(joint.axis)
                    point = point @ matrices[0]
                point = point + xyz
            points.append(point)
        return np.stack(points, axis=-2) if points else np.zeros((*q.shape[:-1], 0, 3))
