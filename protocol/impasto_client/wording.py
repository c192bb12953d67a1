"""What an editor says of jobs, models and values, in words."""

from __future__ import annotations

from typing import Any, Mapping, Optional

from .events import ConnectionChanged, ParametersRead, PlanResult, ServerCatalog
from .jobs import JobState

__all__ = [
    "describe",
    "describe_connection",
    "describe_model",
    "describe_plan",
    "describe_reading",
    "job_title",
    "pretty",
    "seconds_in_words",
]

STAGES = {"load": "Loading the model", "text": "Reading the prompt", "encode": "Looking at the picture"}
STAGES.update({"denoise": "Painting", "decode": "Finishing", "compose": "Finishing", "upscale": "Scaling up"})

NOTES = 3
"""What could not be taken over from a picture is told so many times."""
DEEDS = {"txt2img": "New picture", "img2img": "Refining", "inpaint": "Inpainting", "sketch": "Sketch"}
DEEDS.update({"upscale": "Upscaling", "refine": "Refining in tiles", "faceswap": "Swapping faces", "annotate": "Hint"})

TITLES = {"philox": "Philox", "torch-cpu": "Torch CPU", "unipc": "UniPC", "ddim_cfgpp": "DDIM CFG++"}
TITLES.update({"sgm_uniform": "SGM Uniform", "kl_optimal": "KL Optimal", "align_your_steps": "Align Your Steps"})
TITLES.update({"dpm_fast": "DPM fast"})
TITLES.update({"dpm_adaptive": "DPM adaptive", "dpmpp_2m_sde_heun": "DPM++ 2M SDE Heun"})

_LETTERS = ("dpm++", "dpm2", "2m", "2s", "3m", "sde", "ddim", "plms", "lms", "lcm", "sgm", "kl")
"""Parts of names that are written in capitals."""


def describe(job: JobState) -> str:
    """The text on the progress bar."""
    if job.state == "waiting":
        return "Waiting for the server"
    if job.state == "uploading":
        return "Sending the picture"
    if job.state == "queued":
        return f"Waiting for {job.position} jobs" if job.position > 1 else "Waiting for its turn"
    if job.state == "fetching":
        return "Fetching the picture"
    stage = STAGES.get(job.stage) or (job.stage[:1].upper() + job.stage[1:]) or "Working"
    return f"{stage}: step {job.step} of {job.steps}" if job.steps > 1 else stage


def job_title(job: JobState) -> str:
    """What a job is called in a list of jobs: its words, or what it does."""
    words = " ".join(job.title.split())
    if not words:
        return DEEDS.get(job.mode, pretty(job.mode))
    return words if len(words) <= 32 else words[:31].rstrip() + "…"


def describe_plan(plan: PlanResult) -> str:
    """What to expect of a job before it is started."""
    size = f"{plan.working.width} × {plan.working.height} pixels"
    return f"About {seconds_in_words(plan.seconds)}, at {size}." if plan.seconds is not None else f"At {size}."


def describe_reading(read: ParametersRead) -> str:
    """What was taken over from a picture, and what of it could not be."""
    told = [note.message for note in read.notes if note.kind in ("unsupported", "unknown", "missing", "changed")]
    more = [f"And {len(told) - NOTES} more."] if len(told) > NOTES else []
    by = f" by {read.source}" if read.source else ""
    return " ".join([f"Took the settings of a picture{by}.", *told[:NOTES], *more])


def seconds_in_words(seconds: float) -> str:
    """A time as people say it: rounded, since it is an estimate."""
    if seconds < 1.5:
        return "a second"
    if seconds < 90:
        return f"{round(seconds)} seconds" if seconds < 20 else f"{5 * round(seconds / 5)} seconds"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} minutes"
    return f"{seconds / 3600:.1f} hours"


def describe_connection(connection: ConnectionChanged, catalog: Optional[ServerCatalog]) -> str:
    """The line about the server; what it runs on is known once its catalogue says so."""
    texts = {"idle": "Not connected", "starting": "Starting the server…", "connecting": "Connecting…"}
    if connection.state == "connected":
        name = connection.server.split(" (")[0] or "Connected"
        device = catalog.device if catalog is not None and catalog.device != "starting" else ""
        place = f" at {connection.place}" if connection.place else ""
        return (name[:1].upper() + name[1:]) + place + (f" on {device}" if device else "")
    return texts.get(connection.state) or connection.message or "No connection to the server."


def describe_model(entry: Mapping[str, Any]) -> str:
    """What a model is, or why it cannot be used."""
    if not entry.get("usable", True):
        return str(entry.get("reason") or "This model cannot be used.")
    text = ", ".join(str(entry[key]) for key in ("id", "family", "variant") if entry.get(key))
    return f"{text}; inpaints with {entry['partner']}" if entry.get("partner") else text


def pretty(value: str) -> str:
    """A name of the wire as a painter reads it; names of newer servers come out readable too."""
    if value in TITLES:
        return TITLES[value]
    words = value.replace("dpmpp", "dpm++").split("_")
    text = " ".join(word.upper() if word in _LETTERS else word for word in words)
    return text[:1].upper() + text[1:]
