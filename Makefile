# SPDX-License-Identifier: Apache-2.0
# make demo: the self-improvement loop in the twin. make test: the tests. make help: the rest.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: setup demo test test-core test-colcon test-jazzy lint format doctor lock clean help
# VENV=FOLDER and PYTHON=/path/to/python choose another environment and interpreter.
export VENV ?= .venv
PYTHON_OF_VENV := $(VENV)/bin/python
# Test processes at a time (JOBS=0: one process shows the tests one by one); tests/conftest.py says which has which tests.
JOBS ?= $(shell n=$$(nproc); echo $$((n < 8 ? n : 8)))
PYTEST := $(PYTHON_OF_VENV) -m pytest -n $(JOBS) --dist loadgroup
export JOBS
# What depends on the versions of Python, LeRobot, transformers and rclpy.
CORE := $(addprefix tests/,ros/test_base.py training/policy/test_closed_loop.py test_config.py record/test_dataset.py \
  ros/test_executor.py training/policy/test_finetune.py training/policy/test_finetune_diffusion.py \
  reward/test_heads.py record/test_journal.py test_messages.py product/test_packaging.py nodes/test_policy.py \
  training/ppo/test_ppo.py reward/qwen/test_qwen.py nodes/test_reward.py training/report/test_stats.py \
  training/reward/train/test_tiny.py reward/qwen/test_transformers_versions.py sim/twin/test_node.py test_versions.py \
  nodes/test_camera.py nodes/test_camera_device.py)

# The environment brings its own ROS 2; a sourced installation or another environment must not leak into it.
unexport PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH ROS_DISTRO
unexport _ROS_WHEELS_BOOTSTRAP_COMPLETE VIRTUAL_ENV

setup: ## set up .venv (PYTHON=... chooses) and, without a GPU driver, software Vulkan; again only when needed
	@tools/setup.sh

demo: setup ## run the whole self-improvement loop in the twin; QUICK=1: smaller, at most 5 minutes
	@$(PYTHON_OF_VENV) -m lrm_ros.training.demo $(if $(QUICK),--quick)

test: setup lint ## check style and types, then run the tests; ARGS='-k twin' chooses some, JOBS=0 shows them one by one
	@$(PYTEST) $(ARGS)

test-core: setup ## the tests that depend on the versions of the libraries (CI: on Python 3.11)
	@$(PYTEST) $(CORE) $(ARGS)

test-colcon: setup ## build with colcon, with and without --symlink-install, in an environment of its own
	@tools/test_colcon.sh $(ARGS)

test-jazzy: setup ## the nodes on the wheels of ROS 2 Jazzy, in an environment of its own; ALL=1: with the twin
	@tools/test_jazzy.sh $(ARGS)

lint: setup ## ruff and mypy
	@$(PYTHON_OF_VENV) -m ruff check
	@$(PYTHON_OF_VENV) -m ruff format --check
	@$(PYTHON_OF_VENV) -m mypy

format: setup ## put the code in order
	@$(PYTHON_OF_VENV) -m ruff check --fix
	@$(PYTHON_OF_VENV) -m ruff format

doctor: setup ## check Python, ROS, DDS, Vulkan, GPU, disk, cameras, serial ports and models
	@$(PYTHON_OF_VENV) -m lrm_ros.graph.doctor

lock: setup ## write requirements.lock anew from setup.py
	@tools/lock.sh

clean: ## remove caches and build outputs; .venv and runs stay
	@rm -rf build install log dist *.egg-info .pytest_cache .mypy_cache .ruff_cache
	@find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +

help: ## this list
	@grep -E '^[a-z-]+:.*## ' Makefile | sed -E 's/^([a-z-]+):.*## /make \1\t/' | expand -t 18
