"""A first workflow: the name of this file is its name, `run` is what it does."""

from pydantic import BaseModel, Field

from pyflue import FlueContext


class Greeting(BaseModel):
    """What to say, and to whom."""

    name: str = Field(min_length=1, description="Whom to greet.")
    times: int = Field(default=1, ge=1, le=100, description="How often.")


async def run(ctx: FlueContext[Greeting]) -> dict[str, object]:
    """Greet somebody, once or more often."""
    lines: list[str] = []
    for number in range(ctx.payload.times):
        lines.append(f"Hello, {ctx.payload.name}!")
        ctx.progress((number + 1) / ctx.payload.times, f"greeting {number + 1}")
    ctx.log.info("greeted", name=ctx.payload.name)
    return {"greeting": " ".join(lines), "run_id": ctx.id}
