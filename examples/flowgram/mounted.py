"""FlowGram's HTTP API inside of another ASGI application: `uvicorn examples.flowgram.mounted:app --port 4000`."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.routing import Mount

import pyflue.flowgram as fg

# FastAPI mounts it in the same way: app.mount("/_flowgram", fg.create_app())
app = Starlette(routes=[Mount("/_flowgram", fg.create_app(fg.ServerConfig(title="My graphs")))])
