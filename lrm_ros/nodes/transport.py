# SPDX-License-Identifier: Apache-2.0
"""Moved to ``lrm_ros.ros.transport`` and ``lrm_ros.topics``; this file serves scripts that import from here."""

from lrm_ros.ros.transport import set_transport  # noqa: F401
from lrm_ros.topics import EVENTS, IMAGE, LATCHED, NEWEST, STREAM  # noqa: F401
