"""`python -m pipelines.prefect_app PORT`: Prefect's server on loopback, behind the guard.

What `prefect server start` does, which takes no middleware. Prefect's own settings, in the environment, ask
for a credential and name the page's origin.
"""

import sys

import uvicorn
from prefect.server.api.server import create_app
from prefect.settings import get_current_settings

from infra.guard import Guard
from infra.settings import LOOPBACK


def main(port: int) -> None:
    """Serve until a signal comes."""
    app = create_app(final=True)
    app.add_middleware(Guard, host=f"{LOOPBACK}:{port}")
    server = get_current_settings().server
    uvicorn.run(
        app,
        host=LOOPBACK,
        port=port,
        timeout_keep_alive=server.api.keepalive_timeout,
        ws_ping_interval=server.api.websocket_ping_interval,
        ws_ping_timeout=server.api.websocket_ping_timeout,
        log_level=server.logging_level.lower(),
    )


if __name__ == "__main__":
    main(int(sys.argv[1]))
