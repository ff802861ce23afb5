"""Sphinx extension: leave out the scripts of sphinx-thebe, which Jupyter Book loads twice and this book does not use.

Twice loaded, they declare a constant a second time, and every page complained of it in its console.
"""

from __future__ import annotations


def leave_out(app, page: str, template: str, context: dict, doctree) -> None:
    """Keep the scripts of a page that are not thebe's."""
    context["script_files"] = [script for script in context.get("script_files", []) if not _is_thebe(script)]


def _is_thebe(script) -> bool:
    body = (getattr(script, "attributes", None) or {}).get("body") or ""
    return "sphinx-thebe" in str(getattr(script, "filename", script)) or "THEBE_JS_URL" in body


def setup(app) -> dict:
    """Sphinx calls this."""
    app.connect("html-page-context", leave_out, priority=900)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
