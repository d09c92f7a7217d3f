"""Train local/tiny-shapes: a Stable Diffusion pipeline small enough for a CPU, from scratch, on drawn shapes.

    python -m examples.training.tiny_shapes OUT --minutes-vae 15 --minutes-unet 75

Needs the extra `image`.  OUT becomes an ordinary diffusers folder (64x64 pixels, fp16 safetensors, about 10 MB).
"""

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F  # noqa: N812  its usual name
from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from examples.training.shapes import COLOURS, SHAPES, SIZES, sample

SIDE = 64
PICTURES = 40_000
TOKENS = 24
WIDTH = 96
WORDS = (
    "a an on the and of at in with , left right top bottom center background picture image drawing draw photo please "
    "big grey"
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes-vae", type=float, default=15)
    parser.add_argument("--minutes-unet", type=float, default=75)
    parser.add_argument("--minutes-decoder", type=float, default=15)
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    torch.set_num_threads(asked.threads)
    torch.manual_seed(0)
    np.random.seed(0)
    asked.out.mkdir(parents=True, exist_ok=True)
    rng = random.Random(0)  # noqa: S311
    tokenizer = make_tokenizer(asked.out / "words")
    drawn = [sample(rng, SIDE) for _ in range(PICTURES)]
    pictures = torch.from_numpy(np.stack([np.asarray(picture) for _, picture in drawn]))
    captions = tokenizer([c for c, _ in drawn], padding="max_length", truncation=True, return_tensors="pt").input_ids
    vae = train_vae(pictures, asked.minutes_vae)
    latents = encode(vae, pictures)
    unet, text, scheduler = train_unet(latents, captions, tokenizer, asked.minutes_unet)
    # The latents stay as they are, so what draws them may still be made better.
    train_decoder(vae, pictures, asked.minutes_decoder)
    StableDiffusionPipeline(
        vae=vae.eval(),
        text_encoder=text.eval(),
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).to(torch.float16).save_pretrained(asked.out, safe_serialization=True)


def make_tokenizer(folder: Path) -> Any:
    """CLIP's, with merges that spell exactly the words that are known; others fall apart into letters."""
    characters = [chr(code) for code in range(33, 127)]
    vocabulary = [*characters, *(c + "</w>" for c in characters)]
    merges: list[tuple[str, str]] = []
    for word in [*WORDS.split(), *COLOURS, *SHAPES, *SIZES]:
        parts = [*word[:-1], word[-1] + "</w>"]
        while len(parts) > 1:
            pair = (parts[0], parts[1])
            if pair not in merges:
                merges.append(pair)
            if (joined := "".join(pair)) not in vocabulary:
                vocabulary.append(joined)
            parts = [joined, *parts[2:]]
    vocabulary += ["<|startoftext|>", "<|endoftext|>"]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps({token: n for n, token in enumerate(vocabulary)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(" ".join(pair) for pair in merges) + "\n")
    return CLIPTokenizer(str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=TOKENS)


def train_vae(pictures: Any, minutes: float) -> Any:
    vae = AutoencoderKL(
        down_block_types=["DownEncoderBlock2D"] * 4,
        up_block_types=["UpDecoderBlock2D"] * 4,
        block_out_channels=[16, 32, 64, 64],
        latent_channels=8,
        layers_per_block=1,
        norm_num_groups=8,
        sample_size=SIDE,
        mid_block_add_attention=False,
        scaling_factor=1.0,
    )
    optimizer = torch.optim.AdamW(vae.parameters(), 2e-3)
    for step, done in timed(minutes):
        rate(optimizer, 2e-3 * min(1, step / 100) * max(0.05, 1 - done))
        x = batch(pictures, torch.randint(0, len(pictures), (24,)))
        posterior = vae.encode(x).latent_dist
        z = posterior.sample()
        y = vae.decode(z).sample
        loss = F.l1_loss(y, x) + F.mse_loss(y, x) + 1e-6 * posterior.kl().mean() / z[0].numel()
        descend(optimizer, loss, vae.parameters())
        tell("vae", step, loss)
    return vae.eval()


def encode(vae: Any, pictures: Any) -> Any:
    """The latents of all pictures, scaled to a deviation of one."""
    pieces = [
        vae.encode(batch(pictures, indices)).latent_dist.mean for indices in torch.arange(len(pictures)).split(256)
    ]
    latents = torch.cat(pieces)
    scale = 1 / latents.std().item()
    vae.register_to_config(scaling_factor=scale)
    return latents * scale


def train_unet(latents: Any, captions: Any, tokenizer: Any, minutes: float) -> tuple[Any, Any, Any]:
    """The UNet and the text encoder, averaged over their way, and their scheduler (v-prediction)."""
    text = CLIPTextModel(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=TOKENS,
            projection_dim=WIDTH,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    unet = UNet2DConditionModel(
        sample_size=SIDE // 8,
        in_channels=8,
        out_channels=8,
        layers_per_block=1,
        block_out_channels=[64, 128],
        norm_num_groups=16,
        down_block_types=["DownBlock2D", "CrossAttnDownBlock2D"],
        up_block_types=["CrossAttnUpBlock2D", "UpBlock2D"],
        cross_attention_dim=WIDTH,
        attention_head_dim=16,
        # Pooled, the text also modulates every block: it is learned much faster so.
        addition_embed_type="text",
        addition_embed_type_num_heads=4,
    )
    scheduler = DDIMScheduler(
        beta_start=0.00085,
        beta_end=0.012,
        beta_schedule="scaled_linear",
        clip_sample=False,
        set_alpha_to_one=False,
        steps_offset=1,
        prediction_type="v_prediction",
    )
    nothing = tokenizer([""], padding="max_length", return_tensors="pt").input_ids
    means = [AveragedModel(part, multi_avg_fn=get_ema_multi_avg_fn(0.998)) for part in (unet, text)]
    parameters = [*unet.parameters(), *text.parameters()]
    optimizer = torch.optim.AdamW(parameters, 1.2e-3, weight_decay=1e-3)
    for step, done in timed(minutes):
        rate(optimizer, 1.2e-3 * min(1, step / 200) * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-5)
        chosen = torch.randint(0, len(latents), (64,))
        z, words = latents[chosen], captions[chosen].clone()
        words[torch.rand(64) < 0.1] = nothing
        noise, at = torch.randn_like(z), torch.randint(0, 1000, (64,))
        v = unet(scheduler.add_noise(z, noise, at), at, text(words).last_hidden_state).sample
        loss = F.mse_loss(v, scheduler.get_velocity(z, noise, at))
        descend(optimizer, loss, parameters)
        for mean, part in zip(means, (unet, text), strict=True):
            mean.update_parameters(part)
        tell("unet", step, loss)
    unet.load_state_dict(means[0].module.state_dict())
    text.load_state_dict(means[1].module.state_dict())
    return unet, text, scheduler


def train_decoder(vae: Any, pictures: Any, minutes: float) -> None:
    vae.requires_grad_(False)
    parameters = [*vae.decoder.parameters(), *vae.post_quant_conv.parameters()]
    for parameter in parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.AdamW(parameters, 1e-3)
    for step, done in timed(minutes):
        rate(optimizer, 1e-3 * (0.5 + 0.5 * math.cos(math.pi * done)) + 1e-5)
        x = batch(pictures, torch.randint(0, len(pictures), (24,)))
        with torch.no_grad():
            z = vae.encode(x).latent_dist.mean
            # What it will be given is never quite right.
            z = z + torch.randn_like(z) * 0.05 / vae.config.scaling_factor
        loss = F.l1_loss(vae.decode(z).sample, x)
        descend(optimizer, loss, parameters)
        tell("decoder", step, loss)


def timed(minutes: float) -> Any:
    """Step numbers for so long, each with the share of the time that is over."""
    begun, step = time.monotonic(), 0
    while (done := (time.monotonic() - begun) / (minutes * 60)) < 1:
        yield step, done
        step += 1


def batch(pictures: Any, indices: Any) -> Any:
    return pictures[indices].permute(0, 3, 1, 2).float().div_(127.5).sub_(1)


def rate(optimizer: Any, value: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = value


def descend(optimizer: Any, loss: Any, parameters: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(parameters, 1.0)
    optimizer.step()


def tell(what: str, step: int, loss: Any) -> None:
    if step % 200 == 0:
        print(f"{what} {step}: loss {loss.item():.4f}", flush=True)


if __name__ == "__main__":
    main()
