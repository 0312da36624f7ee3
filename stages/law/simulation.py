"""How often the verdict errs: simulated sweeps of known truth, judged by the rule that judges real ones.

    python -m stages.law.simulation [--sweeps 500] [--json-path stages/law/results/error_rates.json]

Prints how often each truth is called supported, not supported or inconclusive, and how often the interval
of the gain holds the true one. On one core 500 sweeps of every truth take a few minutes.
"""

import json
import os
import platform
import sys
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import tyro
from scipy import stats

from stages.law.config import LawConfig
from stages.law.simulated_sweeps import Noise, World, simulate
from stages.law.verdict import INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, find

SIMULATED_RESAMPLES = 500
GAIN = 0.139
LAW = World(image=GAIN, text=0.02, shuffled=-0.158, unrelated=-0.005, compute=0.034)
"""What the sweep of the tiny backbone measured."""
NOISY = Noise(checkpoint=0.03)
WORLDS = {
    "law": LAW,
    "law, controls flat": World(image=GAIN, text=0.02),
    "law, half of the gain": World(image=GAIN / 2, text=0.01),
    "law, checkpoints without noise": replace(LAW, noise=Noise(checkpoint=0.0)),
    "law, noisier checkpoints": replace(LAW, noise=NOISY),
    "no law": World(),
    "no law, retrieval falls": World(image=-GAIN),
    "no law, noisier checkpoints": World(noise=NOISY),
    "confounder: all gain alike": World(image=GAIN, text=GAIN, shuffled=GAIN, unrelated=GAIN, compute=GAIN),
    "confounder: shuffled pages gain alike": replace(LAW, shuffled=GAIN),
    "alternative: unrelated pages gain alike": replace(LAW, unrelated=GAIN),
    "alternative: more CL gains alike": replace(LAW, compute=GAIN),
    "confounder: text gains alike": replace(LAW, text=GAIN),
    "noisier checkpoints, shuffled pages gain alike": replace(LAW, shuffled=GAIN, noise=NOISY),
}
"""Truths by name. No confounder may ever be called supported; an alternative, another way to the whole gain
that leaves shuffled pairs and text behind, in 5% of sweeps at most. Checkpoints noisier than those measured
show where the rates end."""


@dataclass(frozen=True, kw_only=True)
class Rates:
    """How often one truth got each verdict, of `sweeps`.

    Attributes:
        supported_interval: exact 95% (Clopper-Pearson).
        coverage: how often the interval of the gain held the true gain of the dose. The interval speaks for
            other documents and queries; what one checkpoint differs by from its dose lies outside it, as the
            truth without that noise shows. No truth has a shift that all queries of one CL seed share.
        failed: condition -> how often it was not met.
    """

    world: str
    sweeps: int
    supported: float
    supported_interval: tuple[float, float]
    not_supported: float
    inconclusive: float
    coverage: float
    failed: dict[str, float]


def measure(name: str, world: World, thresholds: LawConfig, *, sweeps: int, seed: int = 0) -> Rates:
    """Judge so many sweeps of one truth; sweep i has its own generator, seeded with (seed, i)."""
    verdicts, covered, failed = [], 0, {}
    for number in range(sweeps):
        sweep = simulate(world, np.random.default_rng([seed, number]))
        findings = find(sweep, replace(thresholds, random_seed=number))
        verdicts.append(findings.verdict)
        covered += findings.compared.paired.low <= world.image <= findings.compared.paired.high
        for check in findings.conditions.values():
            failed[check.name] = failed.get(check.name, 0) + (not check.passed)
    interval = stats.binomtest(verdicts.count(SUPPORTED), sweeps).proportion_ci()
    return Rates(
        world=name,
        sweeps=sweeps,
        supported=verdicts.count(SUPPORTED) / sweeps,
        supported_interval=(float(interval.low), float(interval.high)),
        not_supported=verdicts.count(NOT_SUPPORTED) / sweeps,
        inconclusive=verdicts.count(INCONCLUSIVE) / sweeps,
        coverage=covered / sweeps,
        failed={condition: count / sweeps for condition, count in failed.items()},
    )


def main(sweeps: int = 500, resamples: int = SIMULATED_RESAMPLES, json_path: Path | None = None) -> None:
    """Print the table of rates; write it as JSON where a path is given."""
    thresholds = LawConfig(bootstrap_resamples=resamples)
    print(f"{'truth':<46} supported (95%)          not supp.  inconcl.  coverage  conditions failed")
    rates = []
    for name, world in WORLDS.items():
        found = measure(name, world, thresholds, sweeps=sweeps)
        rates.append(found)
        low, high = found.supported_interval
        failed = ", ".join(f"{check} {share:.2f}" for check, share in found.failed.items() if share > 0)
        print(
            f"{name:<46} {found.supported:.3f} [{low:.3f}, {high:.3f}]    {found.not_supported:.3f}      "
            f"{found.inconclusive:.3f}     {found.coverage:.3f}     {failed}",
            flush=True,
        )
    if json_path is not None:
        content = {
            "command": " ".join(["python -m stages.law.simulation", *sys.argv[1:]]),
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}, {os.cpu_count()} CPU cores",
        }
        content |= {"thresholds": asdict(thresholds), "rates": [asdict(entry) for entry in rates]}
        json_path.parent.mkdir(parents=True, exist_ok=True)
        json_path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    tyro.cli(main)
