# SPDX-License-Identifier: Apache-2.0
"""Moved to ``lrm_ros.ros.transport``; this line serves scripts that import it from here."""

from lrm_ros.ros.transport import EVENTS, IMAGE, LATCHED, NEWEST, STREAM, set_transport  # noqa: F401
