# SPDX-License-Identifier: Apache-2.0
"""Episodes on disk: crash-safe journals and the LeRobot data sets derived from them."""
