"""Every failure that a caller can see: one tree, and one function that writes it for the API and the connection.

Failure
├── InvalidRequest          400  what the caller sent: JSON, type, value, size, content encoding …
│   ├── UnknownModel        404    ModelNotAllowed     403    PriceUnknown        400
│   ├── OriginNotAllowed    403    AdminOnly           403
│   ├── NotAuthenticated    401
│   ├── NotFound            404  an unknown path, generation, picture or key
│   ├── NameTaken           409
│   └── MethodNotAllowed …  405 · 413 · 431 · 408 · 415 · 422 · 501
├── Overloaded              503  this process is full, draining, or no slot came free
├── StateUnavailable        503  what must be kept cannot be written, so nothing was sent
├── RateLimited             429  this key is over its pace
├── SpendLimitReached       429  a budget of this key or its owner is used up
│   └── ServiceSpendLimitReached 429  the whole service's
├── NotConfigured           503  the model has no usable route
├── ProviderFailure              what a provider did; says whether anything was started there
│   ├── ProviderBusy        429    ProviderUnavailable 503    ProviderAuth 502
│   ├── ProviderRejected    400    ContentRefused      400
│   ├── SubmitOutcomeUnknown 502   ProviderBadResponse 502
│   └── GenerationFailed    502    JobLost 502    ProviderBadResult 502    GenerationTimeout 504
├── GenerationPending       504  the hold is over and the job still runs
└── InternalError           500

Statuses, types and codes are those of docs/errors.md; a test compares the two. Messages are ours, never a provider's.
"""

import json
import math
from typing import Any, ClassVar, Self

_SHORTEST_RETRY_S, _LONGEST_RETRY_S = 1, 30  # OpenAI's SDK for Python ignores a Retry-After of more than 60 s


class Failure(Exception):
    """A failure with an OpenAI-shaped envelope.

    ``retry_after`` is in seconds. ``should_retry`` becomes the header ``x-should-retry``, which the OpenAI SDKs
    obey before they look at the status.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = "internal_error"
    param: str | None = None
    should_retry: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after: float | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param or self.param
        self.code = code or self.code
        self.retry_after = retry_after
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return OpenAI's envelope; all four keys are always there."""
        return {"error": {"message": self.message, "type": self.type, "param": self.param, "code": self.code}}

    def unraised(self) -> Self:
        """Return an equal failure that was never raised: to be kept, or raised for one of many callers.

        A raised one holds the frames that it passed, and they hold the request's pictures. Only an internal error
        keeps its cause.
        """
        # Without the constructor, since subclasses have constructors of their own.
        equal = type(self).__new__(type(self), *self.args)
        equal.__dict__.update(self.__dict__)
        equal.__cause__ = self.__cause__ if self.status == InternalError.status else None
        return equal


def write(failure: Failure) -> tuple[dict[str, str], bytes]:
    """Return the headers and the body of the answer that reports ``failure``; its status is the failure's own.

    Retry-After is 1 to 30 whole seconds, and always there when the call should be repeated.
    """
    # In ASCII: a message may quote the caller's words, lone surrogates included, which UTF-8 cannot hold.
    body = json.dumps(failure.body()).encode()
    headers = {"content-type": "application/json", "content-length": str(len(body)), **failure.headers}
    headers["x-should-retry"] = "true" if failure.should_retry else "false"
    if failure.retry_after is not None:
        seconds = max(_SHORTEST_RETRY_S, min(_LONGEST_RETRY_S, math.ceil(failure.retry_after)))
        headers["retry-after"] = str(seconds)
    elif failure.should_retry:
        headers["retry-after"] = str(_SHORTEST_RETRY_S)
    return headers, body


class InternalError(Failure):
    """Anything unforeseen."""

    def __init__(self) -> None:
        super().__init__("The service met an error of its own. The request id helps its operator to find it.")


# --- the caller's request -----------------------------------------------------------------------------------------


class InvalidRequest(Failure):
    """The request cannot be served as it is, and a repeat would not help."""

    status = 400
    type = "invalid_request_error"
    code: str | None = "invalid_value"


class InvalidJson(InvalidRequest):
    """The body is not a JSON object."""

    code = "invalid_json"


class NotAuthenticated(InvalidRequest):
    """No key (``code`` null) or a wrong one (``invalid_api_key``)."""

    status = 401
    code = None

    def __init__(self, message: str, *, code: str | None = None) -> None:
        super().__init__(message, code=code, headers={"www-authenticate": "Bearer"})


class OriginNotAllowed(InvalidRequest):
    """A foreign Origin or Host on a service without keys."""

    status = 403
    code = "origin_not_allowed"


class UnknownModel(InvalidRequest):
    """The model's name is known neither to the configuration nor to a provider."""

    status = 404
    code = "model_not_found"
    param = "model"


class ModelNotAllowed(InvalidRequest):
    """The key may not use this model."""

    status = 403
    code = "model_not_found"
    param = "model"


class PriceUnknown(InvalidRequest):
    """A budget in dollars holds, and no route is left whose price is known."""

    code = "price_unknown"
    param = "model"


