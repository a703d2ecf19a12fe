"""The service as the real ``openai`` SDK sees it: pictures, models, headers, keys and every error of the table."""

import asyncio
import base64
import io
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import openai
import pytest
from PIL import Image

from proxy.pictures.codec import inspect
from proxy.requests.routing import PublicModel
from tests.service import Service, running

pytestmark = pytest.mark.anyio

PRODIA = "prodia/inference.flux-fast.schnell.txt2img.v2"
V1 = "prodia-v1/dreamshaper_8.safetensors [9d40847d]"
LEGACY = "prodia-legacy/dreamshaper_8.safetensors [9d40847d]"
LABS = "imagelabs/sdxl-turbo"
NAMES = {
    "dall-e-2": "prodia",
    PRODIA: "prodia",
    "flux-schnell": "prodia",
    V1: "prodia-v1",
    "prodia-v1/sd_xl_base_1.0.safetensors [be9edd61]": "prodia-v1",
    LEGACY: "prodia-legacy",
    LABS: "imagelabs",
    "sdxl-turbo": "imagelabs",
}
"""Names that a caller may use, and the provider that answers first for each."""

SETUPS: Mapping[str, Mapping[str, Any]] = {
    "plain": {},
    "async": {"providers": {"mode": "async"}},
    "strict": {"server": {"strict_params": True}},
    "small": {"server": {"max_body": 1024}},
    "brief": {"timeouts": {"lifetime": 0.5}, "providers": {"mode": "async"}},
    "keyed": {"environment": {"IMAGES_PROXY_KEYS": "first key,zweiter-schlüssel"}, "server": {"max_per_key": 1}},
    "tokenless": {"environment": {"PRODIA_TOKEN": ""}},
    "single": {"server": {"max_in_flight": 1}},
    "narrow": {"providers": {"max_jobs": 1}, "timeouts": {"hold": 1}},
    "unreachable": {"providers": {"base_url": "http://127.0.0.1:9"}},
    "broken": {},
}
"""Configurations under test; each runs as a service of its own."""

SPEED = 400.0
"""By how much the simulated durations are shortened."""

LOCAL: Mapping[str, Any] = {"trust_env": False, "verify": False}
"""How to build an HTTP client for the loopback: no proxy, and no certificates to load."""

Caller = Callable[[Service, Callable[[Any], Any]], Awaitable[Any]]


@pytest.fixture(scope="module")
async def services() -> AsyncIterator[Mapping[str, Service]]:
    done = asyncio.Event()

    async def keep(setup: Mapping[str, Any], started: asyncio.Future[Service]) -> None:
        async with running(speed=SPEED, **setup) as service:
            started.set_result(service)
            await done.wait()

    loop = asyncio.get_running_loop()
    started = {name: loop.create_future() for name in SETUPS}
    tasks = {name: loop.create_task(keep(setup, started[name])) for name, setup in SETUPS.items()}
    for name, task in tasks.items():
        await asyncio.wait([task, started[name]], return_when=asyncio.FIRST_COMPLETED)
    yield {name: future.result() for name, future in started.items()}
    done.set()
    await asyncio.gather(*tasks.values())


@pytest.fixture
def service(services: Mapping[str, Service]) -> Service:
    return services["plain"]


def client(service: Service, **options: Any) -> openai.OpenAI:
    http = openai.DefaultHttpxClient(**LOCAL)
    values = {"base_url": f"{service.url}/v1", "api_key": "any", "max_retries": 0, "http_client": http}
    return openai.OpenAI(**{**values, **options})


async def by_thread(service: Service, use: Callable[[openai.OpenAI], Any], **options: Any) -> Any:
    """Use the synchronous client in a thread, since the service runs in the test's own event loop."""

    def run() -> Any:
        with client(service, **options) as sdk:
            return use(sdk)

    return await asyncio.to_thread(run)


async def by_loop(service: Service, use: Callable[[openai.AsyncOpenAI], Any], **options: Any) -> Any:
    """Use the asynchronous client."""
    http = openai.DefaultAsyncHttpxClient(**LOCAL)
    values = {"base_url": f"{service.url}/v1", "api_key": "any", "max_retries": 0, "http_client": http}
    async with openai.AsyncOpenAI(**{**values, **options}) as sdk:
        return await use(sdk)


