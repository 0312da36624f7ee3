"""The verdict's own error rates on simulated sweeps of known truth.

The rates that count need 500 sweeps of each truth, minutes of one core:

    python -m pytest -m error_rates tests/unit/stages/law/test_simulation.py
"""

import json

import numpy as np
import pytest
from scipy import stats

from stages.law.config import LawConfig
from stages.law.simulated_sweeps import PRIMARY, Design, Noise, World, simulate
from stages.law.simulation import SIMULATED_RESAMPLES, WORLDS, main, measure

LAW = LawConfig(bootstrap_resamples=SIMULATED_RESAMPLES)
CONFOUNDERS = [name for name in WORLDS if name.startswith("confounder")]
ONE_ALTERNATIVE = [name for name in WORLDS if name.startswith("alternative")]


def test_few_sweeps_of_each_kind_are_judged_as_they_should():
    assert measure("", WORLDS["law"], LAW, sweeps=24).supported >= 0.75
    assert measure("", WORLDS["no law"], LAW, sweeps=18).supported <= 0.12
    assert measure("", WORLDS["confounder: all gain alike"], LAW, sweeps=18).supported == 0


RATES = {
    **dict.fromkeys(("no law", "no law, noisier checkpoints", "no law, retrieval falls"), (0, 0.05)),
    "law": (0.9, 1),
    **dict.fromkeys(CONFOUNDERS, (0, 0)),
    **dict.fromkeys(ONE_ALTERNATIVE, (0, 0.05)),
}
"""Truth -> how often it may be called supported: where there is no law in 5%, a confounder never."""


@pytest.mark.error_rates
@pytest.mark.timeout(3600)
@pytest.mark.parametrize(("world", "rates"), RATES.items())
def test_each_truth_is_called_supported_as_often_as_it_may(world, rates):
    least, most = rates
    assert least <= measure(world, WORLDS[world], LAW, sweeps=500).supported <= most


def test_a_simulated_sweep_has_the_moments_it_was_given():
    design = Design(
        doses=(0, 1), control_doses=(1,), nats_per_byte=(4.0, 0.2), queries_of_documents=(150,) * 40
    )
    world = World(image=0.139, shuffled=0.05, text=0.02, noise=Noise(checkpoint=0.0))
    sweep = simulate(world, np.random.default_rng(0), design)
    low, high = (sweep.scores(dose, PRIMARY) for dose in (0, 1))
    assert low.shape == (3, 6000)
    assert low.mean() == pytest.approx(0.347, abs=0.02)
    assert (high - low).mean() == pytest.approx(0.139, abs=0.015)
    shuffled = sweep.scores(1, PRIMARY, pages="shuffled")
    assert (shuffled - low).mean() == pytest.approx(0.05, abs=0.015)
    text = [sweep.scores(dose, PRIMARY, "query_to_text").mean() for dose in (0, 1)]
    assert text[1] - text[0] == pytest.approx(0.02, abs=0.015)
    # The moments of the real run that the noise was found by.
    assert np.corrcoef(low.mean(axis=0), high.mean(axis=0))[0, 1] == pytest.approx(0.74, abs=0.05)
    assert low.var(axis=0, ddof=1).mean() == pytest.approx(0.003, abs=0.001)
    assert set(np.unique(low.round(6))) <= {0.0, *(1 / np.log2(np.arange(2, 12))).round(6)}


def test_the_rates_are_reproducible_and_their_interval_is_exact():
    first, second = (measure("law", WORLDS["law"], LAW, sweeps=4, seed=3) for _ in range(2))
    assert first == second
    expected = stats.binomtest(round(first.supported * 4), 4).proportion_ci()
    assert first.supported_interval == pytest.approx(tuple(expected))
    assert first.supported + first.not_supported + first.inconclusive == pytest.approx(1)


def test_the_program_writes_what_it_prints(tmp_path, capsys):
    path = tmp_path / "results" / "error_rates.json"
    main(sweeps=1, resamples=50, json_path=path)
    content = json.loads(path.read_text())
    assert [entry["world"] for entry in content["rates"]] == list(WORLDS)
    assert content["thresholds"]["minimum_effect"] == LAW.minimum_effect
    printed = capsys.readouterr().out
    assert all(name in printed for name in WORLDS)
