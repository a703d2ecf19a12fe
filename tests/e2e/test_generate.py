import pytest

from proxy.pictures.codec import inspect
from tests.service import running

pytestmark = pytest.mark.anyio


async def test_a_picture_is_made_stored_and_served() -> None:
    async with running() as service:
        answer = await service.generate("a lighthouse [tag:one]", size="1024x1024")
        assert answer.status == 200
        assert list(answer.json["data"][0]) == ["url"]
        picture = await service.get(answer.json["data"][0]["url"])
        assert picture.headers["content-type"] == "image/png"
        assert inspect(picture.body).width == 1024
        assert (await service.counts("one"))["submits"] == 1
