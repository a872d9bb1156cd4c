"""`pyflue flow`: flow documents (YAML or JSON), with a project or without one.

In a project runs are recorded in its journal, so that `pyflue logs` and `pyflue runs` show them; elsewhere they are
kept where the config says, in memory by default. Flows in `src/workflows/` are workflows besides: `pyflue run` runs
those.
"""

from __future__ import annotations

import click

from .components import list_components
from .running import run_flow
from .schema import show_schema
from .serving import serve_flows
from .submitting import submit_flow
from .testing import test_flows
from .validating import validate_flows

__all__ = ["command"]


@click.group()
def command() -> None:
    """Run, test, check and serve flow documents.

    They are YAML or JSON files with steps and an output. Plugins and routes to components are in a config: the file
    given with --config, else stepflow-config.yml beside the flow, else in the current folder.
    """


for _command in (run_flow, submit_flow, test_flows, validate_flows, list_components, serve_flows, show_schema):
    command.add_command(_command)
