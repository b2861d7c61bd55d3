"""Lists the demo's workloads and puts a query into the request body that its caller would send."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from demo.grammar import clauses, exceptions, invoices, routing
from demo.grammar.sampling import Workload

WORKLOADS: Mapping[str, Workload] = {
    workload.name: workload for workload in (routing.WORKLOAD, exceptions.WORKLOAD, clauses.WORKLOAD, invoices.WORKLOAD)
}


DIALECTS = ("openai", "anthropic")
_MODELS = {workload.dialect: workload.model for workload in WORKLOADS.values()}


def speak(workload: Workload, *, dialects: Sequence[str] = DIALECTS, model: str = "") -> Workload:
    """The workload as it is put to a provider that speaks these dialects, and knows this model if one is named."""
    dialect = workload.dialect if workload.dialect in dialects else dialects[0]
    own = workload.model if dialect == workload.dialect else _MODELS[dialect]
    return replace(workload, dialect=dialect, model=model or own)


def build_body(workload: Workload, *, query: str, stream: bool = False) -> dict[str, object]:
    """The request body of a call, in the workload's dialect, as the official SDKs would send it."""
    content = workload.template.format(query=query)
    build = _build_openai if workload.dialect == "openai" else _build_anthropic
    body = build(workload, content)
    if stream:
        body["stream"] = True
        if workload.dialect == "openai":
            body["stream_options"] = {"include_usage": True}
    return body


def unwrap_query(workload: Workload, content: str) -> str:
    """The query inside a user message, or the whole message where it does not follow the workload's template."""
    before, after = workload.template.split("{query}")
    if content.startswith(before) and content.endswith(after):
        return content[len(before) : len(content) - len(after)]
    return content


def _build_openai(workload: Workload, content: str) -> dict[str, object]:
    body: dict[str, object] = {
        "model": workload.model,
        "messages": [{"role": "system", "content": workload.system}, {"role": "user", "content": content}],
        "max_tokens": workload.max_tokens,
        "temperature": 0,
    }
    if workload.tool is not None:
        name, description, schema = workload.tool
        function = {"name": name, "description": description, "parameters": schema}
        body["tools"] = [{"type": "function", "function": function}]
        body["tool_choice"] = {"type": "function", "function": {"name": name}}
    return body


def _build_anthropic(workload: Workload, content: str) -> dict[str, object]:
    body: dict[str, object] = {
        "model": workload.model,
        "system": workload.system,
        "messages": [{"role": "user", "content": content}],
        "max_tokens": workload.max_tokens,
    }
    if workload.tool is not None:
        name, description, schema = workload.tool
        body["tools"] = [{"name": name, "description": description, "input_schema": schema}]
        body["tool_choice"] = {"type": "tool", "name": name}
    return body
