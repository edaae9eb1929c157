# SPDX-License-Identifier: Apache-2.0
"""Lets LeRobot's driver wait longer for emulated servos, in programs that find a copy of it as sitecustomize.

They answer in the test's own process, beside everything else that the machine does; the driver gives a servo 50 ms.
"""

from __future__ import annotations

import contextlib

with contextlib.suppress(ImportError):
    from scservo_sdk.port_handler import PortHandler

    PATIENCE_MS = 2000.0

    def _over(self: PortHandler) -> bool:
        if self.getTimeSinceStart() > max(self.packet_timeout, PATIENCE_MS):
            self.packet_timeout = 0
            return True
        return False

    PortHandler.isPacketTimeout = _over
