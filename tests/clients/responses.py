"""Clients of the Responses API: OpenAI's Agents SDK, LangChain's ChatOpenAI, openai-image-mcp.

Run as ``python -m tests.clients.responses OPEN KEYED FOLDER``. Each is imported inside its check, so that one that
cannot be imported fails alone.
"""

import asyncio
import importlib
import json
import os
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pydantic

from tests.clients.checks import KEY, Client, decoded, fetched

OPEN, KEYED, FOLDER = sys.argv[1:4]
os.environ.update(OPENAI_API_KEY=KEY, OPENAI_BASE_URL=f"{KEYED}/v1", OPENAI_AGENTS_DISABLE_TRACING="1")
TOOL = {"type": "image_generation", "quality": "low", "size": "1024x1024"}


def is_png(name: str) -> bool:
    """Whether a file that a client has written is a PNG."""
    return Path(FOLDER, name).read_bytes().startswith(b"\x89PNG")


def markdown(text: str) -> str:
    """Return the address in a message."""
    assert text.startswith("![image](")
    return text.removeprefix("![image](").removesuffix(")")


async def agents() -> None:
    """The Agents SDK calls its model again until there is a message: one turn must do."""
    us = Client("openai-agents", metadata.version("openai-agents"), OPEN, KEYED)
    sdk: Any = importlib.import_module("agents")
    painter = sdk.Agent(name="painter", instructions="You paint.", tools=[sdk.ImageGenerationTool(tool_config=TOOL)])

    def calls(done: Any) -> list[Any]:
        made = [item.raw_item for item in done.new_items if item.type == "tool_call_item"]
        assert [decoded(call.result).format for call in made] == ["PNG"]
        return made

    with us.check("the default model with ImageGenerationTool"):
        first = await sdk.Runner.run(painter, "a lighthouse")
        assert calls(first)[0].action == "generate"
        assert len(first.raw_responses) == 1
        assert first.context_wrapper.usage.total_tokens > 0
    with us.check("follow-ups: the whole history, previous_response_id"):
        history = [*first.to_input_list(), {"role": "user", "content": "make it red"}]
        assert calls(await sdk.Runner.run(painter, history))[0].action == "edit"
        second = await sdk.Runner.run(painter, "make it red", previous_response_id=first.last_response_id)
        assert calls(second)[0].action == "edit"
    with us.check("run_streamed"):
        run = sdk.Runner.run_streamed(painter, "a boat")
        kinds = [event.data.type async for event in run.stream_events() if event.type == "raw_response_event"]
        assert kinds[0] == "response.created"
        assert kinds[-1] == "response.completed"
        assert len(calls(run)) == 1
    with us.check("an agent with a model of ours and no tool"):
        done = await sdk.Runner.run(sdk.Agent(name="plain", model="dall-e-3"), "a lighthouse")
        assert fetched(markdown(done.final_output)).format == "PNG"
    with us.check("an agent that wants JSON is answered, and buys nothing"):
        report = pydantic.create_model("Report", title=(str, ...))
        done = await sdk.Runner.run(sdk.Agent(name="j", tools=painter.tools, output_type=report), "a lighthouse")
        assert [item.type for item in done.new_items] == ["message_output_item"]
        assert done.final_output.title


def langchain() -> None:
    """ChatOpenAI keeps the picture as a block of the message, and sends it back on the next turn."""
    us = Client("langchain-openai", metadata.version("langchain-openai"), OPEN, KEYED)
    module: Any = importlib.import_module("langchain_openai")

    def pictures(message: Any) -> list[Any]:
        made = [block for block in message.content if block["type"] == "image_generation_call"]
        assert [decoded(block["result"]).format for block in made] == ["PNG"]
        return made

    with us.check("ChatOpenAI(use_responses_api): a model of ours"):
        message = module.ChatOpenAI(model="dall-e-3", use_responses_api=True).invoke("a cat")
        assert fetched(markdown(message.text if isinstance(message.text, str) else message.text())).format == "PNG"
        assert pictures(message)
        assert message.usage_metadata["total_tokens"] > 0
    painter = module.ChatOpenAI(model="gpt-5", use_responses_api=True).bind_tools([TOOL])
    with us.check("ChatOpenAI(use_responses_api): the image tool, a follow-up"):
        message = painter.invoke("a cat")
        assert pictures(message)[0]["action"] == "generate"
        again = painter.invoke([("user", "a cat"), message, ("user", "make it black")])
        assert pictures(again)[0]["action"] == "edit"
    with us.check("ChatOpenAI(use_responses_api): stream"):
        whole: Any = None
        for chunk in painter.stream("a hat"):
            whole = chunk if whole is None else whole + chunk
        assert pictures(whole)


async def image_mcp() -> None:
    """An MCP server that speaks the Responses API, driven by MCP's own client."""
    us = Client("openai-image-mcp", metadata.version("openai-image-mcp"), OPEN, KEYED)
    mcp: Any = importlib.import_module("mcp")
    stdio: Any = importlib.import_module("mcp.client.stdio")
    server = mcp.StdioServerParameters(
        command=str(Path(sys.executable).with_name("openai-image-mcp")), cwd=FOLDER, env=dict(os.environ)
    )

    async with stdio.stdio_client(server) as streams, mcp.ClientSession(*streams) as session:
        await session.initialize()

        async def call(name: str, **values: Any) -> Any:
            answer = await session.call_tool(name, values)
            told = json.loads(answer.content[0].text)
            assert told["success"], told
            return told

        with us.check("a session: generate, edit by the item's id"):
            opened = (await call("create_image_session", description="a logo"))["session_id"]
            first = await call("generate_image_in_session", session_id=opened, prompt="a lighthouse", quality="low")
            assert is_png(first["image_path"])
            second = await call("generate_image_in_session", session_id=opened, prompt="make it red")
            assert second["image_generation_id"] != first["image_generation_id"]
        with us.check("edit_image: a file as a data URL"):
            made = await call("edit_image", image_path=str(Path(FOLDER, "image.png")), prompt="a red hat")
            assert is_png(made["image_path"])


if __name__ == "__main__":
    asyncio.run(agents())
    langchain()
    asyncio.run(image_mcp())
