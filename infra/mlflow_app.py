"""MLflow's server behind the guard; `mlflow server --app-name lco` runs it.

The name is an entry point of this package (`mlflow.app` in pyproject.toml). MLflow's own authentication
leaves some routes open, and its check of origins lets in every page of loopback, whoever serves it.
"""

from infra.guard import Guard
from infra.settings import Settings

HEALTH = "/health"


def create_app():
    """The ASGI application; LCO_OUTPUT and LCO_MLFLOW_PORT say for whom and where."""
    from mlflow.server.fastapi_app import app

    settings = Settings.from_environment()
    host = settings.mlflow_url.removeprefix("http://")
    app.add_middleware(Guard, host=host, credential=settings.credential, open_paths={HEALTH})
    return app
