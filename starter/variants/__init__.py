"""What goes with the starter model: inpainting checkpoint, ControlNets, LoRA, embedding, preview decoder."""
