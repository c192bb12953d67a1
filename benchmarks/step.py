"""Our denoise loop over the bare network: a guided step of Stable Diffusion 1.5 at 512 x 512.

    python3 dev.py exec -- python benchmarks/step.py [--rounds 5] [--steps 3] [--precision fp32|bf16|fp16]
                                                     [--device cpu] [--sampler dpmpp_2m] [--threads 1]

One UNet of full size with random weights, called in turns by three: bare (diffusers' own attention processors, a batch
of two rows, nothing else), our loop (our processors, noise levels, guidance, sampler), and diffusers'
StableDiffusionPipeline as it comes (PNDM, which looks once more than it has steps). Each is timed per call of the
network, on the wall and by the processor. Prints medians over the rounds as JSON, and the median of the ratios of each
round to its bare calls; also what our loop costs outside the network. The first round does not count. On a machine that
does other work, and with one thread, the processor time is the one to believe: it leaves out what others took.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from diffusers import AutoencoderKL, PNDMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from impasto_server.engine.conditioning import Conditioning
from impasto_server.engine.denoise import Denoiser
from impasto_server.engine.noise import NoiseSource, noise_for_batch
from impasto_server.engine.samplers import SAMPLERS
from impasto_server.engine.schedule import known_timesteps, scaled_linear, sigmas

LATENT, WIDTH, CFG = 64, 768, 7.0
PRECISIONS = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
BETAS = dict(num_train_timesteps=1000, beta_start=0.00085, beta_end=0.012, beta_schedule="scaled_linear")


def networks(device: torch.device, dtype: torch.dtype) -> tuple[Any, Any]:
    """Two UNets over the same weights, so that each keeps its own attention processors."""
    torch.manual_seed(0)
    config = dict(cross_attention_dim=WIDTH, attention_head_dim=8, sample_size=LATENT)
    with torch.device("meta"):
        pair = UNet2DConditionModel(**config), UNet2DConditionModel(**config)
    # A dependable spread; what the numbers are matters little, but they must not become huge or denormal.
    weights = {
        name: torch.randn(p.shape, dtype=dtype, device=device) * (0.02 if p.ndim > 1 else 0.0) + float(p.ndim == 1)
        for name, p in pair[0].state_dict().items()
    }
    for one in pair:
        one.load_state_dict(weights, assign=True)
        one.eval().requires_grad_(False)
    return pair


def now() -> tuple[float, float]:
    """Seconds on the wall and of the processor."""
    return time.perf_counter(), time.process_time()


class Calls:
    """How often a network was called, and the seconds inside: on the wall and of the processor."""

    def __init__(self, network: Any, finish: Callable[[], None]) -> None:
        self.reset()
        forward = network.forward

        def timed(*args: Any, **kwargs: Any) -> Any:
            start = now()
            result = forward(*args, **kwargs)
            finish()
            self.count += 1
            self.inside = tuple(i + end - begin for i, end, begin in zip(self.inside, now(), start, strict=True))
            return result

        network.forward = timed

    def reset(self) -> None:
        self.count, self.inside = 0, (0.0, 0.0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--precision", default="fp32", choices=tuple(PRECISIONS))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--sampler", default="dpmpp_2m", choices=tuple(SAMPLERS))
    parser.add_argument("--threads", type=int, default=0, help="of torch; 0 leaves its own choice")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    device, dtype = torch.device(args.device), PRECISIONS[args.precision]
    finish = torch.cuda.synchronize if device.type == "cuda" else lambda: None
    own, bare = networks(device, dtype)
    positive, negative = torch.randn(1, 77, WIDTH), torch.randn(1, 77, WIDTH)
    table = scaled_linear()
    levels = sigmas(table, "automatic", args.sampler, args.steps)
    x = torch.randn(1, 4, LATENT, LATENT, device=device)
    both, tokens = torch.cat([x, x]).to(dtype), torch.cat([negative, positive]).to(device, dtype)
    timesteps = [table.timestep(level).to(device) for level in levels[:-1]]
    pipeline = StableDiffusionPipeline(
        vae=AutoencoderKL(block_out_channels=(32,) * 4, down_block_types=("DownEncoderBlock2D",) * 4,
                          up_block_types=("UpDecoderBlock2D",) * 4, norm_num_groups=8),
        unet=bare, scheduler=PNDMScheduler(**BETAS, skip_prk_steps=True, steps_offset=1), text_encoder=None,
        tokenizer=None, safety_checker=None, feature_extractor=None, requires_safety_checker=False,
    )  # fmt: skip
    pipeline.set_progress_bar_config(disable=True)
    pipeline.to(device)

    def by_itself() -> None:
        for timestep in timesteps:
            bare(both, timestep, tokens, return_dict=False)

    def by_us() -> None:
        denoiser = Denoiser(
            network=own,
            prediction="epsilon",
            positive=(Conditioning(positive),),
            negative=(Conditioning(negative),),
            cfg=CFG,
            sigmas=levels,
            timestep_of=known_timesteps(table, levels, device),
        )
        with denoiser.attached():
            noise = noise_for_batch([NoiseSource("philox", 1)])
            SAMPLERS[args.sampler][0](denoiser, x * levels[0], levels, noise, lambda index, denoised: None)

    def by_diffusers() -> None:
        pipeline(
            prompt_embeds=positive.to(device, dtype),
            negative_prompt_embeds=negative.to(device, dtype),
            num_inference_steps=args.steps,
            guidance_scale=CFG,
            latents=x.to(dtype),
            output_type="latent",
        )

    calls = {"own": Calls(own, finish), "bare": Calls(bare, finish)}
    ways = {"bare": (by_itself, "bare"), "ours": (by_us, "own"), "diffusers": (by_diffusers, "bare")}
    spent: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    outside: dict[str, list[tuple[float, ...]]] = {name: [] for name in ways}
    with torch.inference_mode():
        for index in range(args.rounds + 1):
            for name in list(ways)[index % 3 :] + list(ways)[: index % 3]:
                run, network = ways[name]
                calls[network].reset()
                finish()
                start = now()
                run()
                finish()
                whole = tuple(end - begin for end, begin in zip(now(), start, strict=True))
                counted = calls[network]
                if index:
                    spent[name].append(tuple(time / counted.count for time in whole))
                    outside[name].append(
                        tuple((time - inner) / counted.count for time, inner in zip(whole, counted.inside, strict=True))
                    )
    figures: dict[str, Any] = {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
        "precision": args.precision,
        "threads": torch.get_num_threads(),
        "sampler": args.sampler,
        "rounds": args.rounds,
        "calls a round": args.steps,
    }
    for name in ways:
        figures[name] = {
            clock: {
                "ms a call": round(1000 * statistics.median(times[which] for times in spent[name]), 1),
                "ms outside the network": round(1000 * statistics.median(times[which] for times in outside[name]), 2),
                "over bare": round(
                    statistics.median(
                        times[which] / plain[which] for times, plain in zip(spent[name], spent["bare"], strict=True)
                    ),
                    4,
                ),
            }
            for which, clock in enumerate(("wall", "processor"))
        }
    print(json.dumps(figures, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
