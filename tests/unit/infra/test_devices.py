"""Accelerators are known by the names that torch gives them, and never guessed."""

import pytest

from infra.devices import device_called


@pytest.mark.parametrize(
    ("torch_name", "expected"),
    [
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA H100 PCIe", "h100-pcie"),
        ("NVIDIA H200", "h200"),
        ("NVIDIA A100-SXM4-40GB", "a100-40gb"),
        ("NVIDIA A100 80GB PCIe", "a100-80gb"),
        ("NVIDIA L40S", "l40s"),
        ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("AMD Instinct MI300X", "mi300x"),
        ("NVIDIA L40", None),
        ("Tesla T4", None),
    ],
)
def test_devices_are_known_by_the_names_that_torch_gives(torch_name, expected):
    device = device_called(torch_name)
    assert (device and device.name) == expected
