"""Components that ask the runtime for something: to keep values, and to run flows."""

from __future__ import annotations

import msgspec

from pyflue.stepflow import BlobType, FlowBuilder, StepflowContext, StepflowStdioServer, Value

server = StepflowStdioServer()


class Report(msgspec.Struct):
    lines: list[str]


@server.component
async def archive(report: Report, context: StepflowContext) -> dict:
    """Keep a report as a blob; equal reports have equal ids."""
    blob_id = await context.put_blob({"lines": report.lines})
    return {"blob_id": blob_id, "step": context.step_id}


@server.component
async def summarize(given: dict, context: StepflowContext) -> dict:
    """Number the lines of an archived report, with a flow for each of them."""
    report = await context.get_blob(given["blob_id"])
    builder = FlowBuilder("number a line")
    line = builder.add_step(id="line", component="/noop", input_data={"text": Value.input("text")})
    builder.set_output({"number": Value.input("number"), "text": line.text})
    flow_id = await context.put_blob(builder.build(), BlobType.flow)
    inputs = [{"number": number, "text": text} for number, text in enumerate(report["lines"], start=1)]
    return {"lines": await context.evaluate_run_by_id(flow_id, inputs)}


if __name__ == "__main__":
    server.run()
