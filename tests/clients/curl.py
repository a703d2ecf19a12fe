"""curl, with and without headers. Run as ``python -m tests.clients.curl OPEN KEYED FOLDER``, which holds pictures."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.clients.checks import KEY, Client, decoded, fetched

CHECKED = '{"model": "gpt-image-1", "prompt": "a lighthouse", "size": "512x512"}'


def curl(*arguments: str) -> str:
    """Return what curl prints; its exit status must be 0."""
    command = ["curl", "-sS", "--max-time", "60", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def first(answer: str) -> dict[str, str]:
    """Return the first picture of an answer."""
    value: dict[str, Any] = json.loads(answer)
    data: dict[str, str] = value["data"][0]
    return data


def main() -> None:
    """Run the checks."""
    version = curl("--version").split()[1]
    us = Client("curl", version, *sys.argv[1:3])
    folder = Path(sys.argv[3])
    image, covered = folder / "image.png", folder / "mask.png"
    images = f"{us.open}/v1/images"
    with us.check("-d without any header"):
        assert decoded(first(curl(f"{images}/generations", "-d", CHECKED))["b64_json"]).size == (512, 512)
    with us.check("-H content type and key"):
        headers = ["-H", "Content-Type: application/json", "-H", f"Authorization: Bearer {KEY}"]
        answer = curl(f"{us.keyed}/v1/images/generations", *headers, "-d", '{"prompt": "a lighthouse"}')
        assert fetched(first(answer)["url"]).format == "PNG"
    with us.check("an empty content type, Expect: 100-continue"):
        answer = curl(f"{images}/generations", "-H", "Content-Type:", "-H", "Expect: 100-continue", "-d", CHECKED)
        assert decoded(first(answer)["b64_json"]).format == "PNG"
    with us.check("-F edits: image, image[], mask"):
        fields = ["-F", "model=gpt-image-1", "-F", "prompt=a red hat"]
        answer = curl(f"{images}/edits", *fields, "-F", f"image=@{image}", "-F", f"mask=@{covered}")
        assert decoded(first(answer)["b64_json"]).format == "PNG"
        answer = curl(f"{images}/edits", *fields, "-F", f"image[]=@{image}", "-F", f"image[]=@{image};type=text/plain")
        assert decoded(first(answer)["b64_json"]).format == "PNG"
    with us.check("-N streaming"):
        text = curl("-N", f"{images}/generations", "-d", CHECKED.replace("}", ', "stream": true}'))
        name, _, data = text.partition("\n")
        assert name == "event: image_generation.completed"
        assert text.endswith("\n\n")
        assert decoded(json.loads(data.removeprefix("data: "))["b64_json"]).format == "PNG"
    with us.check("errors: 401, 404, 405, -f exits with 22"):
        status = ["-o", "/dev/null", "-w", "%{http_code} %{content_type}"]
        assert curl(*status, f"{us.keyed}/v1/models") == "401 application/json"
        assert curl(*status, f"{us.open}/v1/nowhere") == "404 application/json"
        assert curl(*status, f"{images}/generations") == "405 application/json"
        done = subprocess.run(["curl", "-sf", f"{us.open}/v1/nowhere"], check=False, timeout=60, capture_output=True)
        assert done.returncode == 22
    with us.check("-I a picture"):
        address = first(curl(f"{images}/generations", "-d", CHECKED.replace("gpt-image-1", "dall-e-3")))["url"]
        assert "content-type: image/png" in curl("-I", address).lower()


if __name__ == "__main__":
    main()
