"""Teaching a student: losses, methods, the one training loop, cached teacher logits, checkpoints."""
