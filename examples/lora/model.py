"""A small transformer of the GPT-2 family, its LoRA adapters, and the text that it reads, character by character."""

import os

import torch
from peft import LoraConfig, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from transformers import GPT2Config, GPT2LMHeadModel

os.environ["HF_HUB_OFFLINE"] = "1"  # nothing is downloaded: the model is built from its configuration

CONTEXT = 64  # characters that it sees at once
ALPHABET = "\n" + "".join(map(chr, range(32, 127)))
RANK = 4


def encoded(text):
    """The text as numbers below 96."""
    return torch.tensor([ALPHABET.index(character) for character in text])


def new_model():
    """Two layers, 110,336 parameters; the output layer is the embedding itself."""
    sizes = {"vocab_size": len(ALPHABET), "n_positions": CONTEXT, "n_embd": 64, "n_layer": 2, "n_head": 4}
    return GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=0, eos_token_id=0))


def adapted(base):
    """The frozen model with adapters of rank 4 at all of its matrices; those of embedding and output are one."""
    layers = ["c_attn", "c_proj", "c_fc", "wte", "lm_head"]
    config = LoraConfig(
        r=RANK,
        lora_alpha=2 * RANK,
        target_modules=layers,
        fan_in_fan_out=True,  # GPT-2 keeps its matrices transposed
        ensure_weight_tying=True,
        task_type="CAUSAL_LM",
    )
    return get_peft_model(base, config)


def save_adapters(model, path):
    """Save the adapters alone, and that of the output layer once: it is the embedding's, transposed."""
    adapters = get_peft_model_state_dict(model, save_embedding_layers=False)
    save_file({name: tensor.contiguous() for name, tensor in adapters.items() if ".lm_head." not in name}, path)


def load_adapters(model, path):
    set_peft_model_state_dict(model, load_file(path))


def batch(text, size, generator):
    """`size` random pieces of the text."""
    starts = torch.randint(len(text) - CONTEXT, (size, 1), generator=generator)
    return text[starts + torch.arange(CONTEXT)]


def loss_of(model, pieces):
    """The mean cross entropy of each character after those before it, in nats."""
    return model(input_ids=pieces, labels=pieces).loss


@torch.no_grad()
def evaluated(model, text):
    """The loss on all of a text, cut into pieces one after the other."""
    model.eval()
    pieces = text[: len(text) // CONTEXT * CONTEXT].view(-1, CONTEXT)
    total = sum(len(part) * loss_of(model, part).item() for part in pieces.split(128))
    model.train()
    return total / len(pieces)
