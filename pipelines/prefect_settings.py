"""The environment that keeps Prefect inside the output folder and quiet."""

from __future__ import annotations

import os
from collections.abc import Mapping

from infra.settings import Settings


def prefect_environment(settings: Settings, environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """What Prefect reads when it is imported; a value that the user has set wins.

    Without PREFECT_API_URL everything, profiles and database included, lies in the output folder and
    ~/.prefect is not touched. With it, the user's server and their own Prefect folder are used.
    """
    wanted = {
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_CLI_PROMPT": "false",
    }
    if "PREFECT_API_URL" not in environment:
        wanted["PREFECT_HOME"] = str(settings.prefect_home)
    return {name: environment.get(name, value) for name, value in wanted.items()}
