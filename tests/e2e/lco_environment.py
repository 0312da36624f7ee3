import os


def lco_environment() -> dict[str, str]:
    """Ours without what would lead Prefect or MLflow to somebody else's server."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PREFECT_", "MLFLOW_", "LCO_"))
    }