both = pytest.mark.parametrize("call", [by_thread, by_loop], ids=["sync", "async"])


async def picture(service: Service, datum: Any) -> bytes:
    """Return a datum's bytes; it has exactly one of url and b64_json."""
    assert (datum.url is None) != (datum.b64_json is None)
    if datum.b64_json is not None:
        return base64.b64decode(datum.b64_json, validate=True)
    answer = await service.get(datum.url)
    assert answer.status == 200
    assert answer.headers["content-type"] == f"image/{inspect(answer.body).format}"
    return answer.body


async def expect_pictures(service: Service, images: Any, wanted: str = "png") -> list[bytes]:
    """Check that every picture of an answer decodes and is of the type and size it reports; return them."""
    files = [await picture(service, datum) for datum in images.data]
    for file in files:
        facts = inspect(file)
        assert (facts.format, f"{facts.width}x{facts.height}") == (wanted, images.size)
        with Image.open(io.BytesIO(file)) as decoded:
            decoded.load()
    assert images.output_format == wanted
    return files


# --- pictures -------------------------------------------------------------------------------------------------


@both
async def test_dall_e_3_gives_an_address(service: Service, call: Caller) -> None:
    images = await call(
        service,
        lambda sdk: sdk.images.generate(
            model="dall-e-3", prompt="a lighthouse", size="1792x1024", quality="hd", style="vivid"
        ),
    )
    assert images.data[0].url.startswith(f"{service.url}/images/")
    assert images.size == "1792x1024"
    await expect_pictures(service, images)


@both
async def test_gpt_image_1_gives_base64(service: Service, call: Caller) -> None:
    images = await call(
        service,
        lambda sdk: sdk.images.generate(
            model="gpt-image-1", prompt="a lighthouse", size="1536x1024", background="auto", moderation="low"
        ),
    )
    assert images.data[0].b64_json
    await expect_pictures(service, images)
    assert images.usage.total_tokens == images.usage.input_tokens + images.usage.output_tokens


@both
async def test_three_pictures_differ(service: Service, call: Caller) -> None:
    tag = f"three-{call.__name__}"
    images = await call(
        service, lambda sdk: sdk.images.generate(model="dall-e-3", prompt=f"an owl [tag:{tag}]", n=3, size="256x256")
    )
    assert len(set(await expect_pictures(service, images))) == 3
    assert (await service.counts(tag))["submits"] == 3


@pytest.mark.parametrize("form", ["url", "b64_json"])
async def test_a_name_leads_to_its_provider(service: Service, form: Any) -> None:
    async def ask(name: str) -> Any:
        return await by_loop(
            service,
            lambda sdk: sdk.images.with_raw_response.generate(
                model=name, prompt="a heron", size="512x512", response_format=form
            ),
        )

    answers = dict(zip(NAMES, await asyncio.gather(*map(ask, NAMES)), strict=True))
    assert {name: raw.headers["x-images-provider"] for name, raw in answers.items()} == NAMES
    for raw in answers.values():
        images = raw.parse()
        assert getattr(images.data[0], form)
        await expect_pictures(service, images)


async def test_prodia_followed_asynchronously(services: Mapping[str, Service]) -> None:
    """Asked for no type, this interface makes JPEG; base64 is PNG all the same, because clients take it for that."""
    service = services["async"]

    async def make(model: str) -> Any:
        prompt = f"a heron [tag:{model}]"
        return await by_loop(service, lambda sdk: sdk.images.generate(model=model, prompt=prompt, n=2, size="256x256"))

    address, base = await asyncio.gather(make(PRODIA), make("gpt-image-1"))
    assert len(set(await expect_pictures(service, address, "jpeg"))) == 2
    assert len(set(await expect_pictures(service, base))) == 2
    counts = await service.counts("gpt-image-1")
    assert counts["submits"] == 2
    assert counts["polls"] >= 2


