# SPDX-License-Identifier: Apache-2.0
"""ROS plumbing that the nodes share: base, program, executor, transport, diagnostics, calls of other nodes."""
