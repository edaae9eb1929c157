# SPDX-License-Identifier: Apache-2.0
"""Which nodes make up a program (graphs), how they are started and kept together (runner, launch), and the doctor."""
