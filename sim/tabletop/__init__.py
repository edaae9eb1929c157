# SPDX-License-Identifier: Apache-2.0
"""Drawn tasks at a table: every episode another."""