async def test_provider_parameters_reach_the_provider(service: Service) -> None:
    """The legacy dialect writes its settings into the picture, as the web user interface behind it did."""
    extra = {
        "negative_prompt": "blurry",
        "num_inference_steps": "12",
        "guidance_scale": 5.5,
        "seed": 77,
        "sampler": "DPM++ SDE Karras",
        "aspect_ratio": "landscape",
    }
    raw = await by_loop(
        service,
        lambda sdk: sdk.images.with_raw_response.generate(
            model=LEGACY, prompt="a heron", response_format="b64_json", extra_body=extra
        ),
    )
    assert "x-images-dropped" not in raw.headers
    file = (await expect_pictures(service, raw.parse()))[0]
    with Image.open(io.BytesIO(file)) as decoded:
        text = decoded.info["parameters"]
    assert "Negative prompt: blurry" in text
    assert "Steps: 12, Sampler: DPM++ SDE Karras, CFG scale: 5.5, Seed: 77, Size: 768x512" in text


async def test_a_seed_repeats_its_picture_and_counts_up(service: Service) -> None:
    async def make(seed: int, n: int) -> list[bytes]:
        images = await by_loop(
            service,
            lambda sdk: sdk.images.generate(
                model=PRODIA, prompt="a heron", n=n, size="256x256", extra_body={"seed": seed}
            ),
        )
        return await expect_pictures(service, images)

    first, second = await make(41, 2), await make(42, 1)
    assert first[1] == second[0]
    assert first[0] != second[0]


@both
async def test_answers_pass_strict_validation(service: Service, call: Any) -> None:
    async def make(model: str) -> Any:
        return await call(
            service,
            lambda sdk: sdk.images.generate(model=model, prompt="a heron", quality="hd", size="auto", style="vivid"),
            _strict_response_validation=True,
        )

    polled = (LABS, LEGACY, V1) if call is by_loop else ()
    answers = await asyncio.gather(*map(make, ("dall-e-3", "gpt-image-1", *polled)))
    assert all(isinstance(images, openai.types.ImagesResponse) for images in answers)
    strict = {"_strict_response_validation": True}
    listed = await call(service, lambda sdk: sdk.models.list(), **strict)
    assert all(isinstance(model, openai.types.Model) for model in listed.data)
    assert isinstance(await call(service, lambda sdk: sdk.models.retrieve(LEGACY), **strict), openai.types.Model)


# --- models and headers ---------------------------------------------------------------------------------------


def retrieval(name: str) -> Callable[[Any], Any]:
    return lambda sdk: sdk.models.retrieve(name)


@both
async def test_every_listed_model_can_be_retrieved(service: Service, call: Caller) -> None:
    listed = {model.id: model for model in (await call(service, lambda sdk: sdk.models.list())).data}
    assert {"dall-e-2", "dall-e-3", "gpt-image-1", "chatgpt-image-latest", PRODIA, V1, LEGACY, LABS} <= listed.keys()
    for name in ("dall-e-3", "chatgpt-image-latest", PRODIA, V1, LEGACY, LABS):
        model = await call(service, retrieval(name))
        assert model == listed[name]
        assert (model.id, model.object) == (name, "model")


