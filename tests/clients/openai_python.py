"""The official Python SDK, releases 1 to 3. Run as ``python -m tests.clients.openai_python OPEN KEYED``."""

import asyncio
import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import openai

from tests.clients.checks import KEY, Client, decoded, fetched, mask, picture, raised

MAJOR = int(openai.__version__.partition(".")[0])
LABS = "imagelabs/sdxl-turbo"
US = Client("openai-python", openai.__version__, *sys.argv[1:3])
SDK = openai.OpenAI(base_url=f"{US.open}/v1", api_key="none")


def refused(kind: type[openai.APIError], **values: Any) -> Any:
    """Return the error that a generation raises."""
    return raised(kind, lambda: SDK.images.generate(**{"prompt": "a lighthouse", **values}))


def generate() -> None:
    """Generate with every form of answer."""
    with US.check("generate: url"):
        made = SDK.images.generate(
            prompt="a lighthouse", model="dall-e-3", size="1792x1024", quality="hd", style="vivid"
        )
        assert made.data is not None
        assert made.data[0].b64_json is None
        width, height = fetched(made.data[0].url).size
        assert abs(width / height - 1.75) < 0.05
    with US.check("generate: b64_json, n=2, usage, strict validation"):
        strict = openai.OpenAI(base_url=f"{US.open}/v1", api_key="none", _strict_response_validation=True)
        made = strict.images.generate(prompt="two boats", model="gpt-image-1", n=2, size="1024x1024")
        assert made.data is not None
        assert len({decoded(image.b64_json).tobytes() for image in made.data}) == 2
        assert made.size == "1024x1024"
        assert made.usage is not None
        assert made.usage.total_tokens == made.usage.input_tokens + made.usage.output_tokens
        assert made._request_id is not None
    with US.check("generate: extra_body, nulls, jpeg"):
        values: dict[str, Any] = {"prompt": "a seed", "model": "gpt-image-1", "n": None, "user": None}
        values |= {"extra_body": {"seed": 7, "steps": 2, "negative_prompt": "fog"}, "output_format": "jpeg"}
        pictures = [decoded(SDK.images.generate(**values).data[0].b64_json) for _ in range(2)]
        assert pictures[0].format == "JPEG"
        assert pictures[0].tobytes() == pictures[1].tobytes()
    with US.check("raw and streaming responses"):
        raw = SDK.images.with_raw_response.generate(prompt="raw", model="dall-e-2", size="256x256")
        assert raw.headers["x-request-id"].startswith("req_")
        assert raw.headers["x-images-attempts"] == "1"
        assert raw.parse().data is not None
        with SDK.images.with_streaming_response.generate(prompt="raw", model="dall-e-2", size="256x256") as response:
            assert json.loads(response.read())["data"][0]["url"]
    with US.check("models: list, retrieve"):
        names = [model.id for model in SDK.models.list()]
        assert {"dall-e-3", "gpt-image-1", LABS} <= set(names)
        assert SDK.models.retrieve(LABS).id == LABS


def stream() -> None:
    """Stream a generation."""
    with US.check("generate: stream, partial_images"):
        values: dict[str, Any] = {"prompt": "a slow tide [seconds:1.5]", "model": LABS, "stream": True}
        *previews, last = list(SDK.images.generate(**values, partial_images=2))
        assert last.type == "image_generation.completed"
        assert decoded(last.b64_json).size == tuple(int(side) for side in last.size.split("x"))
        assert last.usage.total_tokens > 0
        assert 1 <= len(previews) <= 2
        assert [preview.partial_image_index for preview in previews] == list(range(len(previews)))
        assert all(decoded(preview.b64_json) for preview in previews)
    with US.check("generate: stream, refused before it begins"):
        error = refused(openai.BadRequestError, model="gpt-image-1", stream=True, n=2)
        assert error.param == "n"


