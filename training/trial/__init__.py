# SPDX-License-Identifier: Apache-2.0
"""A blind comparison of policies by a person: the command, its figures and its page."""