async def test_a_raw_response_has_the_headers(service: Service) -> None:
    raw = await by_thread(
        service,
        lambda sdk: sdk.images.with_raw_response.generate(
            model="dall-e-3",
            prompt="a heron",
            size="100x100",
            quality="low",
            extra_body={"tiling": True, "no good": 1},
        ),
    )
    assert raw.status_code == 200
    headers = raw.headers
    assert headers["x-request-id"].startswith("req_")
    assert len(headers["x-request-id"]) == 36
    assert raw.request_id == headers["x-request-id"] == raw.parse()._request_id
    assert headers["openai-processing-ms"].isdigit()
    assert headers["x-images-provider"] == "prodia"
    assert headers["x-images-model"] == "inference.flux-fast.schnell.txt2img.v2"
    assert headers["x-images-mapped"] == "size=100x100->256x256; quality=low->steps 2"
    assert headers["x-images-dropped"] == "tiling, +1 more"
    assert headers["x-images-attempts"] == "1"
    assert "x-images-reattached" not in headers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ({"Authorization": "Bearer another"}, "invalid_api_key"),
        ({"Authorization": "Bearer first key x"}, "invalid_api_key"),
        ({"Authorization": "Bearer first"}, "invalid_api_key"),
        ({"Authorization": "Basic Zmlyc3Qga2V5"}, "invalid_api_key"),
        ({"Authorization": "Bearer"}, None),
        ({"Authorization": openai.omit}, None),
        ({"Authorization": openai.omit, "api-key": "another"}, "invalid_api_key"),
    ],
    ids=["wrong", "longer", "shorter", "basic", "empty", "none", "azure"],
)
async def test_wrong_and_missing_keys(services: Mapping[str, Service], headers: Any, code: str | None) -> None:
    service = services["keyed"]
    uses: list[Callable[[openai.OpenAI], Any]] = [
        lambda sdk: sdk.images.generate(prompt="a heron [tag:locked]", extra_headers=headers),
        lambda sdk: sdk.models.list(extra_headers=headers),
        lambda sdk: sdk.get("/nowhere", cast_to=object, options={"headers": headers}),
        lambda sdk: sdk.get("/images/generations/imggen_0", cast_to=object, options={"headers": headers}),
    ]
    for use in uses:
        with pytest.raises(openai.AuthenticationError) as caught:
            await by_thread(service, use)
        error = caught.value
        assert (error.status_code, error.type, error.code, error.param) == (401, "invalid_request_error", code, None)
        assert error.response.headers["www-authenticate"] == "Bearer"
        assert error.response.headers["x-should-retry"] == "false"
        assert "first" not in str(error)
    assert (await service.counts("locked"))["submits"] == 0


@pytest.mark.parametrize(
    "headers",
    [{"Authorization": "Bearer first key"}, {"Authorization": openai.omit, "api-key": "first key"}],
    ids=["bearer", "azure"],
)
async def test_right_keys(services: Mapping[str, Service], headers: Any) -> None:
    models = await by_thread(services["keyed"], lambda sdk: sdk.models.list(extra_headers=headers))
    assert models.data


@pytest.mark.parametrize("form", ["deployment in the client", "deployment from the model"])
async def test_azure_client(services: Mapping[str, Service], form: str) -> None:
    service = services["keyed"]
    deployment = "gpt-image-1" if form == "deployment in the client" else None

    def use() -> Any:
        http = openai.DefaultHttpxClient(**LOCAL)
        with openai.AzureOpenAI(
            azure_endpoint=service.url,
            api_key="first key",
            api_version="2025-04-01-preview",
            max_retries=0,
            http_client=http,
            azure_deployment=deployment,
        ) as sdk:
            return sdk.images.generate(model="gpt-image-1", prompt="a heron", size="256x256")

    images = await asyncio.to_thread(use)
    assert images.data[0].b64_json
    await expect_pictures(service, images)


@pytest.mark.parametrize("name", [LABS, LEGACY])
async def test_azure_client_with_a_native_name(services: Mapping[str, Service], name: str) -> None:
    """The SDK puts the name into the path and encodes its slash and blank."""
    service = services["plain"]

    def use() -> Any:
        http = openai.DefaultHttpxClient(**LOCAL)
        with openai.AzureOpenAI(
            azure_endpoint=service.url, api_key="any", api_version="2025-04-01", max_retries=0, http_client=http
        ) as sdk:
            return sdk.images.generate(model=name, prompt="a heron", size="512x512")

    await expect_pictures(service, await asyncio.to_thread(use))


# --- the table of errors --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """One way to fail. ``provoke`` is a prompt, the arguments of ``images.generate``, or a use of the client."""

    provoke: str | Mapping[str, Any] | Callable[[openai.OpenAI], Any]
    error: type[openai.APIStatusError]
    status: int
    type: str
    code: str | None
    param: str | None = None
    retry: bool = False
    model: str = "dall-e-3"
    setup: str = "plain"
    options: Mapping[str, Any] = field(default_factory=dict)
    submits: int = 0


