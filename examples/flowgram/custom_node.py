"""A node of one's own: a class with a type and `execute`."""

from __future__ import annotations

import asyncio

import pyflue.flowgram as fg

SCHEMA = {
    "nodes": [
        {
            "id": "start_0",
            "type": "start",
            "data": {"outputs": {"type": "object", "properties": {"text": {"type": "string"}}}},
        },
        {
            "id": "mood",
            "type": "sentiment",
            "data": {
                "inputs": {"type": "object", "properties": {"text": {"type": "string"}}},
                "inputsValues": {"text": {"type": "ref", "content": ["start_0", "text"]}},
                "outputs": {"type": "object", "properties": {"score": {"type": "number"}}},
            },
        },
        {
            "id": "end_0",
            "type": "end",
            "data": {
                "inputs": {"type": "object", "properties": {"score": {"type": "number"}}},
                "inputsValues": {"score": {"type": "ref", "content": ["mood", "score"]}},
            },
        },
    ],
    "edges": [
        {"sourceNodeID": "start_0", "targetNodeID": "mood"},
        {"sourceNodeID": "mood", "targetNodeID": "end_0"},
    ],
}


class SentimentNode(fg.INodeExecutor):
    type = "sentiment"

    async def execute(self, ctx: fg.ExecutionContext) -> fg.ExecutionResult:
        words = ctx.inputs.get("text", "").split()
        return fg.ExecutionResult(outputs={"score": words.count("good") / max(1, len(words))})


async def main() -> None:
    fg.register_executor(SentimentNode())
    print(await fg.run(SCHEMA, inputs={"text": "good good day sunshine"}))


if __name__ == "__main__":
    asyncio.run(main())
