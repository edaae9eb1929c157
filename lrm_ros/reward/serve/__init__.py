# SPDX-License-Identifier: Apache-2.0
"""The reward model over HTTP: the upstream server's routes, so that its client works unchanged, and a batch route."""
