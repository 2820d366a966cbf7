"""A diffusion model with diffusers: the attention of a UNet learns to take noise out of given pictures.

python examples/diffusion.py
"""

from pathlib import Path

import torch
import torch.nn.functional as F
from diffusers import DDPMScheduler, UNet2DConditionModel
from peft import set_peft_model_state_dict
from safetensors.torch import load_file

from randlora import RandLoraConfig

WEIGHTS = "adapter_model.safetensors"


def base_model() -> UNet2DConditionModel:
    """A small UNet with random weights; UNet2DConditionModel.from_pretrained(..., subfolder="unet") for a real one."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(16, 32),
        layers_per_block=1,
        norm_num_groups=8,
        attention_head_dim=8,
        cross_attention_dim=16,
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
    )


def main(output: str | Path = "diffusion-adapter") -> UNet2DConditionModel:
    """Train, and save the adapter to `output`."""
    unet, scheduler = base_model(), DDPMScheduler()
    unet.requires_grad_(False)
    unet.add_adapter(RandLoraConfig(r=4, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    optimizer = torch.optim.AdamW([p for p in unet.parameters() if p.requires_grad], lr=1e-2)
    latents, prompt = torch.randn(4, 4, 8, 8), torch.randn(4, 3, 16)
    for step in range(4):
        noise, time = torch.randn_like(latents), torch.randint(scheduler.config.num_train_timesteps, (4,))
        predicted = unet(scheduler.add_noise(latents, noise, time), time, prompt).sample
        loss = F.mse_loss(predicted, noise)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        print(f"step {step}: loss {loss.item():.4f}")
    unet.peft_config["default"].save_pretrained(output)
    unet.save_lora_adapter(output, weight_name=WEIGHTS)  # diffusers' name for "save the adapter", of whatever method
    return unet


def load(folder: str | Path) -> UNet2DConditionModel:
    """The base model with a saved adapter; diffusers' own `load_lora_adapter` reads LoRA only."""
    unet = base_model()
    unet.add_adapter(RandLoraConfig.from_pretrained(folder))
    set_peft_model_state_dict(unet, load_file(Path(folder) / WEIGHTS))
    return unet


if __name__ == "__main__":
    main()