def edit() -> None:
    """Edit pictures in every way that they can be given."""
    values: dict[str, Any] = {"prompt": "a red hat", "model": "gpt-image-1"}

    def edited(**more: Any) -> Any:
        return decoded(SDK.images.edit(**{**values, **more}).data[0].b64_json)

    with US.check("edit: bytes, file, list"):
        assert edited(image=picture()).size
        assert edited(image=io.BytesIO(picture())).size
        assert edited(image=[picture(), ("second.png", picture(), "image/png")]).size
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            file.write(picture())
            file.flush()
            file.seek(0)
            assert edited(image=file.file).size
            assert edited(image=Path(file.name)).size
    with US.check("edit: mask, n, size"):
        made = SDK.images.edit(**values, image=picture(), mask=mask(), n=2, size="1024x1024")
        assert made.data is not None
        assert len([decoded(image.b64_json) for image in made.data]) == 2
    with US.check("edit: stream"):
        events: list[Any] = list(SDK.images.edit(**values, image=picture(), stream=True))
        assert [event.type for event in events] == ["image_edit.completed"]
        assert decoded(events[0].b64_json).format == "PNG"
    with US.check("edit: what is no picture"):
        error = raised(openai.BadRequestError, lambda: SDK.images.edit(**values, image=b"no picture"))
        assert error.code == "invalid_image_file"
    with US.check("variation"):
        variations: Any = SDK.images
        made = variations.create_variation(image=picture(), model="dall-e-2", response_format="b64_json")
        assert made.data is not None
        assert decoded(made.data[0].b64_json).format == "PNG"


def fail() -> None:
    """Fail in every way that has its own exception."""
    with US.check("errors: their classes, codes and messages"):
        assert refused(openai.NotFoundError, model="nonesuch").code == "model_not_found"
        bad_size = refused(openai.BadRequestError, size="1x1")
        assert (bad_size.param, bad_size.code) == ("size", "invalid_value")
        assert "size" in str(bad_size)
        nsfw = refused(openai.BadRequestError, prompt="nude [fault:unsafe]")
        assert nsfw.code == "content_policy_violation"
        failed = refused(openai.InternalServerError, prompt="broken [fault:failed]", model=LABS)
        assert (failed.status_code, failed.code) == (502, "image_generation_failed")
        assert failed.response.headers["x-should-retry"] == "false"
        assert failed.request_id.startswith("req_")
    with US.check("errors: no key, wrong key"):
        for key in ("wrong", "sk-" + "x" * 40):
            stranger = openai.OpenAI(base_url=f"{US.keyed}/v1", api_key=key)
            error = raised(openai.AuthenticationError, stranger.models.list)
            assert error.code == "invalid_api_key"
            assert key not in str(error)


async def concurrently() -> None:
    """Use the asynchronous client."""
    async with openai.AsyncOpenAI(base_url=f"{US.open}/v1", api_key="none") as sdk:
        with US.check("async: generate in parallel, stream, edit"):
            calls = [sdk.images.generate(prompt="the same", model="gpt-image-1", size="256x256") for _ in range(3)]
            made = await asyncio.gather(*calls)
            assert len({decoded(answer.data[0].b64_json).tobytes() for answer in made if answer.data}) == 3
            values: dict[str, Any] = {"prompt": "a tide", "model": "gpt-image-1", "stream": True}
            events = [event async for event in await sdk.images.generate(**values)]
            assert [event.type for event in events] == ["image_generation.completed"]
            answer = await sdk.images.edit(prompt="a hat", model="gpt-image-1", image=[picture(), picture()])
            assert answer.data is not None
            assert decoded(answer.data[0].b64_json).format == "PNG"


def chat() -> None:
    """Chat, as a frontend would that knows nothing else."""
    talk: Any = [{"role": "user", "content": "a windmill"}]
    with US.check("chat: whole and streamed"):
        completion = SDK.chat.completions.create(model="dall-e-3", messages=talk)
        content = completion.choices[0].message.content or ""
        assert fetched(content.removeprefix("![image](").removesuffix(")")).format == "PNG"
        options: Any = {"include_usage": True}
        chunks = list(SDK.chat.completions.create(model="dall-e-3", messages=talk, stream=True, stream_options=options))
        assert "![image](" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        assert chunks[-1].usage is not None


