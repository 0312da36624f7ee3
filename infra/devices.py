"""Peak rates and memory of well-known accelerators. Importing this module loads no torch."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

GIB = 2**30


@dataclass(frozen=True, kw_only=True)
class Device:
    """An accelerator, or a CPU process."""

    name: str
    peak_flops: Mapping[str, float]
    """FLOP/s by precision, dense; empty for a CPU, whose peak must be given."""
    memory: int | None
    """Bytes that torch can use; None: not known."""

    def peak(self, precision: str) -> float:
        """Return the peak in FLOP/s. Raises ValueError where it is not known."""
        if precision not in self.peak_flops:
            raise ValueError(f"the {precision} peak of {self.name} is not known: give it")
        return self.peak_flops[precision]


def _gpu(name: str, *, bfloat16: float, float32: float, gib: float) -> Device:
    peaks = {"bfloat16": bfloat16 * 1e12, "float32": float32 * 1e12}
    return Device(name=name, peak_flops=peaks, memory=int(gib * GIB))


DEVICES = {
    device.name: device
    for device in (
        # Data sheets: tensor cores without sparsity for bfloat16, no tensor cores for float32, in TFLOP/s.
        _gpu("a100-40gb", bfloat16=312, float32=19.5, gib=39),
        _gpu("a100-80gb", bfloat16=312, float32=19.5, gib=79),
        _gpu("h100", bfloat16=989, float32=67, gib=79),
        _gpu("h100-pcie", bfloat16=756, float32=51, gib=79),
        _gpu("h200", bfloat16=989, float32=67, gib=139),
        _gpu("b200", bfloat16=2_250, float32=75, gib=178),
        _gpu("mi300x", bfloat16=1_307, float32=163, gib=191),
        _gpu("l4", bfloat16=121, float32=30, gib=22),
        _gpu("l40s", bfloat16=362, float32=91.6, gib=44),
        _gpu("rtx-4090", bfloat16=165, float32=82.6, gib=23),
        Device(name="cpu", peak_flops={}, memory=None),
    )
}


def device_called(name: str) -> Device | None:
    """Return the device that torch calls `NVIDIA A100-SXM4-80GB` or the like; None if it is unknown."""
    words = set(re.split(r"[\s-]+", name.lower()))
    found = [device for device in DEVICES.values() if set(device.name.split("-")) <= words]
    return max(found, key=lambda device: len(device.name), default=None)
