# SPDX-License-Identifier: Apache-2.0
"""Coarser pictures of a robot's links: fine meshes cost most of a frame's time in a software renderer."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np

_KNOWN: dict[
    bytes, np.ndarray
] = {}  # merged corners of the meshes seen in this process: scenes are built again and again


def coarsen(entity: Any, cell: float, small: int = 700) -> None:
    """Replace what is drawn of an entity by coarse meshes: vertices within a cell become one.

    Call it before the first picture. Parts that would vanish stay as they are.

    Args:
        entity: a ``sapien.Entity``; nothing happens if nothing is drawn of it.
        cell: edge of the cells [m]; a third of a pixel or less is invisible.
        small: parts of no more triangles stay as they are.
    """
    import sapien

    old = entity.find_component_by_type(sapien.render.RenderBodyComponent)
    if old is None:
        return
    new = sapien.render.RenderBodyComponent()
    for shape in old.render_shapes:
        for part in shape.parts:
            vertices, triangles = np.asarray(part.vertices, np.float64) * np.asarray(shape.scale), part.triangles
            corners = _merged(vertices, triangles, cell) if len(triangles) > small else vertices[triangles]
            normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
            normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
            count = len(corners) * 3
            coarse = sapien.render.RenderShapeTriangleMesh(
                corners.reshape(count, 3).astype(np.float32),
                np.arange(count, dtype=np.uint32).reshape(-1, 3),
                np.repeat(normals, 3, axis=0).astype(np.float32),
                np.zeros((count, 2), dtype=np.float32),
                part.material,
            )
            coarse.local_pose = shape.local_pose
            new.attach(coarse)
    entity.remove_component(old)
    entity.add_component(new)


def _merged(vertices: np.ndarray, triangles: np.ndarray, cell: float) -> np.ndarray:
    """Return the corners (T, 3, 3) of the triangles that are left when the vertices in a cell become one."""
    key = hashlib.blake2b(vertices.tobytes() + np.ascontiguousarray(triangles).tobytes() + str(cell).encode()).digest()
    if key not in _KNOWN:
        _KNOWN[key] = _merge(vertices, triangles, cell)
    return _KNOWN[key]


def _merge(vertices: np.ndarray, triangles: np.ndarray, cell: float) -> np.ndarray:
    _, index, inverse = np.unique(
        np.floor(vertices / cell).astype(np.int64), axis=0, return_index=True, return_inverse=True
    )
    merged = inverse.reshape(-1)[np.asarray(triangles)]
    a, b, c = merged.T
    merged = merged[(a != b) & (b != c) & (a != c)]
    _, first = np.unique(np.sort(merged, axis=1), axis=0, return_index=True)
    return vertices[index][merged[first]] if len(first) else vertices[triangles]