BAD, GONE, LIMITED, BROKEN, OTHER = (
    openai.BadRequestError,
    openai.NotFoundError,
    openai.RateLimitError,
    openai.InternalServerError,
    openai.APIStatusError,
)
INVALID, FAILED, SERVER = "invalid_request_error", "image_generation_server_error", "server_error"


def asking(**values: Any) -> Mapping[str, Any]:
    return {"prompt": "a heron", **values}


ROWS: Mapping[str, Row] = {
    # the caller's words
    "not an object": Row(
        lambda sdk: sdk.post("/images/generations", cast_to=object, body=[1]),
        BAD, 400, INVALID, "invalid_json",
    ),
    "prompt missing": Row(
        lambda sdk: sdk.post("/images/generations", cast_to=object, body={"model": "dall-e-3"}),
        BAD, 400, INVALID, "missing_required_parameter", "prompt",
    ),
    "prompt null": Row({"prompt": None}, BAD, 400, INVALID, "missing_required_parameter", "prompt"),
    "prompt empty": Row({"prompt": ""}, BAD, 400, INVALID, "empty_string", "prompt"),
    "prompt too long": Row({"prompt": "x" * 32_001}, BAD, 400, INVALID, "string_above_max_length", "prompt"),
    "prompt too long for the model": Row(
        {"prompt": "x" * 4_097}, BAD, 400, INVALID, "string_above_max_length", "prompt", model=PRODIA
    ),
    "prompt too short for the model": Row(
        {"prompt": "x"}, BAD, 400, INVALID, "string_below_min_length", "prompt", model=PRODIA
    ),
    "wrong type": Row(asking(size=1024), BAD, 400, INVALID, "invalid_type", "size"),
    "n too large": Row(asking(n=11), BAD, 400, INVALID, "integer_above_max_value", "n"),
    "n too small": Row(asking(n=0), BAD, 400, INVALID, "integer_below_min_value", "n"),
    "no such quality": Row(asking(quality="splendid"), BAD, 400, INVALID, "invalid_value", "quality"),
    "malformed size": Row(asking(size="big"), BAD, 400, INVALID, "invalid_value", "size"),
    "size out of range": Row(asking(size="63x64"), BAD, 400, INVALID, "invalid_value", "size"),
    "size too long a strip": Row(asking(size="4096x512"), BAD, 400, INVALID, "invalid_value", "size"),
    "width out of range": Row(
        asking(extra_body={"width": 5000}), BAD, 400, INVALID, "integer_above_max_value", "width"
    ),
    "gif": Row(asking(output_format="gif"), BAD, 400, INVALID, "invalid_value", "output_format"),
    "svg": Row(asking(output_format="svg"), BAD, 400, INVALID, "invalid_value", "output_format"),
    "cannot generate": Row(
        asking(), BAD, 400, INVALID, "invalid_value", "model", model="prodia/inference.flux-2.klein.4b.img2img.v1"
    ),
    "strict, unknown": Row(
        asking(extra_body={"tiling": True}), BAD, 400, INVALID, "unknown_parameter", "tiling", setup="strict"
    ),
    "strict, not honourable": Row(
        asking(moderation="low"), BAD, 400, INVALID, "unknown_parameter", "moderation", setup="strict"
    ),
    # the edge
    "foreign origin": Row(
        asking(), openai.PermissionDeniedError, 403, INVALID, "origin_not_allowed",
        options={"default_headers": {"Origin": "https://example.org"}},
    ),
    "foreign host": Row(
        asking(), openai.PermissionDeniedError, 403, INVALID, "origin_not_allowed",
        options={"default_headers": {"Host": "example.org"}},
    ),
    "unknown model": Row(asking(), GONE, 404, INVALID, "model_not_found", "model", model="dall-e3"),
    "unknown model retrieved": Row(
        lambda sdk: sdk.models.retrieve("no/such model [0]"), GONE, 404, INVALID, "model_not_found", "model"
    ),
    "compressed": Row(
        asking(extra_headers={"Content-Encoding": "gzip"}), OTHER, 415, INVALID, "unsupported_content_encoding"
    ),
    "unknown path": Row(lambda sdk: sdk.post("/embeddings", cast_to=object, body={}), GONE, 404, INVALID, None),
    "wrong method": Row(lambda sdk: sdk.get("/images/generations", cast_to=object), OTHER, 405, INVALID, None),
    "body too large": Row({"prompt": "x" * 2048}, OTHER, 413, INVALID, "request_too_large", setup="small"),
    "headers too large": Row(
        asking(extra_headers={"x-long": "x" * 40_000}), OTHER, 431, INVALID, "headers_too_large"
    ),
    "no token": Row(
        asking(), BROKEN, 503, SERVER, "provider_not_configured", "model", model=PRODIA, setup="tokenless"
    ),
    # what a provider did
    "invalid on v2": Row("[fault:invalid]", BAD, 400, INVALID, "provider_rejected", "steps", model=PRODIA, submits=1,
               options={"extra": {"steps": 2}}),
    "invalid, in detail": Row("[fault:invalid:detail]", BAD, 400, INVALID, "provider_rejected", "steps",
               model=PRODIA, submits=1,
               options={"extra": {"steps": 2}}),
    "invalid on v1": Row("[fault:invalid]", BAD, 400, INVALID, "provider_rejected", model=V1, submits=1),
    "refused content": Row(
        "[fault:unsafe]", BAD, 400, "image_generation_user_error", "content_policy_violation", model=PRODIA, submits=1
    ),
    "no-capacity": Row("[fault:no-capacity]", LIMITED, 429, "rate_limit_error", "provider_busy", retry=True,
               model=PRODIA, submits=1),
    "404": Row("[fault:404]", BROKEN, 503, SERVER, "provider_unavailable", retry=True, model=LEGACY, submits=1),
    "challenge": Row("[fault:challenge]", BROKEN, 503, SERVER, "provider_unavailable", retry=True,
               model=LABS, submits=1),
    "no connection": Row(
        asking(), BROKEN, 503, SERVER, "provider_unavailable", retry=True, model=PRODIA, setup="unreachable"
    ),
    "drop": Row("[fault:drop]", BROKEN, 502, SERVER, "submit_outcome_unknown", model=PRODIA, submits=1),
    "drop of a GET": Row("[fault:drop]", BROKEN, 502, SERVER, "submit_outcome_unknown", model=LEGACY, submits=1),
    "500": Row("[fault:500]", BROKEN, 502, SERVER, "submit_outcome_unknown", model=V1, submits=1),
    "a submit cut off": Row(
        "[fault:cut:submit]", BROKEN, 502, SERVER, "submit_outcome_unknown", model=LABS, submits=1
    ),
    "402": Row("[fault:402]", BROKEN, 502, SERVER, "provider_auth", model=V1, submits=1),
    "401": Row("[fault:401]", BROKEN, 502, SERVER, "provider_auth", model=PRODIA, submits=1),
    "no picture on v2": Row("[fault:no-picture]", BROKEN, 502, SERVER, "provider_bad_response",
               model=PRODIA, submits=1),
    "not-json": Row("[fault:not-json]", BROKEN, 502, SERVER, "provider_bad_response", model=LABS, submits=1),
    "failed on legacy": Row("[fault:failed]", BROKEN, 502, FAILED, "image_generation_failed", model=LEGACY, submits=1),
    "failed on imagelabs": Row("[fault:failed]", BROKEN, 502, FAILED, "image_generation_failed", model=LABS, submits=1),
    "failed": Row("[fault:failed]", BROKEN, 502, FAILED, "image_generation_failed", model=PRODIA, submits=1,
                  setup="async"),
    "gone": Row("[fault:gone]", BROKEN, 502, FAILED, "job_lost", model=PRODIA, submits=1, setup="async"),
    "no picture, async": Row("[fault:no-picture]", BROKEN, 502, SERVER, "provider_bad_response",
               model=PRODIA, submits=1, setup="async"),
    "no picture on imagelabs": Row("[fault:no-picture]", BROKEN, 502, SERVER, "provider_bad_response",
               model=LABS, submits=1),
    "no picture on v1": Row("[fault:no-picture]", BROKEN, 502, SERVER, "provider_bad_response", model=V1, submits=1),
    "expired": Row("[fault:expired:tiny]", BROKEN, 502, FAILED, "provider_bad_result", model=LEGACY, submits=1,
              options={"extra": {"response_format": "b64_json"}}),
    "a foreign address": Row(
        "[fault:bad-url:https://example.org/x.png]", BROKEN, 502, FAILED, "provider_bad_result", model=LABS, submits=1
    ),
    "stuck": Row(
        "[fault:stuck]", BROKEN, 504, "timeout_error", "generation_pending", retry=True, model=LEGACY, submits=1,
        options={"timeout": 3.0},
    ),
    "stuck past its lifetime": Row(
        "[fault:stuck]", BROKEN, 504, "timeout_error", "generation_timeout", model=V1, submits=1, setup="brief"
    ),
}  # fmt: skip


