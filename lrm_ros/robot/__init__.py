# SPDX-License-Identifier: Apache-2.0
"""The arm: its geometry and, as the stack grows, its limits and hardware adapter."""