def respond() -> None:
    """Use the Responses API, whose types are the schema of every answer and event."""
    tool: Any = {"type": "image_generation", "size": "1024x1024", "partial_images": 1}
    values: dict[str, Any] = {"model": "gpt-5", "tools": [tool]}
    strict = openai.OpenAI(base_url=f"{US.keyed}/v1", api_key=KEY, _strict_response_validation=MAJOR > 2)

    def picture_of(response: Any) -> Any:
        call = response.output[0]
        assert (call.type, call.status) == ("image_generation_call", "completed")
        assert decoded(call.result).size == (1024, 1024)
        return call

    with US.check("responses: create, retrieve, previous_response_id, delete"):
        first = strict.responses.create(input="a lighthouse", **values)
        call = picture_of(first)
        assert picture_of(strict.responses.retrieve(first.id)).result == call.result
        second = strict.responses.create(input="make it red", previous_response_id=first.id, **values)
        picture_of(second)
        item: Any = {"type": "image_generation_call", "id": call.id}
        picture_of(strict.responses.create(input=[item, {"role": "user", "content": "make it red"}], **values))
        strict.responses.delete(first.id)
        raised(openai.NotFoundError, lambda: strict.responses.retrieve(first.id))
    with US.check("responses: create with stream, responses.stream"):
        events: list[Any] = list(strict.responses.create(input="a tide", stream=True, **values))
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert (events[0].type, events[-1].type) == ("response.created", "response.completed")
        picture_of(events[-1].response)
        with strict.responses.stream(input="a tide", **values) as stream:
            assert len(list(stream)) > 10
            picture_of(stream.get_final_response())
    with US.check("responses: background, cancel"):
        waiting = strict.responses.create(input="a tide", background=True, **values)
        while waiting.status in ("queued", "in_progress"):
            time.sleep(0.05)
            waiting = strict.responses.retrieve(waiting.id)
        picture_of(waiting)
        slow = strict.responses.create(input="a tide [seconds:9]", background=True, **values)
        assert strict.responses.cancel(slow.id).status == "cancelled"
    with US.check("responses: a model of ours without a tool, errors"):
        text = strict.responses.create(model="dall-e-3", input="a lighthouse").output_text
        assert fetched(text.removeprefix("![image](").removesuffix(")")).format == "PNG"
        error = raised(openai.NotFoundError, lambda: strict.responses.create(model="gpt-5", input="a lighthouse"))
        assert error.code == "model_not_found"
        error = raised(openai.BadRequestError, lambda: strict.responses.create(input="[fault:unsafe] x", **values))
        assert error.code == "content_policy_violation"


def azure() -> None:
    """Use the Azure class: the model in the path, the key in ``api-key``."""
    with US.check("Azure class: generate, edit"):
        sdk = openai.AzureOpenAI(azure_endpoint=US.keyed, api_key=KEY, api_version="2025-04-01-preview")
        made = sdk.images.generate(prompt="from Azure", model="gpt-image-1")
        assert made.data is not None
        assert decoded(made.data[0].b64_json).format == "PNG"
        made = sdk.images.edit(prompt="from Azure", model="gpt-image-1", image=picture())
        assert made.data is not None
        assert decoded(made.data[0].b64_json).format == "PNG"


def module_client() -> None:
    """Use the module as a client, whose base URL lacks the slash and so glues path to version."""
    if MAJOR < 3:
        with US.check("module client, /v1images"):
            module: Any = openai
            module.base_url, module.api_key = f"{US.keyed}/v1", KEY
            assert fetched(module.images.generate(prompt="from the module").data[0].url).format == "PNG"


def command_line(program: Path) -> None:
    """Use the command that came with release 1, which glues in the same way and names no model."""
    with US.check("command line: images.generate, edit, create_variation"), tempfile.TemporaryDirectory() as folder:
        image = Path(folder, "image.png")
        image.write_bytes(picture())
        for arguments in (
            ["images.generate", "-p", "from a shell", "-n", "2"],
            ["images.edit", "-I", str(image), "-p", "from a shell"],
            ["images.create_variation", "-I", str(image)],
        ):
            command = [str(program), "-b", f"{US.keyed}/v1", "-k", KEY, "api", *arguments]
            done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
            assert done.returncode == 0, done.stderr
            assert [fetched(made["url"]).format for made in json.loads(done.stdout)["data"]]


if __name__ == "__main__":
    generate()
    stream()
    edit()
    fail()
    asyncio.run(concurrently())
    chat()
    respond()
    azure()
    module_client()
    if (PROGRAM := Path(sys.executable).with_name("openai")).exists():
        command_line(PROGRAM)
