# SPDX-License-Identifier: Apache-2.0
# make demo: the self-improvement loop in the twin. make test: the tests. make help: the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: setup demo test test-jazzy lint format doctor clean help
PYTHON_OF_VENV := .venv/bin/python

# .venv brings its own ROS 2; a sourced installation or another environment must not leak into it.
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH ROS_DISTRO
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE VIRTUAL_ENV

setup: ## set up .venv and, without a GPU driver, software Vulkan (again only when something changed)
	@tools/setup.sh

demo: setup ## run the whole self-improvement loop in the twin; QUICK=1: smaller, at most 5 minutes
	@$(PYTHON_OF_VENV) -m lrm_ros.training.demo $(if $(QUICK),--quick)

test: setup lint ## check style and types, then run the tests; ARGS='-k twin' chooses some
	@$(PYTHON_OF_VENV) -m pytest $(ARGS)

test-jazzy: ## the executor's and the nodes' tests on ROS 2 Jazzy, in .venv-jazzy; ALL=1: with torch and the twin
	@tools/test_jazzy.sh

lint: setup ## ruff and mypy
	@$(PYTHON_OF_VENV) -m ruff check
	@$(PYTHON_OF_VENV) -m ruff format --check
	@$(PYTHON_OF_VENV) -m mypy

format: setup ## put the code in order
	@$(PYTHON_OF_VENV) -m ruff check --fix
	@$(PYTHON_OF_VENV) -m ruff format

doctor: setup ## check Python, ROS, DDS, Vulkan, GPU, disk, cameras, serial ports and models
	@$(PYTHON_OF_VENV) -m lrm_ros.doctor

clean: ## remove caches and build outputs; .venv and runs stay
	@rm -rf build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 17
