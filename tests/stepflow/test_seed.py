"""The quick start of Stepflow's Python packages, typed in as it stands: only the lines that import are others.

Files, commands and programs are those of its reader: components in a process of their own, the embedded runtime
(option A), and a server with a client (option B).
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.docs_pages import Page, blocks_of
from tests.promises import promise

MY_COMPONENTS = """\
from pyflue.stepflow import StepflowStdioServer
import msgspec

class GreetInput(msgspec.Struct):
    name: str

class GreetOutput(msgspec.Struct):
    greeting: str

server = StepflowStdioServer()

@server.component
def greet(input: GreetInput) -> GreetOutput:
    return GreetOutput(greeting=f"Hello, {input.name}!")

if __name__ == "__main__":
    server.run()
"""

CONFIG = """\
plugins:
  builtin:
    type: builtin

  python:
    type: stepflow
    transport: stdio
    command: python
    args: ["my_components.py"]

routes:
  "/python/{*component}":
    - plugin: python
  "/{*component}":
    - plugin: builtin
"""

HELLO_WORKFLOW = """\
schema: "flow/v1"
name: hello-world

input:
  type: object
  properties:
    name:
      type: string
  required: [name]

steps:
  greet:
    component: /python/greet
    input:
      name: { $input: "name" }

output:
  message: { $step: "greet", path: "greeting" }
"""

EMBEDDED = """\
import asyncio
from pyflue.stepflow import StepflowRuntime

async def main():
    async with StepflowRuntime.start("stepflow-config.yml") as runtime:
        result = await runtime.run("hello-workflow.yaml", {"name": "World"})

        if result.is_success:
            print(result.output)  # {"message": "Hello, World!"}
        else:
            print(f"Error: {result.error.message}")

asyncio.run(main())
"""

CLIENT = """\
import asyncio
from pyflue.stepflow import StepflowClient

async def main():
    async with StepflowClient("http://localhost:7837") as client:
        result = await client.run("hello-workflow.yaml", {"name": "World"})

        if result.is_success:
            print(result.output)  # {"message": "Hello, World!"}
        else:
            print(f"Error: {result.error.message}")

asyncio.run(main())
"""

EITHER = """\
from pyflue.stepflow import StepflowExecutor, FlowResult

async def run_workflow(executor: StepflowExecutor, input: dict) -> FlowResult:
    # Works with either StepflowClient or StepflowRuntime
    return await executor.run("workflow.yaml", input)
"""

EXECUTOR_API = """\
# Execute and wait for result
result = await executor.run(flow, input, overrides=None)

# Submit without waiting (returns run_id)
run_id = await executor.submit(flow, input, overrides=None)

# Get result of a submitted run
result = await executor.get_result(run_id)

# Validate a workflow
validation = await executor.validate(flow)

# List available components
components = await executor.list_components()
"""

#: What the seed starts as `stepflow-server --config stepflow-config.yml`.
SERVE = "$ pyflue flow serve --config stepflow-config.yml &\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What the reader has after the first three sections."""
    (tmp_path / "my_components.py").write_text(MY_COMPONENTS, encoding="utf-8")
    (tmp_path / "stepflow-config.yml").write_text(CONFIG, encoding="utf-8")
    (tmp_path / "hello-workflow.yaml").write_text(HELLO_WORKFLOW, encoding="utf-8")
    return tmp_path


def show(folder: Path, *blocks: str) -> None:
    """Do what the blocks of a page show, and compare what they print."""
    with Page(Path("stepflow-python-sdk.md"), folder) as page:
        for block in blocks_of("\n\n".join(blocks)):
            page.run(block)


def python(code: str, printed: str = "") -> str:
    return f"```python\n{code}```\n" + (f"```text\n{printed}```\n" if printed else "")


def console(lines: str) -> str:
    return f"```console\n{lines}```\n"


@promise("stepflow.seed")
def test_option_a_runs_the_flow_in_the_program_itself(folder: Path) -> None:
    show(
        folder,
        python("# quick_start.py\n" + EMBEDDED),
        console("$ python quick_start.py\n{'message': 'Hello, World!'}\n"),
    )
    # Embedded, it leaves nothing behind.
    assert {path.name for path in folder.iterdir()} - {"__pycache__"} == {
        "hello-workflow.yaml",
        "my_components.py",
        "quick_start.py",
        "stepflow-config.yml",
    }


@promise("stepflow.seed")
def test_option_b_runs_the_flow_on_a_server(folder: Path) -> None:
    show(
        folder,
        console(SERVE),
        python("# quick_start.py\n" + CLIENT),
        console("$ python quick_start.py\n{'message': 'Hello, World!'}\n"),
    )


@promise("stepflow.seed")
@pytest.mark.parametrize("way", ["embedded", "server"])
def test_client_and_runtime_are_interchangeable(way: str, folder: Path) -> None:
    (folder / "workflow.yaml").write_text(HELLO_WORKFLOW, encoding="utf-8")
    opened = {
        "embedded": 'executor = StepflowRuntime.start("stepflow-config.yml")\n',
        "server": 'executor = StepflowClient("http://localhost:7837")\n',
    }
    closed = {"embedded": "await executor.stop_async()\n", "server": "await executor.close()\n"}
    show(
        folder,
        console(SERVE) if way == "server" else "",
        python("from pyflue.stepflow import StepflowClient, StepflowRuntime\n" + opened[way] + EITHER),
        python(
            "assert isinstance(executor, StepflowExecutor)\n"
            'print((await run_workflow(executor, {"name": "Ada"})).output)\n',
            "{'message': 'Hello, Ada!'}\n",
        ),
        python('flow, input = "hello-workflow.yaml", {"name": "World"}\n' + EXECUTOR_API),
        python(
            "print(result.output, validation.valid)\n"
            "print([component.path for component in components if component.path.startswith('/python/')])\n",
            "{'message': 'Hello, World!'} True\n['/python/greet', '/python/udf']\n",
        ),
        python(closed[way]),
    )


@promise("stepflow.seed")
def test_the_files_of_the_quick_start_work_from_the_command_line_and_in_a_project(folder: Path) -> None:
    payload = json.dumps({"name": "World"})
    show(
        folder,
        console(
            f"""$ pyflue flow run --flow hello-workflow.yaml --input-json '{payload}'
...
  "result": {{
    "message": "Hello, World!"
  }}
...
$ mkdir -p src/workflows && mv hello-workflow.yaml src/workflows/hello.yaml
$ pyflue run hello --payload '{payload}'
run workflow:hello:...
{{
  "message": "Hello, World!"
}}
$ pyflue runs steps $(pyflue runs list | awk 'NR == 2 {{print $1}}')
STEP ...
greet  step  completed ... {{"greeting":"Hello, World!"}}
"""
        ),
    )
