# SPDX-License-Identifier: Apache-2.0
"""Meta-World's tasks as worlds."""
