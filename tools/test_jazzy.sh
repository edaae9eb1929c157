#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Test the executor and the nodes on the wheels of ROS 2 Jazzy, in .venv-jazzy from requirements-jazzy.lock (2.5 minutes).
# ALL=1: with the packages of requirements.lock too, for the tests that need torch, LeRobot or ManiSkill (9 GB, 9 minutes).
# JAZZY_PYTHON=/path/to/python3.12 chooses the interpreter: Jazzy's wheels are for that version only.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

JAZZY=.venv-jazzy
# What another ROS 2 or environment set must not leak into this one.
unset PYTHONPATH LD_LIBRARY_PATH AMENT_PREFIX_PATH COLCON_PREFIX_PATH CMAKE_PREFIX_PATH ROS_DISTRO VIRTUAL_ENV
unset _ROS_WHEELS_BOOTSTRAP_COMPLETE LRM_RCLPY_EXECUTOR FASTRTPS_DEFAULT_PROFILES_FILE FASTDDS_DEFAULT_PROFILES_FILE

NODES=(
    tests/ros/test_base.py
    tests/nodes/test_camera.py
    tests/record/test_cdr.py
    tests/ros/test_collector.py
    tests/nodes/test_evaluator.py
    tests/ros/test_arm_topics.py
    tests/ros/test_estop.py
    tests/graph/test_graph.py
    tests/nodes/test_improver.py
    tests/nodes/test_lifecycle.py
    tests/test_messages.py
    tests/nodes/test_policy.py
    tests/nodes/test_policy_estop.py
    tests/nodes/test_policy_realtime.py
    tests/nodes/test_recorder.py
    tests/nodes/test_recorder_kills.py
    tests/nodes/test_recorder_replay.py
    tests/ros/test_streams.py
    tests/nodes/test_reward.py
    tests/nodes/test_reward_live_end.py
    tests/nodes/test_teleop.py
    tests/training/bench/test_topics.py
    tests/graph/test_doctor.py::test_images_cross_from_process_to_process
    tests/graph/test_doctor.py::test_what_fast_dds_prints_itself_is_no_result
)
# Of these files the tests that need torch, LeRobot or ManiSkill, and files of such tests.
LIFECYCLE=tests/nodes/test_lifecycle.py::test_a_node_runs_again_after_it_was_stopped_and_after_it_was_cleaned_up
HEAVY=(
    "$LIFECYCLE[lrm_ros.nodes.improver.ImproverNode]"
    "$LIFECYCLE[lrm_ros.nodes.policy.PolicyNode]"
    "$LIFECYCLE[lrm_ros.sim.twin.node.TwinNode]"
    "$LIFECYCLE[lrm_ros.sim.vector.node.WorldsNode]"
    tests/nodes/test_teleop.py::test_a_demonstration_in_the_twin_is_recorded_from_the_keyboard
    tests/nodes/test_improver.py::test_the_words_of_a_training_are_the_loops_settings
    tests/nodes/test_improver.py::test_a_run_of_other_settings_or_with_a_damaged_record_is_refused
    tests/nodes/test_improver.py::test_a_run_from_before_a_setting_was_there_goes_on_with_its_default_only
    tests/nodes/test_improver.py::test_a_run_keeps_the_model_of_its_judge
    tests/nodes/test_improver.py::test_the_improver_loads_no_model_of_its_own
)
HEAVY_FILES=(tests/sim/twin/test_node.py tests/training/ppo/test_node.py)

make_environment() {
    local python stamp
    stamp=$JAZZY/.ready-$({ cat requirements-jazzy.lock; [ -z "${ALL:-}" ] || cat requirements.lock; } | sha256sum | cut -c1-16)
    [ ! -e "$stamp" ] || return 0
    if ! python=${JAZZY_PYTHON:-$(tools/find_python.sh 3.12)}; then
        echo "test_jazzy: need Python 3.12; install it and run 'JAZZY_PYTHON=/path/to/it make test-jazzy'" >&2
        return 1
    fi
    echo "test_jazzy: making $JAZZY with $("$python" --version)"
    "$python" -m venv --clear --without-pip $JAZZY
    if [ -n "${ALL:-}" ]; then
        grep -v '^ros-' requirements.lock | tools/uv.sh pip install -q --python $JAZZY/bin/python --no-deps -r -
        grep '^ros-' requirements-jazzy.lock | tools/uv.sh pip install -q --python $JAZZY/bin/python --no-deps -r -
    else
        tools/uv.sh pip install -q --python $JAZZY/bin/python --no-deps -r requirements-jazzy.lock
    fi
    touch "$stamp"
}

pytest() { PYTHONPATH=$PWD $JAZZY/bin/python -m pytest -q -p no:cacheprovider -n "${JOBS:-2}" --dist loadgroup "$@"; }

make_environment
if [ -n "${ALL:-}" ]; then
    NODES+=("${HEAVY_FILES[@]}")
    HEAVY=()
fi
echo "test_jazzy: the executors, then the nodes with the short way for messages"
pytest tests/ros/test_executor.py "${NODES[@]}" "${HEAVY[@]/#/--deselect=}"
echo "test_jazzy: the nodes with rclpy's own executor"
LRM_RCLPY_EXECUTOR=1 pytest "${NODES[@]}" "${HEAVY[@]/#/--deselect=}"
