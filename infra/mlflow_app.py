"""MLflow's server behind the guard; `mlflow server --app-name lco` runs it.

The name is an entry point of this package (`mlflow.app` in pyproject.toml). MLflow's own authentication
leaves some routes open, and its check of origins lets in every page of loopback, whoever serves it.
"""

import os

from infra.credential import Credential
from infra.guard import Guard
from infra.settings import Settings

HEALTH = "/health"
CREDENTIAL = "LCO_MLFLOW_CREDENTIAL"
"""The variable with `user:password`."""


def create_app():
    """The ASGI application; LCO_MLFLOW_PORT says where."""
    from mlflow.server.fastapi_app import app

    host = Settings.from_environment().mlflow_url.removeprefix("http://")
    credential = Credential(*os.environ[CREDENTIAL].split(":", 1))
    app.add_middleware(Guard, host=host, credential=credential, open_paths={HEALTH})
    return app
