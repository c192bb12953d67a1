"""The starter model: a tiny Stable Diffusion 1.x shaped model, how it is made and its packed weights."""
