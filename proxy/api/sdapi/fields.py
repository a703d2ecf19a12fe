"""Automatic1111's parameters in our words, and what becomes of those that mean nothing here."""

from typing import Any

from proxy.errors import InvalidRequest
from proxy.requests.image_request import MAX_SIDE, MIN_SIDE

CHECKPOINT = "sd_model_checkpoint"
"""Automatic1111's name for the model, among its options and in ``override_settings``."""
SHOWN = ("prompt", "negative_prompt", "steps", "cfg_scale", "seed", "width", "height", "denoising_strength")
"""What an answer repeats of its request."""
_COPIED = SHOWN[:-1]
_TRANSLATED = frozenset({"model", "sampler_name", "sampler_index", "batch_size", "n_iter"})
_OF_IMG2IMG = frozenset({"init_images", "mask", "inpainting_mask_invert", "denoising_strength"})
_WITHOUT_EFFECT = frozenset(
    {
        # https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/processing.py
        *("styles", "subseed", "subseed_strength", "seed_resize_from_h", "seed_resize_from_w", "seed_enable_extras"),
        *("scheduler", "restore_faces", "tiling", "do_not_save_samples", "do_not_save_grid", "eta"),
        *("denoising_strength", "s_min_uncond", "s_churn", "s_tmax", "s_tmin", "s_noise", "ddim_discretize"),
        *("override_settings", "override_settings_restore_afterwards", "refiner_checkpoint", "refiner_switch_at"),
        *("token_merging_ratio", "token_merging_ratio_hr", "disable_extra_networks", "firstpass_image", "comments"),
        *("extra_generation_params", "overlay_images", "do_not_reload_embeddings", "prompt_for_display"),
        *("enable_hr", "firstphase_width", "firstphase_height", "hr_scale", "hr_upscaler", "hr_second_pass_steps"),
        *("hr_resize_x", "hr_resize_y", "hr_checkpoint_name", "hr_sampler_name", "hr_scheduler"),
        *("hr_prompt", "hr_negative_prompt", "resize_mode", "image_cfg_scale", "mask_blur", "mask_blur_x"),
        *("mask_blur_y", "mask_round", "inpainting_fill", "inpaint_full_res", "inpaint_full_res_padding"),
        *("inpainting_mask_invert", "initial_noise_multiplier", "latent_mask", "include_init_images"),
        # https://github.com/AUTOMATIC1111/stable-diffusion-webui/blob/master/modules/api/models.py
        *("script_name", "script_args", "send_images", "save_images", "alwayson_scripts", "force_task_id"),
        *("infotext", "init_images", "mask"),
        # Its forks', and what SillyTavern adds for its own server.
        *("clip_skip", "distilled_cfg_scale", "hr_cfg", "hr_distilled_cfg", "hr_additional_modules", "url", "auth"),
    }
)
"""Known, and reported as dropped where they ask for something, but never refused: every client sends some dozen."""
_MAX_COUNT = 10


def translate(asked: dict[str, Any], model: str | None, *, edit: bool = False) -> dict[str, Any]:
    """Return a request in our words. ``model``: the one that is meant where it names none. Raises InvalidRequest."""
    values = {name: asked[name] for name in _COPIED if name in asked}
    # Automatic1111's own way of choosing a model for one call.
    checkpoint = _overridden(asked).get(CHECKPOINT)
    values["model"] = asked.get("model") or checkpoint or model
    values["sampler"] = asked.get("sampler_name") or asked.get("sampler_index")
    values["n"] = _count(asked, "batch_size") * _count(asked, "n_iter")
    values["response_format"] = "b64_json"
    if edit:  # without a picture it belongs to the second pass of "hires fix", which nobody here makes
        values["strength"] = asked.get("denoising_strength")
    for side in ("width", "height"):
        if isinstance(values.get(side), int):
            # Automatic1111 takes any size, so one out of range is moved into it and not refused.
            values[side] = min(MAX_SIDE, max(MIN_SIDE, values[side]))
    return values


def ignored(asked: dict[str, Any], *, strict: bool, edit: bool = False) -> list[str]:
    """Return the names of given parameters that are not read. ``strict``: others than Automatic1111's are refused.

    Raises InvalidRequest.
    """
    read = {*_COPIED, *_TRANSLATED, *(_OF_IMG2IMG if edit else ())}
    names = [name for name, value in asked.items() if name not in read and _asks(value)]
    stranger = next((name for name in names if name not in _WITHOUT_EFFECT), None)
    if strict and stranger is not None:
        name = stranger[:64]
        raise InvalidRequest(f"Unknown parameter: '{name}'.", param=name, code="unknown_parameter")
    inner = _overridden(asked)
    if inner:
        names.remove("override_settings")
    return names + [f"override_settings.{name}" for name, value in inner.items() if name != CHECKPOINT and _asks(value)]


def _asks(value: Any) -> bool:
    """Whether a value asks for anything: clients also send what is switched off or empty."""
    return value is not None and value is not False and value not in ("", [], {})


def _overridden(asked: dict[str, Any]) -> dict[str, Any]:
    override = asked.get("override_settings")
    return override if isinstance(override, dict) else {}


def _count(asked: dict[str, Any], name: str) -> int:
    value = asked.get(name)
    if value is None:
        return 1
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MAX_COUNT:
        raise InvalidRequest(f"Invalid '{name}': expected a whole number from 1 to 10.", param=name)
    return value