def provocation(row: Row, tag: str) -> tuple[Callable[[openai.OpenAI], Any], dict[str, Any]]:
    """Return what to do with the client, and the client's options."""
    options = dict(row.options)
    extra = options.pop("extra", {})
    if callable(row.provoke):
        return row.provoke, options
    values: dict[str, Any] = dict(
        asking(prompt=f"a heron {row.provoke}") if isinstance(row.provoke, str) else row.provoke
    )
    if values["prompt"] and len(values["prompt"]) < 1000 and "heron" in values["prompt"]:
        values["prompt"] += f" [tag:{tag}]"
    values.update(extra if "response_format" in extra else {"extra_body": extra} if extra else {})
    return lambda sdk: sdk.images.generate(model=row.model, **values), options


def check(error: openai.APIStatusError, row: Row) -> None:
    """Compare an error with its row of the table, and with what holds for all."""
    assert type(error) is row.error
    assert (error.status_code, error.type, error.code, error.param) == (row.status, row.type, row.code, row.param)
    body: Any = error.body
    assert body.keys() == {"message", "type", "param", "code"}
    assert len(body["message"]) > 10
    assert body["message"] in str(error)
    headers = error.response.headers
    assert headers["content-type"] == "application/json"
    assert headers["x-should-retry"] == str(row.retry).lower()
    assert error.request_id == headers["x-request-id"]
    assert ("retry-after" in headers) is row.retry
    if row.retry:
        assert 1 <= int(headers["retry-after"]) <= 30


