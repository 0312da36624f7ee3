"""DeepSpeed without MLflow, which its autotuner would load into every rank: 2 s and 110 MB.

Import DeepSpeed from here only.
"""

import sys

_hidden = "mlflow" not in sys.modules
if _hidden:
    sys.modules["mlflow"] = None  # an ImportError, which DeepSpeed takes for "not installed"
try:
    import deepspeed
finally:
    if _hidden:
        del sys.modules["mlflow"]

__all__ = ["deepspeed"]
