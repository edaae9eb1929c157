# SPDX-License-Identifier: Apache-2.0
"""The doctor says which sizes fit which memory, and the cure where the full size does not."""

from __future__ import annotations

from lrm_ros.graph import doctor, doctor_memory
from lrm_ros.graph.finding import OK, WARN

GIB_IN_KIB = 2**20


def test_it_says_of_each_gpu_what_fits() -> None:
    finding = doctor.check_memory([24 * 1024, 16 * 1024], 64 * GIB_IN_KIB)
    assert finding.status == OK and finding.cure == ""
    first, second = finding.detail.split("; ")
    assert "GPU 0, 24.0 GiB: 8B in bf16 22, bf16-lora 21, 8bit 15, 4bit 12 GiB, 4B in bf16" in first
    assert "GPU 1, 16.0 GiB: 8B in 4bit 12 GiB, 4B in bf16" in second
    finding = doctor.check_memory([8 * 1024], 64 * GIB_IN_KIB)
    assert finding.status == WARN and "8B not, 4B not, 2B in bf16" in finding.detail
    assert "8B takes 12 GiB even with ?load=4bit" in finding.cure and "7.4 GiB to use" in finding.cure


def test_without_a_gpu_the_machines_memory_counts() -> None:
    finding = doctor.check_memory([], 24 * GIB_IN_KIB)
    assert finding.status == OK, "the tiny model runs there"
    assert finding.detail.startswith("no GPU; 24.0 GiB of memory: 8B in 4bit 18 GiB")
    assert "8B not, 4B not, 2B not" in doctor.check_memory([], 2 * GIB_IN_KIB).detail


def test_it_finds_the_memory_of_this_machine() -> None:
    assert doctor_memory.ram() > 100_000
    assert doctor.check_memory().name == "memory"