class AdminOnly(InvalidRequest):
    """A plain key where the admin key is needed."""

    status = 403
    code = None


class NotFound(InvalidRequest):
    """An unknown path, generation, picture or key."""

    status = 404
    code = None


class NameTaken(InvalidRequest):
    """Another key has this name."""

    status = 409
    code = None


class MethodNotAllowed(InvalidRequest):
    """A known path with another method; the ``Allow`` header names the right ones."""

    status = 405
    code = None


class RequestTimeout(InvalidRequest):
    """The request arrived too slowly."""

    status = 408
    code = "request_timeout"


class RequestTooLarge(InvalidRequest):
    """The body is over its limit."""

    status = 413
    code = "request_too_large"


class UnsupportedContentEncoding(InvalidRequest):
    """A compressed request body."""

    status = 415
    code = "unsupported_content_encoding"


class UnknownCoding(InvalidRequest):
    """A ``Transfer-Encoding`` other than ``chunked``."""

    status = 501
    code = None


class AmbiguousTarget(InvalidRequest):
    """The request target names another authority than the ``Host`` header."""

    code = None


class IdempotencyKeyReused(InvalidRequest):
    """The same ``Idempotency-Key`` with another body."""

    status = 422
    code = "idempotency_key_reused"


class HeadersTooLarge(InvalidRequest):
    """The request's line or headers are over their limit."""

    status = 431
    code = "headers_too_large"


# --- this service -------------------------------------------------------------------------------------------------


class RateLimited(Failure):
    """One key sends or holds too many requests."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    should_retry = True


class SpendLimitReached(Failure):
    """A budget of the key, of its owner or of an end user leaves no room; nothing was sent."""

    status = 429
    type = "insufficient_quota"
    code = "project_spend_limit_exceeded"


class ServiceSpendLimitReached(SpendLimitReached):
    """The whole service's budget leaves no room; nothing was sent."""

    code = "organization_spend_limit_exceeded"


class Overloaded(Failure):
    """This process is full or draining, no slot came free, or all breakers are open; nothing was sent, unless its
    headers name a generation that a stop leaves behind."""

    status = 503
    type = "service_unavailable_error"
    code = "server_is_overloaded"
    should_retry = True


class StateUnavailable(Failure):
    """The picture store cannot be written, and a file will be needed. Nothing was sent."""

    status = 503
    code = "state_unavailable"
    should_retry = True


class NotConfigured(Failure):
    """The model is known, but none of its providers can be used (no token set)."""

    status = 503
    code = "provider_not_configured"


class GenerationPending(Failure):
    """The hold is over while the job goes on; an equal retry joins its generation."""

    status = 504
    type = "timeout_error"
    code = "generation_pending"
    should_retry = True


# --- providers ----------------------------------------------------------------------------------------------------


class ProviderFailure(Failure):
    """What went wrong at a provider.

    ``nothing_started``: the provider provably began (and will bill) nothing, so another route may be tried.
    ``blames_provider``: the failure counts against the provider's circuit breaker.
    """

    status = 502
    nothing_started: ClassVar[bool] = False
    blames_provider: ClassVar[bool] = True


class ProviderBusy(ProviderFailure):
    """An explicit refusal for lack of capacity (429, 503)."""

    status = 429
    type = "rate_limit_error"
    code = "provider_busy"
    should_retry = True
    nothing_started = True
    blames_provider = False


class ProviderUnavailable(ProviderFailure):
    """The provider could not be reached and nothing was sent, or its front end turned the call away."""

    status = 503
    code = "provider_unavailable"
    should_retry = True
    nothing_started = True


class ProviderAuth(ProviderFailure):
    """The provider refused the service's own credentials or plan."""

    code = "provider_auth"
    nothing_started = True
    blames_provider = False


class ProviderRejected(ProviderFailure):
    """The provider refused the parameters."""

    status = 400
    type = "invalid_request_error"
    code = "provider_rejected"
    nothing_started = True
    blames_provider = False


class ContentRefused(ProviderFailure):
    """The provider refused the content. No other provider is tried then."""

    status = 400
    type = "image_generation_user_error"
    code = "content_policy_violation"
    blames_provider = False


class SubmitOutcomeUnknown(ProviderFailure):
    """The submit went out and no readable answer came back: a picture may have been bought."""

    code = "submit_outcome_unknown"


class ProviderBadResponse(ProviderFailure):
    """The provider's answer makes no sense."""

    code = "provider_bad_response"


class GenerationFailed(ProviderFailure):
    """The provider reports the job as failed."""

    type = "image_generation_server_error"
    code = "image_generation_failed"
    blames_provider = False


class JobLost(ProviderFailure):
    """The provider no longer knows the job."""

    type = "image_generation_server_error"
    code = "job_lost"


class ProviderBadResult(ProviderFailure):
    """The job is done, but its picture cannot be used."""

    type = "image_generation_server_error"
    code = "provider_bad_result"


class GenerationTimeout(ProviderFailure):
    """The job outlived ``timeouts.lifetime``."""

    status = 504
    type = "timeout_error"
    code = "generation_timeout"