async def provoke(service: Service, row: Row, tag: str, call: Any) -> openai.APIStatusError | None:
    use, options = provocation(row, tag)
    try:
        await call(service, use, **options)
    except openai.APIStatusError as error:
        return error
    return None


@pytest.fixture(scope="module")
async def patience(services: Mapping[str, Service]) -> asyncio.Task[Any]:
    """Wait less than the job takes, and repeat: each retry re-attaches. Begun early, because it takes its time."""
    prompt = "a heron [seconds:1.2] [tag:patient]"
    call = by_loop(
        services["plain"],
        lambda sdk: sdk.images.generate(model=LABS, prompt=prompt, size="256x256"),
        timeout=3.0,
        max_retries=2,
    )
    return asyncio.create_task(call)


@pytest.fixture(scope="module")
async def outcomes(
    services: Mapping[str, Service],
    patience: asyncio.Task[Any],  # noqa: ARG001 (begins at the same time)
) -> Mapping[str, openai.APIStatusError | None]:
    """Have every row of the table happen, all at the same time, since several take their time."""
    errors = (provoke(services[row.setup], row, tag_of(name), by_loop) for name, row in ROWS.items())
    return dict(zip(ROWS, await asyncio.gather(*errors), strict=True))


def tag_of(name: str) -> str:
    return name.replace(" ", "-")


@pytest.mark.parametrize("name", ROWS)
async def test_a_failure_arrives_as_the_right_exception(
    services: Mapping[str, Service], outcomes: Mapping[str, openai.APIStatusError | None], name: str
) -> None:
    row, error = ROWS[name], outcomes[name]
    assert error is not None
    check(error, row)
    assert (await services[row.setup].counts(tag_of(name)))["submits"] == row.submits
    if row.submits:
        assert error.response.headers["x-images-attempts"] == "1"


