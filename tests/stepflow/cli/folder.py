"""A folder with flows and a config, whose component server is a real process."""

from __future__ import annotations

import sys
from pathlib import Path

from tests.stepflow.plugins import servers

SERVER = Path(servers.__file__).parent / "components.py"

CONFIG = f"""\
plugins:
  builtin: {{type: builtin}}
  server:
    type: stepflow
    transport: stdio
    command: {sys.executable}
    args: ["{SERVER}"]
routes:
  "/server/{{*component}}":
    - plugin: server
  "/{{*component}}":
    - plugin: builtin
"""

ECHO = """\
schema: flow/v1
name: echo
description: Gives back what came.
steps:
  echo:
    component: /noop
    input: { $input: "$" }
output: { $step: echo }
"""

FAIL = """\
name: fail
description: Fails.
steps:
  fail:
    component: /server/fail
    input: no luck
output: { $step: fail }
"""

VARIABLES = """\
name: variables
description: Gives back its variables.
schemas:
  properties:
    variables:
      type: object
      properties:
        city: {type: string}
        size: {type: integer, default: 3}
      required: [city]
output: [{ $variable: city }, { $variable: size }]
"""

HANG = """\
name: hang
description: Does not end by itself.
steps:
  hang:
    component: /server/hang
    input: { $input: "$" }
output: { $step: hang }
"""

BROKEN = """\
name: broken
description: Has a mistake of each level.
steps:
  - id: first
    component: no_slash
    on_error: {action: fail}
  - id: second
    component: /noop
    input: { $step: third }
output: { $step: second }
"""


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def fill(folder: Path) -> None:
    """Write the config and the flows."""
    write(folder, "stepflow-config.yml", CONFIG)
    flows = {"echo": ECHO, "fail": FAIL, "variables": VARIABLES, "hang": HANG, "broken": BROKEN}
    for name, text in flows.items():
        write(folder, f"{name}.yaml", text)
