"""MLflow's server with its own authentication, behind the guard; `mlflow server --app-name lco` runs it.

The name is an entry point of this package (`mlflow.app` in pyproject.toml). MLflow's own checks let every
page of loopback send changes, whatever its port and whoever serves it.
"""

import os

from infra.guard import OwnPagesOnly

HOST = "LCO_SERVER_HOST"
"""The variable that says `name:port` of the server."""


def create_app():
    """The ASGI application."""
    from mlflow.server.auth import create_app as with_authentication

    app = with_authentication()
    app.add_middleware(OwnPagesOnly, host=os.environ[HOST])
    return app
