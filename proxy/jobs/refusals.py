"""What a provider's non-2xx status means: the same for every dialect, since all of them speak HTTP."""

import re

from proxy.errors import (
    ContentRefused,
    ProviderAuth,
    ProviderBadResponse,
    ProviderBusy,
    ProviderFailure,
    ProviderRejected,
    ProviderUnavailable,
    SubmitOutcomeUnknown,
)
from proxy.providers.boundary import Job, Provider, Reply, StartsEitherWay, failed_job

# The pages of Cloudflare and CloudFront that come instead of the provider's own answer.
_CHALLENGE = re.compile(rb"Just a moment\.\.\.|Attention Required! \| Cloudflare|cf-(?:please-wait|spinner)|cloudfront")
_SHAPE_WORDS = {"resolution": "size", "upscale": "size"}
"""Words that a job has only because of its shape; callers know them as ``size``."""
_WORDS = ("prompt", "width", "height", "seed", "size", "image", "mask")


class OnlyAtOnce(ProviderRejected):
    """The provider refuses to give this model's jobs a handle; nothing was started, and they can be made without."""


def is_challenge(reply: Reply) -> bool:
    """Whether a front end, and not the provider, turned the call away."""
    return reply.content_type == "text/html" and bool(_CHALLENGE.search(reply.body[:8192]))


def refused_submit(provider: Provider, name: str, job: Job, reply: Reply) -> ProviderFailure:
    """Return the failure that a non-2xx answer to a submit stands for. ``name`` is the provider's configured name."""
    status = reply.status
    # First of all: a front end's 403 is no word about the key, and its 429 none about the provider's own limits.
    if is_challenge(reply) and status in (403, 429, 503):
        return ProviderUnavailable(f"The front door of the provider '{name}' turned the call away.")
    # Both say that the call was not handled (RFC 6585, 4; RFC 9110, 15.6.4), so nothing was started.
    if status in (429, 503):
        return ProviderBusy(f"The provider '{name}' is busy.", retry_after=reply.retry_after)
    if status in (401, 402, 403):
        message = f"The provider '{name}' refused this service's own credentials; its operator has to mend them."
        return ProviderAuth(message)
    if status in (404, 405, 410):
        return ProviderUnavailable(f"The provider '{name}' no longer answers at its address.")
    if 400 <= status < 500:
        if job.durable and isinstance(provider, StartsEitherWay) and provider.only_at_once(reply):
            return OnlyAtOnce(f"The provider '{name}' makes this model's pictures in one call only.")
        return _rejected(provider.refusal(reply), name, job)
    # Any other 5xx may come from a gateway that has lost the answer of a server still at work (RFC 9110, 15.6.5).
    if status >= 500:
        message = f"The provider '{name}' failed on the call; whether it made a picture is unknown."
        return SubmitOutcomeUnknown(message)
    return ProviderBadResponse(f"The provider '{name}' answered with an unexpected status.")


def _rejected(reason: str, name: str, job: Job) -> ContentRefused | ProviderRejected:
    failure = failed_job(reason)
    if isinstance(failure, ContentRefused):
        return failure
    # The provider's text itself is never passed on: it may quote the prompt.
    words = {job.model.wire.get(word, word): _SHAPE_WORDS.get(word, word) for word in (*job.settings, *_WORDS)}
    param = next((own for word, own in words.items() if re.search(rf"\b{re.escape(word)}\b", reason)), None)
    detail = f" It names '{param}'." if param else ""
    return ProviderRejected(f"The provider '{name}' refused the parameters.{detail}", param=param)
