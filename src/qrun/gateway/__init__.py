"""The HTTP front: OpenAI's routes over an engine that only qrun can reach.

What a client sends is checked before the engine sees it, what the engine answers passes as bytes, and whatever goes
wrong is told in OpenAI's envelope (docs/http-api.md). An application is made by `qrun.gateway.app.make_app`.
"""
