"""A rank shares what its parent has imported, and computes what a fresh process would."""

import json
import os
import subprocess
import sys
import time

import pytest

LIBRARIES = ("torch", "transformers", "deepspeed", "peft", "sklearn", "pyarrow")
PRELOAD = (*LIBRARIES, "no_such_module")


def test_one_thread_forks_and_a_rank_starts_in_no_time_and_shares_memory(launcher, launch, tmp_path):
    launch("")
    began = time.time()
    launch(
        """
        say('began', time.time()); say('loaded', sorted(sys.modules))
        import psutil; say('memory', psutil.Process().memory_full_info()._asdict())
        """
    )
    assert json.loads((tmp_path / "began").read_text()) - began < 2  # 10 s where each imports for itself
    assert set(LIBRARIES) < set(json.loads((tmp_path / "loaded").read_text()))
    assert len(os.listdir(f"/proc/{launcher._parent._process.pid}/task")) == 1
    memory = json.loads((tmp_path / "memory").read_text())
    assert memory["uss"] < memory["rss"] / 2  # the rest is shared
    assert "no_such_module" in launcher._parent.log_path.read_text()  # it is the rank's to fail


ARITHMETIC = """
import numpy, torch
torch.manual_seed(0)
a, b = torch.randn(513, 700), torch.randn(700, 431)
layer = torch.nn.Linear(700, 300)
torch.nn.functional.layer_norm(layer(a), (300,)).pow(3).mean().backward()
c = numpy.random.default_rng(0).standard_normal((400, 500))
sums = [(a @ b).sum(), a.sum(), torch.softmax(b, 1).log().sum(), layer.weight.grad.sum(),
        (c @ c.T).sum(), numpy.linalg.svd(c)[1].sum()]
result = [repr(float(one)) for one in sums] + [torch.__config__.parallel_info()]
"""


@pytest.mark.parametrize("threads", [1, 3])  # 3 are more than some machines have cores
def test_numbers_are_those_of_a_fresh_process_with_as_many_threads(launch, tmp_path, threads):
    launch(ARITHMETIC + "say('result', result)", threads=threads)
    fresh = subprocess.run(
        [sys.executable, "-c", ARITHMETIC + "import json; print(json.dumps(result))"],
        env=os.environ | {"OMP_NUM_THREADS": str(threads), "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert json.loads((tmp_path / "result").read_text()) == json.loads(fresh.stdout)
