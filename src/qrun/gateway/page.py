"""The page at `/`, for people: what is served here and how to call it. Plain HTML; it loads and runs nothing."""

from html import escape

from qrun.gateway.served_names import ServedModel
from qrun.units import size

__all__ = ["PAGE_HEADERS", "page_for"]

PAGE_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'",
    "Cache-Control": "no-store",
}

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{id} - qrun</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 46em; margin: 3em auto; padding: 0 1em }}
:root {{ color-scheme: light dark }}
pre {{ padding: 1em; overflow-x: auto; border: 1px solid #8888; border-radius: 6px }}
td {{ padding-right: 1.5em }}
</style>
<h1>{id}</h1>
<p>{state}</p>
<table>
{rows}
</table>
<h2>Call it</h2>
<pre>curl {endpoint}/chat/completions \\
  -H 'Content-Type: application/json' \\{key_header}
  -d '{{"messages": [{{"role": "user", "content": "Hello"}}]}}'</pre>
<pre>from openai import OpenAI

client = OpenAI(base_url="{endpoint}", api_key="{key}")
stream = client.chat.completions.create(
    model="{id}",
    messages=[{{"role": "user", "content": "Hello"}}],
    stream=True,
)
for chunk in stream:
    if chunk.choices:
        print(chunk.choices[0].delta.content or "", end="", flush=True)</pre>
<p>Also here: {endpoint}/models, /health, /metrics.</p>
</html>
"""
_KEY_HEADER = "\n  -H 'Authorization: Bearer KEY' \\"


def page_for(served: ServedModel, *, endpoint: str, is_ready: bool, needs_key: bool) -> str:
    """The page. `endpoint` is the base address as this reader wrote it."""
    rows = "\n".join(f"<tr><td>{name}</td><td>{escape(value)}</td></tr>" for name, value in _rows(served))
    return _PAGE.format(
        id=escape(served.id),
        state="Ready." if is_ready else "The model is loading.",
        rows=rows,
        endpoint=escape(endpoint),
        key_header=_KEY_HEADER if needs_key else "",
        key="KEY" if needs_key else "none",
    )


def _rows(served: ServedModel) -> list[tuple[str, str]]:
    rows = [
        ("Endpoint for OpenAI clients", "this address with /v1"),
        ("Names", ", ".join(served.names)),
        ("Base model", served.base_model),
        ("Files", " ".join(filter(None, (served.repo_id, served.quant)))),
        ("Size", size(served.size_bytes) if served.size_bytes is not None else ""),
        ("Context of a request", f"{served.n_ctx} tokens"),
        ("Requests at once", str(served.n_parallel)),
        ("Engine", served.engine or ""),
    ]
    return [(name, value) for name, value in rows if value]
