# SPDX-License-Identifier: Apache-2.0
"""Many worlds stepped together, their rewards, and the node that has them."""