@pytest.mark.parametrize("name", [name for name, row in ROWS.items() if not row.submits])
async def test_the_synchronous_client_raises_the_same(services: Mapping[str, Service], name: str) -> None:
    error = await provoke(services[ROWS[name].setup], ROWS[name], "sync", by_thread)
    assert error is not None
    check(error, ROWS[name])


async def test_an_unforeseen_failure_is_an_internal_error(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = service.engine.routing.resolve

    def fail(name: str) -> PublicModel:
        if name != "unforeseen":  # others are being served meanwhile
            return resolve(name)
        raise RuntimeError("secret detail")

    monkeypatch.setattr(service.engine.routing, "resolve", fail)
    row = Row("", BROKEN, 500, SERVER, "internal_error")
    with pytest.raises(openai.InternalServerError) as caught:
        await by_thread(service, lambda sdk: sdk.images.generate(model="unforeseen", prompt="a heron"))
    check(caught.value, row)
    assert "secret" not in str(caught.value)


OVERLOADED = Row("", BROKEN, 503, "service_unavailable_error", "server_is_overloaded", retry=True)


@pytest.mark.parametrize(
    ("setup", "key", "row", "timeout_s"),
    [
        ("single", "any", OVERLOADED, 10.0),
        ("keyed", "first key", Row("", LIMITED, 429, "rate_limit_error", "rate_limit_exceeded", retry=True), 10.0),
        ("narrow", "any", OVERLOADED, 3.0),
    ],
    ids=["process full", "key at its limit", "no slot within the hold"],
)
async def test_what_there_is_no_room_for(
    services: Mapping[str, Service], setup: str, key: str, row: Row, timeout_s: float
) -> None:
    service = services[setup]
    prompt = "a slow heron [seconds:30]"
    slow = asyncio.create_task(
        by_loop(service, lambda sdk: sdk.images.generate(model=LABS, prompt=prompt), api_key=key)
    )
    async with asyncio.timeout(5):
        while not any(generation.submitted and not generation.done for generation in service.engine.generations):  # noqa: ASYNC110
            await asyncio.sleep(0.01)  # what happens inside the service is announced to nobody outside
    with pytest.raises(openai.APIStatusError) as caught:
        await by_loop(
            service,
            lambda sdk: sdk.images.generate(model=LABS, prompt="another heron [tag:late]"),
            api_key=key,
            timeout=timeout_s,
        )
    slow.cancel()
    await asyncio.wait([slow])
    check(caught.value, row)
    assert (await service.counts("late"))["submits"] == 0


async def test_a_failing_provider_is_left_alone(services: Mapping[str, Service]) -> None:
    service = services["broken"]
    for _ in range(5):
        with pytest.raises(openai.InternalServerError):
            await by_loop(service, lambda sdk: sdk.images.generate(model=LABS, prompt="a heron [fault:drop]"))
    with pytest.raises(openai.InternalServerError) as caught:
        await by_loop(service, lambda sdk: sdk.images.generate(model=LABS, prompt="a heron [tag:open]"))
    check(caught.value, OVERLOADED)
    assert (await service.counts("open"))["submits"] == 0


async def test_a_draining_service_takes_nothing_new() -> None:
    async with running(speed=SPEED) as service:
        service.engine.drain(5.0)
        with pytest.raises(openai.InternalServerError) as caught:
            await by_loop(service, lambda sdk: sdk.images.generate(model="dall-e-3", prompt="a heron [tag:drain]"))
        check(caught.value, OVERLOADED)
        assert (await service.counts("drain"))["submits"] == 0
        assert (await service.get("/readyz")).status == 503
        assert (await service.get("/healthz")).status == 200


async def test_the_sdk_repeats_what_may_be_repeated_and_gets_one_picture(
    service: Service, patience: asyncio.Task[Any]
) -> None:
    await expect_pictures(service, await patience)
    assert (await service.counts("patient"))["submits"] == 1
